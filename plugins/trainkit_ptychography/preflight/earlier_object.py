"""Holds an object to begin with against patterns of the scan: does it fit better than vacuum?

Shapes: N = scan points, B = some of them, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from trainkit import Context, Problem
from trainkit_ptychography.objects.kind import LiveObject, ObjectGeometry, ObjectPlacement
from trainkit_ptychography.physics.forward import intensities
from trainkit_ptychography.physics.geometry import place
from trainkit_ptychography.preflight.sample import middle_points
from trainkit_ptychography.preflight.single_scans import one_scan
from trainkit_ptychography.probes.modes import ProbeModes
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import checked

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.objects.pixels import Pixels
    from trainkit_ptychography.probes.kind import Probe
    from trainkit_ptychography.scans.kind import DiffractionData

_PATTERNS = 128
_SURE = 2.0  # standard errors


def inspect_earlier_object(
    data: DiffractionData, settings: Pixels, probe: Probe, margin: int, recipe: Recipe
) -> Iterator[str | Problem]:
    """Yield how well the object fits, and a doubt if vacuum fits as well.

    Raises:
        DataError: The file cannot be read, or its object has no place in this scan.
    """
    recording = data.read()
    if probe.num_scans() > 1 and recording.scan.num_scans > 1:
        recording, probe = one_scan(recording, 0), probe.of_scan(0)
    live = LiveDiffraction(
        checked(recording), Context(recipe.run.seed, torch.device("cpu"), 0, 1, Path()), _PATTERNS, 0.0
    )
    scan, shape_YX = live.scan, live.detector_shape
    placement = place(scan.positions_N2, shape_YX, margin)
    placed = ObjectPlacement(placement.origin_2, scan.positions_N2, scan.pixel_size_angstrom)
    geometry = ObjectGeometry(placement.shape_HW, shape_YX, torch.float32, torch.device("cpu"), live.seed, placed)
    with torch.no_grad():
        made = cast(LiveObject, settings.build(geometry))
        points_B = torch.from_numpy(middle_points(recording, _PATTERNS))
        corner_B2 = torch.from_numpy(placement.corner_N2)[points_B]
        shift_B2 = torch.from_numpy(placement.remainder_N2)[points_B].float()
        probe_MYX = ProbeModes(probe.build(live), torch.float32, torch.device("cpu"))()
        patch_BYX = made(corner_B2).prod(0)
        (batch,) = live.some(points_B)
        mask = batch.get("mask", live.mask_YX)

        def misfit(patch_BYX: Tensor) -> Tensor:
            """Return the misfit of each pattern with the amplitude of the object that fits best."""
            weight = torch.ones(()) if mask is None else mask.float()
            expected_BYX = intensities(probe_MYX, shift_B2, patch_BYX).sqrt() * weight
            scale = (expected_BYX * batch["amplitudes"]).sum() / expected_BYX.square().sum().clamp_min(1e-30)
            return (scale * expected_BYX - batch["amplitudes"] * weight).square().sum((1, 2)).double()

        empty_B, fitted_B, negated_B = (
            misfit(each) for each in (torch.ones_like(patch_BYX), patch_BYX, patch_BYX.conj().resolve_conj())
        )
    better_B = empty_B - fitted_B
    figures = f"misfit of {len(points_B)} patterns {fitted_B.mean():.3g}, {empty_B.mean():.3g} of an empty object"
    yield f"object       begins with {settings.path}: {figures}"
    if better_B.mean() > _SURE * better_B.std() / np.sqrt(len(better_B)):
        return
    why = (
        f"with its phase negated it fits better ({negated_B.mean():.3g}): the sign of its phase is another"
        if negated_B.mean() < min(float(empty_B.mean()), float(fitted_B.mean()))
        else "check where it is (origin_pixels), the size of its pixels, whether rows and columns are exchanged, and "
        "the probe"
    )
    yield Problem(
        f"the object of {settings.path} fits the patterns no better than vacuum ({figures}); {why}",
        "object.path",
        "warning",
    )
