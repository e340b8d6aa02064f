"""What is learned of patterns that are images of the specimen."""

from __future__ import annotations

import json
from typing import Any

import attrs

from trainkit_ptychography.detector_propagations.kind import DetectorPropagation
from trainkit_ptychography.detector_propagations.near_field import NearField


@attrs.frozen
class Images:
    """Patterns are images.

    Attributes:
        why: By what that is known.
        propagation: How the wave reaches the detector.
    """

    why: str
    propagation: DetectorPropagation

    def table(self) -> dict[str, Any]:
        """Return ``data.detector_propagation``."""
        focus_mm = self.propagation.focus_distance_mm if isinstance(self.propagation, NearField) else None
        return {"use": "near_field"} | ({} if focus_mm is None else {"focus_distance_mm": focus_mm})

    def lines(self) -> str:
        """Return what a recipe of the far field has to say instead."""
        said = ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.table().items())
        return f'paste [data] detector_propagation = {{ {said} }} and [model] probe = {{ use = "mean_pattern" }}'
