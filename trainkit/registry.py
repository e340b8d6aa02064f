"""Finds components: entry points are read as metadata, and only the one that a recipe names is imported.

Therefore a broken plugin is reported with its reason, and all others can still be used.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from importlib.metadata import Distribution, EntryPoints, distributions
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import tomli

from trainkit.aliases import known_as, way_to
from trainkit.errors import ComponentError, did_you_mean
from trainkit.import_effects import watched_import
from trainkit.slow_imports import may_be_slow


class NotRegisteredError(ComponentError):
    """No component has this name.

    Attributes:
        message: What is wrong.
        hint: The name that was probably meant, or what to do.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}; {hint}")
        self.message = message
        self.hint = hint


class RegisteredComponent(NamedTuple):
    """A registered component, which has not been imported.

    Attributes:
        name: Its name in ``use``.
        value: Its class, as ``module:Class``.
        package: Name of the distribution that provides it.
        version: Version of that distribution.
    """

    name: str
    value: str
    package: str
    version: str

    def load(self, used_in: str = "") -> type[Any]:
        """Import the class.

        Args:
            used_in: Where it is used, for messages, for example "[losses.data]".

        Raises:
            ComponentError: The import failed; the message says why.
        """
        what = f'"{self.name}" of {self.package} {self.version}'
        if self.value in _REFUSED:
            raise ComponentError(f"{what} ({self.value}) cannot be imported: {_REFUSED[self.value]}")
        return import_class(self.value, what, used_in)


@cache
def registered(group: str) -> tuple[RegisteredComponent, ...]:
    """Return all components of an entry-point group, sorted by name, each distribution counted once."""
    return tuple(sorted(found for found_group, found in _scan() if found_group == group))


def entry_point_groups() -> tuple[str, ...]:
    """Return the entry-point groups of trainkit in which installed distributions register something, sorted."""
    return tuple(sorted({group for group, _ in _scan()}))


def find(group: str, use: str, used_in: str = "") -> type[Any]:
    """Import the component that ``use`` names in an entry-point group.

    Args:
        group: The kind's entry-point group, for example "trainkit.losses".
        use: ``name``, ``package/name`` if two packages have the name, or ``module:Class`` for any importable class. A
            name that people know from another program stands for the one here, see `alias_of`.
        used_in: Where it is used, for messages, for example "[losses.data]".

    Raises:
        ComponentError: The component is unknown, ambiguous or cannot be imported; the message names the nearest name,
            the packages or the reason.
    """
    if ":" in use:
        return import_class(use, f'"{use}"', used_in)
    return locate(group, use).load(used_in)


def locate(group: str, use: str) -> RegisteredComponent:
    """Return the registered component that ``use`` (``name`` or ``package/name``) names, without importing it.

    Raises:
        ComponentError: It is unknown or ambiguous.
    """
    package, _, name = use.rpartition("/")
    known = registered(group)
    name = alias_of(group, name) or name
    matches = [f for f in known if f.name == name and (not package or _same(f.package, package))]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ways = " or ".join(f'use = "{f.package}/{f.name}"' for f in matches)
        raise ComponentError(f'"{name}" is registered in {group} by {len(matches)} packages; say which: {ways}')
    raise NotRegisteredError(f'no component "{use}" is registered in {group}', _instead(group, use, name))


def alias_of(group: str, name: str) -> str | None:
    """Return the registered name that one from another program stands for, such as ``UNet``; None: it stands for none.

    A name that is registered itself is no alias.
    """
    known = {each.name for each in registered(group)}
    return None if name in known else known_as(name, known)


