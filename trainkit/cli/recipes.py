"""``trainkit recipes``: the recipes that come with trainkit."""

from __future__ import annotations

import click

from trainkit.errors import RecipeError, did_you_mean


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", required=False)
def command(name: str | None) -> None:
    r"""List the recipes that come with trainkit, or print the one called NAME.

    \b
    trainkit recipes ptycho_staged > my_recipe.toml
    """
    from trainkit.recipe.shipped import shipped

    found = shipped()
    if name is None:
        for each, path in found.items():
            click.echo(f"{each:24} {_first_comment(path.read_text(encoding='utf-8'))}")
    elif name in found:
        click.echo(found[name].read_text(encoding="utf-8"), nl=False)
    else:
        raise RecipeError(f'trainkit brings no recipe "{name}"; {did_you_mean(name, found)}')


def _first_comment(text: str) -> str:
    comments = (line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("# "))
    return next(comments, "")
