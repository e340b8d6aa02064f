"""Compares the settings of a run with those that it is resumed with, and says what the changes do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import attrs
import tomli

from trainkit.contracts import HARMLESS, KEEPS_VALUES, MetricName, Scheduler
from trainkit.recipe.fields import field_types, settings_fields
from trainkit.recipe.origin import DEFAULT, dotted

if TYPE_CHECKING:
    from trainkit.contracts import Monitor
    from trainkit.recipe.positions import Where
    from trainkit.recipe.resolve import Resolved
    from trainkit.recipe.root import Recipe

(_HARMLESS,), (_KEEPS_VALUES,) = HARMLESS, KEEPS_VALUES


class SettingChange(NamedTuple):
    """A setting that differs between a checkpoint's recipe and the one that it is resumed with.

    Attributes:
        where: The place of the setting.
        before: Its value in the checkpoint's recipe; None: it is not set there.
        after: Its value from now on; None: it is not set.
        is_harmless: Whether the run continues as it would have done without the change.
        keeps_values: Whether values of the evaluated splits mean the same as before.
    """

    where: Where
    before: Any
    after: Any
    is_harmless: bool
    keeps_values: bool

    def __str__(self) -> str:
        """Return the change as a line for the user."""
        before, after = ("not set" if value is None else value for value in (self.before, self.after))
        effect = "harmless" if self.is_harmless else "the run goes on differently"
        return f"changed: {dotted(self.where)}: {before} -> {after} ({effect})"


def setting_changes(recipe: str, resolved: Resolved) -> list[SettingChange]:
    """Return the settings that have changed, in the order of their names.

    A setting can declare what its change does, see `HARMLESS` and `KEEPS_VALUES`.

    Args:
        recipe: The text of the checkpoint's recipe.
        resolved: The recipe to resume with.
    """
    before, after = dict(flat(tomli.loads(recipe))), dict(flat(resolved.tree))
    changes = []
    for where in sorted(before.keys() | after.keys()):
        was, now = before.get(where), after.get(where)
        is_new_setting = where not in before and resolved.origin(where) is DEFAULT
        same_name = where[-1] == "use" and str(was).rpartition("/")[2] == str(now).rpartition("/")[2]
        if repr(was) != repr(now) and was != now and not is_new_setting and not same_name:
            declared = _declared(resolved.recipe, where)
            changes.append(SettingChange(where, was, now, _HARMLESS in declared, _KEEPS_VALUES in declared))
    return changes


def _declared(recipe: Recipe, where: Where) -> set[str]:
    """Return what a setting, or a table around it, declares about its change."""
    node: Any = recipe
    found: set[str] = set()
    for key in where:
        if attrs.has(type(node)):
            field = settings_fields(type(node)).get(str(key))
            if field is None:
                break
            for name in (_HARMLESS, _KEEPS_VALUES):
                holds = field.metadata.get(name, False)
                if holds(recipe) if callable(holds) else holds:
                    found.add(name)
            node = getattr(node, field.name)
        elif isinstance(node, Mapping) and key in node:
            node = node[key]
        else:
            break
    return found


def flat(tree: Mapping[str, Any], above: Where = ()) -> Iterator[tuple[Where, Any]]:
    """Yield the place and the value of everything in a tree of tables that is not a table itself."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, (*above, key))
        else:
            yield (*above, key), value


@attrs.frozen
class Redefinitions:
    """Tells which values mean something else after a resume, so that they cannot be compared with those before.

    A value depends on the data and on what computes it: a loss, a metric, the inference or a hook. Learning rates
    depend on nothing of this, and a value of an evaluated split does not depend on what the training alone sees.

    Attributes:
        changes: The settings that have changed.
        other_data: What tells that the data has changed although its settings may be the same, in words.
        recipe: The recipe from now on.
    """

    changes: Sequence[SettingChange]
    other_data: Sequence[str]
    recipe: Recipe

    def why(self, name: str) -> str | None:
        """Return what has changed in the meaning of a value; None: nothing.

        Args:
            name: The value's full name, for example "val/loss".
        """
        if name.startswith("lr/"):
            return None
        if self.other_data:
            return "the data has changed"
        changed = [dotted(each.where) for each in self.changes if not each.is_harmless and self._concerns(each, name)]
        if not changed:
            return None
        return f"{', '.join(changed)} {'has' if len(changed) == 1 else 'have'} changed"

    def _concerns(self, change: SettingChange, name: str) -> bool:
        split, _, short = name.partition("/")
        is_evaluated = split in self.recipe.data.splits()[1:]
        table = change.where[0]
        if table == "data":
            return not (change.keeps_values and is_evaluated)
        if table == "inference":
            return is_evaluated
        if table not in ("losses", "metrics", "hooks"):
            return False
        sources = self._sources(name, short)
        return (table, change.where[1]) in sources or not sources

    def _sources(self, name: str, short: str) -> set[tuple[str, str]]:
        """Return what computes a value, as far as the settings tell: tables and the keys in them."""
        recipe = self.recipe
        found = {("losses", key) for key in recipe.losses if short in ("loss", key)}
        for key, metric in recipe.metrics.items():
            if any(fnmatchcase(short, each) for each in metric.names() or ()):
                found.add(("metrics", key))
        for key, hook in recipe.hooks.items():
            if any(fnmatchcase(name, each) for each in hook.names() or ()):
                found.add(("hooks", key))
        return found


def watched_by(scheduler: Scheduler, monitor: Monitor) -> list[tuple[str, str]]:
    """Return the values that a schedule watches, each with its mode; none if it depends on the clock alone."""
    if type(scheduler).observe is Scheduler.observe:
        return []
    mode = getattr(scheduler, "mode", None) or monitor.mode
    names = []
    for field in settings_fields(type(scheduler)).values():
        wanted = field_types(type(scheduler)).get(field.name)
        if wanted is MetricName or MetricName in get_args(wanted):
            names.append(getattr(scheduler, field.name) or monitor.metric)
    return [(name, mode) for name in names or [monitor.metric]]
