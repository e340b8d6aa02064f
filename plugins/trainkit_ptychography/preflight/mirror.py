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
from typing import NamedTuple

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
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
_VERSION = 2  # of what is remembered


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
    """Return how the told geometry and its mirror fit, as it was remembered for the same patterns, places and probe.

    Args:
        data: The opened scan.
        probe_MYX: The probe's modes as they are told.

    Returns:
        The comparison; None: there are too few patterns.
    """
    if len(data.scan.positions_N2) < _FEWEST:
        return None
    asked = _asked(data, probe_MYX)
    file = _folder() / f"{asked.digest()}-{_VERSION}.json"
    try:
        return Comparison(
            **{name: float(value) for name, value in json.loads(file.read_text(encoding="utf-8")).items()}
        )
    except (OSError, ValueError, TypeError, AttributeError):
        pass  # nothing is remembered
    told, mirrored = (
        try_out(asked.amplitudes_NVU, asked.mask_NVU, asked.probe_MVU, sign * asked.places_N2) for sign in (1.0, -1.0)
    )
    found = Comparison(told.misfit, mirrored.misfit, told.empty, sureness(told, mirrored), visibility(mirrored))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as new:
            new.write_text(json.dumps(attrs.asdict(found)), encoding="utf-8")
    except OSError:
        pass  # it only costs a second to find it again
    return found


class _Asked(NamedTuple):
    """What a trial is given, apart from the sign of the places."""

    amplitudes_NVU: Tensor
    mask_NVU: Tensor | None
    probe_MVU: NDArray[np.complexfloating]
    places_N2: NDArray[np.float64]

    def digest(self) -> str:
        """Return a digest of all of it: the same patterns, turned around, fit another geometry."""
        mask_NVU = torch.ones(0) if self.mask_NVU is None else self.mask_NVU
        digest = xxh3_128()
        for values in (self.amplitudes_NVU.numpy(), mask_NVU.numpy(), self.probe_MVU, self.places_N2):
            digest.update(f"{values.dtype} {values.shape} ".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def _asked(data: LiveDiffraction, probe_MYX: NDArray[np.complexfloating]) -> _Asked:
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
    return _Asked(amplitudes_NVU, mask_NVU, probe_MVU.astype(np.complex64), places_N2)


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "trainkit" / "ptychography" / "geometry"
