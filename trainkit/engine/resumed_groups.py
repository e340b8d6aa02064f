"""Decides how the parameter groups of a checkpoint continue in a run, and asks where there are several ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainkit.engine.changes import watched_by
from trainkit.errors import RecipeError
from trainkit.groups.plan import GroupPlan, RunLength, plan_groups
from trainkit.groups.resuming import (
    CHOICES,
    Choice,
    ResumedGroup,
    ResumePoint,
    SavedGroup,
    is_ambiguous,
    rates_per_epoch,
    read_saved_group,
    resume_group,
)
from trainkit.recipe.group_epochs import declared_groups

if TYPE_CHECKING:
    from trainkit.contracts import Monitor
    from trainkit.engine.changes import Redefinitions
    from trainkit.engine.live_run import LiveRun
    from trainkit.recipe.root import Recipe


def ask_early(recipe: Recipe, then: Recipe, saved: Mapping[str, Any]) -> None:
    """Ask for ``on_extend`` before the data is opened, if the settings alone show that it is needed.

    Raises:
        RecipeError: ``on_extend`` must be given.
    """
    names = declared_groups(recipe)
    if names is not None and recipe.data == then.data:
        old = saved_groups(then, saved, {name: name if name in saved["groups"] else None for name in names})
        point = ResumePoint.of(saved, saved["steps_per_epoch"])
        length = RunLength.of(recipe.run, saved["steps_per_epoch"], saved["epoch"], saved["epoch_step"])
        resumed_groups(plan_groups(recipe, names, length), old, point, on_extend=None)


def resumed_groups(
    new: Mapping[str, GroupPlan],
    old: Mapping[str, SavedGroup | None],
    point: ResumePoint,
    on_extend: Choice | None,
) -> dict[str, ResumedGroup]:
    """Return how each group continues.

    Raises:
        RecipeError: ``on_extend`` must be given; the message shows the learning rates that each choice gives.
    """
    if on_extend is None:
        open_questions = [name for name in new if is_ambiguous(new[name], old[name], point)]
        if open_questions:
            raise RecipeError(_question(new, old, point, open_questions))
    choice: Choice = on_extend or "stretch"
    return {name: resume_group(plan, old[name], point, choice) for name, plan in new.items()}


def point_of(run: LiveRun, saved: Mapping[str, Any]) -> ResumePoint:
    """Return where a run continues from a checkpoint."""
    return ResumePoint.of(saved, run.state.steps_per_epoch)


def saved_groups(
    then: Recipe, saved: Mapping[str, Any], names: Mapping[str, str | None]
) -> dict[str, SavedGroup | None]:
    """Return each group as it was saved in the checkpoint.

    Args:
        then: The checkpoint's recipe.
        saved: The checkpoint.
        names: Group -> its name in the checkpoint; None: it is not there.
    """
    length = RunLength.of(then.run, saved["steps_per_epoch"], saved["epoch"], saved["epoch_step"])
    written = plan_groups(then, dict.fromkeys(saved["groups"], True), length)
    return {
        name: None if before is None else read_saved_group(written[before], saved["groups"][before])
        for name, before in names.items()
    }


def name_then(name: str, run: LiveRun, saved: Mapping[str, Any]) -> str | None:
    """Return a group's name in the checkpoint; a group with the same parameters is the same group."""
    if name in saved["groups"]:
        return name
    parameters = sorted(run.state.groups[name].parameters)
    same = (n for n, group in saved["groups"].items() if parameters and sorted(group["parameters"]) == parameters)
    return next(same, None)


def forgotten_memories(
    old: Mapping[str, SavedGroup | None], new: Mapping[str, GroupPlan], redefined: Redefinitions, monitor: Monitor
) -> Iterator[tuple[str, SavedGroup]]:
    """Yield the groups whose schedule remembers values that cannot be compared with those to come, without these.

    Args:
        old: Each group as it was saved.
        new: The groups' plans from now on.
        redefined: Which values mean something else.
        monitor: The monitor of the checkpoint's recipe.
    """
    for name, group in old.items():
        if group is None or not group.memory:
            continue
        now = next((phase.scheduler for phase in new[name].phases if phase.name == group.phase.name), None)
        if type(now) is not type(group.phase.scheduler):
            continue  # a schedule of another class begins without a memory
        before, after = watched_by(group.phase.scheduler, monitor), watched_by(now, redefined.recipe.monitor)
        if before != after or any(redefined.why(value) for value, _ in after):
            yield name, group._replace(memory=now.forget(group.memory))


def _question(
    new: Mapping[str, GroupPlan], old: Mapping[str, SavedGroup | None], point: ResumePoint, names: Sequence[str]
) -> str:
    meaning = {
        "stretch": "as if the new length or schedule had been used from the beginning",
        "hold": "the old curve, then its last value; a new schedule starts at the current rate",
        "restart": "the recipe's rate and schedule from the beginning, over the remaining epochs",
    }
    lines = [
        "the run's length or a schedule has changed, and the learning rates can continue in three ways; choose one:"
    ]
    for choice in CHOICES:
        rates = []
        for name in names:
            lr = rates_per_epoch(resume_group(new[name], old[name], point, choice), point)
            rates.append(f"{name} {lr[0]:.4g} now, {lr[-1]:.4g} at the end")
        lines.append(f"  --on-extend {choice:8} {'; '.join(rates)}   ({meaning[choice]})")
    return "\n".join(lines)
