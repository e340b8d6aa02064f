"""What a data component says when it looks at its data, as text."""

from __future__ import annotations

import pytest

from trainkit import Data, DataError, Depth, Problem, Recipe


def inspected(data: Data, depth: Depth = "all", recipe: Recipe | None = None) -> list[str]:
    """Return the lines of ``check --data``, doubts as "warning: …"; data that needs no recipe can go without one."""
    seen = data.inspect(recipe, depth)  # type: ignore[arg-type]
    said = [f"{each.severity}: {each.message}" if isinstance(each, Problem) else each for each in seen]
    return [each for each in said if isinstance(each, str)]


def refusal(data: Data) -> str:
    """Return the error with which ``check --data`` refuses the data."""
    with pytest.raises(DataError) as caught:
        inspected(data)
    return str(caught.value)
