"""What a data component says when it looks at its data, as text."""

from __future__ import annotations

from trainkit import Data, Depth, Problem, Recipe


def inspected(data: Data, depth: Depth = "all", recipe: Recipe | None = None) -> list[str]:
    """Return the lines of ``check --data``, doubts as "warning: …"; data that needs no recipe can go without one."""
    seen = data.inspect(recipe, depth)  # type: ignore[arg-type]
    said = [f"{each.severity}: {each.message}" if isinstance(each, Problem) else each for each in seen]
    return [each for each in said if isinstance(each, str)]
