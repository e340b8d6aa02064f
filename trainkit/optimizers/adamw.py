"""Adam with weight decay that is separate from the gradient."""

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
class AdamW(Optimizer):
    """Adam whose weight decay shrinks the parameters directly, not through the gradient. The first choice for networks.

    Attributes:
        betas: Decay rates of the running mean and of the running mean square; each 0 … 1.
        eps: Added to the root mean square; ≥ 0.
        weight_decay: Each step subtracts ``lr · weight_decay`` times the parameters; ≥ 0.
        amsgrad: Whether to use the largest mean square so far instead of the current one.

    Source:
        Loshchilov, Hutter: "Decoupled weight decay regularization" (2019); torch.optim.AdamW.
    """

    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    betas: tuple[float, float] = attrs.field(default=(0.9, 0.999), validator=deep_iterable(and_(ge(0), lt(1))))
    eps: float = attrs.field(default=1e-8, validator=[ge(0), lt(math.inf)])
    weight_decay: float = attrs.field(default=1e-2, validator=[ge(0), lt(math.inf)])
    amsgrad: bool = False

    def build(self, groups: list[dict[str, Any]]) -> optim.Optimizer:
        """Make torch's AdamW, fused where torch can do that."""
        from torch import optim

        settings = attrs.asdict(cast(Any, self))
        return optim.AdamW([dict(group) for group in groups], fused=can_be_fused(groups), **settings)
