"""The state of a run as hooks see it: what is trained, how far the run is, and methods that influence it."""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from trainkit.contracts import Batch, Context, LiveData, Monitor, Outputs
from trainkit.errors import NonFiniteError
from trainkit.recipe.group_epochs import ActiveEpochs
from trainkit.words import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from torch import Tensor, nn

_LOGGER = logging.getLogger("trainkit")

_FOLD = 256  # number of values of one name that are kept on the device before they are summed


OF_NO_EPOCH = ("starting", "ending")
"""Activities in ``State.seconds`` that belong to no epoch: before the first one of a start, and after the last one."""


def share_of_waiting(seconds: Mapping[str, float]) -> float:
    """Return the share of the time of the steps that was spent waiting for their batches.

    Args:
        seconds: ``State.seconds``, in which "steps" does not include the waiting.

    Example:
        >>> share_of_waiting({"data": 1.0, "steps": 3.0, "validation": 5.0})
        0.25
    """
    both = seconds["data"] + seconds["steps"]
    return seconds["data"] / both if both > 0 else 0.0


def _refuse_change(group: Any, attribute: attrs.Attribute[Any], value: Any) -> Any:
    raise AttributeError(
        f"only the engine sets {attribute.name} of a group; a change from elsewhere would not reach the training. A "
        "scheduler sets learning rates, and can be a part of your own; state.stop_group ends the training of a group"
    )


