"""Manages the checkpoints of one run: their names, the newest, the best, and which are kept."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trainkit.checkpoint.file import Prepared, prepare, read, read_header
from trainkit.errors import CheckpointError
from trainkit.files.writing import SET_ASIDE, is_unfinished, remove_unfinished, set_aside, sync_folder, written_whole

if TYPE_CHECKING:
    from pathlib import Path

    from trainkit.contracts import Monitor

_LOGGER = logging.getLogger("trainkit")
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
    """The folder that holds the checkpoints of a run.

    A checkpoint of the run is a regular file whose name is the one that `file_name` gives for its content, and which
    was written by this run. All else in the folder (copies, folders, links that lead nowhere, checkpoints of others) is
    named in messages and left alone. The order of checkpoints is that of their steps; times of files are never used.

    To find the newest, the names are listed, and only as many headers are read as are needed to decide between
    checkpoints of epochs and of steps. After that, the folder remembers what it wrote, and lists nothing again.

    Args:
        path: The folder.
        run_id: The run whose checkpoints it holds; None: unknown, so that checkpoints of every run count.

    Attributes:
        adopted: Names of checkpoints that another run wrote, and that are here only as long as they are among the best.
    """

    def __init__(self, path: Path, run_id: str | None = None) -> None:
        self.path = path
        self._run_id = run_id
        self.adopted: set[str] = set()
        self._cleaned = self._failed_to_remove = False
        self._last: list[str] | None = None  # names of the newest checkpoints, the newest at the end
        self._removable: set[str] = set()  # names of older ones that are kept only as long as they are among the best

    def files(self) -> list[Path]:
        """Return the files that are named like checkpoints, sorted by name."""
        return sorted(path for path in self._named_like_checkpoints() if path.is_file())

    def others(self) -> list[str]:
        """Return, in words, what lies among the checkpoints without being one."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                is_file, path = entry.is_file(), self.path / entry.name
                known = _NAME.fullmatch(entry.name) or SET_ASIDE in entry.name or is_unfinished(path)
                if not (is_file and known):
                    found.append(entry.name if is_file else f"{entry.name} ({_kind_of(path)})")
        return sorted(found)

    def prepare(self, content: Mapping[str, Any]) -> Prepared:
        """Return a checkpoint that can be written under the name for its position.

        Raises:
            CheckpointError: The content cannot be saved.
        """
        inside = content["step"] > content["epoch_step"]
        path = self.path / file_name(content["epoch"], content["step"] if inside else None)
        if not self._cleaned:
            remove_unfinished(self.path)  # of processes that were killed
            self._cleaned = True
        if os.path.lexists(path) and not self._is_ours(path):
            _LOGGER.warning("%s is not of this run; it is set aside as %s", path, set_aside(path).name)
        return prepare(path, content)

    def adopt(self, file: Path) -> None:
        """Make the checkpoint of another run a file of this folder as well, without a copy where that is possible."""
        own = self.path / file.name
        try:
            os.link(file, own)
        except FileExistsError:
            return
        except OSError:  # the folders are on different file systems
            with written_whole(own) as new:
                shutil.copyfile(file, new)
        else:
            sync_folder(self.path)

    def holds(self, best: Best) -> bool:
        """Return whether a checkpoint with this place and value is in the folder, whichever run wrote it."""
        path = self.path / best.file_name
        try:
            metrics = read_header(path).get("metrics") if path.is_file() else None
        except CheckpointError:
            return False
        return isinstance(metrics, Mapping) and best.value in metrics.values()

    def keep_while_best(self, names: Iterable[str], best: Sequence[Best]) -> None:
        """Remove adopted checkpoints that are not among the best; `prune` removes the others once they are not.

        Args:
            names: Of checkpoints that may have been adopted, by this process or an earlier one.
            best: The best checkpoints, which are kept.
        """
        paths = {name: self.path / name for name in names if _NAME.fullmatch(name)}  # no file of another folder
        self.adopted = {name for name, path in paths.items() if path.is_file() and not self._is_ours(path)}
        self._remove(self.adopted - {each.file_name for each in best})

    def newest_good(
        self,
        say: Callable[[str], None],
        *,
        reader: Callable[[Path], dict[str, Any]] = read,
        set_damaged_aside: bool = False,
    ) -> tuple[Path, dict[str, Any]]:
        """Return the newest undamaged checkpoint, the one with the most finished steps, and its content.

        Args:
            say: Called with a message for each file that is skipped.
            reader: Reads a file, and refuses one that is not good.
            set_damaged_aside: Whether damaged files that are newer than the returned one are renamed, so that the run
                can continue in its folder. Only the process that has locked the run folder may ask for this.

        Raises:
            CheckpointError: The folder has no undamaged checkpoint.
        """
        damaged: list[tuple[Path, CheckpointError]] = []

        def skip(path: Path, error: CheckpointError) -> None:
            if isinstance(error, _OtherRunError):
                say(f"left alone: {error}")
            else:
                damaged.append((path, error))

        found: tuple[Path, dict[str, Any]] | None = None
        for path, _ in self._newest_first(skip):
            try:
                found = path, reader(path)
                break
            except CheckpointError as error:
                skip(path, error)
        for path, why in damaged:
            aside = f"; it is kept as {set_aside(path).name}" if found and set_damaged_aside else ""
            say(f"skipped: {why}{aside}")
        if found is None:
            raise CheckpointError(
                f"{self.path} has no good checkpoint to resume from; start the run again, or give another folder"
            )
        return found

    def has_none_of_this_run(self) -> bool:
        """Return whether the run has not written a checkpoint yet; others, such as its parent's best, may be there."""
        for path in self.files():
            try:
                self._position(path)
            except _OtherRunError:
                continue
            except CheckpointError:
                pass  # it is damaged, and may be of this run
            return False
        return True

    def newest_header(self) -> dict[str, Any] | None:
        """Return the header of the newest checkpoint, which may still be damaged; None: there is no checkpoint."""
        for path, _ in self._newest_first(lambda path, error: None):
            return read_header(path)
        return None

    def in_order(self) -> list[Path]:
        """Return the checkpoints whose headers can be read, the one with the most finished steps at the end."""
        return [path for path, _ in self._newest_first(lambda path, error: None)][::-1]

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

    def prune(self, keep_last: int, keep_every: int, best: Sequence[Best], newest: Path) -> None:
        """Remove the checkpoints that the settings do not keep; one that cannot be removed is said, and stays.

        Args:
            keep_last: Number of the newest checkpoints to keep.
            keep_every: Keep those whose number of epochs is divisible by it; 0: none.
            best: The best checkpoints, which are kept.
            newest: The checkpoint that was just written, which is kept.
        """

        def is_regular(name: str) -> bool:
            kind, _, number = name.removesuffix(".safetensors").partition("-")
            return kind == "epoch" and keep_every > 0 and int(number) % keep_every == 0

        if self._last is None:  # the first time in this process: what earlier starts of the run have left
            ordered = self._newest_first(lambda path, error: None)
            self._last = [path.name for path, _ in itertools.islice(ordered, min(keep_last + 1, sys.maxsize))][::-1]
            for path in self._named_like_checkpoints():
                if path.name not in self._last and not is_regular(path.name) and self._is_ours(path):
                    self._removable.add(path.name)
        self._last = [name for name in self._last if name != newest.name] + [newest.name]
        while len(self._last) > keep_last:
            name = self._last.pop(0)
            if not is_regular(name):
                self._removable.add(name)
        self._remove((self._removable | self.adopted) - {each.file_name for each in best} - {newest.name})

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._removable.discard(name)
            self.adopted.discard(name)
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                if not self._failed_to_remove:
                    _LOGGER.warning("an old checkpoint cannot be removed (%s); the run goes on", error)
                self._failed_to_remove = True

    def _newest_first(self, skip: Callable[[Path, CheckpointError], None]) -> Iterator[tuple[Path, Position]]:
        """Yield the run's checkpoints whose header can be read; ``skip`` is called for others that come before."""
        left: dict[str, list[tuple[int, Path]]] = {"epoch": [], "step": []}
        for path in self._named_like_checkpoints():
            kind, _, number = path.stem.partition("-")
            left[kind].append((int(number), path))
        first: dict[str, tuple[Position, Path]] = {}
        for paths in left.values():
            paths.sort()
        while True:
            for kind, paths in left.items():
                while kind not in first and paths:
                    path = paths.pop()[1]
                    if not path.is_file():
                        continue
                    try:
                        first[kind] = self._position(path), path
                    except CheckpointError as error:
                        skip(path, error)
            if not first:
                return
            position, path = first.pop(max(first, key=lambda kind: (first[kind][0], kind == "epoch")))
            yield path, position

    def _position(self, path: Path) -> Position:
        """Return the position of a checkpoint of this run, from its header.

        Raises:
            CheckpointError: The file cannot be read, or it was not written by a training run.
            _OtherRunError: Another run wrote it, or it was renamed.
        """
        header = read_header(path)
        step, epoch = header.get("step"), header.get("epoch", 0)
        if type(step) is not int or type(epoch) is not int:
            raise CheckpointError(f'{path} has no number of steps under "step": it was not written by a run')
        kind, _, number = path.stem.partition("-")
        if int(number) != (step if kind == "step" else header.get("epoch", int(number))):
            raise _OtherRunError(f"{path} was renamed: it is the checkpoint after {epoch} epochs and {step} steps")
        writer = run_id_of(header)
        if self._run_id is not None and writer is not None and writer != self._run_id:
            raise _OtherRunError(f"{path} is a checkpoint of another run, {writer}")
        return Position(step, epoch)

    def _is_ours(self, path: Path) -> bool:
        if not path.is_file():  # a named pipe, for example, would never answer
            return False
        try:
            self._position(path)
        except CheckpointError:
            return False
        return True

    def _named_like_checkpoints(self) -> list[Path]:
        if not self.path.is_dir():
            return []
        return [self.path / name for name in os.listdir(self.path) if _NAME.fullmatch(name)]


