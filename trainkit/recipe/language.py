"""What the tables and keys of a recipe are called and mean, those that `Recipe` does not hold included.

`trainkit show`, the JSON Schema and the pages of docs/reference are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from trainkit.contracts import Component, component
from trainkit.recipe.fields import field_types, is_kind, item_type, settings_fields, without_none
from trainkit.recipe.root import Recipe
from trainkit.recipe.search import SEARCH, Search
from trainkit.recipe.sweep import SWEEP


@component
class Inheritance:
    """How a recipe takes over settings of other recipes. Both keys stand at the top, before the first table.

    The parents are merged from left to right, then this recipe over them, then ``--set``. Tables are merged key by key;
    any other value, also a list, replaces the inherited one. A table that changes ``use`` drops the inherited keys
    beside it, since they belong to another component. A recipe that extends others need not repeat what they set.

    Attributes:
        extends: Recipe files that this one extends, relative to its own folder: ``extends = ["base.toml"]``. A name
            without ``.toml``, ``extends = ["ptycho_staged"]``, is the recipe of that name that comes with trainkit, if
            there is no such file.
        drop: Inherited keys that this recipe removes, each dotted: ``drop = ["hooks.overlays", "groups.probe"]``.
    """

    extends: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


@component
class Sweep:
    """Several runs in one recipe: one for every combination of the values of the keys in it.

    ``optimizer.lr = [1e-2, 1e-3]`` in ``[sweep]`` makes two runs. Any key of the recipe can stand there, with a list of
    its values. See docs/sweeps.md.

    Attributes:
        together: Keys that move together, in tables with names of your choice: ``[sweep.together.size]`` with
            ``data.patch_size`` and ``data.batch_size`` takes the first values of both, then the second ones.
    """

    together: Mapping[str, Any] = attrs.Factory(dict)


def tables() -> dict[str, type[Any]]:
    """Return the tables of a recipe that hold settings, and not a component: name -> settings class."""
    types = field_types(Recipe)
    found: dict[str, type[Any]] = {"extends": Inheritance, "drop": Inheritance}
    for key, field in settings_fields(Recipe).items():
        wanted = without_none(types[field.name])
        wanted = item_type(wanted) if isinstance(wanted, type) is False else wanted
        if attrs.has(wanted) and not is_kind(wanted):
            found[key] = wanted
    return found | {SWEEP: Sweep, SEARCH: Search}


def kinds_of_tables() -> dict[str, type[Component]]:
    """Return the tables of a recipe that hold components: name -> kind."""
    types = field_types(Recipe)
    found = {}
    for key, field in settings_fields(Recipe).items():
        wanted = without_none(types[field.name])
        wanted = item_type(wanted) if isinstance(wanted, type) is False else wanted
        if is_kind(wanted):
            found[key] = wanted
    return found
