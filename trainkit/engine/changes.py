"""Compares the settings of a run with those that it is resumed with, and says what the changes do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import attrs
import tomli

from trainkit.contracts import MetricName, Scheduler
from trainkit.recipe.declarations import descent, is_harmless, keeps_values
from trainkit.recipe.fields import field_types, settings_fields
from trainkit.recipe.origin import DEFAULT, dotted
from trainkit.recipe.references import readers

if TYPE_CHECKING:
    from trainkit.contracts import Monitor
    from trainkit.recipe.positions import Where
    from trainkit.recipe.resolve import Resolved
    from trainkit.recipe.root import Recipe


class SettingChange(NamedTuple):
    """A setting that differs between a checkpoint's recipe and the one that it is resumed with.

    Attributes:
        where: The place of the setting.
        before: Its value in the checkpoint's recipe; None: it is not set there.
        after: Its value from now on; None: it is not set. If it is equal, it names environment variables, of which one
            has another value now.
        is_harmless: Whether the run continues as it would have done without the change.
        keeps_values: Whether values of the evaluated splits mean the same as before.
        because: Why it is harmless, if that is not declared.
    """

    where: Where
    before: Any
    after: Any
    is_harmless: bool
    keeps_values: bool
    because: str = ""

    def __str__(self) -> str:
        """Return the change as a line for the user."""
        before, after = ("not set" if value is None else value for value in (self.before, self.after))
        what = f"{before} -> {after}" if before != after else f"{before} has another value than before"
        effect = "harmless" if self.is_harmless else "the run goes on differently"
        return f"changed: {dotted(self.where)}: {what} ({effect}{self.because and f': {self.because}'})"


def setting_changes(recipe: str, resolved: Resolved, variables: Collection[str] = ()) -> list[SettingChange]:
    """Return the settings that have changed, in the order of their names.

    A setting can declare what its change does, see `HARMLESS` and `KEEPS_VALUES`.

    Args:
        recipe: The text of the checkpoint's recipe.
        resolved: The recipe to resume with.
        variables: The environment variables that have another value now.
    """
    before, after = dict(flat(tomli.loads(recipe))), dict(flat(resolved.tree))
    reads_another = {key for where, name in readers(resolved.tree) if name in variables for key in _upwards(where)}
    changes = []
    for where in sorted(before.keys() | after.keys()):
        was, now = before.get(where), after.get(where)
        is_new_setting = where not in before and resolved.origin(where) is DEFAULT
        same_name = where[-1] == "use" and str(was).rpartition("/")[2] == str(now).rpartition("/")[2]
        is_same = repr(was) == repr(now) or was == now
        if where in reads_another if is_same else not is_new_setting and not same_name:
            recipe_now = resolved.recipe
            harmless, keeps = is_harmless(recipe_now, where), keeps_values(recipe_now, where)
            changes.append(SettingChange(where, was, now, harmless, keeps))
    return changes


def _upwards(where: Where) -> Iterator[Where]:
    """Yield a place and those around it: what reads a variable may be an item of a list."""
    return (where[:length] for length in range(len(where), 0, -1))


def makes_another_run(change: SettingChange, recipe: Recipe) -> bool:
    """Return whether a recipe in which an environment variable has another value describes another run.

    A path may differ from machine to machine, so it does not.
    """
    return not change.is_harmless and not _is_path(recipe, change.where)


def _is_path(recipe: Recipe, where: Where) -> bool:
    value = [None, *(value for _, value in descent(recipe, where))][-1]
    return any(isinstance(each, Path) for each in (value if isinstance(value, list | tuple) else [value]))


def without_moves(
    changes: Iterable[SettingChange], recipe: Recipe, before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[SettingChange]:
    """Return the changes, in which another path to the same data is harmless.

    Args:
        changes: The settings that have changed.
        recipe: The recipe from now on.
        before: The fingerprint of the data in the checkpoint.
        now: The fingerprint of the data that were opened.
    """

    def is_the_same(where: Where) -> bool:
        name = dotted(where)
        if name in before or name in now:
            return before.get(name) is not None and before.get(name) == now.get(name)
        own = [{key: value for key, value in each.items() if not key.startswith("data.")} for each in (before, now)]
        return bool(own[0]) and own[0] == own[1]  # the data's own fingerprint stands in for its folders

    return [
        each._replace(is_harmless=True, keeps_values=True, because="the same content")
        if each.where[0] == "data" and not each.is_harmless and _is_path(recipe, each.where) and is_the_same(each.where)
        else each
        for each in changes
    ]


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
        before: The recipe before, as far as it is known: a loss that it has and ``recipe`` has not was in the values.
    """

    changes: Sequence[SettingChange]
    other_data: Sequence[str]
    recipe: Recipe
    before: Recipe | None = None

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
        is_evaluated = split in self.recipe.evaluated_splits()
        table = change.where[0]
        if table == "data":
            return not (change.keeps_values and is_evaluated)
        if table in ("inference", "ema"):
            return is_evaluated
        if table not in ("losses", "metrics", "hooks"):
            return False
        sources = self._sources(name, short, is_evaluated)
        return (table, change.where[1]) in sources or not sources

    def _sources(self, name: str, short: str, is_evaluated: bool) -> set[tuple[str, str]]:
        """Return what computes a value, as far as the settings tell: tables and the keys in them."""
        found: set[tuple[str, str]] = set()
        for recipe in (self.recipe, self.before):
            if recipe is None:
                continue
            losses = {key: loss for key, loss in recipe.losses.items() if loss.on_validation or not is_evaluated}
            found |= {("losses", key) for key in losses if short in ("loss", key)}
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
