"""Lets a model tell optimizers how strongly the loss curves along each of its parameters.

A model declares it once, when it is built (`set_curvature`), and names the groups for which it does in
`Model.groups_with_curvature`. An optimizer asks for it in each step (`curvature_of`). Nothing is computed for an
optimizer that does not ask. Where a step touches little of a large parameter, a model can tell that as well
(`Touched`), and an optimizer that leaves the rest as it is then need not look at it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from trainkit.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor, nn

_ATTRIBUTE = "_trainkit_curvature"


class Touched(Protocol):
    """The values of a parameter that the current step touches; gradient and curvature of all others are 0."""

    def curvature(self) -> Tensor:
        """Return the curvature along these values, of a shape that broadcasts to that of `cut`."""
        ...

    def cut(self, values: Tensor) -> Tensor:
        """Return copies of these values, of the parameter or of its gradient; one may be there more than once."""
        ...

    def put(self, part: Tensor, values: Tensor) -> None:
        """Write these values, as `cut` returned them, into the parameter."""
        ...


class _Told(NamedTuple):
    curvature: Callable[[], Tensor]
    touched: Callable[[], Touched | None] | None


def set_curvature(
    parameter: nn.Parameter,
    curvature: Callable[[], Tensor],
    touched: Callable[[], Touched | None] | None = None,
) -> None:
    """Declare how an optimizer gets the curvature of the loss along a parameter.

    Args:
        parameter: The parameter.
        curvature: Returns an estimate of the diagonal of the loss's second derivative for the gradients of the current
            step. Real, ≥ 0, of a shape that broadcasts to the parameter's. It is called between the backward pass and
            the update.
        touched: Returns the values that the current step touches, if they are few and the parameter's gradient, as it
            is now, is 0 elsewhere; else None. It is called between the backward pass and the update.
    """
    setattr(parameter, _ATTRIBUTE, _Told(curvature, touched))


def curvature_of(parameter: nn.Parameter) -> Tensor:
    """Return the curvature of the current step's loss along a parameter.

    Raises:
        RecipeError: The model has not declared it.
    """
    told: _Told | None = getattr(parameter, _ATTRIBUTE, None)
    if told is None:
        raise RecipeError(
            f"the model does not tell the curvature of the loss along a parameter of shape {tuple(parameter.shape)}, "
            "which this optimizer needs: give its group another optimizer, for example adam"
        )
    return told.curvature()


def touched_of(parameter: nn.Parameter) -> Touched | None:
    """Return the values of a parameter that the current step touches; None: they may be all, see `curvature_of`."""
    told: _Told | None = getattr(parameter, _ATTRIBUTE, None)
    return None if told is None or told.touched is None else told.touched()
