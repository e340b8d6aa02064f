"""Named parameter groups: which parameters, when they train, and with which learning rate.

All groups are in the one optimizer from the first step. A group that does not train now has ``requires_grad=False`` and
``grad=None``, which is exact: no moments, no weight decay, no drift. What holds in an epoch is a function of the recipe
and the epoch alone (and, for plateau, of a JSON memory), so a resumed run stands where the first one stood.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import attrs

from trainkit.contracts import Memory, Monitor, Point, Scheduler
from trainkit.errors import RecipeError, did_you_mean
from trainkit.recipe.group_epochs import active_epochs, declared_groups, idle_stretches
from trainkit.recipe.root import GroupSettings
from trainkit.schedule import fold, point
from trainkit.state import Group

if TYPE_CHECKING:
    from torch import nn, optim

    from trainkit.contracts import Model
    from trainkit.recipe.root import Recipe


class Clock(NamedTuple):
    """A group's own clock, which its schedule reads.

    Attributes:
        epoch: The epoch in which it stands at 0.
        step: Finished optimizer steps of the run at that epoch's beginning.
        stop: The epoch at which the schedule has run down; from there on its last value holds.
    """

    epoch: int
    step: int
    stop: int

    def read(self, by: Literal["epoch", "step"], epoch: int, step: int, steps_per_epoch: int) -> tuple[int, int]:
        """Return the ticks since 0, and those from 0 until the schedule has run down."""
        if by == "epoch":
            return epoch - self.epoch, self.stop - self.epoch
        return step - self.step, (self.stop - self.epoch) * steps_per_epoch


@attrs.frozen
class Stage:
    """When one group trains and how its learning rate goes; from the recipe alone, unless a resume changed something.

    Attributes:
        lr: The group's own learning rate, before the schedule.
        start_epoch: First epoch in which it trains; None: never.
        stop_epoch: First epoch in which it no longer trains.
        scheduler: Its schedule.
        options: Optimizer settings that it overrides.
        clock: The clock that its schedule reads; None: it will begin with the group.
    """

    lr: float
    start_epoch: int | None
    stop_epoch: int
    scheduler: Scheduler
    options: Mapping[str, Any]
    clock: Clock | None = None

    def active(self, epoch: int) -> bool:
        """Return whether the group trains in an epoch."""
        return self.start_epoch is not None and self.start_epoch <= epoch < self.stop_epoch

    def with_clock(self, steps_per_epoch: int) -> Clock:
        """Return its clock; one that will begin with the group is taken to begin after epochs of this many steps."""
        start = self.start_epoch or 0
        return self.clock or Clock(start, start * steps_per_epoch, self.stop_epoch)

    def point(self, epoch: int, step: int, steps_per_epoch: int, memory: Memory) -> Point:
        """Return what holds at a place of the run in which the group trains.

        Args:
            epoch: Number of the running epoch, from 0.
            step: Finished optimizer steps of the run.
            steps_per_epoch: Optimizer steps of each epoch.
            memory: What its schedule remembers.
        """
        t, horizon = self.with_clock(steps_per_epoch).read(self.scheduler.by, epoch, step, steps_per_epoch)
        return point(self.scheduler, min(t, horizon - 1), horizon, self.lr, memory)


def stages(recipe: Recipe, trains: Mapping[str, bool]) -> dict[str, Stage]:
    """Return the stage of every group of a model.

    Args:
        recipe: The whole run.
        trains: Group -> does it train without a ``start_epoch``?

    Raises:
        RecipeError: There is an epoch in which no group trains.
    """
    known = active_epochs(recipe, trains, recipe.run.num_epochs())
    if idle := idle_stretches(known.values(), recipe.run.num_epochs()):
        raise RecipeError(
            f"no parameter group trains in epoch {idle[0][0]}; the model's groups are {', '.join(known)}: give one of "
            "them a start_epoch or a later stop_epoch"
        )
    found = {}
    for name, (start, stop) in known.items():
        settings = recipe.groups.get(name, GroupSettings())
        found[name] = Stage(
            lr=recipe.optimizer.lr if settings.lr is None else settings.lr,
            start_epoch=start,
            stop_epoch=stop,
            scheduler=settings.scheduler or recipe.scheduler,
            options=settings.options,
        )
    return found


def assign(
    recipe: Recipe, settings: Model, model: nn.Module
) -> tuple[dict[str, dict[str, nn.Parameter]], dict[str, bool]]:
    """Sort every trainable parameter of a built model into its group.

    Returns:
        Group -> parameter name -> parameter, and group -> does it train without a ``start_epoch``?

    Raises:
        RecipeError: A parameter is in no group or in two, a pattern matches nothing, or a group is unknown.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    parameters = {name: parameter for name, parameter in model.named_parameters() if id(parameter) in names}
    trains = dict(declared_groups(recipe) or {})
    if any(group.parameters is not None for group in recipe.groups.values()):
        groups = {name: _matching(name, group.parameters or (), parameters) for name, group in recipe.groups.items()}
    else:
        groups = {
            name: {names[id(p)]: p for p in members if id(p) in names}
            for name, members in settings.parameter_groups(model).items()
        }
        trains = {name: trains.get(name, True) for name in groups}
        for name in recipe.groups:
            if name not in groups:
                raise RecipeError(
                    f"groups.{name}: the model has no parameter group of that name; {did_you_mean(name, groups)}"
                )
    _check_partition(groups, parameters)
    return groups, trains


