"""What the constraints along the beam have in common: they need pixels, several slices, and to know their distance."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from trainkit import Problem, RecipeError
from trainkit_ptychography.objects.kind import LiveObject, Object, PixelwiseObject, SlicedObject

if TYPE_CHECKING:
    from torch import Tensor

    from trainkit import Recipe


def problems_along_beam(recipe: Recipe) -> Iterable[Problem | str]:
    """Check that the model has an object of pixels in several slices."""
    settings = getattr(recipe.model, "object", None)
    if isinstance(settings, Object) and not settings.has_pixels:
        yield 'needs an object made of pixels: object = { use = "pixels" }, or leave this constraint out'
    if _slices(recipe) == 1:
        yield "has no effect on a single slice: raise model.slices, or leave it out"


def spacing_angstrom(recipe: Recipe) -> float | None:
    """Return the distance from one slice to the next; None: the model has one slice, or does not say it."""
    thickness = getattr(recipe.model, "thickness_angstrom", None)
    return None if thickness is None or _slices(recipe) == 1 else thickness / _slices(recipe)


def _slices(recipe: Recipe) -> int:
    return int(getattr(recipe.model, "slices", 1))


def imposing(
    live_object: LiveObject, name: str, changed: Callable[[Tensor, SlicedObject], Tensor]
) -> Callable[[], None]:
    """Return the function that replaces phase and absorption of all slices, if the object trains.

    Args:
        live_object: The object.
        name: The constraint's name, for messages.
        changed: Computes new values (S, H, W) of old ones, for this object.

    Raises:
        RecipeError: The object is not made of pixels, or its slices or pixels have no known size.
    """
    if not isinstance(live_object, PixelwiseObject) or not isinstance(live_object, SlicedObject):
        raise RecipeError(f"{name} needs an object of pixels in slices; {type(live_object).__name__} is none")
    if live_object.geometry.slice_thickness_angstrom is None:
        raise RecipeError(f"{name} needs to know how thick the slices are: model.thickness_angstrom")
    pixels, sliced = cast(PixelwiseObject, live_object), cast(SlicedObject, live_object)

    def impose() -> None:
        if not any(parameter.requires_grad for parameter in pixels.parameters()):
            return
        for values_SHW in pixels.pixels().values():
            detached_SHW = values_SHW.detach()
            detached_SHW.copy_(changed(detached_SHW, sliced))

    return impose
