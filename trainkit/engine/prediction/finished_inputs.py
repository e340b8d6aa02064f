"""Remembers which inputs are predicted, so that a prediction that was stopped goes on where it was.

    OUT/case_7.nii.gz …              results, moved here once they are complete and on the disk
    OUT/.trainkit/case_7.json        what case_7 was predicted from (digests of its files and of the weights, and the
                                     settings), and the files of its result
    OUT/.trainkit/case_7.new-…/      results that are being written
    OUT/.trainkit/log.txt            messages, and the tracebacks of what failed

Each input has a file of its own, so several processes can fill one folder. The file is written before the results are
moved, and once more after that: a process that is killed in between leaves no result that nobody knows of.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from trainkit.errors import DataError
from trainkit.files.facts import file_digest
from trainkit.files.writing import make_folder, sync_folder, written_whole

HIDDEN = ".trainkit"
_FORMAT = 1


@attrs.frozen
class Origin:
    """What a result is predicted from.

    Attributes:
        inputs: Name of each file -> its digest.
        weights: Digest of the weights of each model.
        settings: The settings that the result depends on.
    """

    inputs: Mapping[str, str]
    weights: tuple[str, ...]
    settings: Mapping[str, Any]

    def difference(self, other: Origin) -> str | None:
        """Return how this one differs from another one, in words; None: it does not."""
        parts = (
            ("another input", self.inputs != other.inputs),
            ("other weights", self.weights != other.weights),
            ("other settings", self.settings != other.settings),
        )
        return " and ".join(what for what, differs in parts if differs) or None


@attrs.frozen
class Record:
    """What is known of a result.

    Attributes:
        origin: What it was predicted from.
        files: Its files, relative to the folder of results, and their sizes in bytes.
        finished: Whether all of them were moved to their places.
    """

    origin: Origin
    files: Mapping[str, int]
    finished: bool


def origin_of(files: Sequence[Path], weights: tuple[str, ...], settings: Mapping[str, Any]) -> Origin:
    """Return what the result of an input depends on.

    Raises:
        DataError: A file cannot be read.
    """
    digests: dict[str, str] = {}
    for path in files:
        name = path.name if path.name not in digests else str(path)
        digests[name] = file_digest(path)
    return Origin(digests, weights, json.loads(json.dumps(settings, default=str)))


class FinishedInputs:
    """The folder of results.

    Args:
        folder: The folder; it is made.

    Raises:
        DataError: It cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hidden = folder / HIDDEN
        try:
            make_folder(self._hidden)
        except OSError as error:
            raise DataError(f"{folder} cannot be written: {error.strerror or error}; give another folder") from error

    @property
    def log(self) -> Path:
        """The file of messages."""
        return self._hidden / "log.txt"

    def record(self, name: str) -> Record | None:
        """Return what is known of the result of an input; None: nothing, or it was damaged."""
        try:
            content = json.loads((self._hidden / f"{name}.json").read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                return None
            origin = Origin(dict(content["inputs"]), tuple(content["weights"]), dict(content["settings"]))
            files = {str(file): int(size) for file, size in content["files"].items()}
            return Record(origin, files, content["finished"] is True)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def what_is_missing(self, name: str, record: Record) -> str | None:
        """Return which file of a finished result is not there as it was written; None: all are."""
        for file, size in record.files.items():
            path = self.folder / file
            if not path.is_file():
                return f"{file} is not there any more"
            if path.stat().st_size != size:
                return f"{file} is not as it was written"
        return None if record.finished else "it was stopped while its result was moved"

    def workspace(self, name: str) -> Path:
        """Return a new, empty folder to write the result of an input to; what was left of earlier tries is removed."""
        for left in self._hidden.iterdir():
            if left.name.startswith(f"{name}.new-") and left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        space = self._hidden / f"{name}.new-{os.urandom(4).hex()}"
        space.mkdir()
        return space

    def publish(self, name: str, workspace: Path, origin: Origin) -> tuple[Path, ...]:
        """Move a result to its place; when this returns, it is on the disk, and known as finished.

        Args:
            name: The input.
            workspace: The folder that holds its result, from `workspace`.
            origin: What it was predicted from.

        Raises:
            DataError: The place of a file is taken by one that was not predicted from this input.
            OSError: The folder cannot be written.
        """
        written = sorted(path.relative_to(workspace) for path in workspace.rglob("*") if path.is_file())
        before = self.record(name)
        known = before.files if before is not None else {}
        for file in written:
            if os.path.lexists(self.folder / file) and str(file) not in known:
                raise DataError(
                    f"{self.folder / file} is there already, and was not predicted from this input; it is left as it "
                    "is. Give another folder"
                )
        for file in written:
            with (workspace / file).open("rb") as stream:
                os.fsync(stream.fileno())
        sizes = {str(file): (workspace / file).stat().st_size for file in written}
        self._write(name, Record(origin, {**known, **sizes}, finished=False))
        for file in written:
            make_folder((self.folder / file).parent)
            os.replace(workspace / file, self.folder / file)
        for parent in {(self.folder / file).parent for file in written}:
            sync_folder(parent)
        for stale in known.keys() - sizes.keys():  # such as the probabilities, if they are not asked for any more
            (self.folder / stale).unlink(missing_ok=True)
        self._write(name, Record(origin, sizes, finished=True))
        shutil.rmtree(workspace, ignore_errors=True)
        return tuple(self.folder / file for file in written)

    def _write(self, name: str, record: Record) -> None:
        content = {"format": _FORMAT, **attrs.asdict(record.origin), "files": record.files, "finished": record.finished}
        with written_whole(self._hidden / f"{name}.json") as new:
            new.write_text(json.dumps(content, indent=1), encoding="utf-8")
