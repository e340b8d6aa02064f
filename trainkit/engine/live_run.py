"""Puts the live parts of a recipe together as a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

from trainkit.engine.environment import conditions
from trainkit.engine.graphed_step import GraphedStep
from trainkit.engine.picture_budget import PictureBudget
from trainkit.engine.step import Step
from trainkit.engine.stopwatch import Stopwatch
from trainkit.errors import blame
from trainkit.events import Listener, fire, listeners
from trainkit.recipe.promises import may_keep_what_is_repeated
from trainkit.recipe.resolve import write

PROGRESS = "progress"
"""Name of the part that shows the progress; it changes nothing."""

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn
    from torch.amp import GradScaler

    from trainkit.contracts import Batch, LiveMetric, Outputs
    from trainkit.engine.average import WeightAverage
    from trainkit.engine.batches import BatchSource
    from trainkit.engine.beside import Beside
    from trainkit.engine.graphs import Graphs
    from trainkit.engine.identity import Identity
    from trainkit.engine.losses import Losses
    from trainkit.groups.live import GroupController
    from trainkit.groups.optimizers import Optimizers
    from trainkit.groups.plan import RunLength
    from trainkit.recipe.resolve import Resolved
    from trainkit.recipe.root import Recipe
    from trainkit.state import EpochValues, State


@attrs.define
class LiveRun:
    """Everything that the loop needs.

    Attributes:
        resolved: The complete recipe, with the origin of each value.
        state: The state that hooks see.
        length: How long the run lasts.
        batches: The training batches.
        data_name: Name of the data in messages, for example "data (msd)".
        optimizers: The optimizers, which update the parameters.
        groups: The parameter groups.
        losses: The weighted sum that is minimised.
        metrics: Figures of merit by their name in the recipe.
        inference: Computes the outputs for a batch in evaluation.
        autocast: Makes the context in which forward and loss run.
        scaler: Scales the loss, so that small gradients do not vanish in fp16; None: the precision does not need it.
        identity: The run's id and its parent, which stand in each checkpoint.
        parts: Name -> live part, which may have a state of its own, in calling order.
        tolerated: Name of a part that only writes something to look at -> exceptions of it that do not end the run.
        picture_budget: Decides whether there is time for pictures.
        step: Makes one optimizer step.
        watch: Divides the time among what it is spent on; ``State.seconds`` is its present lap.
        events: Event -> its listeners.
        graphs: Records steps, which are then repeated; None: each step is made by itself.
        average: The moving average of the weights; None: there is none.
        generators: States of the global random generators to start from; None: they stay as they are.
        fingerprint: What tells the data from other data.
        variables: Marks of the values of environment variables that the recipe reads.
        resumed: Whether the run continues in place of another process, which has ended.
        saved_means: Means of the current epoch as the checkpoint holds them that the run was resumed from.
        before_evaluation: What `states` returned before the evaluation that is under way or was interrupted.
        not_acted_on: With ``validation.beside``, the values of the last epoch, on which the run acts at the end of this
            one.
        of_first_share: Names of values of which it was said that they are of the first process's share of the data.
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
    identity: Identity
    parts: dict[str, object]
    tolerated: dict[str, type[Exception]]
    watch: Stopwatch = attrs.Factory(Stopwatch)
    picture_budget: PictureBudget = attrs.Factory(PictureBudget)
    step: Step = attrs.field(init=False)
    events: Mapping[str, tuple[Listener, ...]] = attrs.field(init=False, factory=dict)
    scaler: GradScaler | None = None
    graphs: Graphs | None = None
    average: WeightAverage | None = None
    generators: dict[str, Any] | None = None
    fingerprint: Mapping[str, Any] = attrs.Factory(dict)
    variables: Mapping[str, str] = attrs.Factory(dict)
    resumed: bool = False
    saved_means: Mapping[str, Any] = attrs.Factory(lambda: {"running": {}})
    before_evaluation: Mapping[str, Any] | None = None
    not_acted_on: tuple[EpochValues, ...] = ()
    of_first_share: set[str] = attrs.Factory(set)
    beside: Beside | None = None

    def __attrs_post_init__(self) -> None:
        last = self.recipe.run.channels_last
        self.state.seconds = self.watch.seconds
        parts = (self.state, self.losses, self.optimizers, self.autocast, self.scaler)
        if self.graphs is None:
            self.step = Step(*parts, channels_last=last)
        else:
            keepers = may_keep_what_is_repeated(self.recipe)
            self.step = GraphedStep(*parts, channels_last=last, graphs=self.graphs, keepers=keepers)

    @property
    def recipe(self) -> Recipe:
        """The settings."""
        return self.resolved.recipe

    @cached_property
    def recipe_text(self) -> str:
        """The resolved recipe as TOML, as each checkpoint holds it."""
        return write(self.resolved.tree)

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """The conditions on which equality to the bit depends, as each checkpoint holds them."""
        return conditions(self.state.context, self.recipe)

    @property
    def recurs_by_steps(self) -> bool:
        """Whether anything other than checkpoints happens every few steps."""
        return bool(self.recipe.validation.every_steps or self.recipe.pictures.every_steps)

    def emit(self, event: str) -> None:
        """Call the listeners of an event.

        Raises:
            PartError: A part failed; the message names it and the event.
        """
        fire(self.events[event], self.state)

    def not_told_where_it_continues(self) -> list[str]:
        """Return the loggers that listen neither to ``resume`` nor to ``run_start``, but to other events."""
        told = {each.where.partition(",")[0] for event in ("resume", "run_start") for each in self.events[event]}
        names = (each.where.partition(",")[0] for listening in self.events.values() for each in listening)
        return sorted({name for name in names if name.startswith("loggers.")} - told)

    def add(self, name: str, part: object, tolerated: type[Exception] | None = None) -> None:
        """Add a live part, which is called after all others.

        Args:
            name: Its name.
            part: The part.
            tolerated: Exceptions of it that do not end the run; None: all end it.
        """
        self.parts[name] = part
        if tolerated is not None:
            self.tolerated[name] = tolerated
        found = listeners(self.parts, self.tolerated)
        self.events = {event: self.watch.counting(event, listening) for event, listening in found.items()}

    def states(self, *, copy: bool = False) -> dict[str, Any]:
        """Return what the model and the parts with a state want to have saved, under "model" and "parts".

        Args:
            copy: Return copies, which do not change when the run continues. A model that no part can change while it is
                evaluated is not copied, because none listens to the beginning of an evaluation or to its batches.

        Raises:
            PartError: A part failed; the message names it.
        """
        during = (each for event in ("validation_start", "validation_step_end") for each in self.events[event])
        listens = any(not each.where.startswith(f"{PROGRESS},") for each in during)
        model = self.state.model.state_dict()
        parts = {}
        for name, part in self.parts_with_state.items():
            try:
                parts[name] = deepcopy(part.state_dict()) if copy else part.state_dict()
            except Exception as error:
                blame(error, f"{name}, in state_dict")
        return {"model": deepcopy(model) if copy and listens else model, "parts": parts}

    @property
    def parts_with_state(self) -> dict[str, Any]:
        """The parts other than the model that have a state to save."""
        return {
            name: part
            for name, part in self.parts.items()
            if part is not self.state.model and hasattr(part, "state_dict")
        }
