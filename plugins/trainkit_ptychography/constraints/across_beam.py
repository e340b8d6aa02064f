"""What the constraints across the beam have in common: they change phase and absorption of each slice of an object."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from trainkit import DataError, Problem, RecipeError
from trainkit_ptychography.objects.kind import LiveObject, Object, PixelwiseObject
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from torch import Tensor

    from trainkit import Depth, Recipe
    from trainkit_ptychography.probes.modes import ProbeModes


def problems_across_beam(recipe: Recipe) -> Iterable[Problem | str]:
    """Check that the model has an object of pixels."""
    settings = getattr(recipe.model, "object", None)
    if isinstance(settings, Object) and not settings.has_pixels:
        yield 'needs an object made of pixels: object = { use = "pixels" }, or leave this constraint out'


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


def imposing_across_beam(
    live_object: LiveObject, probe: ProbeModes, name: str, changed: Callable[[Tensor, float], Tensor]
) -> Callable[[], None]:
    """Return the function that replaces phase and absorption of all slices, if the object trains.

    Args:
        live_object: The object.
        probe: The probe, whose pixels have the same size.
        name: The constraint's name, for messages.
        changed: Computes new values (S, H, W) of old ones and the size of a pixel in Å.

    Raises:
        RecipeError: The object is not made of pixels.
        DataError: The size of its pixels is not known.
    """
    if not isinstance(live_object, PixelwiseObject):
        raise RecipeError(f"{name} needs an object made of pixels; {type(live_object).__name__} is none")
    size = probe.sampling.pixel_size_angstrom
    if size is None:
        raise DataError(f"{name} needs the size of the object's pixels: say it in [data]")
    pixels: PixelwiseObject = live_object

    def impose() -> None:
        if not any(parameter.requires_grad for parameter in pixels.parameters()):
            return
        for values_SHW in pixels.pixels().values():
            detached_SHW = values_SHW.detach()
            detached_SHW.copy_(changed(detached_SHW, size))

    return impose
