"""Decides how the learning rates of a resumed run continue if its length or a schedule has changed.

A schedule with a horizon is a curve over the epochs of a group. If the number of epochs changes, it can continue in
three ways:

    stretch     the curve over the new horizon, as if the run had always had that length
    hold        the old curve to its end, then its last value; a new schedule starts at the current learning rate
    restart     the recipe's learning rate and schedule from the beginning, over the remaining epochs

If stretch and hold give the same rates, for example without a schedule or with plateau, there is nothing to choose.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import attrs

from trainkit.contracts import Memory
from trainkit.errors import CheckpointError
from trainkit.groups.plan import Clock, GroupPlan, Phase

Choice = Literal["stretch", "hold", "restart"]
CHOICES: tuple[Choice, ...] = ("stretch", "hold", "restart")


class ResumePoint(NamedTuple):
    """The point at which a checkpoint was written.

    Attributes:
        epoch: Number of finished epochs.
        epoch_step: Number of updates of the parameters when the current epoch began.
        steps_per_epoch: Optimizer steps in an epoch.
    """

    epoch: int
    epoch_step: int
    steps_per_epoch: int

    @classmethod
    def of(cls, saved: Mapping[str, Any], steps_per_epoch: int) -> ResumePoint:
        """Return the point at which a checkpoint with this content was written."""
        skipped = bisect_left(saved.get("skipped", ()), saved["epoch_step"])
        return cls(saved["epoch"], saved["epoch_step"] - skipped, steps_per_epoch)


class SavedGroup(NamedTuple):
    """A group as it was saved in a checkpoint.

    Attributes:
        phase: The group's phase, with the learning rate and the clock that were in effect.
        written_lr: The learning rate in the checkpoint's recipe.
        memory: Memory of the schedule.
    """

    phase: Phase
    written_lr: float
    memory: Memory


class ResumedGroup(NamedTuple):
    """A group as it continues after a resume.

    Attributes:
        plan: The group's plan from now on.
        memory: Memory of the schedule of its current phase.
    """

    plan: GroupPlan
    memory: Memory


def read_saved_group(written: GroupPlan, saved: Mapping[str, Any]) -> SavedGroup | None:
    """Return a group as it was saved in a checkpoint; None if it had not started to train.

    Args:
        written: The group's plan by the recipe in the checkpoint.
        saved: The group's entry in the checkpoint.

    Raises:
        CheckpointError: The recipe has no phase such as the group's.
    """
    if saved["clock"] is None:
        return None
    name = saved.get("phase", "")
    now = next((phase for phase in written.phases if phase.name == name), None)
    if now is None:
        raise CheckpointError(f'the checkpoint says that a group is in phase "{name}", which its recipe does not have')
    return SavedGroup(attrs.evolve(now, lr=saved["lr"], clock=Clock(*saved["clock"])), now.lr, saved["memory"])


def resume_group(new: GroupPlan, old: SavedGroup | None, point: ResumePoint, choice: Choice) -> ResumedGroup:
    """Return how a group continues.

    Args:
        new: The group's plan by the recipe that holds from now on.
        old: The group as it was saved; None if it had not started to train.
        point: The point at which the checkpoint was written.
        choice: How the learning rate continues if the length or the schedule has changed.
    """
    phase = new.phase_at(point.epoch)
    place = new.phases.index(phase)
    before, after = new.phases[:place], new.phases[place + 1 :]
    if old is not None and phase.name == old.phase.name:
        phase, memory = _resume_phase(phase, old, point, choice)
        return ResumedGroup(GroupPlan((*before, phase, *after)), memory)
    if phase.epochs.start is not None and phase.epochs.start < point.epoch:
        # A group cannot start in the past: it starts now.
        phase = attrs.evolve(phase, epochs=phase.epochs._replace(start=point.epoch))
    return ResumedGroup(GroupPlan((*(() if old is None else before), phase, *after)), {})


def _resume_phase(new: Phase, old: SavedGroup, point: ResumePoint, choice: Choice) -> tuple[Phase, Memory]:
    before = old.phase.clock
    assert before is not None
    here = new.clock_at(point.epoch, point.epoch_step)
    stretched = before._replace(stop=new.epochs.stop, stop_step=new.stop_step)
    another_lr = new.lr != old.written_lr
    if type(new.scheduler) is not type(old.phase.scheduler):
        if choice == "stretch":
            return attrs.evolve(new, clock=stretched), {}
        present = new.lr if another_lr else _lr(old.phase, point, old.memory)
        return attrs.evolve(new, clock=here, lr=present if choice == "hold" else new.lr), {}
    lr = new.lr if another_lr else old.phase.lr
    if (new.epochs.stop, new.stop_step) == (old.phase.epochs.stop, old.phase.stop_step):
        return attrs.evolve(new, clock=before, lr=lr), old.memory
    if choice == "restart":
        return attrs.evolve(new, clock=here), {}
    return attrs.evolve(new, clock=before if choice == "hold" else stretched, lr=lr), old.memory


def rates_per_epoch(group: ResumedGroup, point: ResumePoint) -> list[float]:
    """Return the learning rate at the beginning of every remaining epoch; 0.0 if the group does not train in it."""
    plan, memory = group
    now = plan.phase_at(point.epoch)
    rates = []
    for epoch in range(point.epoch, plan.epochs.stop):
        phase = plan.phase_at(epoch)
        step = point.epoch_step + (epoch - point.epoch) * point.steps_per_epoch
        remembered = memory if phase is now else {}
        rate = phase.rate(epoch, step, point.steps_per_epoch, remembered).lr if epoch in phase.epochs else 0.0
        rates.append(rate)
    return rates


def is_ambiguous(new: GroupPlan, old: SavedGroup | None, point: ResumePoint) -> bool:
    """Return whether stretch and hold give different rates for a group, so that the user must choose."""
    stretched, held = (rates_per_epoch(resume_group(new, old, point, choice), point) for choice in ("stretch", "hold"))
    return any(abs(a - b) > 1e-12 * max(a, b) for a, b in zip(stretched, held, strict=True))


def _lr(phase: Phase, point: ResumePoint, memory: Memory) -> float:
    return phase.rate(point.epoch, point.epoch_step, point.steps_per_epoch, memory).lr
