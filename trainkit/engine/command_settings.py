"""What commands share that use a component of their own: its settings from ``--set``, and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from trainkit.contracts import Component
from trainkit.errors import RecipeError
from trainkit.files.writing import written_whole
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.rules import missing_modules
from trainkit.recipe.source import read_settings
from trainkit.recipe.structure import Structurer

if TYPE_CHECKING:
    from trainkit.console import Console

_Kind = TypeVar("_Kind", bound=Component)


def settings_of(table: str, sets: Sequence[str]) -> list[str]:
    """Return those values of ``--set`` that are about a table."""
    return [each for each in sets if each.partition("=")[0].strip().partition(".")[0] == table]


def command_settings(table: str, sets: Sequence[str], kind: type[_Kind], usual: str | None, missing: str) -> _Kind:
    """Return a component with its settings.

    Args:
        table: The table of the settings, for example "calibrate".
        sets: The values of ``--set`` that are about it.
        kind: The kind of the component.
        usual: Its ``use``, unless the settings name another one; None: there is none.
        missing: What to say if there is none.

    Raises:
        RecipeError: The settings are wrong, or there is no component.
    """
    layer, found = read_settings(sets)
    given = layer.tree.get(table, {})
    if usual is None and "use" not in given:
        raise RecipeError(missing)
    texts = {where: origin.text for where, origin in layer.origins.items() if origin.text is not None}
    structurer = Structurer(True, texts)
    settings: _Kind = structurer.value({"use": usual} | given, kind, (table,))
    found += structurer.findings
    if not found:
        found += missing_modules((table,), settings)
    if found:
        raise InvalidRecipe(each.located(layer.origins, "the command line") for each in found)
    return settings


def draw_picture(path: Path, draw: Callable[[Path], None], console: Console) -> None:
    """Draw a picture; that it fails changes nothing else."""
    try:
        with written_whole(path) as new:
            draw(new)
    except Exception as error:  # the code of a plugin may raise anything
        console.say(f"warning: {path.name} cannot be drawn: {type(error).__name__}: {error}")
