"""All that a hook sees of a run: what is trained, how far it is, and how to ask for something."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from trainkit.contracts import Batch, Context, LiveData, Monitor, Outputs
from trainkit.errors import NonFiniteError
from trainkit.recipe.group_epochs import ActiveEpochs

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import Tensor, nn

_FOLD = 256  # values of one name kept apart on the device before they are summed up


@attrs.define
class Group:
    """A named parameter group of a run.

    Attributes:
        parameters: Parameter name -> parameter.
        lr: The learning rate in effect; 0.0 while the group does not train.
        active: Whether it trains in this epoch.
        start_epoch: First epoch in which it trains; None: never.
        stop_epoch: First epoch in which it no longer trains; `State.stop_group` brings it forward.
        lr_by: How often its learning rate is updated: every "epoch" or every "step".
    """

    parameters: Mapping[str, nn.Parameter]
    lr: float
    active: bool
    start_epoch: int | None
    stop_epoch: int
    lr_by: Literal["epoch", "step"] = "epoch"

    def trains_in(self, epoch: int) -> bool:
        """Return whether it trains in an epoch, as far as is known now."""
        return epoch in ActiveEpochs(self.start_epoch, self.stop_epoch)


@attrs.define
class EpochMean:
    """The mean of a value over an epoch, kept on the device: adding to it costs no synchronisation.

    Values are folded into a float64 sum at fixed counts, so that the mean has the same bits after a resume.

    Attributes:
        values: What was taken in and not yet read.
        sum: Sum of what was read.
        count: How many values were read.
        must_be_finite: Whether reading a NaN or an infinity is an error.
    """

    values: list[Tensor] = attrs.Factory(list)
    sum: float = 0.0
    count: int = 0
    must_be_finite: bool = False

    def add(self, value: Tensor) -> None:
        """Take in one value; it is not read yet."""
        self.values.append(value)
        if len(self.values) == _FOLD:
            self.fold()

    def fold(self) -> None:
        """Read what was taken in (this synchronises with the device).

        Raises:
            NonFiniteError: One of the values is not finite, and they must be; the message says which.
        """
        if self.values:
            import torch

            values = torch.stack(self.values).double()
            self.sum += float(values.sum())
            if self.must_be_finite and not math.isfinite(self.sum):
                first = int((~torch.isfinite(values)).nonzero()[0])
                raise NonFiniteError(f"{float(values[first])} at step {self.count + first} of the epoch")
            self.count += len(self.values)
            self.values.clear()

    def mean(self) -> float:
        """Return the mean of all that was taken in."""
        self.fold()
        return self.sum / self.count if self.count else float("nan")


@attrs.define
class State:
    """What hooks and other live parts are given at every event.

    A hook reads all of it. It changes a run through the methods (`log`, `picture`, `save`, `stop`, `interrupt`,
    `stop_group`) and by adding values to ``metrics``; everything else is set by the engine alone.

    What a person should know at once goes to Python's ``logging.getLogger("trainkit")``: it is shown, and kept in
    ``log.txt``.

    Attributes:
        context: Seed, device, rank and run folder.
        epochs: Epochs that the run is to have; the last one may be cut short by ``steps``.
        model: The network.
        data: The opened data.
        groups: Group name -> group.
        monitor: The value that decides what is best.
        steps_per_epoch: Optimizer steps of an epoch; fewer than batches where gradients are accumulated.
        steps: Optimizer steps that the run is to have; None: its length is given in epochs.
        epoch: Finished epochs: the number, counted from 0, of the running one.
        step: Finished optimizer steps of the whole run.
        epoch_step: How many they were when the running epoch began.
        batch: The current batch, on the device.
        outputs: The model's outputs for it.
        loss: The total training loss of the current step, a scalar on the device.
        metrics: This epoch's values under their full names; complete at ``epoch_end``.
        group: The group that a ``group_start`` or ``group_stop`` is about.
        split: The split that a validation event is about.
        pictures: Name -> image (height, width, 3) uint8, shown since the epoch began.
        seconds: Where this epoch's time went, wall clock: "data" (waiting for batches), "steps", "validation",
            "checkpoint".
        closing: Whether the epoch's steps are done and it is being closed: validation, pictures, ``epoch_end``.
        evaluated_step: Finished steps at the last evaluation; -1: there was none.
        stop_reason: Why the run is to end once its epoch is closed (`stop`); None: nobody asked.
        interrupt_reason: Why the run is to end as it stands (`interrupt`); None: nobody asked.
        save_reason: Why a checkpoint is to be written after this step; None: nobody asked.
        means: Values of which the mean over the running epoch is being taken (`log`).
        ended: At ``run_end``, how the run ended: "finished", "stopped: …" or "failed: …".
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
    epoch_step: int = 0
    batch: Batch | None = None
    outputs: Outputs | None = None
    loss: Tensor | None = None
    metrics: dict[str, float] = attrs.Factory(dict)
    group: str | None = None
    split: str | None = None
    pictures: dict[str, np.ndarray[Any, Any]] = attrs.Factory(dict)
    seconds: dict[str, float] = attrs.Factory(dict)
    closing: bool = False
    evaluated_step: int = -1
    stop_reason: str | None = None
    interrupt_reason: str | None = None
    save_reason: str | None = None
    means: dict[str, EpochMean] = attrs.Factory(dict)
    ended: str = ""

    def learning_rates(self) -> dict[str, float]:
        """Return the learning rate in effect of every group; 0.0 where it does not train."""
        return {name: group.lr for name, group in self.groups.items()}

    def log(self, name: str, value: Tensor | float) -> None:
        """Add to the epoch's mean of a value; ``state.metrics[name]`` holds it at the epoch's end.

        What is logged during an evaluation has a mean over that evaluation instead.

        Args:
            name: Full name, ``<split>/<name>``.
            value: A scalar; a tensor stays on its device and is read only at a log point.

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
        if self.closing and self.split is None:  # the epoch's means were read already
            self.metrics[name] = mean.mean()

    def picture(self, name: str, image_HWC: np.ndarray[Any, Any]) -> None:
        """Show a picture: it goes to ``figures/`` and to every logger.

        Args:
            name: What it is called there, for example "object_phase".
            image_HWC: (height, width, 3) uint8.
        """
        if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or image_HWC.dtype.name != "uint8":
            given = f"{image_HWC.shape} {image_HWC.dtype}"
            raise ValueError(f'picture "{name}" must be (height, width, 3) uint8, got {given}')
        self.pictures[name] = image_HWC

    def stop(self, reason: str) -> None:
        """Ask the run to end after this step. Its epoch is closed first: validation, metrics, pictures, checkpoint."""
        if self.stop_reason is None:
            self.stop_reason = reason

    def stop_group(self, name: str, reason: str) -> None:
        """Ask that a parameter group no longer trains from the next epoch on. Without any group left, the run ends.

        Raises:
            KeyError: There is no such group.
        """
        following = self.epoch + 1
        self.groups[name].stop_epoch = min(self.groups[name].stop_epoch, following)
        if not any(group.trains_in(following) for group in self.groups.values()) and following < self.epochs:
            self.stop(f"no group is left to train: {reason}")

    def interrupt(self, reason: str) -> None:
        """Ask the run to end after this step, with a checkpoint, because the machine is needed or taken away.

        Unlike after `stop`, the run is not finished, and the epoch is left as it is: an evaluation under way is
        abandoned, and done again on resume.
        """
        self.interrupt_reason = reason

    def save(self, reason: str) -> None:
        """Ask for a checkpoint after this step."""
        self.save_reason = reason

    @property
    def interrupted(self) -> bool:
        """Whether the run is to end as it stands."""
        return self.interrupt_reason is not None

    @property
    def failed(self) -> bool:
        """Whether the run ended with an error."""
        return self.ended.startswith("failed")

    @property
    def steps_in_epoch(self) -> int:
        """Optimizer steps finished in the running epoch; 0 between epochs."""
        return self.step - self.epoch_step

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.context.folder
