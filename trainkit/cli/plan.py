"""``trainkit plan``: shows when each group trains and at which learning rate, without data or GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainkit.cli import completion
from trainkit.cli.options import GPU_MEMORY, JSON, PROCESSES, SETS
from trainkit.cli.output import echo, echo_json
from trainkit.errors import RecipeError
from trainkit.recipe.root import ASSUMED_STEPS_PER_EPOCH, MOST_EPOCHS, PICTURES_EVERY_EPOCHS, PICTURES_SHARE
from trainkit.recipe.search import cost_in_words as search_cost
from trainkit.recipe.weight_search import cost_in_words
from trainkit.words import after_epochs, some_of

if TYPE_CHECKING:
    from trainkit.groups.plan import GroupPlan, RunLength
    from trainkit.recipe.resolve import Resolved
    from trainkit.recipe.root import Recipe


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit plan recipes/ptycho_staged.toml\n"
    "  trainkit plan my_recipe.toml --set run.steps=5000 --steps-per-epoch 250\n"
    "  trainkit plan my_recipe.toml --processes 8 --gpu-memory 24GB\n"
    "  trainkit plan my_recipe.toml --png plan.png"
)
@click.argument("recipe", type=click.Path(path_type=Path), shell_complete=completion.recipes)
@SETS
@click.option(
    "--steps-per-epoch",
    "steps",
    type=click.IntRange(min=1),
    show_default=f"{ASSUMED_STEPS_PER_EPOCH}; with --processes, what the data say",
    help="Optimizer steps of an epoch to assume, since the data is not opened.",
)
@PROCESSES
@GPU_MEMORY
@click.option(
    "--png",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw the learning rate of each group over the epochs, and when it trains.",
)
@JSON
def command(
    recipe: Path,
    sets: tuple[str, ...],
    steps: int | None,
    processes: int | None,
    gpu_memory: float | None,
    png: Path | None,
    as_json: bool,
) -> None:
    """Show for every epoch of RECIPE which groups train, and at which learning rate.

    A row says what holds when so many epochs are finished, as `start_epoch` counts them. An epoch in which nothing
    changes is left out. A schedule that depends on metrics is shown as if it never reduced
    the learning rate. Of a recipe with a table [sweep], the runs are listed, and each plan is shown once.

    With --processes or --gpu-memory, headers of the data are read, and the share of each process is shown: its batch,
    an estimate of its memory, and the steps of an epoch.
    """
    from trainkit.recipe.resolve import resolve_each
    from trainkit.recipe.sweep import sweep_table

    runs = resolve_each(recipe, sets)
    shares: dict[str, list[str]] = {}  # what each process gets -> the runs that have it
    notes = [str(note) for each in runs for note in each.notes]
    known: dict[str, int] = {}
    if processes is not None or gpu_memory is not None:
        from trainkit.recipe.sharing_inspection import inspect_sharing

        for each in runs:
            found = inspect_sharing(each, processes or 1, gpu_memory)
            shares.setdefault("\n".join(found.lines), []).append(each.recipe.run.name)
            notes += map(str, found.findings)
            if found.steps_per_epoch is not None:
                known[each.recipe.run.name] = found.steps_per_epoch
    if png is not None:
        plans_drawn = _draw(png, [(each.recipe, _steps_per_epoch(each, steps, known)) for each in runs])
        echo(f"wrote {png}: {plans_drawn}", err=True)
    if as_json:
        for text, sharing in shares.items():
            echo_json("shares", runs=sharing, lines=text.split("\n"))
        _tell(runs, {each.recipe.run.name: _steps_per_epoch(each, steps, known) for each in runs})
        for note in dict.fromkeys(notes):
            echo_json("note", run=None, text=note)
        return
    plans: dict[str, list[str]] = {}  # a plan -> the runs that have it
    for each in runs:
        name = each.recipe.run.name
        assumed = _steps_per_epoch(each, steps, known)
        plans.setdefault("\n".join(_planned(each.recipe, assumed)), []).append(name)
    if runs[0].point is not None:
        for line in sweep_table([(each.recipe.run.name, each.point.values) for each in runs if each.point]):
            echo(line)
        echo()
    for told in (shares, plans):
        for text, names in told.items():
            if len(told) > 1:
                echo(f"{some_of(names, 4)}:")
            echo(text)
    for each in runs:
        assumed = _steps_per_epoch(each, steps, known)
        for line in search_cost(each.search, each.recipe, assumed) if each.search is not None else ():
            echo(line)
    for note in dict.fromkeys(notes):
        echo(note)


def _steps_per_epoch(run: Resolved, given: int | None, known: Mapping[str, int]) -> int:
    """Return the steps of an epoch: as they are given, else as the data say, else as they are assumed."""
    steps = given or known.get(run.recipe.run.name, ASSUMED_STEPS_PER_EPOCH)
    return min(steps, run.recipe.run.most_steps_per_epoch or steps)


def _draw(png: Path, runs: Sequence[tuple[Recipe, int]]) -> str:
    """Draw the plans of runs into a picture, each plan once, and return what was drawn in words.

    Args:
        png: The file.
        runs: The recipe of each, and the steps of its epochs.

    Raises:
        RecipeError: A plan is not known before the model is built, or there are too many.
    """
    from trainkit.groups.plan_picture import DrawnPlan, draw

    drawn: dict[str, tuple[list[str], DrawnPlan]] = {}
    for recipe, steps in runs:
        found = _plans(recipe, steps)
        if found is None:
            raise RecipeError("--png: the groups of this model are known only after it is built")
        plans, length = found
        text = "\n".join(_planned(recipe, steps))
        drawn.setdefault(text, ([], DrawnPlan("", recipe, plans, length, steps)))[0].append(recipe.run.name)
    draw(png, [plan._replace(title=some_of(names, 4)) for names, plan in drawn.values()])
    return f"{len(drawn)} plan{'s' * (len(drawn) > 1)}"


def _tell(runs: Sequence[Resolved], steps_of: Mapping[str, int]) -> None:
    """Print the plan of each run as objects: one for the whole, and one for each epoch in which something changes."""
    from trainkit.registry import name_of

    for each in runs:
        recipe, steps = each.recipe, steps_of[each.recipe.run.name]
        found = _plans(recipe, steps)
        if found is None:
            echo_json("note", run=recipe.run.name, text=_UNKNOWN)
            continue
        plans, length = found
        groups = {
            name: {
                "start_epoch": plan.epochs.start,
                "stop_epoch": plan.epochs.stop if plan.epochs.start is not None else None,
                "optimizer": name_of(type(plan.phases[0].optimizer)),
                "scheduler": name_of(type(plan.phases[0].scheduler)),
                "phases": {phase.name: phase.epochs.start for phase in plan.phases[1:]},
            }
            for name, plan in plans.items()
        }
        numbers = {"epochs": length.epochs, "steps": length.steps, "steps_per_epoch": steps}
        echo_json("plan", run=recipe.run.name, **numbers, groups=groups)
        for epoch, rates in _rows(plans, length, steps):
            echo_json("epoch", run=recipe.run.name, epoch=epoch, lr=rates)
        cost = search_cost(each.search, recipe, steps) if each.search is not None else ()
        for text in (*_remarks(recipe, plans, length, steps), *cost):
            echo_json("note", run=recipe.run.name, text=text)


_UNKNOWN = "the plan cannot be shown, because the groups of this model are known only after it is built"


def _plans(recipe: Recipe, steps: int) -> tuple[Mapping[str, GroupPlan], RunLength] | None:
    """Return the plan of each group, and the length of the run; None: the groups are not known yet.

    Raises:
        RecipeError: The plan cannot be made.
    """
    from trainkit.groups.plan import RunLength, plan_groups
    from trainkit.recipe.group_epochs import declared_groups

    names = declared_groups(recipe)
    if names is None:
        return None
    length = RunLength.of(recipe.run, steps)
    if length.epochs > MOST_EPOCHS:
        raise RecipeError(f"{length.epochs} epochs are too many to show; give more --steps-per-epoch")
    return plan_groups(recipe, names, length), length


def _planned(recipe: Recipe, steps: int) -> Iterator[str]:
    """Yield the lines of the plan of a run.

    Raises:
        RecipeError: The plan cannot be made.
    """
    found = _plans(recipe, steps)
    if found is None:
        yield _UNKNOWN
    else:
        yield from table(recipe, *found, steps)


def table(recipe: Recipe, plans: Mapping[str, GroupPlan], length: RunLength, steps_per_epoch: int) -> Iterator[str]:
    """Yield the lines of the plan: a head, a row for each epoch in which something changes, and remarks.

    Args:
        recipe: The settings.
        plans: Group -> its plan.
        length: How long the run lasts.
        steps_per_epoch: Optimizer steps of an epoch.

    Raises:
        RecipeError: A warm-up leaves nothing for its schedule in so few steps.
    """
    width = max(12, *(len(name) + 2 for name in plans))
    yield _FINISHED + "".join(name.rjust(width) for name in plans)
    for epoch, rates in _rows(plans, length, steps_per_epoch):
        cells = ("-" if lr is None else f"{lr:.4g}" for lr in rates.values())
        yield str(epoch).rjust(len(_FINISHED)) + "".join(cell.rjust(width) for cell in cells)
    yield from _remarks(recipe, plans, length, steps_per_epoch)


_FINISHED = "finished"  # epochs; what stands in this column is also a start_epoch


def _rows(
    plans: Mapping[str, GroupPlan], length: RunLength, steps_per_epoch: int
) -> Iterator[tuple[int, dict[str, float | None]]]:
    """Yield the epochs in which something changes that is seen in four digits, and the last one, with their rates."""
    previous: list[str] = []
    for epoch in range(length.epochs):
        rates = {name: _rate(name, plan, epoch, steps_per_epoch) for name, plan in plans.items()}
        row = [f"{lr:.4g}" if lr is not None else "-" for lr in rates.values()]
        if row != previous or epoch == length.epochs - 1:
            yield epoch, rates
        previous = row


def _remarks(recipe: Recipe, plans: Mapping[str, GroupPlan], length: RunLength, steps_per_epoch: int) -> Iterator[str]:
    """Yield what else there is to say about a plan."""
    yield from _phases(recipe, plans)
    for name, plan in plans.items():
        for scheduler in {id(phase.scheduler): phase.scheduler for phase in plan.phases}.values():
            yield from (f"{after_epochs(epoch)}: {name}: {text}" for epoch, text in scheduler.timeline(length.epochs))
    for part in (recipe.data, recipe.model, recipe.optimizer, *recipe.losses.values(), *recipe.hooks.values()):
        yield from (f"{after_epochs(epoch)}: {text}" for epoch, text in part.timeline(length.epochs))
    yield from cost_in_words(recipe, length.epochs)
    if recipe.pictures.every_epochs is None and length.epochs > PICTURES_EVERY_EPOCHS:
        often = f"every {PICTURES_EVERY_EPOCHS} epochs while they take at most {100 * PICTURES_SHARE:.0f} % of the time"
        yield f"pictures: after the last epoch, and {often} (pictures.every_epochs sets another number)"
    if recipe.ema is not None:
        yield f"validation uses the moving average over about the last {1 / (1 - recipe.ema.decay):.4g} updates"
    if recipe.run.accumulate > 1:
        yield f"each optimizer step follows the mean loss of {recipe.run.accumulate} batches"
    if recipe.run.precision == "fp16" and any(p.scheduler.by == "step" for plan in plans.values() for p in plan.phases):
        yield "schedules by step do not count steps that fp16 skips, and end as many steps before their last value"
    if length.steps is not None:
        yield f"the run lasts {length.steps} steps, shown as {length.epochs} epochs of {steps_per_epoch} steps"
    if any(phase.scheduler.by == "step" for plan in plans.values() for phase in plan.phases):
        yield f"schedules by step are shown at the start of each epoch, for {steps_per_epoch} steps an epoch"
    if frozen := [name for name, plan in plans.items() if plan.epochs.start is None]:
        meant = all(name in recipe.groups and recipe.groups[name].stop_epoch == 0 for name in frozen)
        hint = "" if meant else " (set groups.<name>.start_epoch to train one of them)"
        yield f"frozen for the whole run: {', '.join(frozen)}{hint}"


def _rate(name: str, plan: GroupPlan, epoch: int, steps_per_epoch: int) -> float | None:
    """Return the learning rate of a group in an epoch; None: it does not train."""
    if epoch not in plan.epochs:
        return None
    try:
        return plan.phase_at(epoch).rate(epoch, epoch * steps_per_epoch, steps_per_epoch, {}).lr
    except RecipeError as error:
        raise RecipeError(
            f"group {name}: {error} (for {steps_per_epoch} steps an epoch; --steps-per-epoch changes that)"
        ) from error


def _phases(recipe: Recipe, plans: Mapping[str, GroupPlan]) -> Iterator[str]:
    """Yield which optimizer groups have, and a line for each phase that follows the first one."""
    from trainkit.registry import name_of

    if shared := [name for name, plan in plans.items() if plan.phases[0].optimizer is recipe.optimizer]:
        yield f"{', '.join(shared)}: optimizer {name_of(type(recipe.optimizer))}"
    for name, plan in plans.items():
        optimizer = plan.phases[0].optimizer
        if optimizer is not recipe.optimizer:
            yield f"{name}: its own optimizer {name_of(type(optimizer))}"
        scheduler = plan.phases[0].scheduler
        for phase in plan.phases[1:]:
            changes = [f"optimizer {name_of(type(phase.optimizer))}"] if phase.optimizer is not optimizer else []
            changes.append(f"lr {phase.lr:.4g}")
            changes += [f"scheduler {name_of(type(phase.scheduler))}"] if phase.scheduler != scheduler else []
            yield f"{after_epochs(phase.epochs.start or 0)}: {name}: then {phase.name}: {', '.join(changes)}"
            optimizer, scheduler = phase.optimizer, phase.scheduler
