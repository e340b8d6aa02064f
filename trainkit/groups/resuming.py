"""How the learning rates of a run go on when a resume gives it another length or another schedule.

A schedule with a horizon is a curve over the epochs that a group has. With more epochs there are three honest ways on:

    stretch     as if the new horizon had always held: one curve, further along it
    hold        the old curve to its end, then its last value; of another schedule: it begins at the present rate
    restart     the recipe's rate and schedule anew, from here over what is left

Where stretch and hold come to the same, as under no schedule or plateau, nothing has to be chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import attrs

from trainkit.contracts import Memory
from trainkit.groups.plan import Clock, GroupPlan, Phase

Choice = Literal["stretch", "hold", "restart"]
CHOICES: tuple[Choice, ...] = ("stretch", "hold", "restart")


class ResumePoint(NamedTuple):
    """Where a checkpoint stands.

    Attributes:
        epoch: Finished epochs.
        epoch_step: Finished steps when the running epoch began.
        steps_per_epoch: Optimizer steps of an epoch.
    """

    epoch: int
    epoch_step: int
    steps_per_epoch: int


class SavedGroup(NamedTuple):
    """A group as a checkpoint knows it.

    Attributes:
        phase: The phase that it was in, with the learning rate and the clock that were in effect.
        written_lr: The learning rate that the checkpoint's recipe gives.
        memory: What its schedule remembers.
    """

    phase: Phase
    written_lr: float
    memory: Memory


class ResumedGroup(NamedTuple):
    """A group as it goes on.

    Attributes:
        plan: What it does from now on.
        memory: What the schedule of its present phase remembers.
    """

    plan: GroupPlan
    memory: Memory


def read_saved_group(written: GroupPlan, saved: Mapping[str, Any]) -> SavedGroup | None:
    """Return a group as a checkpoint knows it; None if it had not started to train.

    Args:
        written: Its plan by the recipe in the checkpoint.
        saved: What the checkpoint holds of it.
    """
    if saved["clock"] is None:
        return None
    now = next(phase for phase in written.phases if phase.name == saved.get("phase", ""))
    return SavedGroup(attrs.evolve(now, lr=saved["lr"], clock=Clock(*saved["clock"])), now.lr, saved["memory"])


def resume_group(new: GroupPlan, old: SavedGroup | None, point: ResumePoint, choice: Choice) -> ResumedGroup:
    """Return how a group goes on.

    Args:
        new: Its plan by the recipe from now on.
        old: What it was; None if it had not started to train.
        point: Where the checkpoint stands.
        choice: What to do about another length or another schedule.
    """
    phase = new.phase_at(point.epoch)
    place = new.phases.index(phase)
    before, after = new.phases[:place], new.phases[place + 1 :]
    if old is not None and phase.name == old.phase.name:
        phase, memory = _resume_phase(phase, old, point, choice)
        return ResumedGroup(GroupPlan((*before, phase, *after)), memory)
    if phase.epochs.start is not None and phase.epochs.start < point.epoch:
        # It could not start in the past.
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
    """Return the learning rate at the beginning of every epoch that is left; 0.0 where the group does not train."""
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
    """Return whether stretch and hold differ for a group, so that somebody has to say which."""
    stretched, held = (rates_per_epoch(resume_group(new, old, point, choice), point) for choice in ("stretch", "hold"))
    return any(abs(a - b) > 1e-12 * max(a, b) for a, b in zip(stretched, held, strict=True))


def _lr(phase: Phase, point: ResumePoint, memory: Memory) -> float:
    return phase.rate(point.epoch, point.epoch_step, point.steps_per_epoch, memory).lr
