"""Compares the geometry that is told with its mirror, in less than a second, at the beginning of a run.

The mirror is the detector turned by 180°. For a round probe it stands for the other sign of the defocus as well, which
is the slip that is made most often, and which a run never recovers from.

Shapes: N = patterns of the trial, M = probe modes, Y, X = rows and columns of the detector, V, U = those of the part of
the detector that is used.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from xxhash import xxh3_128

from trainkit import written_whole
from trainkit_ptychography.physics.trial import try_out
from trainkit_ptychography.preflight.sample import lit_part
from trainkit_ptychography.preflight.search import sureness, visibility
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.prepare_live import prepared_probe

_SURE = 4.5  # standard errors
_FEWEST = 25
_PATTERNS = 128
_LEAST_PATTERNS = 64
_PIXELS = 2**19  # of all patterns together
_LARGEST_SHARE = 0.5  # of the mirror's gain that the geometry as told has, for the mirror to be clearly better
_VERSION = 1  # of what is remembered


@attrs.frozen
class Comparison:
    """How well patterns fit the geometry that is told, and its mirror: misfits of patterns that were held out.

    Attributes:
        told: The mean misfit as told.
        mirrored: The mean misfit of the mirror.
        empty: The mean misfit of an empty object.
        sureness: By how many standard errors the mirror is better than what is told.
        visibility: By how many standard errors the mirror is better than an empty object.
    """

    told: float
    mirrored: float
    empty: float
    sureness: float
    visibility: float

    @property
    def mirror_is_better(self) -> bool:
        """Whether the mirror is better beyond doubt."""
        share = (self.empty - self.told) / max(self.empty - self.mirrored, 1e-30)
        return min(self.sureness, self.visibility) > _SURE and share < _LARGEST_SHARE


def compare(data: LiveDiffraction, probe_MYX: NDArray[np.complexfloating]) -> Comparison | None:
    """Return how the told geometry and its mirror fit, as it was remembered for the same patterns and probe.

    Args:
        data: The opened scan.
        probe_MYX: The probe's modes as they are told.

    Returns:
        The comparison; None: there are too few patterns.
    """
    if len(data.scan.positions_N2) < _FEWEST:
        return None
    digest = xxh3_128(str(data.facts()["fingerprint"]).encode())
    digest.update(np.ascontiguousarray(probe_MYX, np.complex64).tobytes())
    file = _folder() / f"{digest.hexdigest()}-{_VERSION}.json"
    try:
        return Comparison(
            **{name: float(value) for name, value in json.loads(file.read_text(encoding="utf-8")).items()}
        )
    except (OSError, ValueError, TypeError, AttributeError):
        pass  # nothing is remembered
    found = _compared(data, probe_MYX)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as new:
            new.write_text(json.dumps(attrs.asdict(found)), encoding="utf-8")
    except OSError:
        pass  # it only costs a second to find it again
    return found


def _compared(data: LiveDiffraction, probe_MYX: NDArray[np.complexfloating]) -> Comparison:
    positions_N2 = data.scan.positions_N2
    order = np.argsort(np.hypot(*(positions_N2 - np.median(positions_N2, axis=0)).T), kind="stable")[:_PATTERNS]
    batches = list(data.some(torch.from_numpy(np.sort(order))))
    amplitudes_NYX = torch.cat([batch["amplitudes"] for batch in batches]).float().cpu()
    shape_YX = data.detector_shape
    shape_VU = lit_part(amplitudes_NYX.square().mean(0).double().numpy())
    num = max(_LEAST_PATTERNS, _PIXELS // (shape_VU[0] * shape_VU[1]))
    chosen = np.flatnonzero(np.isin(np.sort(order), order[:num]))
    rows, columns = (
        torch.from_numpy(np.fft.ifftshift(np.arange(used) - used // 2) % whole)
        for used, whole in zip(shape_VU, shape_YX, strict=True)
    )
    mask_NVU = None
    if "mask" in batches[0]:
        mask_NVU = torch.cat([batch["mask"] for batch in batches]).cpu()[chosen][:, rows[:, None], columns]
    elif data.mask_YX is not None:
        mask_NVU = data.mask_YX.cpu()[rows[:, None], columns].expand(len(chosen), -1, -1)
    amplitudes_NVU = amplitudes_NYX[chosen][:, rows[:, None], columns]
    probe_MVU = prepared_probe(probe_MYX, shape_VU, 1, (False, False))
    places_N2 = positions_N2[np.sort(order)][chosen] * np.array(shape_VU) / np.array(shape_YX)
    told, mirrored = (try_out(amplitudes_NVU, mask_NVU, probe_MVU, sign * places_N2) for sign in (1.0, -1.0))
    return Comparison(told.misfit, mirrored.misfit, told.empty, sureness(told, mirrored), visibility(mirrored))


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "trainkit" / "ptychography" / "geometry"
