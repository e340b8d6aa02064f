"""``trainkit check``: finds every mistake of a recipe at once, within a second and without importing torch."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING

import click

from trainkit.cli.options import SETS
from trainkit.errors import TrainkitError

if TYPE_CHECKING:
    from trainkit.recipe.problems import Finding
    from trainkit.recipe.resolve import Resolved

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit check recipes/ptycho_staged.toml\n"
    "  trainkit check my_recipe.toml --set data.path=scan.h5 --data\n\n"
    "Exit codes: 0 no mistake, 1 the data cannot be read, 2 a recipe has a mistake."
)
@click.argument("recipes", metavar="RECIPE...", nargs=-1, required=True)
@SETS
@click.option("--resolved", is_flag=True, help="Print the complete recipe as TOML, and where each value comes from.")
@click.option("--data", is_flag=True, help="Open the data as well, and summarise it.")
@click.pass_context
def command(
    context: click.Context, recipes: tuple[str, ...], sets: tuple[str, ...], resolved: bool, data: bool
) -> None:
    """Check recipes without running them.

    Every mistake is shown with its file, line and column.
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
        seen, trouble = _inspect_data(found) if data else ([], None)
        verdict = [f"{recipe}: fine", *seen] if trouble is None else [*seen, trouble]
        summary = "\n".join([*map(_coloured, found.notes), *verdict])
        click.echo(indent(summary, "# ") if resolved else summary)
        if resolved:
            click.echo(_with_origins(found), nl=False)
        if trouble is not None:
            code = max(code, 1)
    context.exit(code)


def _inspect_data(found: Resolved) -> tuple[list[str], str | None]:
    """Return the data's summary, and what is wrong with the data (None: nothing)."""
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
    """Return the complete recipe as TOML, with the origin of each value in a comment after it."""
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
