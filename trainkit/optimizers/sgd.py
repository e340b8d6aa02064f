"""Stochastic gradient descent, optionally with momentum."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, cast

import attrs
from attrs.validators import ge, lt

from trainkit.contracts import Optimizer, Problem, component
from trainkit.optimizers.fused import can_be_fused

if TYPE_CHECKING:
    from torch import optim

    from trainkit.recipe.root import Recipe


@component
class SGD(Optimizer):
    """Follows the negative gradient, or its running sum. nnU-Net trains with ``momentum = 0.99, nesterov = true``.

    Attributes:
        momentum: Fraction of the previous step that is added to the next one; 0 … 1.
        dampening: Fraction by which the current gradient is reduced if there is momentum; 0 … 1.
        weight_decay: L2 penalty, added to the gradient; ≥ 0.
        nesterov: Whether to use Nesterov momentum, which looks one momentum step ahead.

    Source:
        Sutskever et al.: "On the importance of initialization and momentum in deep learning" (2013); torch.optim.SGD.
    """

    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    momentum: float = attrs.field(default=0.0, validator=[ge(0), lt(1)])
    dampening: float = attrs.field(default=0.0, validator=[ge(0), lt(1)])
    weight_decay: float = attrs.field(default=0.0, validator=[ge(0), lt(math.inf)])
    nesterov: bool = False

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield an error if torch would refuse the settings of Nesterov momentum."""
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            yield Problem(
                "Nesterov momentum needs momentum above 0 and dampening 0;"
                f" got momentum = {self.momentum}, dampening = {self.dampening}",
                "nesterov",
            )

    def build(self, groups: list[dict[str, Any]]) -> optim.Optimizer:
        """Make torch's SGD, fused where torch can do that."""
        from torch import optim

        settings = attrs.asdict(cast(Any, self))
        return optim.SGD([dict(group) for group in groups], fused=can_be_fused(groups), **settings)
