"""Lets a package hand out names whose modules are imported when a name is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``.

    Importing the package then imports none of the modules. For type checkers, and for readers, the package imports the
    same names under TYPE_CHECKING.

    Args:
        package: The package, its ``__name__``.
        modules: Name -> the module that defines it.

    Example:
        >>> get, names = lazy_names("trainkit", {"shape_in_words": "trainkit.words"})
        >>> get("shape_in_words")((3, 4))
        '3 × 4'
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names