def name_of(cls: type[Any]) -> str:
    """Return the value of ``use`` that stands for a component's class.

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


def kind_of(group: str) -> type[Any] | None:
    """Return the abstract class of the components of an entry-point group; None: none of them can be imported."""
    for found in registered(group):
        try:
            cls = found.load()
        except ComponentError:
            continue
        for each in cls.__mro__:
            if vars(each).get("entry_points") == group:
                return each
    return None


def _instead(group: str, use: str, name: str) -> str:
    if unregistered := _pyproject_that_has(group, name):
        return f'"{name}" is in {unregistered} but not installed: run pip install -e . there to register it'
    if way := way_to(group, name):
        return way
    elsewhere = sorted({each for each, found in _scan() if found.name == name})
    if elsewhere:
        return f'"{name}" is registered in {", ".join(elsewhere)}'
    return did_you_mean(use, {found.name for found in registered(group)})


def import_class(path: str, what: str, used_in: str = "") -> type[Any]:
    """Import ``module:Class``.

    Args:
        path: The class, as ``module:Class``.
        what: Name of the component to use in error messages.
        used_in: Where it is used, for messages.

    Raises:
        ComponentError: The import failed, or the name is not a class; the message says why.
    """
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise ComponentError(f'{what} names no class; write use = "module:Class"')
    try:
        found = attrgetter(name)(_imported(module, f"{what}, used in {used_in}" if used_in else what))
    except (Exception, SystemExit) as error:  # a foreign module may raise anything; it is reported, not hidden
        reason = f"{type(error).__name__}: {error}"
        file = Path(module.partition(".")[0]).with_suffix(".py")
        if isinstance(error, ModuleNotFoundError) and file.is_file():
            reason += f" ({file} is in the working directory; set PYTHONPATH=. to import it)"
        raise ComponentError(f"{what} ({path}) cannot be imported: {reason}") from error
    if not isinstance(found, type):
        raise ComponentError(f"{what} ({path}) is not a class but {found!r}")
    return found


_SIDE_EFFECTS: dict[str, list[str]] = {}
"""Module -> what its first import did to the whole process."""


def side_effects(module: str) -> tuple[str, ...]:
    """Return what the import of a module of components printed, and changed for all: a sentence each."""
    return tuple(_SIDE_EFFECTS.get(module, ()))


def _imported(module: str, reason: str) -> Any:
    """Import a module; keep what it prints from the output, and remember what it changed for all."""
    if module in sys.modules:
        return sys.modules[module]
    found: list[str] = []
    with watched_import(module, found), may_be_slow(module, reason):
        imported = importlib.import_module(module)
    if found:
        _SIDE_EFFECTS[module] = found
    return imported


_REFUSED: dict[str, str] = {}
"""``module:Class`` -> why it must not be imported in this process."""


def refuse(component: RegisteredComponent, reason: str) -> None:
    """Never import a component in this process: it is known to end or to stop the process that imports it.

    Args:
        component: The component.
        reason: Why, for the message of the `ComponentError` that is raised instead.
    """
    _REFUSED[component.value] = reason


class DamagedPackage(NamedTuple):
    """A distribution whose entry points cannot be read.

    Attributes:
        package: Its name.
        version: Its version.
        reason: What is wrong.
    """

    package: str
    version: str
    reason: str


def damaged() -> tuple[DamagedPackage, ...]:
    """Return the distributions whose entry points for trainkit cannot be read; their components are not registered."""
    return tuple(sorted(each for each in _scan_all() if isinstance(each, DamagedPackage)))


@cache
def _scan() -> tuple[tuple[str, RegisteredComponent], ...]:
    found: dict[tuple[str, str, str], RegisteredComponent] = {}
    for each in _scan_all():
        if not isinstance(each, DamagedPackage):
            group, component = each
            # A source tree with an egg-info beside an installed copy shows one distribution twice.
            found.setdefault((_normal(component.package), group, component.name), component)
    return tuple((group, each) for (_, group, _), each in found.items())


@cache
def _scan_all() -> tuple[DamagedPackage | tuple[str, RegisteredComponent], ...]:
    found: list[DamagedPackage | tuple[str, RegisteredComponent]] = []
    for distribution in distributions():
        try:
            points = [point for point in _entry_points(distribution) if point.group.startswith("trainkit.")]
        except Exception as error:  # a damaged entry_points.txt makes importlib.metadata raise anything
            reason = f"its entry_points.txt cannot be read ({type(error).__name__}: {error})"
            found.append(DamagedPackage(*_name_and_version(distribution), reason))
            continue
        if not points:
            continue  # before the name is asked for: it stands in a file that takes long to parse
        name, version = _name_and_version(distribution)
        found += [(point.group, RegisteredComponent(point.name, point.value, name, version)) for point in points]
    return tuple(found)


def _name_and_version(distribution: Distribution) -> tuple[str, str]:
    try:
        return distribution.name or "unknown", distribution.version or "unknown"
    except Exception:  # damaged metadata
        return "unknown", "unknown"


def _entry_points(distribution: Distribution) -> EntryPoints:
    # Most distributions have no entry points for trainkit: their text is not parsed.
    text = distribution.read_text("entry_points.txt") or ""
    if "trainkit." not in text:
        return EntryPoints()
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith(("#", ";", "[")) and "=" not in line:
            raise ValueError(f'the line "{line}" has no "="')
    return distribution.entry_points


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
    """Make the next look-up read the entry points again (after something was installed or a path was added)."""
    registered.cache_clear()
    _scan.cache_clear()
    _scan_all.cache_clear()
