"""``trainkit recipes``: lists the recipes that come with trainkit, or prints one."""

from __future__ import annotations

import re
from itertools import takewhile

import click

from trainkit.cli import completion
from trainkit.cli.output import echo, echo_list
from trainkit.errors import RecipeError, did_you_mean

_IS_PROSE = re.compile(r" \S")  # not a command, which stands further to the right
_END = re.compile(r"\.(?=\s|$)")


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
        echo_list({each: _first_sentence(path.read_text(encoding="utf-8")) for each, path in found.items()})
    elif name in found:
        echo(whole(found[name]), nl=False)
    else:
        raise RecipeError(f'no recipe "{name}" comes with trainkit; {did_you_mean(name, found)}')


def _first_sentence(text: str) -> str:
    """Return the first sentence of a recipe's comment, which may be longer than a line."""
    lines = (line.removeprefix("#") for line in text.splitlines() if not line.startswith("#:schema"))
    comment = " ".join(line.strip() for line in takewhile(_IS_PROSE.match, lines))
    sentence = _END.split(comment, maxsplit=1)[0].rstrip(": ")
    return f"{sentence}." if sentence else ""
