"""Controls the groups of a running training: switches them on and off, and sets their learning rates.

All groups are in their optimizers from the first step. A group that does not train now has ``requires_grad=False`` and
``grad=None``, so the optimizer leaves it exactly as it is: no moments, no weight decay. The state in an epoch depends
on the plan and the epoch alone (and, for plateau, on a JSON memory), so a resumed run continues where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from trainkit.contracts import Memory, Monitor
from trainkit.errors import RecipeError
from trainkit.groups.schedule import observe_epoch
from trainkit.state import Group
from trainkit.words import after_epochs

if TYPE_CHECKING:
    from torch import nn

    from trainkit.groups.device_rates import DeviceRates
    from trainkit.groups.optimizers import Optimizers
    from trainkit.groups.plan import GroupPlan, Phase
    from trainkit.state import EpochValues

_LOGGER = logging.getLogger("trainkit")


class GroupController:
    """Controls the groups of a running training.

    Args:
        plans: Group -> plan.
        parameters: Group -> parameter name -> parameter.
        model: The network that has the parameters.
        optimizers: The optimizers that the plans name.
        steps_per_epoch: Optimizer steps in each epoch.
        monitor: The value that plateau schedules watch by default.
        rates: Keeps learning rates on the device; None: optimizers hold them as numbers.

    Attributes:
        plans: Group -> plan, with the clocks of phases that have started.
        memories: Group -> memory of the schedule of its current phase.
        groups: Group -> its state as hooks see it.

    Raises:
        RecipeError: A schedule cannot run over its phase's epochs.
    """

    def __init__(
        self,
        plans: Mapping[str, GroupPlan],
        parameters: Mapping[str, Mapping[str, nn.Parameter]],
        model: nn.Module,
        optimizers: Optimizers,
        steps_per_epoch: int,
        monitor: Monitor,
        rates: DeviceRates | None = None,
    ) -> None:
        self.plans = dict(plans)
        self.memories: dict[str, Memory] = {name: {} for name in plans}
        self.groups = {
            name: Group(parameters[name], 0.0, False, plan.epochs.start, plan.epochs.stop, plan.phases[0].scheduler.by)
            for name, plan in plans.items()
        }
        self._model = model
        self._optimizers = optimizers
        self._steps_per_epoch = steps_per_epoch
        self._monitor = monitor
        self._rates = rates
        self._now: dict[str, tuple[Phase, dict[str, Any]]] = {}  # phase and torch's settings of each training group
        self._by_step: tuple[str, ...] = ()
        for name, plan in plans.items():  # a schedule that cannot run is reported now, not when its phase starts
            for phase in plan.phases:
                if phase.epochs.start is not None:
                    try:
                        phase.rate(phase.epochs.start, phase.epochs.start * steps_per_epoch, steps_per_epoch, {})
                    except RecipeError as error:
                        where = f"groups.{name}.then.{phase.name}" if phase.name else f"groups.{name}"
                        raise RecipeError(f"{where}: {error}") from error

    def continue_group(self, name: str, plan: GroupPlan, memory: Memory) -> None:
        """Replace a group's plan and memory with what the resume decided."""
        self.plans[name], self.memories[name] = plan, memory
        start, stop = plan.epochs
        self.groups[name].change(start_epoch=start, stop_epoch=stop, lr_by=plan.phases[0].scheduler.by)

    def enter_epoch(self, epoch: int, epoch_step: int, step: int) -> None:
        """Switch the groups on and off for an epoch, and set the learning rates that are in effect.

        Args:
            epoch: Number of the epoch, from 0.
            epoch_step: Updates of the parameters in the run when the epoch began.
            step: Updates before the last step; more than ``epoch_step`` if the run resumes late enough in the epoch.
        """
        self._now = {}
        for name, group in self.groups.items():
            group.change(active=group.trains_in(epoch))
            for parameter in group.parameters.values():
                parameter.requires_grad_(group.active)
                parameter.grad = None  # gradients must not remain, also not those of a run that stopped inside a step
            if group.active:
                self._enter_phase(name, epoch, epoch_step, step)
            else:
                group.change(lr=0.0)
        self._optimizers.choose({phase.optimizer_name for phase, _ in self._now.values()})
        self._by_step = tuple(name for name, (phase, _) in self._now.items() if phase.scheduler.by == "step")
        self._write_rates()

    def set_step_rates(self, epoch: int, step: int) -> None:
        """Set the learning rates of groups whose schedule counts optimizer steps."""
        for name in self._by_step:
            self._set(name, epoch, step)
        if self._by_step:
            self._write_rates()

    def started(self, epoch: int) -> tuple[str, ...]:
        """Return the groups whose first epoch this is."""
        return tuple(name for name, group in self.groups.items() if group.start_epoch == epoch)

    def stopped(self, epoch: int) -> tuple[str, ...]:
        """Return the groups that trained until the epoch before this one."""
        return tuple(n for n, group in self.groups.items() if group.stop_epoch == epoch and group.trains_in(epoch - 1))

    def observe(self, values: Iterable[EpochValues]) -> None:
        """Pass values to the schedules of the groups that train.

        Args:
            values: The values of each epoch, in order; a schedule takes none of epochs before it began.
        """
        for name, (phase, _) in self._now.items():
            clock = phase.clock_or_planned(self._steps_per_epoch)
            for each in values:
                t, _ = clock.read(phase.scheduler.by, each.epoch + 1, each.updates, self._steps_per_epoch)
                memory = self.memories[name]
                self.memories[name] = observe_epoch(phase.scheduler, t, memory, each.metrics, self._monitor)

    def train_mode(self) -> None:
        """Put the model in train mode, except submodules with only frozen parameters, which are put in eval mode.

        Otherwise BatchNorm in a frozen group would still update its running statistics, and dropout would be active.
        """
        self._model.train()
        for module in self._model.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()

    def _enter_phase(self, name: str, epoch: int, epoch_step: int, step: int) -> None:
        phase = self.plans[name].phase_at(epoch)
        if phase.clock is None and phase.epochs.start == epoch:
            phase = attrs.evolve(phase, clock=phase.clock_at(epoch, epoch_step))
            self.plans[name] = self.plans[name].with_phase(phase)
            if phase.name:
                self.memories[name] = {}
                when = after_epochs(epoch)
                _LOGGER.info("%s: group %s starts phase %s: %s", when, name, phase.name, _phase_in_words(phase))
        self.groups[name].change(lr_by=phase.scheduler.by)
        self._now[name] = (phase, self._optimizers.settings_of(phase.optimizer_name, name))
        self._set(name, epoch, max(epoch_step, step))

    def _set(self, name: str, epoch: int, step: int) -> None:
        phase, settings = self._now[name]
        lr, momentum = phase.rate(epoch, step, self._steps_per_epoch, self.memories[name])
        self.groups[name].change(lr=lr)
        if self._rates is None:
            settings["lr"] = lr
        else:
            self._rates.set(settings, lr)
        if momentum is not None:
            if "betas" in settings:
                settings["betas"] = (momentum, *settings["betas"][1:])
            elif "momentum" in settings:
                settings["momentum"] = momentum

    def _write_rates(self) -> None:
        if self._rates is not None:
            self._rates.write()


def _phase_in_words(phase: Phase) -> str:
    return f"{type(phase.optimizer).__name__}, lr {phase.lr:.3g}, {type(phase.scheduler).__name__}"