class _OtherRunError(CheckpointError):
    """A file has the name of a checkpoint, and is good, but belongs elsewhere."""


def run_id_of(content: Mapping[str, Any]) -> str | None:
    """Return the id of the run that wrote a checkpoint; None: an older version of trainkit wrote it."""
    run = content.get("run")
    found = run.get("id") if isinstance(run, Mapping) else None
    return found if isinstance(found, str) else None


def _kind_of(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "a link that leads nowhere"
    if path.is_dir():
        return "a folder"
    if not path.exists():
        return "nothing"
    return "file" if path.is_file() else "a special file"


class BestValues:
    """Ranks the checkpoints of a run by the monitored value.

    Args:
        monitor: Decides which value is better.
        num: Number of best checkpoints to remember.
    """

    def __init__(self, monitor: Monitor, num: int) -> None:
        self._monitor, self._num = monitor, num
        self.ranked: list[Best] = []

    def would_rank(self, value: float) -> bool:
        """Return whether a value would be among the best."""
        return self._place(value) < self._num

    def would_lead(self, value: float) -> bool:
        """Return whether a value would be the best."""
        return self._num > 0 and self._place(value) == 0

    def take_in(self, new: Best) -> None:
        """Rank a new checkpoint; it is ignored if its value is not finite."""
        if self.would_rank(new.value):
            self.ranked.insert(self._place(new.value), new)
        del self.ranked[self._num :]

    def _place(self, value: float) -> int:
        if not self._monitor.better(value, None):
            return self._num
        better = (i for i, old in enumerate(self.ranked) if self._monitor.better(value, old.value))
        return next(better, len(self.ranked))

    def state(self) -> list[list[Any]]:
        """Return the ranking as JSON values."""
        return [list(each) for each in self.ranked]

    def restore(self, saved: Sequence[Sequence[Any]]) -> None:
        """Restore what `state` returned."""
        self.ranked = [Best(*each) for each in saved if self._monitor.better(each[0], None)][: self._num]
