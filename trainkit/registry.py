"""Finds components: entry points are read as metadata, and only the one that a recipe names is imported.

So one broken plugin is shown with its reason, and takes no other down with it.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import Distribution, EntryPoints, distributions
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import tomli

from trainkit.errors import ComponentError, did_you_mean


class NotRegisteredError(ComponentError):
    """No component has this name.

    Attributes:
        message: What is wrong.
        hint: What may be meant, or done.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}; {hint}")
        self.message = message
        self.hint = hint


class RegisteredComponent(NamedTuple):
    """One registered component, not imported.

    Attributes:
        name: What ``use`` calls it.
        value: Where it is, ``module:Class``.
        package: Name of the distribution that brings it.
        version: That distribution's version.
    """

    name: str
    value: str
    package: str
    version: str

    def load(self) -> type[Any]:
        """Import the class.

        Raises:
            ComponentError: It cannot be imported, for whatever reason.
        """
        return import_class(self.value, f'"{self.name}" of {self.package} {self.version}')


@cache
def registered(group: str) -> tuple[RegisteredComponent, ...]:
    """Return all components of an entry-point group, sorted by name, each distribution counted once."""
    return tuple(sorted(found for found_group, found in _scan() if found_group == group))


def entry_point_groups() -> tuple[str, ...]:
    """Return every entry-point group of trainkit that some installed distribution fills, sorted."""
    return tuple(sorted({group for group, _ in _scan()}))


def find(group: str, use: str) -> type[Any]:
    """Import the component that ``use`` names in an entry-point group.

    Args:
        group: The kind's entry-point group, for example "trainkit.losses".
        use: ``name``, ``package/name`` where two packages have the name, or ``module:Class`` for any importable class.

    Raises:
        ComponentError: Unknown (with the nearest name), ambiguous (with the packages), or not importable (with why).
    """
    if ":" in use:
        return import_class(use, f'"{use}"')
    return locate(group, use).load()


def locate(group: str, use: str) -> RegisteredComponent:
    """Return the registered component that ``use`` (``name`` or ``package/name``) names, without importing it.

    Raises:
        ComponentError: It is unknown or ambiguous.
    """
    package, _, name = use.rpartition("/")
    known = registered(group)
    matches = [f for f in known if f.name == name and (not package or _same(f.package, package))]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ways = " or ".join(f'use = "{f.package}/{f.name}"' for f in matches)
        raise ComponentError(f'"{name}" is registered in {group} by {len(matches)} packages; say which: {ways}')
    raise NotRegisteredError(f'no component "{use}" is registered in {group}', _instead(group, use, name))


def name_of(cls: type[Any]) -> str:
    """Return what ``use`` has to say to get a component's class, imported or not.

    Example:
        >>> from trainkit.contracts import Monitor
        >>> name_of(Monitor)
        'trainkit.contracts:Monitor'
    """
    value = f"{cls.__module__}:{cls.__qualname__}"
    known = registered(getattr(cls, "entry_points", ""))
    for found in known:
        if found.value.replace(" ", "") == value:
            alone = [each.name for each in known].count(found.name) == 1
            return found.name if alone else f"{found.package}/{found.name}"
    return value


def _instead(group: str, use: str, name: str) -> str:
    if unregistered := _pyproject_that_has(group, name):
        return f'"{name}" stands in {unregistered}: reinstall it (pip install -e .), entry points are read then'
    elsewhere = sorted({each for each, found in _scan() if found.name == name})
    if elsewhere:
        return f'"{name}" is registered in {", ".join(elsewhere)}'
    return did_you_mean(use, {found.name for found in registered(group)})


def import_class(path: str, what: str) -> type[Any]:
    """Import ``module:Class``.

    Args:
        path: The class, as ``module:Class``.
        what: Name of the component to use in error messages.

    Raises:
        ComponentError: The import failed, whatever a foreign module raised.
    """
    module, _, name = path.partition(":")
    try:
        found = attrgetter(name)(importlib.import_module(module))
    except (Exception, SystemExit) as error:  # a foreign module may raise anything; it is reported, not hidden
        reason = f"{type(error).__name__}: {error}"
        file = Path(module.partition(".")[0]).with_suffix(".py")
        if isinstance(error, ModuleNotFoundError) and file.is_file():
            reason += f" ({file} of the working directory is found with PYTHONPATH=.)"
        raise ComponentError(f"{what} ({path}) cannot be imported: {reason}") from error
    if not isinstance(found, type):
        raise ComponentError(f"{what} ({path}) is not a class but {found!r}")
    return found


@cache
def _scan() -> tuple[tuple[str, RegisteredComponent], ...]:
    found: dict[tuple[str, str, str], RegisteredComponent] = {}
    for distribution in distributions():
        name = distribution.name or "unknown"
        for point in _entry_points(distribution):
            if point.group.startswith("trainkit."):
                # A source tree with an egg-info beside an installed copy shows one distribution twice.
                key = (_normal(name), point.group, point.name)
                found.setdefault(
                    key, RegisteredComponent(point.name, point.value, name, distribution.version or "unknown")
                )
    return tuple((group, each) for (_, group, _), each in found.items())


def _entry_points(distribution: Distribution) -> EntryPoints:
    # Most distributions have none of ours: their text is not parsed.
    text = distribution.read_text("entry_points.txt") or ""
    return distribution.entry_points if "trainkit." in text else EntryPoints()


def _pyproject_that_has(group: str, name: str) -> Path | None:
    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            try:
                project = tomli.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            points = project.get("project", {}).get("entry-points", {}).get(group, {})
            if isinstance(points, dict) and name in points:
                return path
    return None


def _normal(package: str) -> str:
    return package.lower().replace("_", "-").replace(".", "-")


def _same(package: str, other: str) -> bool:
    return _normal(package) == _normal(other)


def forget() -> None:
    """Read the entry points anew at the next look-up (after something was installed or a path was added)."""
    registered.cache_clear()
    _scan.cache_clear()
