"""Looks at the data of a recipe, for ``check --data``: each component says what it sees, doubts, or refuses."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from trainkit.contracts import Component, Data, Depth, Problem, Progress
from trainkit.errors import TrainkitError
from trainkit.recipe.positions import Where
from trainkit.recipe.problems import Finding
from trainkit.recipe.resolve import Resolved
from trainkit.recipe.rules import describe_exception
from trainkit.recipe.tables import walk_settings


@attrs.frozen
class Inspection:
    """What was seen.

    Attributes:
        lines: A summary of the data.
        findings: What is wrong with the data, doubtful or worth knowing, with the place of the setting.
        failure: Why the look ended before it had seen everything; None: it saw everything.
    """

    lines: tuple[str, ...]
    findings: tuple[Finding, ...]
    failure: str | None = None

    @property
    def num_errors(self) -> int:
        """Number of reasons for which a run would refuse the data."""
        return sum(finding.severity == "error" for finding in self.findings) + (self.failure is not None)

    @property
    def num_doubts(self) -> int:
        """Number of warnings."""
        return sum(finding.severity == "warning" for finding in self.findings)


def inspect(resolved: Resolved, depth: Depth, show: Callable[[Progress], None]) -> Inspection:
    """Let every component look at the data, the data's own component first.

    Args:
        resolved: The recipe.
        depth: How closely to look.
        show: Is called with each progress.
    """
    lines: list[str] = []
    found: list[Finding] = []
    parts = [(where, part) for where, part, _ in walk_settings(resolved.recipe) if isinstance(part, Component)]
    parts.sort(key=lambda each: not isinstance(each[1], Data))
    failure = None
    for where, part in parts:
        try:
            for seen in part.inspect(resolved.recipe, depth):
                if isinstance(seen, Progress):
                    show(seen)
                elif isinstance(seen, Problem):
                    found.append(_finding(where, seen, resolved))
                else:
                    lines.append(seen)
        except Exception as error:
            failure = f"{'.'.join(map(str, where))}: {_words(error)}"
            break  # what the others would say rests on data that can be read
    return Inspection(tuple(lines), tuple(dict.fromkeys(found)), failure)


def _finding(where: Where, problem: Problem, resolved: Resolved) -> Finding:
    key = tuple(problem.key.split(".")) if problem.key else ()
    finding = Finding(problem.message, (*where, *key), problem.severity)
    return finding.located(resolved.origins, resolved.source)


def _words(error: Exception) -> str:
    if isinstance(error, TrainkitError | OSError):
        return str(error)
    return f"the component failed while it looked at the data: {describe_exception(error)}"
