"""Lets a model tell optimizers how strongly the loss curves along each of its parameters.

A model declares it once, when it is built (`set_curvature`), and names the groups for which it does in
`Model.groups_with_curvature`. An optimizer asks for it in each step (`curvature_of`). Nothing is computed for an
optimizer that does not ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trainkit.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor, nn

_ATTRIBUTE = "_trainkit_curvature"


def set_curvature(parameter: nn.Parameter, curvature: Callable[[], Tensor]) -> None:
    """Declare how an optimizer gets the curvature of the loss along a parameter.

    Args:
        parameter: The parameter.
        curvature: Returns an estimate of the diagonal of the loss's second derivative for the gradients of the current
            step. Real, ≥ 0, of a shape that broadcasts to the parameter's. It is called between the backward pass and
            the update.
    """
    setattr(parameter, _ATTRIBUTE, curvature)


def curvature_of(parameter: nn.Parameter) -> Tensor:
    """Return the curvature of the current step's loss along a parameter.

    Raises:
        RecipeError: The model has not declared it.
    """
    curvature: Callable[[], Tensor] | None = getattr(parameter, _ATTRIBUTE, None)
    if curvature is None:
        raise RecipeError(
            f"the model does not tell the curvature of the loss along a parameter of shape {tuple(parameter.shape)}, "
            "which this optimizer needs: give its group another optimizer, for example adam"
        )
    return curvature()
