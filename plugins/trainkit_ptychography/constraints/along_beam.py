"""What the constraints along the beam have in common: they need pixels, several slices, and to know their distance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from trainkit import Problem, RecipeError
from trainkit_ptychography.constraints.on_pixels import problems_of_pixels
from trainkit_ptychography.objects.kind import LiveObject, SlicedObject

if TYPE_CHECKING:
    from trainkit import Recipe


def problems_along_beam(recipe: Recipe) -> Iterable[Problem | str]:
    """Check that the model has an object of pixels in several slices."""
    yield from problems_of_pixels(recipe)
    if _slices(recipe) == 1:
        yield "has no effect on a single slice: raise model.slices, or leave it out"


def spacing_angstrom(recipe: Recipe) -> float | None:
    """Return the distance from one slice to the next; None: the model has one slice, or does not say it."""
    thickness = getattr(recipe.model, "thickness_angstrom", None)
    return None if thickness is None or _slices(recipe) == 1 else thickness / _slices(recipe)


def _slices(recipe: Recipe) -> int:
    return int(getattr(recipe.model, "slices", 1))


def known_spacing_angstrom(live_object: LiveObject, name: str) -> float:
    """Return the distance from one slice to the next.

    Args:
        live_object: The object.
        name: The constraint's name, for messages.

    Raises:
        RecipeError: The object has no slices, or their distance is not known.
    """
    if not isinstance(live_object, SlicedObject):
        raise RecipeError(f"{name} needs an object of pixels in slices; {type(live_object).__name__} is none")
    spacing = live_object.geometry.slice_thickness_angstrom
    if spacing is None:
        raise RecipeError(f"{name} needs to know how thick the slices are: model.thickness_angstrom")
    return spacing
