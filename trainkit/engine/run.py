"""A run: the live parts that a recipe describes, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from trainkit.engine.step import Step
from trainkit.events import Listener, fire, listeners

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn

    from trainkit.contracts import Batch, LiveMetric, Outputs
    from trainkit.engine.batches import BatchSource
    from trainkit.engine.losses import Losses
    from trainkit.groups.live import GroupController
    from trainkit.groups.optimizers import Optimizers
    from trainkit.groups.plan import RunLength
    from trainkit.recipe.resolve import Resolved
    from trainkit.recipe.root import Recipe
    from trainkit.state import State


@attrs.define
class Run:
    """Everything that the loop needs, live.

    Attributes:
        resolved: The recipe, complete, with where each value came from.
        state: What hooks see.
        length: How long it lasts.
        batches: The training batches.
        data_name: What messages call the data: "data (msd)".
        optimizers: What updates the parameters.
        groups: The parameter groups.
        losses: The weighted sum that is minimised.
        metrics: Figures of merit by their name in the recipe.
        inference: How evaluation gets from a batch to outputs.
        autocast: Makes the context of forward and loss.
        parts: Name -> live part that may have a state of its own, in calling order.
        step: Makes one optimizer step.
        events: Event -> who listens.
        generators: States of the global random generators to begin with; None: as they are.
    """

    resolved: Resolved
    state: State
    length: RunLength
    batches: BatchSource
    data_name: str
    optimizers: Optimizers
    groups: GroupController
    losses: Losses
    metrics: Mapping[str, LiveMetric]
    inference: Callable[[nn.Module, Batch], Outputs]
    autocast: Callable[[], AbstractContextManager[Any]]
    parts: dict[str, object]
    step: Step = attrs.field(init=False)
    events: Mapping[str, tuple[Listener, ...]] = attrs.field(init=False, factory=dict)
    generators: dict[str, Any] | None = None

    def __attrs_post_init__(self) -> None:
        self.step = Step(self.state, self.losses, self.optimizers, self.autocast)

    @property
    def recipe(self) -> Recipe:
        """The settings."""
        return self.resolved.recipe

    @property
    def recurs_by_steps(self) -> bool:
        """Whether something is to be done every few steps besides checkpoints."""
        return bool(self.recipe.validation.every_steps or self.recipe.pictures.every_steps)

    def emit(self, event: str) -> None:
        """Call everybody who listens to an event.

        Raises:
            PartError: A part failed; the message names it and the event.
        """
        fire(self.events[event], self.state)

    def add(self, name: str, part: object) -> None:
        """Add a live part, which is called after all others."""
        self.parts[name] = part
        self.events = listeners(self.parts)
