"""Puts runs in groups of the same name or sweep, and in each group every run below the one that it began from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from trainkit.engine.finding import RUNS
from trainkit.runs.record import RunRecord
from trainkit.runs.settings import NOT_SET, differing, same

_FEW = 2


class Branch(NamedTuple):
    """A run in the tree of a family.

    Attributes:
        run: The run.
        lines: What is drawn before it, for example "│ └ "; "" for a run that began at the beginning.
        below: What is drawn before further lines about it.
    """

    run: RunRecord
    lines: str
    below: str


class Family(NamedTuple):
    """Runs of one name, or of one sweep, search or cross-validation.

    Attributes:
        name: What they have in common.
        runs: The runs, in the order of their creation.
        differing: The settings that are not equal in all of them.
    """

    name: str
    runs: Sequence[RunRecord]
    differing: Sequence[str]

    @property
    def has_names(self) -> bool:
        """Whether its runs have several names."""
        return any(run.name != self.runs[0].name for run in self.runs)

    def told_apart_by(self, run: RunRecord) -> list[str]:
        """Return the settings that tell a run from the others.

        Where many settings differ, those in which it is as more than half of the runs are left out.
        """
        if len(self.differing) <= _FEW:
            return list(self.differing)
        own = {key: run.settings.get(key, NOT_SET) for key in self.differing}
        equal = {key: sum(same(each.settings.get(key, NOT_SET), own[key]) for each in self.runs) for key in own}
        return [key for key, number in equal.items() if 2 * number <= len(self.runs)]

    def tree(self) -> Iterator[Branch]:
        """Yield every run, each after the one that it began from."""
        ids = {run.id: run for run in self.runs}
        children: dict[str, list[RunRecord]] = {}
        roots = []
        for run in self.runs:
            above = run.parent.run if run.parent is not None else None
            if (
                above in ids
                and above is not None
                and above != run.id
                and ids[above].identity.created <= run.identity.created
            ):
                children.setdefault(above, []).append(run)
            else:
                roots.append(run)
        for root in roots:
            yield from _below(root, children, "", "", set())


def _below(
    run: RunRecord, children: dict[str, list[RunRecord]], lines: str, below: str, shown: set[str]
) -> Iterator[Branch]:
    if run.id in shown:
        return  # damaged records may name each other as parents
    shown.add(run.id)
    own = children.get(run.id, [])
    yield Branch(run, lines, below + ("│ " if own else "  "))
    for number, child in enumerate(own):
        last = number == len(own) - 1
        yield from _below(child, children, below + ("└ " if last else "├ "), below + ("  " if last else "│ "), shown)


def families(runs: Sequence[RunRecord], root: Path = RUNS) -> list[Family]:
    """Return runs in families; the one with the newest run is the last.

    Args:
        runs: The runs, in the order of their creation.
        root: The folder in which they were looked for; the runs of a name are in a folder of their own below it.
    """
    above = {root.resolve(), RUNS.resolve(), *root.resolve().parents}
    found: dict[Path, list[RunRecord]] = {}
    for run in runs:
        folder = run.folder.resolve().parent
        if folder.parent not in above and folder.parent.name.endswith(("_sweep", "_search", "folds")):
            folder = folder.parent
        found.setdefault(folder, []).append(run)
    ordered = sorted(found.items(), key=lambda item: item[1][-1].identity.created)
    return [Family(folder.name, members, differing([run.settings for run in members])) for folder, members in ordered]
