"""Findings: mistakes, warnings and notes about a recipe, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import attrs

from trainkit.errors import RecipeError
from trainkit.recipe.limits import MOST_MISTAKES
from trainkit.recipe.origin import Mark, Origin, dotted
from trainkit.recipe.positions import Where

Severity = Literal["error", "warning", "note"]

_WIDEST = 200
"""Characters of the longest line that is shown as a whole."""


@attrs.frozen
class Finding:
    """A mistake, a warning or a note about a recipe.

    Attributes:
        message: What is wrong and what is allowed, or what will happen.
        where: The place of the setting.
        severity: An "error" prevents a run from starting; the others are only shown.
        at: Whether the message is about the key or about its value.
        hint: What to do, for example "did you mean …".
        origin: Where the setting comes from; None until it was looked up.
    """

    message: str
    where: Where = ()
    severity: Severity = "error"
    at: Literal["key", "value"] = "value"
    hint: str = ""
    origin: Origin | None = None

    def located(self, origins: Mapping[Where, Origin], source: str) -> Finding:
        """Return the finding with its origin: that of the setting, or else of the nearest table around it.

        Args:
            origins: The origins of all keys and tables that are written in the recipe.
            source: The name of the recipe, for findings about nothing that is written in it.
        """
        if self.origin is not None:
            return self
        for length in range(len(self.where), -1, -1):
            origin = origins.get(self.where[:length])
            if origin is not None:
                exact = length == len(self.where)
                return attrs.evolve(self, origin=origin, at=self.at if exact else "key")
        return attrs.evolve(self, origin=Origin(source))

    @property
    def mark(self) -> Mark | None:
        """The part of the text that the finding is about; None if that is not in a file."""
        if self.origin is None:
            return None
        return self.origin.key if self.at == "key" else self.origin.value

    def __str__(self) -> str:
        """``file:line:column: severity: setting: message``, then the line, a line of carets, and the hint."""
        mark = self.mark
        place = [self.origin.source] if self.origin else []
        if mark:
            place[0] += f":{mark.line}:{mark.column}"
        lines = [": ".join([*place, self.severity, *([dotted(self.where)] if self.where else []), self.message])]
        if mark and mark.text.strip():
            line, column, width = _window(mark)
            indent = "".join("\t" if char == "\t" else " " for char in line[: column - 1])
            lines += [f"    {line}", f"    {indent}{'^' * width}"]
        if self.hint:
            lines.append(f"    {self.hint}")
        return "\n".join(lines)


def _window(mark: Mark) -> tuple[str, int, int]:
    """Return the part of a marked line that is shown, and the mark's column and width in it."""
    begin = max(mark.column - 1 - _WIDEST // 2, 0) if len(mark.text) > _WIDEST else 0
    text = mark.text[begin : begin + _WIDEST]
    column = mark.column - begin
    return text, column, max(min(mark.width, len(text) - column + 1), 1)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in the order of the files, without repetitions; those that have no line come last."""

    def position(finding: Finding) -> tuple[bool, str, int, int]:
        source = finding.origin.source if finding.origin else ""
        mark = finding.mark
        return (mark is None, source, mark.line if mark else 0, mark.column if mark else 0)

    return sorted(dict.fromkeys(findings), key=position)


class InvalidRecipe(RecipeError):  # noqa: N818 (the name says what is wrong)
    """A recipe has mistakes; the message shows all of them, or the first hundred.

    Attributes:
        findings: The mistakes, in the order of the files.
    """

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = in_order(findings)
        shown = [str(finding) for finding in self.findings[:MOST_MISTAKES]]
        more = len(self.findings) - len(shown)
        super().__init__("\n".join([*shown, f"… and {more} more mistakes"] if more else shown))
