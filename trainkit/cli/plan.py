"""``trainkit plan``: when each group trains and with which learning rate, without data or GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainkit.errors import RecipeError

if TYPE_CHECKING:
    from trainkit.groups.plan import GroupPlan
    from trainkit.recipe.root import Recipe


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a setting: --set groups.probe.lr=1e-4")
@click.option(
    "--steps-per-epoch",
    "steps",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="For schedules by step: the data knows how many there are, and plan does not open it.",
)
def command(recipe: Path, sets: tuple[str, ...], steps: int) -> None:
    """Show for every epoch of RECIPE which groups train and with which learning rate.

    An epoch in which nothing changes is left out. A schedule that goes by metrics is shown as if it never reduced.
    """
    from trainkit.groups.plan import plan_groups
    from trainkit.recipe.group_epochs import declared_groups
    from trainkit.recipe.resolve import resolve

    resolved = resolve(recipe, sets)
    names = declared_groups(resolved.recipe)
    if names is None:
        click.echo("the model names its groups only after it is built; plan cannot show them")
        return
    planned = plan_groups(resolved.recipe, names)
    for line in list(table(resolved.recipe, planned, steps)):  # all of it, or a mistake alone
        click.echo(line)
    for note in resolved.notes:
        click.echo(str(note))


def table(recipe: Recipe, planned: dict[str, GroupPlan], steps_per_epoch: int) -> Iterator[str]:
    """Yield the lines of the plan: a head, and a row for each epoch in which something is new.

    Raises:
        RecipeError: So few steps leave a schedule nothing after its warm-up.
    """
    epochs = recipe.run.num_epochs()
    width = max(12, *(len(name) + 2 for name in planned))
    yield "epoch" + "".join(name.rjust(width) for name in planned)
    previous: list[str] = []
    for epoch in range(epochs):
        row = [_cell(name, plan, epoch, steps_per_epoch) for name, plan in planned.items()]
        if row != previous or epoch == epochs - 1:
            yield str(epoch).rjust(5) + "".join(cell.rjust(width) for cell in row)
        previous = row
    for name, plan in planned.items():
        for phase in plan.phases:
            for epoch, text in phase.scheduler.timeline(epochs):
                yield f"epoch {epoch}: {name}: {text}"
    parts = [recipe.data, recipe.model, recipe.optimizer, *recipe.losses.values(), *recipe.hooks.values()]
    for part in parts:
        for epoch, text in part.timeline(epochs):
            yield f"epoch {epoch}: {text}"
    if any(phase.scheduler.by == "step" for plan in planned.values() for phase in plan.phases):
        yield f"schedules by step are shown at each epoch's start, for {steps_per_epoch} steps an epoch"
    frozen = [name for name, plan in planned.items() if plan.epochs.start is None]
    if frozen:
        yield f"frozen for the whole run: {', '.join(frozen)} (groups.<name>.start_epoch lets one train)"


def _cell(name: str, plan: GroupPlan, epoch: int, steps_per_epoch: int) -> str:
    phase = plan.phase_at(epoch)
    if epoch not in phase.epochs:
        return "-"
    try:
        return f"{phase.rate(epoch, epoch * steps_per_epoch, steps_per_epoch, {}).lr:.4g}"
    except RecipeError as error:
        raise RecipeError(
            f"group {name}: {error} (for {steps_per_epoch} steps an epoch; --steps-per-epoch changes that)"
        ) from error
