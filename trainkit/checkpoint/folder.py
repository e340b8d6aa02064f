"""Manages the checkpoints of one run: their names, the newest, the best, and which are kept."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trainkit.checkpoint.file import read, read_header, write
from trainkit.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from trainkit.contracts import Monitor

_NAME = re.compile(r"(epoch|step)-(\d{4,})\.safetensors")


class Position(NamedTuple):
    """How far a run was when a checkpoint was written; a later position is greater.

    Attributes:
        step: Number of finished optimizer steps.
        epoch: Number of finished epochs.
    """

    step: int
    epoch: int


class Best(NamedTuple):
    """A checkpoint that is kept because its monitored value is among the best.

    Attributes:
        value: The monitored value.
        epoch: Number of finished epochs.
        step: Number of finished optimizer steps if the checkpoint is inside an epoch; None: at the epoch's end.
    """

    value: float
    epoch: int
    step: int | None = None

    @property
    def file_name(self) -> str:
        """Name of the checkpoint's file."""
        return file_name(self.epoch, self.step)


def file_name(epoch: int, step: int | None = None) -> str:
    """Return the file name of the checkpoint after ``epoch`` epochs, or inside an epoch after ``step`` steps.

    Example:
        >>> file_name(3), file_name(3, 123)
        ('epoch-0003.safetensors', 'step-00000123.safetensors')
    """
    return f"epoch-{epoch:04d}.safetensors" if step is None else f"step-{step:08d}.safetensors"


class CheckpointFolder:
    """The folder that holds the checkpoints of a run. Files with other names are left alone.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._positions: dict[str, Position] = {}

    def files(self) -> list[Path]:
        """Return the checkpoints, sorted by name."""
        return sorted(path for path in self.path.glob("*-*.safetensors") if _NAME.fullmatch(path.name))

    def write(self, content: Mapping[str, Any]) -> Path:
        """Write a checkpoint under the name for its position, and return the file.

        Raises:
            CheckpointError: The file cannot be written.
        """
        inside = content["step"] > content["epoch_step"]
        path = self.path / file_name(content["epoch"], content["step"] if inside else None)
        write(path, content)
        self._positions[path.name] = Position(content["step"], content["epoch"])
        return path

    def newest_good(self, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
        """Return the newest undamaged checkpoint, the one with the most finished steps, and its content.

        Args:
            say: Called with a message for each file that is skipped.

        Raises:
            CheckpointError: The folder has no undamaged checkpoint.
        """
        for path in self._newest_first(say):
            try:
                return path, read(path)
            except CheckpointError as error:
                say(f"skipped: {error}")
        raise CheckpointError(
            f"{self.path} has no good checkpoint to resume from; start the run again, or give another folder"
        )

    def at_epoch(self, epoch: int) -> Path:
        """Return the checkpoint after ``epoch`` finished epochs.

        Raises:
            CheckpointError: There is none; the message lists those that exist.
        """
        path = self.path / file_name(epoch)
        if not path.is_file():
            epochs = [int(each.stem.partition("-")[2]) for each in self.files() if each.name.startswith("epoch")]
            raise CheckpointError(
                f"{self.path} has no checkpoint after {epoch} finished epochs; it has checkpoints after: "
                f"{', '.join(map(str, sorted(epochs))) or 'none'}. "
                "([checkpoint] keep_last and keep_every set which are kept)"
            )
        return path

    def has_later(self, file: Path, content: Mapping[str, Any]) -> bool:
        """Return whether the run has a readable checkpoint that is newer than the given one."""
        position = Position(content["step"], content["epoch"])
        for other in self.files():
            try:
                if other.name != file.name and self._position(other) > position:
                    return True
            except CheckpointError:
                continue  # a damaged file does not count
        return False

    def prune(self, keep_last: int, keep_every: int, best: Sequence[Best], newest: Path) -> None:
        """Remove the checkpoints that the settings do not keep.

        Args:
            keep_last: Number of the newest checkpoints to keep.
            keep_every: Keep those whose number of epochs is divisible by it; 0: none.
            best: The best checkpoints, which are kept.
            newest: The checkpoint that was just written, which is kept.
        """
        kept = {each.file_name for each in best} | {newest.name}
        kept |= {path.name for path in self._newest_first(lambda _: None)[:keep_last]}
        for path in self.files():
            kind, _, number = path.stem.partition("-")
            regular = kind == "epoch" and keep_every > 0 and int(number) % keep_every == 0
            if path.name not in kept and path.name in self._positions and not regular:
                path.unlink(missing_ok=True)

    def _newest_first(self, say: Callable[[str], None]) -> list[Path]:
        positions: dict[Path, Position] = {}
        for path in self.files():
            try:
                positions[path] = self._position(path)
            except CheckpointError as error:
                say(f"skipped: {error}")
        return sorted(positions, key=lambda path: (positions[path], path.name.startswith("epoch")), reverse=True)

    def _position(self, path: Path) -> Position:
        """Return the position of a checkpoint; its header is read only once.

        Raises:
            CheckpointError: The file cannot be read, or it was not written by a training run.
        """
        if path.name not in self._positions:
            header = read_header(path)
            step, epoch = header.get("step"), header.get("epoch", 0)
            if type(step) is not int or type(epoch) is not int:
                raise CheckpointError(f'{path} has no number of steps under "step": it was not written by a run')
            self._positions[path.name] = Position(step, epoch)
        return self._positions[path.name]


class BestValues:
    """Ranks the checkpoints of a run by the monitored value.

    Args:
        monitor: Decides which value is better.
        num: Number of best checkpoints to remember.
    """

    def __init__(self, monitor: Monitor, num: int) -> None:
        self._monitor, self._num = monitor, num
        self.ranked: list[Best] = []

    def take_in(self, new: Best) -> None:
        """Rank a new checkpoint; it is ignored if its value is not finite."""
        if math.isfinite(new.value):
            place = next(
                (i for i, old in enumerate(self.ranked) if self._monitor.better(new.value, old.value)), len(self.ranked)
            )
            self.ranked.insert(place, new)
            del self.ranked[self._num :]

    def state(self) -> list[list[Any]]:
        """Return the ranking as JSON values."""
        return [list(each) for each in self.ranked]

    def restore(self, saved: Sequence[Sequence[Any]]) -> None:
        """Restore what `state` returned."""
        self.ranked = [Best(*each) for each in saved if math.isfinite(each[0])][: self._num]
