"""Finds the first epoch or step at which the numbers of two runs differ: of their values, and of their checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from trainkit.checkpoint.differences import TensorDifferences, tensor_differences
from trainkit.engine.identity import CHECKPOINTS
from trainkit.errors import CheckpointError
from trainkit.runs.record import RunRecord
from trainkit.runs.values import Place
from trainkit.words import some_of

_TIMES = ("time/", "memory/")  # values that differ between any two runs
_MOST_BYTES = 8 * 2**30


@attrs.frozen
class ValueDivergence:
    """Where the values of two runs begin to differ.

    Attributes:
        equal_to: Number of finished epochs up to which all values are equal; None: of no epoch are they.
        at: The place of the first difference; None: as far as both runs go, there is none.
        names: The values that differ there.
        values: The first of them, of each run; None stands for a value that is not finite or not there.
        why: What differs if it is no value.
    """

    equal_to: int | None
    at: Place | None = None
    names: Sequence[str] = ()
    values: tuple[float | None, float | None] = (None, None)
    why: str = ""

    def __str__(self) -> str:
        """Return it as a sentence."""
        equal = "no epoch is equal" if self.equal_to is None else f"the values are equal to epoch {self.equal_to}"
        if self.at is None:
            return "one has no values" if self.equal_to is None else f"{equal}, which is as far as both go"
        if self.why:
            return f"{equal}, then {self.why}"
        one, other = self.values
        more = f" (and {some_of(self.names[1:], most=4)})" if len(self.names) > 1 else ""
        start = "from the beginning," if self.equal_to is None else f"{equal}, then"
        return f"{start} {self.names[0]} differs at {self.at}: {one!r} and {other!r}{more}"


def value_divergence(one: RunRecord, other: RunRecord) -> ValueDivergence:
    """Return where the values of two runs begin to differ, to the last bit; times are not compared."""
    equal_to: int | None = None
    for (place, first), (there, second) in zip(one.values.lines, other.values.lines, strict=False):
        if place[:3] != there[:3]:
            return ValueDivergence(equal_to, place, why=f"the next values are of {place} and of {there}")
        names = [name for name in first if "/" in name and name in second and not name.startswith(_TIMES)]
        if all(name.startswith("lr/") for name in names):
            return ValueDivergence(equal_to, place, why=f"they have no value in common at {place}")
        differing = [name for name in names if repr(first[name]) != repr(second[name])]
        if differing:
            differing.sort(key=lambda name: (not name.endswith("/loss"), name.startswith("lr/")))
            name = differing[0]
            return ValueDivergence(equal_to, place, differing, (first[name], second[name]))
        if not place.inside:
            equal_to = place.epochs
    return ValueDivergence(equal_to)


@attrs.frozen
class CheckpointDivergence:
    """Where the checkpoints of two runs begin to differ.

    Attributes:
        equal: Names of the checkpoints that hold the same tensors, bit for bit.
        file: Name of the first that does not; None: there is none.
        differences: In which tensors.
        skipped: Why some were not compared: a sentence each.
    """

    equal: Sequence[str]
    file: str | None = None
    differences: TensorDifferences | None = None
    skipped: Sequence[str] = ()

    def lines(self) -> Iterator[str]:
        """Yield sentences about it."""
        if self.equal:
            yield f"equal to the bit (model, optimizers, random state): {some_of([_at(each) for each in self.equal])}"
        if self.file is not None and self.differences is not None:
            yield f"{_at(self.file)}: {self.differences}"
        if not self.equal and self.file is None:
            yield "no two are of the same epoch"
        yield from self.skipped


def checkpoint_divergence(one: RunRecord, other: RunRecord) -> CheckpointDivergence:
    """Return where the tensors begin to differ, of those checkpoints that both runs have kept."""
    folders = [run.folder / CHECKPOINTS for run in (one, other)]
    names = sorted({path.name for path in one.checkpoints.files()} & {path.name for path in other.checkpoints.files()})
    names.sort(key=lambda name: _steps(folders[0] / name))
    equal: list[str] = []
    skipped: list[str] = []
    size = 0
    for name in names:
        size += sum((folder / name).stat().st_size for folder in folders)
        if size > _MOST_BYTES:
            skipped.append(f"those from {_at(name)} on are not compared: together they have more than 8 GiB")
            break
        try:
            found = tensor_differences(*(folder / name for folder in folders))
        except CheckpointError as error:
            skipped.append(f"not compared: {error}")
            continue
        if found:
            return CheckpointDivergence(equal, name, found, skipped)
        equal.append(name)
    return CheckpointDivergence(equal, skipped=skipped)


def _steps(path: Path) -> Any:
    from trainkit.checkpoint.file import read_header

    try:
        header = read_header(path)
        return int(header["step"]), int(header["epoch"])
    except (CheckpointError, KeyError, TypeError, ValueError):
        return 0, 0


def _at(name: str) -> str:
    kind, _, number = name.removesuffix(".safetensors").partition("-")
    return f"{kind} {int(number)}"
