"""Holds an object to begin with against patterns of the scan: does it fit better than vacuum?

Shapes: N = scan points, B = some of them, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from trainkit import Context, Problem
from trainkit_ptychography.objects.from_data_live import DirectObject
from trainkit_ptychography.objects.kind import Object, PixelwiseObject
from trainkit_ptychography.preflight.sample import middle_points
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import checked

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.scans.kind import DiffractionData

_PATTERNS = 128
_BATCH = 16
_SEED = 0x0B1
_SURE = 2.0  # standard errors
_HELD_OUT = 0.1  # of the patterns, if the object is made from the others


def inspect_earlier_object(
    data: DiffractionData, begun: Object, build: Callable[[LiveDiffraction], nn.Module], recipe: Recipe
) -> Iterator[str | Problem]:
    """Yield how well the object fits, and a doubt if vacuum fits as well, or the same slices in the reverse order.

    An object that is made from patterns is doubted as well if its negative also fits better than vacuum: whatever
    scatters a little light beside the bright field does.

    Args:
        data: The scan's settings.
        begun: The object's settings, that begin with something.
        build: Makes the model, whose object is that.
        recipe: The whole recipe.

    Raises:
        DataError: The file cannot be read, or its object has no place in this scan.
    """
    recording = data.read()
    context = Context(recipe.run.seed, torch.device("cpu"), Path())
    num, kind, held_out = len(recording.intensities_NYX), "", 0.0
    if begun.made_from_patterns:
        kind, held_out = "held-out ", max(data.validation_fraction, min(_HELD_OUT, _PATTERNS / num))
    live = LiveDiffraction(checked(recording), context, _BATCH, held_out)
    points_B = torch.from_numpy(middle_points(recording, _PATTERNS))
    if begun.made_from_patterns:
        points_B = live.held_out_index[torch.randperm(len(live.held_out_index), generator=_generator())[:_PATTERNS]]
    model = build(live)
    pixels = cast(PixelwiseObject, model.object).pixels()
    with torch.no_grad():
        fitted_B = _misfits(model, live, points_B)
        for values_SHW in pixels.values():
            values_SHW.copy_(values_SHW.flip(0))
        reversed_B = _misfits(model, live, points_B)
        for values_SHW in pixels.values():
            values_SHW.copy_(values_SHW.flip(0))
        pixels["phase"].neg_()
        negated_B = _misfits(model, live, points_B)
        for values_SHW in pixels.values():
            values_SHW.zero_()
        empty_B = _misfits(model, live, points_B)
    figures = f"misfit of {len(points_B)} {kind}patterns {fitted_B.mean():.3g}, {empty_B.mean():.3g} of an empty object"
    begins_with = begun.begins_with()
    if begun.made_from_patterns:
        figures += f", {negated_B.mean():.3g} with its phase negated"
        yield f"object       begins with {begins_with}: {figures}"
        if isinstance(model.object, DirectObject):
            yield f"directly     {model.object.geometry_seen.in_words()}"
        if not (_is_larger(empty_B, fitted_B) and negated_B.mean() > empty_B.mean()):
            yield Problem(
                f"{begins_with}, with which the object begins, does not explain held-out patterns ({figures}): check "
                'geometry and probe, or take another method, or begin with vacuum, object = { use = "pixels" }',
                "object.method",
                "warning",
            )
        return
    yield f"object       begins with {begins_with}: {figures}"
    if _is_larger(fitted_B, reversed_B):
        yield Problem(
            f"the slices of {begins_with} fit the patterns better in the reverse order ({reversed_B.mean():.3g} "
            f"instead of {fitted_B.mean():.3g}): the beam must meet slice 0 first, so reverse them in the file, or "
            "check the defocus, which is that at the first slice",
            "object.path",
            "warning",
        )
    elif not _is_larger(empty_B, fitted_B):
        why = (
            f"with its phase negated it fits better ({negated_B.mean():.3g}): the sign of its phase is another"
            if negated_B.mean() < min(float(empty_B.mean()), float(fitted_B.mean()))
            else "check where it is (origin_pixels), the size of its pixels, whether rows and columns are exchanged, "
            "and the probe"
        )
        yield Problem(
            f"the object of {begins_with} fits the patterns no better than vacuum ({figures}); {why}",
            "object.path",
            "warning",
        )


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(_SEED)


def _misfits(model: nn.Module, live: LiveDiffraction, points_B: Tensor) -> Tensor:
    """Return the misfit of each pattern, after all amplitudes are scaled by the number that fits best (B,)."""
    expected, measured = [], []
    for batch in live.some(points_B):
        mask = batch.get("mask", live.mask_YX)
        weight = torch.ones(()) if mask is None else mask.float()
        expected.append(model(batch)["intensities"].sqrt() * weight)
        measured.append(batch["amplitudes"] * weight)
    expected_BYX, measured_BYX = torch.cat(expected), torch.cat(measured)
    scale = (expected_BYX * measured_BYX).sum() / expected_BYX.square().sum().clamp_min(1e-30)
    return (scale * expected_BYX - measured_BYX).square().sum((1, 2)).double()


def _is_larger(one_B: Tensor, other_B: Tensor) -> bool:
    """Return whether misfits are surely larger than others."""
    larger_B = one_B - other_B
    return bool(larger_B.mean() > _SURE * larger_B.std() / np.sqrt(len(larger_B)))
