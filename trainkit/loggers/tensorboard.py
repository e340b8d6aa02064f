"""Writes curves, pictures and the recipe for TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from trainkit.contracts import Context, Logger, component
from trainkit.events import Live
from trainkit.loggers import event_files
from trainkit.state import share_of_waiting

if TYPE_CHECKING:
    from trainkit.state import State


@component
class TensorBoard(Logger):
    """Writes curves, pictures and the resolved recipe for TensorBoard, into ``tensorboard/`` of the run folder.

    There is one writer per split, and the x-axis is the epoch, so that ``train/loss`` and ``val/loss`` share a chart.
    Values of single steps have a writer of their own, ``steps``, and the x-axis is the step of the run. To see all
    pictures, use ``tensorboard --logdir … --samples_per_plugin=images=200``; by default it keeps 10 random ones.
    ``share_of_waiting_for_data`` is the share of the time of an epoch's steps that was spent waiting for their batches.

    Attributes:
        every_steps: Optimizer steps between two values of single steps; 0: none are written.
    """

    every_steps: int = attrs.field(default=50, validator=attrs.validators.ge(0))

    def build(self, context: Context) -> object:
        """Make the live part."""
        return LiveTensorBoard(self.every_steps)


class LiveTensorBoard(Live):
    """The open writers of a run."""

    def __init__(self, every_steps: int) -> None:
        self._every_steps = every_steps or float("inf")
        self._next = self._every_steps
        self._writers: dict[str, Any] = {}
        self._evaluated: dict[str, float] = {}  # inside an epoch, until all splits are evaluated

    def on_run_start(self, state: State) -> None:
        """Remove what a killed run wrote after its last checkpoint, and open the writers."""
        for folder in (state.folder / "tensorboard").glob("*"):
            event_files.cut_back(folder, state.step + 1 if folder.name == "steps" else state.epoch)
        if state.step:
            self._next = (state.step // self._every_steps + 1) * self._every_steps
        if self._every_steps < float("inf"):
            self._writer("steps", state)  # opened now, not during a step
        text = (state.folder / "recipe.toml").read_text(encoding="utf-8")
        self._writer("train", state).add_text("recipe", f"```toml\n{text}\n```", state.epoch)

    def on_group_start(self, state: State) -> None:
        """Mark the epoch in which a group starts to train."""
        self._writer("train", state).add_scalar(f"{state.group}_optimization_started", 1.0, state.epoch)

    def on_group_stop(self, state: State) -> None:
        """Mark the first epoch in which a group no longer trains."""
        self._writer("train", state).add_scalar(f"{state.group}_optimization_stopped", 1.0, state.epoch)

    def on_step_end(self, state: State) -> None:
        """Write the step's loss, and the learning rates that change every step, once in ``every_steps`` steps."""
        if state.step >= self._next:
            self._next += self._every_steps
            writer = self._writer("steps", state)
            assert state.loss is not None
            writer.add_scalar("loss", state.loss.item(), state.step)
            for name, group in state.groups.items():
                if group.lr_by == "step":
                    writer.add_scalar(f"lr/{name}", group.lr, state.step)

    def on_validation_end(self, state: State) -> None:
        """Inside an epoch, keep a split's values; an interrupted evaluation is repeated as a whole."""
        if not state.closing:
            own = {name: value for name, value in state.metrics.items() if name.startswith(f"{state.split}/")}
            self._evaluated |= own

    def on_picture(self, state: State) -> None:
        """Write pictures over the step if they are made inside an epoch."""
        if not state.closing:
            for name, image_HWC in state.pictures.items():
                self._writer("steps", state).add_image(name, image_HWC, state.step, dataformats="HWC")

    def on_epoch_end(self, state: State) -> None:
        """Write the epoch's values and pictures."""
        for name, value in state.metrics.items():
            split, _, rest = name.partition("/")
            if split == "lr" or not rest:
                self._writer("train", state).add_scalar(name, value, state.epoch)
            else:
                self._writer(split, state).add_scalar(rest, value, state.epoch)
        self._writer("train", state).add_scalar(
            "share_of_waiting_for_data", share_of_waiting(state.seconds), state.epoch
        )
        self._pictures(state, state.epoch)

    def on_checkpoint(self, state: State) -> None:
        """Write the values of a whole evaluation inside an epoch over the step, and bring everything to the disk."""
        if state.evaluated_step == state.step:
            for name, value in self._evaluated.items():
                self._writer("steps", state).add_scalar(name, value, state.step)
        self._evaluated = {}
        for name, writer in self._writers.items():
            writer.flush()
            event_files.sync(state.folder / "tensorboard" / name)

    def on_run_end(self, state: State) -> None:
        """Write the last pictures, and close the writers."""
        self._pictures(state, max(state.epoch - 1, 0))
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _pictures(self, state: State, epoch: int) -> None:
        for name, image_HWC in state.pictures.items():
            self._writer("train", state).add_image(name, image_HWC, epoch, dataformats="HWC")

    def _writer(self, name: str, state: State) -> Any:
        if name not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            folder = state.folder / "tensorboard" / name
            event_files.order_before_now(folder)
            self._writers[name] = SummaryWriter(str(folder))
        return self._writers[name]
