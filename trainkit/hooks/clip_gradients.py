"""Keeps the gradient's norm below a bound."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import gt, lt

from trainkit.contracts import Context, Hook, Phase, component
from trainkit.errors import RecipeError, did_you_mean
from trainkit.events import Live

if TYPE_CHECKING:
    from torch import nn

    from trainkit.state import State


@component
class ClipGradients(Hook):
    """Scales the gradient down to a norm of at most ``max_norm``. Use it if single batches disturb the training.

    Attributes:
        max_norm: The largest L2 norm of the gradient; > 0.
        groups: The parameter groups whose gradients are clipped; default: all.
        separately: Whether the norm is computed for each group on its own, instead of all groups together.

    Source:
        Pascanu, Mikolov, Bengio: "On the difficulty of training recurrent neural networks" (2013), algorithm 1.
    """

    phase: ClassVar[Phase] = "mutate"
    steps_can_be_recorded: ClassVar[bool] = True
    takes_late_values: ClassVar[bool] = True

    max_norm: float = attrs.field(default=1.0, validator=[gt(0), lt(math.inf)])
    groups: tuple[str, ...] | None = None
    separately: bool = False

    def build(self, context: Context) -> object:
        """Make the live part."""
        return _Clipper(self)


@attrs.define
class _Clipper(Live):
    settings: ClipGradients
    clipped_together: list[list[nn.Parameter]] = attrs.Factory(list)

    def on_run_start(self, state: State) -> None:
        """Collect the parameters once."""
        names = state.groups if self.settings.groups is None else self.settings.groups
        for name in names:
            if name not in state.groups:
                hint = did_you_mean(name, state.groups)
                raise RecipeError(f'clip_gradients: there is no parameter group "{name}"; {hint}')
        by_group = [list(state.groups[name].parameters.values()) for name in names]
        together = [each for parameters in by_group for each in parameters]
        self.clipped_together = by_group if self.settings.separately else [together]

    def on_backward_end(self, state: State) -> None:
        """Clip the gradients. Parameters without a gradient, such as those of inactive groups, do not count."""
        from torch.nn.utils import clip_grad_norm_

        for parameters in self.clipped_together:
            clip_grad_norm_(parameters, self.settings.max_norm)
