"""What is known of the trials of a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs

from trainkit.contracts import Monitor

Became = Literal["running", "finished", "ended early", "failed"]


@attrs.frozen
class TrialRecord:
    """A trial, as the study has it.

    Attributes:
        number: Its number, counted from 0.
        became: What became of it.
        parameters: Searched key -> its value, or what its choice is called.
        values: The values by which it is judged, in the order of the objectives; None: there are none.
        reached: The value that it had before it ended early; None: there is none.
        reason: Why it failed or ended early; "": it did not.
        doubts: Why its result is doubtful.
        folder: Its run folder, relative to that of the search; "": it has none.
        epochs: Number of epochs that it finished.
        epoch: Number of finished epochs at the value that counts; None: not known.
        seconds: For how long it trained.
        same_as: The number of the trial with the same recipe, whose values it took over; None: it was trained itself.
    """

    number: int
    became: Became
    parameters: Mapping[str, Any]
    values: tuple[float, ...] | None = None
    reached: float | None = None
    reason: str = ""
    doubts: tuple[str, ...] = ()
    folder: str = ""
    epochs: int = 0
    epoch: int | None = None
    seconds: float = 0.0
    same_as: int | None = None


def best_trials(records: Iterable[TrialRecord], judged_by: Sequence[Monitor]) -> list[TrialRecord]:
    """Return the finished trials that no other one beats: the best, or with several objectives the Pareto front.

    Args:
        records: The trials.
        judged_by: The objectives.
    """
    signs = [1.0 if each.mode == "min" else -1.0 for each in judged_by]
    costs = {
        each.number: tuple(sign * value for sign, value in zip(signs, each.values, strict=True))
        for each in records
        if each.became == "finished" and each.values is not None
    }
    front = [
        each
        for each in records
        if each.number in costs
        and not any(_beats(other, costs[each.number]) for other in costs.values())
        and (each.same_as is None or each.same_as not in costs)
    ]
    front.sort(key=lambda each: (costs[each.number], each.number))
    return front[:1] if len(signs) == 1 else front


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
