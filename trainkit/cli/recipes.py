"""``trainkit recipes``: lists the recipes that come with trainkit, or prints one."""

from __future__ import annotations

import click

from trainkit.cli import completion
from trainkit.cli.output import echo
from trainkit.errors import RecipeError, did_you_mean


@click.command(epilog="\b\nExamples:\n  trainkit recipes\n  trainkit recipes ptycho_staged > my_recipe.toml")
@click.argument("name", required=False, shell_complete=completion.recipes)
def command(name: str | None) -> None:
    """List the recipes that come with trainkit, or print the recipe NAME.

    What is printed needs no other file: the settings of recipes that it extends are in it.
    """
    from trainkit.recipe.shipped import shipped
    from trainkit.recipe.whole import whole

    found = shipped()
    if name is None:
        width = max(map(len, found), default=0)
        for each, path in found.items():
            echo(f"{each:{width}}  {_first_comment(path.read_text(encoding='utf-8'))}")
    elif name in found:
        echo(whole(found[name]), nl=False)
    else:
        raise RecipeError(f'no recipe "{name}" comes with trainkit; {did_you_mean(name, found)}')


def _first_comment(text: str) -> str:
    comments = (line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("# "))
    return next(comments, "")
