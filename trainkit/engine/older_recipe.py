"""Compares a recipe that was saved, perhaps by an older version, with one that is resolved now.

A version may have settings that an older one did not have. Their defaults are what the older version did: that is the
rule for every new setting. So a saved recipe is read with the classes of today, which fills in these defaults, and is
then compared value by value. A comparison of the texts would take each new setting for another recipe.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs
import tomli

from trainkit.engine.changes import flat
from trainkit.engine.saved_recipe import resolve_saved
from trainkit.errors import RecipeError
from trainkit.recipe.origin import dotted
from trainkit.recipe.resolve import write
from trainkit.recipe.search import SEARCH
from trainkit.words import some_of

if TYPE_CHECKING:
    from trainkit.recipe.positions import Where
    from trainkit.recipe.resolve import Resolved


@attrs.frozen
class RecipeComparison:
    """What differs between a saved recipe and one that is resolved now.

    Attributes:
        new: Settings that the saved recipe does not have, because its version did not -> the default that they take.
        differences: A text for each setting with another value, or that only one of the recipes has.
    """

    new: Mapping[Where, Any] = MappingProxyType({})
    differences: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        """Whether they are the same recipe."""
        return not self.differences

    @property
    def news(self) -> str:
        """The settings that are new and their defaults, as a line for the user; "": none is."""
        return news_of(self.new)


def news_of(new: Mapping[Where, Any]) -> str:
    """Return a line for the user about settings that are newer than a saved recipe; "" if there is none.

    Args:
        new: The settings -> the defaults that they take.
    """
    if not new:
        return ""
    one = len(new) == 1
    which, whose = ("a setting that is", "its default") if one else ("settings that are", "their defaults")
    defaults = some_of([f"{dotted(where)} = {_shown(value)}" for where, value in new.items()])
    return f"{which} newer than the saved recipe: {defaults} ({whose})"


def compare(
    text: str,
    resolved: Resolved,
    components: Sequence[Mapping[str, Any]] = (),
    defaults: Mapping[Where, Any] = MappingProxyType({}),
    now: Mapping[str, Any] | None = None,
) -> RecipeComparison:
    """Compare the text of a saved recipe with a recipe.

    Args:
        text: The saved recipe, which is a resolved one. Its table ``[search]`` is compared as it is written.
        resolved: The recipe to compare with.
        components: What a checkpoint says of the components that the saved recipe used.
        defaults: Settings of its ``[search]`` -> their defaults.
        now: What is compared instead of the tables of the recipe, for example only some of them.
    """
    then = _flat_text(text)
    if then is None:
        return RecipeComparison(differences=("the saved recipe cannot be read",))
    whole = dict(flat(resolved.tree))
    wanted = whole if now is None else dict(flat(now))
    missing = wanted.keys() - then.keys()
    if others := tuple(_differences(then, wanted, then)):
        return RecipeComparison(differences=(*others, *_differences(then, wanted, missing)))
    if not missing:
        return RecipeComparison()
    try:
        filled = {**dict(flat(_with_defaults(text, resolved, components))), **defaults}
    except RecipeError:  # it needs, for example, a package that is not there any more
        return RecipeComparison(differences=tuple(_differences(then, wanted, missing)))
    left_out = whole.keys() - wanted.keys()
    differences = tuple(_differences(filled, wanted, (wanted.keys() | filled.keys()) - then.keys() - left_out))
    return RecipeComparison({where: value for where, value in filled.items() if where in missing}, differences)


def completed(
    text: str, resolved: Resolved, components: Sequence[Mapping[str, Any]] = ()
) -> tuple[str, dict[Where, Any]]:
    """Return a saved recipe with the defaults of the settings that its version did not have, and these settings.

    If the recipe cannot be used with what is installed now, it is returned as it is.

    Args:
        text: The saved recipe.
        resolved: The recipe that it will be compared with; only code that it names is imported.
        components: What a checkpoint says of the components that the saved recipe used.
    """
    then = _flat_text(text)
    if then is None or not dict(flat(resolved.tree)).keys() - then.keys():
        return text, {}
    try:
        tree = _with_defaults(text, resolved, components)
    except RecipeError:
        return text, {}
    return write(tree), {where: value for where, value in flat(tree) if where not in then}


def _with_defaults(text: str, resolved: Resolved, components: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    named = [used.use for used in resolved.used if ":" in used.use]
    base = write({key: table for key, table in tomli.loads(text).items() if key != SEARCH})
    return resolve_saved(base, components, "the saved recipe", (), named).tree


@lru_cache(maxsize=1024)  # each run of a queue is compared with each run folder of its name
def _flat_text(text: str) -> Mapping[Where, Any] | None:
    try:
        return dict(flat(tomli.loads(text)))
    except (tomli.TOMLDecodeError, RecursionError):
        return None


def _differences(then: Mapping[Where, Any], now: Mapping[Where, Any], places: Iterable[Where]) -> Iterator[str]:
    for where in sorted(places):
        was, value = then.get(where), now.get(where)
        if repr(was) != repr(value) and was != value:
            yield f"{dotted(where)} ({_shown(was)} -> {_shown(value)})"


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False, default=str)
