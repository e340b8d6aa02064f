"""Compares the settings of a run with those that it is resumed with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import tomli

from trainkit.recipe.origin import DEFAULT, dotted

if TYPE_CHECKING:
    from trainkit.recipe.positions import Where
    from trainkit.recipe.resolve import Resolved

_HARMLESS = ("run.name", "run.dir", "run.time_limit", "pictures.", "checkpoint.", "loggers.", "validation.")


class SettingChange(NamedTuple):
    """A setting that differs between a checkpoint's recipe and the one that it is resumed with.

    Attributes:
        where: The place of the setting.
        before: Its value in the checkpoint's recipe; None: it is not set there.
        after: Its value from now on; None: it is not set.
        is_harmless: Whether the run continues as it would have done without the change.
    """

    where: Where
    before: Any
    after: Any
    is_harmless: bool

    def __str__(self) -> str:
        """Return the change as a line for the user."""
        before, after = ("not set" if value is None else value for value in (self.before, self.after))
        effect = "harmless" if self.is_harmless else "the run goes on differently"
        return f"changed: {dotted(self.where)}: {before} -> {after} ({effect})"


def setting_changes(recipe: str, resolved: Resolved) -> list[SettingChange]:
    """Return the settings that have changed, in the order of their names.

    Args:
        recipe: The text of the checkpoint's recipe.
        resolved: The recipe to resume with.
    """
    before, after = dict(flat(tomli.loads(recipe))), dict(flat(resolved.tree))
    changes = []
    for where in sorted(before.keys() | after.keys()):
        was, now = before.get(where), after.get(where)
        is_new_setting = where not in before and resolved.origin(where) is DEFAULT
        if repr(was) != repr(now) and was != now and not is_new_setting:
            changes.append(SettingChange(where, was, now, dotted(where).startswith(_HARMLESS)))
    return changes


def flat(tree: Mapping[str, Any], above: Where = ()) -> Iterator[tuple[Where, Any]]:
    """Yield the place and the value of everything in a tree of tables that is not a table itself."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, (*above, key))
        else:
            yield (*above, key), value
