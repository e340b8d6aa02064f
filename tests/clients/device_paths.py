"""Lets ptychography on the CPU ask for the operations that it asks every other device for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

from trainkit_ptychography.models import ptychography_live
from trainkit_ptychography.objects.hash_encoding_live import HashObject
from trainkit_ptychography.physics import patches
from trainkit_ptychography.preflight.watch import GeometryWatch


@contextlib.contextmanager
def as_on_a_device() -> Iterator[None]:
    """Find patches by the places of their pixels, evaluate all of a hash encoding, and look at nothing beforehand."""

    def by_place(corner_B2: torch.Tensor, shape: tuple[int, int], width: int) -> Any:
        return partial(patches.PatchesByPlace, places_BYX=patches.places(corner_B2, shape, width))

    with pytest.MonkeyPatch.context() as patch:
        for module in (patches, ptychography_live):
            patch.setattr(module, "patches_at", by_place)
        patch.setattr(HashObject, "_touched", lambda encoding, corner_B2: None)
        patch.setattr(GeometryWatch, "warn", lambda watch: None)
        yield
