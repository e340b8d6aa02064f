"""Writes the recipe of the best trial of a search, with comments that say how it was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainkit.engine.tuning.table import in_short
from trainkit.recipe.positions import positions
from trainkit.recipe.resolve import varied, write
from trainkit.recipe.search import Parameter

if TYPE_CHECKING:
    from trainkit.contracts import Monitor
    from trainkit.engine.tuning.records import TrialRecord
    from trainkit.recipe.resolve import Resolved
    from trainkit.recipe.search import SearchSpace


def best_recipe(
    best: TrialRecord,
    records: Sequence[TrialRecord],
    resolved: Resolved,
    space: SearchSpace,
    judged_by: Sequence[Monitor],
) -> str:
    """Return the recipe of a trial as TOML: the whole recipe, without ``[search]``, under the name of the original one.

    Args:
        best: The trial.
        records: All trials.
        resolved: The recipe that was searched.
        space: What was searched.
        judged_by: The values by which trials were judged.
    """

    def choose(parameter: Parameter) -> Any:
        value = best.parameters[parameter.name]
        return parameter.labels.index(value) if parameter.kind == "choice" else value

    found, values = varied(resolved, space.parameters, choose, {})
    text = write(found.tree)
    return "\n".join([*_head(best, records, resolved, space, judged_by, values), *_marked(text, space, values)])


def _head(
    best: TrialRecord,
    records: Sequence[TrialRecord],
    resolved: Resolved,
    space: SearchSpace,
    judged_by: Sequence[Monitor],
    values: dict[str, str],
) -> list[str]:
    reached = ", ".join(f"{j.metric} {v:.6g} ({j.mode})" for j, v in zip(judged_by, best.values or (), strict=True))
    after = f" after {best.epoch} of {best.epochs} epochs" if best.epoch is not None else ""
    which = "The best recipe" if len(judged_by) == 1 else "A recipe on the Pareto front"
    lines = [f"{which} of a search by trainkit tune: trial {best.number}, {reached}{after}."]
    lines.append(
        f"Searched: {resolved.source}. Trials: {in_short(records)}. Seed of the proposals: {space.settings.seed}."
    )
    lines += [
        f"Its run: {best.folder}",
        "",
        "Searched keys, the value of this trial, and the values that were searched:",
    ]
    width = max(len(each.name) for each in space.parameters)
    for each in space.parameters:
        value = values.get(each.name, "as in the recipe: its condition was not met")
        lines.append(f"  {each.name:{width}} = {value}    ({each.in_words})")
    lines += [f"Doubtful: {doubt}" for doubt in best.doubts]
    return [*(f"# {_in_one_line(line)}".rstrip() for line in lines), ""]


def _marked(text: str, space: SearchSpace, values: dict[str, str]) -> list[str]:
    """Return the lines of a recipe, those of searched keys with a comment."""
    lines = text.split("\n")
    places = positions(text)
    for each in space.parameters:
        if each.name in values and (spans := places.get(each.where)) is not None:
            number = text.count("\n", 0, spans.value[1])
            lines[number] += f"  # searched: {_in_one_line(each.in_words)}"
    return lines


def _in_one_line(text: str) -> str:
    """Return a text as it can stand in a comment."""
    return "".join(char if char.isprintable() else " " for char in text)
