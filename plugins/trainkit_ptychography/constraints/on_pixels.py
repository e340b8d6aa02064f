"""What the constraints of an object have in common: they change its pixels, phase and absorption of each slice.

Shapes: S = slices, H, W = rows and columns of the object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from trainkit import Problem, RecipeError
from trainkit_ptychography.objects.kind import LiveObject, Object, PixelwiseObject

if TYPE_CHECKING:
    from torch import Tensor

    from trainkit import Recipe


def problems_of_pixels(recipe: Recipe) -> Iterable[Problem | str]:
    """Check that the model has an object of pixels."""
    settings = getattr(recipe.model, "object", None)
    if isinstance(settings, Object) and not settings.has_pixels:
        yield 'needs an object made of pixels: object = { use = "pixels" }, or leave this constraint out'


def imposing_on_pixels(live_object: LiveObject, name: str, changed: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    """Return the function that replaces phase and absorption of all slices, if the object trains.

    Args:
        live_object: The object.
        name: The constraint's name, for messages.
        changed: Computes new values (S, H, W) of old ones.

    Raises:
        RecipeError: The object is not made of pixels.
    """
    if not isinstance(live_object, PixelwiseObject):
        raise RecipeError(f"{name} needs an object made of pixels; {type(live_object).__name__} is none")
    pixels: PixelwiseObject = live_object

    def impose() -> None:
        if not any(parameter.requires_grad for parameter in pixels.parameters()):
            return
        for values_SHW in pixels.pixels().values():
            detached_SHW = values_SHW.detach()
            detached_SHW.copy_(changed(detached_SHW))

    return impose
