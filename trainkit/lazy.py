"""Lets a package export names whose modules are imported when a name is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``.

    Importing the package then imports none of the modules. For type checkers and readers, the package also imports the
    names under TYPE_CHECKING.

    Args:
        package: The ``__name__`` of the package.
        modules: Module, relative to the package (".loading.order") -> the names that it defines; "x as y" hands x out
            as y.

    Example:
        >>> get, names = lazy_names("trainkit", {".words": ["shape_in_words"]})
        >>> get("shape_in_words")((3, 4))
        '3 × 4'
    """
    found_at = {
        each.rpartition(" as ")[2]: (module, each.partition(" as ")[0])
        for module, names in modules.items()
        for each in names
    }

    def get(name: str) -> Any:
        if name not in found_at:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, own = found_at[name]
        value = getattr(import_module(module, package), own)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *found_at})

    return get, names
