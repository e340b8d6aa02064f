"""What `trainkit init` does between recognising data and writing a recipe."""

from __future__ import annotations

from collections.abc import Iterator

from trainkit import Figures, Planner, Problem, Progress, Recognised
from trainkit.recipe.recognised import looked_into


def planned(planner: Planner, found: Recognised) -> Iterator[str | Progress | Problem | Figures]:
    """Look into data, and plan for them."""
    for each in looked_into(found):
        if isinstance(each, Recognised):
            yield from planner.draft(each)
        else:
            yield each