def _matching(group: str, patterns: Iterable[str], parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    found: dict[str, nn.Parameter] = {}
    for pattern in patterns:
        matches = {name: p for name, p in parameters.items() if fnmatchcase(name, pattern)}
        if not matches:
            raise RecipeError(
                f'groups.{group}.parameters: "{pattern}" matches no parameter; {did_you_mean(pattern, parameters)}'
            )
        found |= matches
    return found


def _check_partition(groups: Mapping[str, Mapping[str, nn.Parameter]], parameters: Mapping[str, nn.Parameter]) -> None:
    owner: dict[str, str] = {}
    for group, members in groups.items():
        for name in members:
            if name in owner:
                raise RecipeError(f'parameter "{name}" is in two groups, {owner[name]} and {group}; it must be in one')
            owner[name] = group
    if left := [name for name in parameters if name not in owner]:
        shown = ", ".join(left[:8]) + (f", … ({len(left)} in all)" if len(left) > 8 else "")
        raise RecipeError(
            f"these trainable parameters are in no group: {shown}; give them to one of {', '.join(groups)}"
        )


class Stages:
    """The groups of a running training: switches them on and off, and sets their learning rates.

    Args:
        stages: Group -> stage.
        parameters: Group -> parameter name -> parameter.
        model: The network that has the parameters.
        optimizer: The optimizer, one of whose ``param_groups`` carries each group's name.
        steps_per_epoch: Optimizer steps of each epoch.
        monitor: What plateau looks at unless it says otherwise.

    Raises:
        RecipeError: A schedule cannot run over its group's epochs.
    """

    def __init__(
        self,
        stages: Mapping[str, Stage],
        parameters: Mapping[str, Mapping[str, nn.Parameter]],
        model: nn.Module,
        optimizer: optim.Optimizer,
        steps_per_epoch: int,
        monitor: Monitor,
    ) -> None:
        self.stages = dict(stages)
        self.memories: dict[str, Memory] = {name: {} for name in stages}
        self.groups = {
            name: Group(parameters[name], 0.0, False, stage.start_epoch, stage.stop_epoch, stage.scheduler.by)
            for name, stage in stages.items()
        }
        self._model = model
        self._steps_per_epoch = steps_per_epoch
        self._monitor = monitor
        self._param_groups = {group["name"]: group for group in optimizer.param_groups}
        self._by_step: tuple[str, ...] = ()
        for stage in stages.values():  # a schedule that cannot run says so now, not when its group starts
            if stage.start_epoch is not None:
                stage.point(stage.start_epoch, stage.start_epoch * steps_per_epoch, steps_per_epoch, {})

    def go_on(self, name: str, stage: Stage, memory: Memory) -> None:
        """Let a group go on as a resume says."""
        self.stages[name], self.memories[name] = stage, memory
        group = self.groups[name]
        group.start_epoch, group.stop_epoch, group.lr_by = stage.start_epoch, stage.stop_epoch, stage.scheduler.by

    def enter(self, epoch: int, epoch_step: int, step: int) -> None:
        """Switch the groups on and off for an epoch, and set the learning rates that are in effect.

        Args:
            epoch: Number of the epoch, from 0.
            epoch_step: Finished steps of the run when it began.
            step: Finished steps of the run; more than that if it is entered in its middle.
        """
        for name, group in self.groups.items():
            group.active = group.trains_in(epoch)
            for parameter in group.parameters.values():
                parameter.requires_grad_(group.active)
                parameter.grad = None
            if group.active:
                stage = self.stages[name]
                if stage.clock is None and stage.start_epoch == epoch:
                    self.stages[name] = attrs.evolve(stage, clock=Clock(epoch, epoch_step, stage.stop_epoch))
                self._set(name, epoch, max(epoch_step, step - 1))
            else:
                group.lr = 0.0
        self._by_step = tuple(n for n, s in self.stages.items() if s.scheduler.by == "step" and self.groups[n].active)

    def tick(self, epoch: int, step: int) -> None:
        """Set the learning rates of groups whose schedule goes by optimizer step."""
        for name in self._by_step:
            self._set(name, epoch, step)

    def started(self, epoch: int) -> tuple[str, ...]:
        """Return the groups whose first epoch this is."""
        return tuple(name for name, stage in self.stages.items() if stage.start_epoch == epoch)

    def stopped(self, epoch: int) -> tuple[str, ...]:
        """Return the groups that trained until the epoch before this one."""
        return tuple(n for n, group in self.groups.items() if group.stop_epoch == epoch and group.trains_in(epoch - 1))

    def observe(self, epoch: int, step: int, metrics: Mapping[str, float]) -> None:
        """Let the schedules of the groups that train take in an epoch's metrics, ``step`` steps being finished."""
        for name, stage in self.stages.items():
            if self.groups[name].active:
                clock = stage.with_clock(self._steps_per_epoch)
                t, _ = clock.read(stage.scheduler.by, epoch + 1, step, self._steps_per_epoch)
                self.memories[name] = fold(stage.scheduler, t, self.memories[name], metrics, self._monitor)

    def train_mode(self) -> None:
        """Put the model in train mode, and in eval mode every submodule all of whose parameters are frozen.

        Otherwise BatchNorm of a frozen group would go on moving its running statistics, and dropout would act.
        """
        self._model.train()
        for module in self._model.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()

    def _set(self, name: str, epoch: int, step: int) -> None:
        lr, momentum = self.stages[name].point(epoch, step, self._steps_per_epoch, self.memories[name])
        settings = self._param_groups[name]
        settings["lr"] = self.groups[name].lr = lr
        if momentum is not None:
            if "betas" in settings:
                settings["betas"] = (momentum, *settings["betas"][1:])
            elif "momentum" in settings:
                settings["momentum"] = momentum
