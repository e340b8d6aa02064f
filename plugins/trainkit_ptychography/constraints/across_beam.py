"""Lengths across the beam, which some constraints need: they compare them with the pixels of the object."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from trainkit import DataError, Problem
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from trainkit import Depth, Recipe
    from trainkit_ptychography.probes.modes import ProbeModes


def doubts_of_length(recipe: Recipe, depth: Depth, key: str, angstrom: float, least_pixels: float) -> Iterable[Problem]:
    """Yield a doubt about a length that is too short to have an effect, or longer than half of the object.

    Args:
        recipe: The whole recipe.
        depth: How far to look.
        key: The setting.
        angstrom: Its value.
        least_pixels: Below this, it has no effect.
    """
    if depth != "all" or not isinstance(recipe.data, DiffractionData):
        return
    recording = recipe.data.read()
    size = recording.scan.pixel_size_angstrom
    if size is None:
        raise DataError(f"{recording.scan.source} says no pixel size, which {key} needs: say it in [data]")
    scanned = max(float(each.max() - each.min()) for each in recording.scan.positions_N2.T)
    if angstrom < least_pixels * size:
        yield Problem(
            f"= {angstrom:g} has next to no effect: pixels are {size:.3g} Å, and it must be above "
            f"{least_pixels * size:.3g} Å",
            key,
            "warning",
        )
    elif angstrom > 0.5 * (scanned + min(recording.intensities_NYX.shape[1:])) * size:
        yield Problem(f"= {angstrom:g} Å is more than half of the object: nothing would be left of it", key, "warning")


def pixel_size_for(name: str, probe: ProbeModes) -> float:
    """Return the size in Å of the object's pixels, which are those of the probe.

    Args:
        name: The constraint's name, for messages.
        probe: The probe.

    Raises:
        DataError: It is not known.
    """
    size = probe.sampling.pixel_size_angstrom
    if size is None:
        raise DataError(f"{name} needs the size of the object's pixels: say it in [data]")
    return size
