"""Gradient steps that are scaled by the curvature of the loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from attrs.validators import ge, gt, lt

from trainkit.contracts import Optimizer, Problem, component, positive

if TYPE_CHECKING:
    from torch import optim

    from trainkit.recipe.root import Recipe


@component
class ScaledSteps(Optimizer):
    """Divides the gradient by the curvature of the loss, so that learning rates have no unit and suit any specimen.

    step = lr · gradient / (curvature + damping · the parameter's largest curvature). A learning rate of 1 is a full
    Newton step for what is measured well. It needs a model that tells the curvature: for the pixels of a ptychographic
    object this is the illumination, as in rPIE and LSQML.

    Attributes:
        lr: Share of the damped Newton step, 0 … 2; beyond 2, steps overshoot further than they came from.
        damping: Share of the parameter's largest curvature that is added to its curvature, > 0. It holds back what is
            hardly measured, for example pixels at the edge of the scan, and with them noise: little damping is quicker
            (0.1), and more of it better where electrons are few.
        momentum: Fraction of the previous step that is added to the next one; 0 … 1.

    Source:
        Maiden, Johnson, Li, Optica 4 (2017) 736 (rPIE); Odstrčil, Menzel, Guizar-Sicairos, Optics Express 26 (2018)
        3108 (LSQML).
    """

    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    lr: float = attrs.field(default=1.0, validator=positive)
    damping: float = attrs.field(default=0.5, validator=[gt(0), lt(math.inf)])
    momentum: float = attrs.field(default=0.0, validator=[ge(0), lt(1)])

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield an error for the groups that train with this optimizer and whose curvature the model does not tell."""
        known = recipe.model.groups_with_curvature()
        lacking = [name for name in self._trained(recipe) if name not in known]
        if lacking:
            one = len(lacking) == 1
            yield (
                f"the model does not tell the curvature for group{'' if one else 's'} {', '.join(lacking)}: give "
                f"{'it' if one else 'them'} another optimizer, for example [groups.{lacking[0]}] optimizer = "
                '{ use = "adam" }'
            )

    def _trained(self, recipe: Recipe) -> Iterator[str]:
        """Yield the model's own groups that train with this optimizer, in one of their phases at least."""
        if any(settings.parameters is not None for settings in recipe.groups.values()):
            return  # which parameters a pattern takes is known only when the model is built
        told = recipe.model.groups()
        declared = told or {}
        for name in recipe.groups if told is None else declared:  # a group that the model lacks is another mistake
            settings = recipe.groups.get(name)
            if settings is None:
                if declared[name] and recipe.optimizer is self:
                    yield name
                continue
            if settings.start_epoch is None and not declared.get(name, True):
                continue
            own = [settings.optimizer or recipe.optimizer, *(phase.optimizer for phase in settings.then.values())]
            if any(each is self for each in own):
                yield name

    def build(self, groups: list[dict[str, Any]]) -> optim.Optimizer:
        """Make the optimizer."""
        from trainkit.optimizers.scaled_steps_live import ScaledStepsOptimizer

        return ScaledStepsOptimizer([dict(group) for group in groups], self.lr, self.damping, self.momentum)