@attrs.define(on_setattr=_refuse_change)
class Group:
    """A named parameter group of a run.

    Attributes:
        parameters: Parameter name -> parameter.
        lr: The learning rate in effect; 0.0 while the group does not train.
        active: Whether it trains in this epoch.
        start_epoch: First epoch in which it trains; None: never.
        stop_epoch: First epoch in which it no longer trains; `State.stop_group` makes it earlier.
        lr_by: How often its learning rate is updated: every "epoch" or every "step".
    """

    parameters: Mapping[str, nn.Parameter]
    lr: float
    active: bool
    start_epoch: int | None
    stop_epoch: int
    lr_by: Literal["epoch", "step"] = "epoch"

    def change(self, **values: Any) -> None:
        """Give attributes other values; the engine calls this."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def trains_in(self, epoch: int) -> bool:
        """Return whether the group trains in an epoch, by the current plan."""
        return epoch in ActiveEpochs(self.start_epoch, self.stop_epoch)


@attrs.define
class EpochMean:
    """The mean of a value over an epoch, kept on the device: adding to it costs no synchronisation.

    Values are folded into a float64 sum at fixed counts, so that the mean has the same bits after a resume.

    Attributes:
        values: Values that were added and not read yet.
        sum: Sum of the values that were read.
        count: Number of values that were read.
        must_be_finite: Whether reading a NaN or an infinity is an error.
    """

    values: list[Tensor] = attrs.Factory(list)
    sum: float = 0.0
    count: int = 0
    must_be_finite: bool = False

    def add(self, value: Tensor) -> None:
        """Add one value, without reading it from the device."""
        self.values.append(value)
        if len(self.values) == _FOLD:
            self.fold()

    def fold(self) -> None:
        """Read the values that were added (this synchronises with the device).

        Raises:
            NonFiniteError: A value is not finite although it must be; the message says which.
        """
        if self.values:
            import torch

            values = torch.stack(self.values).double()
            self.sum += float(values.sum())
            if self.must_be_finite and not math.isfinite(self.sum):
                first = int((~torch.isfinite(values)).nonzero()[0])
                error = NonFiniteError(
                    f"{float(values[first])} after {number_of(self.count + first, 'step')} of the epoch"
                )
                error.epoch_step = self.count + first
                raise error
            self.count += len(self.values)
            self.values.clear()

    def mean(self) -> float:
        """Return the mean of all values that were added."""
        self.fold()
        return self.sum / self.count if self.count else float("nan")


@attrs.frozen
class EpochValues:
    """The values of an epoch.

    Attributes:
        epoch: Number of the epoch, from 0.
        updates: Updates of the parameters in the run at its end.
        metrics: The values under their full names.
    """

    epoch: int
    updates: int
    metrics: Mapping[str, float]

    def without(self, redefined: Callable[[str], str | None]) -> EpochValues:
        """Return those whose meaning has not changed since (`State.redefined`)."""
        return attrs.evolve(self, metrics={name: each for name, each in self.metrics.items() if not redefined(name)})


def _still_means_the_same(name: str) -> str | None:
    return None


@attrs.define
class About:
    """What is known of a run before it trains, for those who write it down.

    Attributes:
        id: The run's id.
        parent: The id of the run from whose checkpoint it began; None: there is none, or it is unknown.
        settings: Setting, for example "optimizer.lr" -> its value, of all settings whose change would change the
            training, first those that the recipe sets. A reference to an environment variable stays one.
        losses: Names of the losses.
        splits: Names of what is evaluated, which come before the "/" of its values, for example "val".
        values: Full names of the values that the recipe is known to compute; some may be patterns, with "*".
        resume_plan: What a start that continues a run said before it began: from where, and what is not as it was.
        continues: The run folder in which the values so far were logged: this one, or, where a run continues in a new
            folder, that of its parent; None: the run is new, or the values so far are not known.
    """

    id: str = ""
    parent: str | None = None
    settings: Mapping[str, Any] = attrs.Factory(dict)
    losses: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    resume_plan: tuple[str, ...] = ()
    continues: Path | None = None


@attrs.define
class State:
    """The state of a run, which hooks and other live parts receive at every event.

    A hook may read everything. It changes the run only through the methods (`log`, `picture`, `save`, `stop`,
    `interrupt`, `stop_group`, `doubt`, `announce_ending`) and by adding values to ``metrics``; all else is set by the
    engine.

    To tell the user something at once, log to ``logging.getLogger("trainkit")``: the message is shown, and written to
    ``log.txt``. What makes the result itself doubtful is reported by `doubt`.

    Attributes:
        context: Seed, device, rank and run folder.
        epochs: Number of epochs of the run; the last one may be cut short by ``steps``.
        model: The network.
        data: The opened data.
        groups: Group name -> group.
        monitor: The value that decides what is best.
        steps_per_epoch: Optimizer steps in an epoch; fewer than batches if gradients are accumulated.
        steps: Number of optimizer steps of the run; None: its length is given in epochs.
        epoch: Number of finished epochs, which is also the number of the current epoch, counted from 0.
        step: Number of finished optimizer steps of the whole run, including those without an update.
        skipped: Which of these steps, counted from 0, did not update the parameters, because a gradient was not finite
            with ``precision = "fp16"``. Schedules and averages do not count them.
        epoch_step: Value of ``step`` when the current epoch began.
        batch: The current batch, on the device.
        outputs: The model's outputs for the current batch.
        loss: The total training loss of the current step, a scalar on the device.
        metrics: This epoch's values under their full names; complete at ``epoch_end``.
        values_to_act_on: At ``epoch_end``, the values by which the training of the next epoch may be decided: those of
            this epoch, or, with ``validation.beside``, those of the epoch before, whether or not this epoch's are there
            already. So decisions do not depend on when values come. There are none at the end of a first epoch that is
            evaluated beside, and those of both epochs at the end of the first one after that was switched off.
        group: The group that a ``group_start`` or ``group_stop`` is about.
        split: The split that a validation event is about.
        pictures: Name -> image (height, width, 3) uint8, made since the epoch began.
        seconds: Wall-clock seconds since the last ``epoch_end`` event, by what they were spent on: "steps", "data"
            (waiting for batches), "validation", "pictures", "hooks", "logging", "checkpoint" and "rest". Together they
            are all the time that has passed. The checkpoint that is written after an epoch counts to the next one.
        cpu_wait_seconds: At ``epoch_end``, how many of these seconds a thread of this process was ready to compute, and
            had no CPU: the longest wait of a thread. None: the system does not count it, or the run does not compute
            on the CPU.
        closing: Whether the epoch's steps are finished and it is being closed: validation, pictures, ``epoch_end``.
        seconds_in_background: Seconds that a checkpoint may take which is being written while the training goes on.
        evaluated_step: Value of ``step`` at the last evaluation; -1: there was none.
        awaits_values: Whether the values of the other splits come later (`Validation.beside`), at ``late_values``.
        late_rows: At ``late_values``, split -> the values of single items.
        stop_reason: Why the run ends after its current epoch is closed (`stop`); None: it was not requested.
        interrupt_reason: Why the run ends without closing its epoch (`interrupt`); None: it was not requested.
        save_reason: Why a checkpoint is written after this step (`save`); None: it was not requested.
        pictures_reason: Why pictures are made at the end of this epoch (`show_pictures`); None: not requested.
        means: Name -> mean over the current epoch, still being computed (`log`).
        doubts: Why the result is doubtful (`doubt`), one sentence each.
        is_trial: Whether the run is one of several that are compared, and only its values are used: no pictures are
            made, and parts write no results.
        failures: Part and method -> how often it failed without ending the run.
        redefined: Returns, for the full name of a value, what has changed in its meaning since it was computed before
            this resume, in words; None: nothing, so that values can be compared.
        ended: At ``run_end``, how the run ended: "finished", "stopped: …" or "failed: …".
        requests: With several processes, what this one asked for and all have not agreed on yet: "stop", "interrupt",
            "save" or "stop group …" -> the reason. They agree after each step, and before anything follows from it.
        about: What is known of the run before it trains.
        ranks: Picture -> its place among the pictures (`picture`).
        announced_ending: Seconds that parts expect to take at ``run_end`` (`announce_ending`).
    """

    context: Context
    epochs: int
    model: nn.Module
    data: LiveData
    groups: Mapping[str, Group]
    monitor: Monitor
    steps_per_epoch: int = 1
    steps: int | None = None
    epoch: int = 0
    step: int = 0
    skipped: list[int] = attrs.Factory(list)
    epoch_step: int = 0
    batch: Batch | None = None
    outputs: Outputs | None = None
    loss: Tensor | None = None
    metrics: dict[str, float] = attrs.Factory(dict)
    values_to_act_on: tuple[EpochValues, ...] = ()
    group: str | None = None
    split: str | None = None
    pictures: dict[str, np.ndarray[Any, Any]] = attrs.Factory(dict)
    seconds: dict[str, float] = attrs.Factory(dict)
    cpu_wait_seconds: float | None = None
    closing: bool = False
    seconds_in_background: float = 0.0
    evaluated_step: int = -1
    awaits_values: bool = False
    late_rows: dict[str, Any] = attrs.Factory(dict)
    stop_reason: str | None = None
    interrupt_reason: str | None = None
    save_reason: str | None = None
    pictures_reason: str | None = None
    means: dict[str, EpochMean] = attrs.Factory(dict)
    doubts: list[str] = attrs.Factory(list)
    is_trial: bool = False
    failures: dict[str, int] = attrs.Factory(dict)
    redefined: Callable[[str], str | None] = _still_means_the_same
    ended: str = ""
    requests: dict[str, str] = attrs.Factory(dict)
    about: About = attrs.Factory(About)
    ranks: dict[str, int] = attrs.Factory(dict)
    announced_ending: float = 0.0

    def learning_rates(self) -> dict[str, float]:
        """Return the current learning rate of every group; 0.0 if the group does not train now."""
        return {name: group.lr for name, group in self.groups.items()}

    def log(self, name: str, value: Tensor | float) -> None:
        """Add a value to a mean over the epoch, which is in ``state.metrics[name]`` at the epoch's end.

        During an evaluation, the mean is over that evaluation instead.

        Args:
            name: Full name, ``<split>/<name>``.
            value: A scalar; a tensor stays on its device and is read only when the mean is needed.

        Raises:
            ValueError: The name is no full name, or is that of a value of the engine; or the value is no scalar.
        """
        mean = self.means.get(name)
        if mean is None:
            if "/" not in name or name.startswith("lr/"):
                raise ValueError(f'"{name}" is no name of a value that can be logged: it must be "<split>/<name>"')
            mean = self.means[name] = EpochMean()
        if mean.must_be_finite:
            raise ValueError(f'"{name}" is the total loss, which is logged by itself; choose another name')
        import torch

        if not isinstance(value, torch.Tensor):
            value = torch.tensor(float(value), dtype=torch.float64)
        if value.ndim:
            raise ValueError(f'"{name}" must be a scalar, not a tensor of shape {tuple(value.shape)}')
        mean.add(value.detach())
        if self.closing and self.split is None:  # the epoch's means have been read already
            self.metrics[name] = mean.mean()

    def picture(self, name: str, image_HWC: np.ndarray[Any, Any], rank: int = 50) -> None:
        """Show a picture: it is written to ``figures/`` and passed to every logger.

        Args:
            name: Name of the picture, for example "object_phase".
            image_HWC: (height, width, 3) uint8.
            rank: Its place where pictures are sorted by what they are worth, 1 to 99: 10 is a result, 90 a detail.
        """
        if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or image_HWC.dtype.name != "uint8":
            given = f"{image_HWC.shape} {image_HWC.dtype}"
            raise ValueError(f'picture "{name}" must be (height, width, 3) uint8, got {given}')
        self.pictures[name], self.ranks[name] = image_HWC, rank

    def announce_ending(self, seconds: float) -> None:
        """Say about how long a part will take at ``run_end``, so that the time left includes it; to call at run_start.

        Once a run of the same recipe has ended on this machine, what it took is used instead.
        """
        self.announced_ending += seconds

    def stop(self, reason: str) -> None:
        """Ask the run to end after this step. Its epoch is closed first: validation, metrics, pictures, checkpoint."""
        self._request("stop", reason)

    def stop_group(self, name: str, reason: str) -> None:
        """Stop training a parameter group from the next epoch on. If no group is left to train, the run ends.

        Raises:
            KeyError: There is no such group.
        """
        if name not in self.groups:
            raise KeyError(name)
        self._request(f"stop group {name}", reason)

    def interrupt(self, reason: str) -> None:
        """Ask the run to end after this step, with a checkpoint, because the machine will not be available any longer.

        Unlike after `stop`, the run is not finished and its epoch is not closed. An evaluation that is under way is
        abandoned, and is repeated on resume.
        """
        self._request("interrupt", reason)

    def save(self, reason: str) -> None:
        """Ask for a checkpoint after this step."""
        self._request("save", reason)

    def show_pictures(self, reason: str) -> None:
        """Ask for pictures at the end of this epoch, even if they are not due."""
        self._request("pictures", reason)

    def _request(self, what: str, reason: str) -> None:
        if self.context.world > 1:
            self.requests.setdefault(what, reason)
        else:
            self.grant(what, reason)

    def grant(self, what: str, reason: str) -> None:
        """Let a request take effect, on which all processes have agreed; the engine calls this.

        Args:
            what: "stop", "interrupt", "save", "pictures" or "stop group …".
            reason: Why.
        """
        if what == "interrupt":
            self.interrupt_reason = reason
        elif what == "save":
            self.save_reason = reason
        elif what == "pictures":
            self.pictures_reason = reason
        elif what == "stop":
            self.stop_reason = self.stop_reason or reason
        else:
            group, following = self.groups[what.removeprefix("stop group ")], self.epoch + 1
            group.change(stop_epoch=min(group.stop_epoch, following))
            if not any(group.trains_in(following) for group in self.groups.values()) and following < self.epochs:
                self.grant("stop", f"no group is left to train: {reason}")

    def doubt(self, text: str) -> None:
        """Say that the result of the run is doubtful. The run goes on, and ends as finished with exit code 3.

        A doubt is shown at once, kept in the checkpoints, and repeated in the report at the run's end. What can be
        judged from the result alone is best reported at ``run_end``: a resumed run then judges it anew.

        Args:
            text: One sentence, with the numbers that the doubt rests on, and what to do.
        """
        if text in self.doubts:
            return
        self.doubts.append(text)
        if not self.ended:  # otherwise, the report shows it in a moment
            _LOGGER.warning("the result of this run will be doubtful: %s", text)

    @property
    def is_last_epoch(self) -> bool:
        """Whether the current epoch is the last one of the run, as far as is known: a stop can still be requested."""
        return self.epoch + 1 == self.epochs or self.stop_reason is not None

    @property
    def updates(self) -> int:
        """Number of updates of the parameters in the whole run: its finished steps without the skipped ones."""
        return self.step - len(self.skipped)

    @property
    def updated(self) -> bool:
        """Whether the last finished step updated the parameters."""
        return not self.skipped or self.skipped[-1] != self.step - 1

    @property
    def updates_before_epoch(self) -> int:
        """Number of updates of the parameters when the current epoch began."""
        return self.epoch_step - bisect_left(self.skipped, self.epoch_step)

    @property
    def interrupted(self) -> bool:
        """Whether an interruption was requested (`interrupt`)."""
        return self.interrupt_reason is not None

    @property
    def failed(self) -> bool:
        """Whether the run ended with an error."""
        return self.ended.startswith("failed")

    @property
    def steps_in_epoch(self) -> int:
        """Number of finished optimizer steps in the current epoch; 0 between epochs."""
        return self.step - self.epoch_step

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.context.folder
