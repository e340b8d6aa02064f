"""Adam."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, cast

import attrs
from attrs.validators import and_, deep_iterable, ge, lt

from trainkit.contracts import Optimizer, component
from trainkit.optimizers.fused import can_be_fused

if TYPE_CHECKING:
    from torch import optim


@component
class Adam(Optimizer):
    """Divides the gradient's running mean by its running root mean square. The first choice for inverse problems.

    Weight decay is added to the gradient; to apply it separately, use ``adamw``.

    Attributes:
        betas: Decay rates of the running mean and of the running mean square; each 0 … 1.
        eps: Added to the root mean square; ≥ 0.
        weight_decay: L2 penalty, added to the gradient; ≥ 0.
        amsgrad: Whether to use the largest mean square so far instead of the current one.

    Source:
        Kingma, Ba: "Adam: a method for stochastic optimization" (2015); torch.optim.Adam.
    """

    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    betas: tuple[float, float] = attrs.field(default=(0.9, 0.999), validator=deep_iterable(and_(ge(0), lt(1))))
    eps: float = attrs.field(default=1e-8, validator=[ge(0), lt(math.inf)])
    weight_decay: float = attrs.field(default=0.0, validator=[ge(0), lt(math.inf)])
    amsgrad: bool = False

    def build(self, groups: list[dict[str, Any]]) -> optim.Optimizer:
        """Make torch's Adam, fused where torch can do that."""
        from torch import optim

        settings = attrs.asdict(cast(Any, self))
        return optim.Adam([dict(group) for group in groups], fused=can_be_fused(groups), **settings)
