"""``trainkit check``: every mistake of a recipe at once, in an instant, before anything is spent on it."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING

import click

from trainkit.errors import TrainkitError

if TYPE_CHECKING:
    from trainkit.recipe.problems import Finding
    from trainkit.recipe.resolve import Resolved

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command(name="check")
@click.argument("recipes", metavar="RECIPE...", nargs=-1, required=True)
@click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="Change a setting: --set groups.probe.lr=1e-3")
@click.option("--resolved", is_flag=True, help="Print the complete recipe as TOML, and where each value is from.")
@click.option("--data", is_flag=True, help="Open the data too, and sum it up.")
@click.pass_context
def command(
    context: click.Context, recipes: tuple[str, ...], sets: tuple[str, ...], resolved: bool, data: bool
) -> None:
    """Check recipes without running them.

    Every mistake is shown with its line. Exit code 0: fine; 1: the data cannot be read; 2: a recipe has a mistake.
    """
    from trainkit.recipe.problems import InvalidRecipe
    from trainkit.recipe.resolve import resolve

    code = 0
    for recipe in recipes:
        try:
            found = resolve(recipe, sets)
        except InvalidRecipe as error:
            for finding in error.findings:
                click.echo(_coloured(finding))
            count = len(error.findings)
            click.echo(f"{recipe}: {count} mistake{'s' if count > 1 else ''}")
            code = 2
            continue
        seen, trouble = _inspected(found) if data else ([], None)
        verdict = [f"{recipe}: fine", *seen] if trouble is None else [*seen, trouble]
        summary = "\n".join([*map(_coloured, found.notes), *verdict])
        click.echo(indent(summary, "# ") if resolved else summary)
        if resolved:
            click.echo(_with_origins(found), nl=False)
        if trouble is not None:
            code = max(code, 1)
    context.exit(code)


def _inspected(found: Resolved) -> tuple[list[str], str | None]:
    """Return what the data says of itself, and what is wrong with it; None: nothing."""
    lines: list[str] = []
    try:
        lines.extend(found.recipe.data.inspect())
    except (TrainkitError, OSError) as error:
        return lines, f"{found.source}: {click.style('error', fg='red', bold=True)}: data: {error}"
    return lines, None


def _coloured(finding: Finding) -> str:
    label = f"{finding.severity}: "
    return str(finding).replace(label, click.style(label, fg=_COLOURS[finding.severity], bold=True), 1)


def _with_origins(found: Resolved) -> str:
    """Return the complete recipe as TOML, with the origin of each value as a comment behind it."""
    from trainkit.recipe.positions import positions
    from trainkit.recipe.resolve import write

    text = write(found.tree)
    lines = text.split("\n")  # as TOML has it; splitlines splits within strings too
    for where, spans in positions(text).items():
        in_table = all(isinstance(part, str) for part in where)
        if in_table and spans.key != spans.value:  # neither a header nor an item of a list
            number = text.count("\n", 0, spans.value[0])
            lines[number] = f"{lines[number]:<39} # {found.origin(where)}"
    return "\n".join(lines)
