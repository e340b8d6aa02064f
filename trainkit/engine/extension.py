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
from trainkit.groups import Clock, Stage

Choice = Literal["stretch", "hold", "restart"]
CHOICES: tuple[Choice, ...] = ("stretch", "hold", "restart")


class Place(NamedTuple):
    """Where a checkpoint stands.

    Attributes:
        epoch: Finished epochs.
        epoch_step: Finished steps when the running epoch began.
        steps_per_epoch: Optimizer steps of an epoch.
    """

    epoch: int
    epoch_step: int
    steps_per_epoch: int


class Begun(NamedTuple):
    """A group as a checkpoint knows it.

    Attributes:
        stage: As the recipe of then says, with the learning rate and the clock that were in effect.
        written_lr: The learning rate that the recipe of then says.
        memory: What its schedule remembers.
    """

    stage: Stage
    written_lr: float
    memory: Memory


class Continued(NamedTuple):
    """A group as it goes on.

    Attributes:
        stage: With the clock that its schedule reads from now on.
        memory: What its schedule remembers.
    """

    stage: Stage
    memory: Memory


def begun(written: Stage, saved: Mapping[str, Any]) -> Begun | None:
    """Return a group as a checkpoint knows it; None if it had not begun to train.

    Args:
        written: Its stage by the recipe in the checkpoint.
        saved: What the checkpoint holds of it.
    """
    if saved["clock"] is None:
        return None
    stage = attrs.evolve(written, lr=saved["lr"], clock=Clock(*saved["clock"]))
    return Begun(stage, written.lr, saved["memory"])


def goes_on(new: Stage, old: Begun | None, place: Place, choice: Choice) -> Continued:
    """Return how a group goes on.

    Args:
        new: Its stage by the recipe from now on.
        old: What it was; None if it had not begun to train.
        place: Where the checkpoint stands.
        choice: What to do about another length or another schedule.
    """
    if old is None:
        if new.start_epoch is not None and new.start_epoch < place.epoch:
            new = attrs.evolve(new, start_epoch=place.epoch)  # it could not start in the past
        return Continued(new, {})
    assert old.stage.clock is not None
    here = Clock(place.epoch, place.epoch_step, new.stop_epoch)
    before = old.stage.clock
    another_lr = new.lr != old.written_lr
    if type(new.scheduler) is not type(old.stage.scheduler):
        if choice == "stretch":
            return Continued(attrs.evolve(new, clock=before._replace(stop=new.stop_epoch)), {})
        present = new.lr if another_lr else _rate(old.stage, place, old.memory)
        return Continued(attrs.evolve(new, clock=here, lr=present if choice == "hold" else new.lr), {})
    lr = new.lr if another_lr else old.stage.lr
    if new.stop_epoch == old.stage.stop_epoch:
        return Continued(attrs.evolve(new, clock=before, lr=lr), old.memory)
    if choice == "restart":
        return Continued(attrs.evolve(new, clock=here), {})
    clock = before if choice == "hold" else before._replace(stop=new.stop_epoch)
    return Continued(attrs.evolve(new, clock=clock, lr=lr), old.memory)


def trace(group: Continued, place: Place) -> list[float]:
    """Return the learning rate at the beginning of every epoch that is left; 0.0 where the group does not train."""
    stage, memory = group
    rates = []
    for epoch in range(place.epoch, stage.stop_epoch):
        step = place.epoch_step + (epoch - place.epoch) * place.steps_per_epoch
        rates.append(stage.point(epoch, step, place.steps_per_epoch, memory).lr if stage.active(epoch) else 0.0)
    return rates


def must_choose(new: Stage, old: Begun | None, place: Place) -> bool:
    """Return whether stretch and hold differ for a group, so that somebody has to say which."""
    stretched, held = (trace(goes_on(new, old, place, choice), place) for choice in ("stretch", "hold"))
    return any(abs(a - b) > 1e-12 * max(a, b) for a, b in zip(stretched, held, strict=True))


def _rate(stage: Stage, place: Place, memory: Memory) -> float:
    return stage.point(place.epoch, place.epoch_step, place.steps_per_epoch, memory).lr
