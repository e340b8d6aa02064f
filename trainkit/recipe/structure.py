"""Turns tables into settings objects, by one rule.

A field typed with a *kind* (an abstract settings class bound to an entry-point group) is a table with ``use``: the
registry finds that class, and the rest of the table is read into it. Everything else follows the field's type,
strictly: nothing is coerced but a whole number to a float where a float is wanted.

All mistakes are found at once. If some fields of a class cannot be read, an incomplete object with the readable ones is
still made, so that validators and rules can report further mistakes. Touching a field that it lacks raises
AttributeError.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs

from trainkit import registry
from trainkit.contracts import Component, FileOrRun
from trainkit.errors import ComponentError, did_you_mean
from trainkit.printable import hide, printable
from trainkit.recipe.fields import (
    display_value,
    field_types,
    is_any,
    is_kind,
    is_literal,
    is_mapping,
    is_sequence,
    is_union,
    item_type,
    settings_fields,
    type_name,
    without_none,
)
from trainkit.recipe.limits import MOST_MISTAKES
from trainkit.recipe.origin import dotted
from trainkit.recipe.positions import Where
from trainkit.recipe.problems import Finding, InvalidRecipe
from trainkit.recipe.root import GroupSettings, Recipe
from trainkit.recipe.source import PathString, toml_value
from trainkit.recipe.tables import plain
from trainkit.recipe.wording import exception_text, reword_validator

Settings = TypeVar("Settings", bound=Component)

AllowCode = bool | Collection[str]
"""Which ``use = "module:Class"`` may be imported: any (True), none (False), or those that are listed."""


NO_TEXTS: Mapping[Where, str] = MappingProxyType({})


NO_CODE: AllowCode = frozenset()
"""Nothing may be imported, and the user has said so."""


class Unreadable:
    """Takes the place of a value that could not be read; in a mapping its key is still known."""

    __slots__ = ()


_PLACEHOLDER = re.compile(r"<([^<>]+)>")  # what `trainkit init` writes where the data do not say a value
UNREADABLE = Unreadable()

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_NAMES_OF_CONTROLS = {"\n": "a line break", "\t": "a tab", "\r": "a carriage return", "\b": "a backspace"}
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")

_INSTEAD = {
    "use": 'for an optimizer of its own, write optimizer = { use = "..." }',
    "rest": 'write parameters = "rest"',
}
"""Keys that people try in a group, and what they should write instead."""


def structure(
    tree: Mapping[str, Any], allow_code: AllowCode = True, texts: Mapping[Where, str] = NO_TEXTS
) -> tuple[Recipe, list[Finding]]:
    """Turn a recipe's tree into settings.

    Args:
        tree: The merged, interpolated tables.
        allow_code: See `AllowCode`.
        texts: How values of ``--set`` were written, which are taken as strings where strings are wanted.

    Returns:
        The settings, and all mistakes and notes. If there are mistakes, the settings lack what could not be read.
    """
    structurer = Structurer(allow_code, texts)
    recipe = structurer.settings(tree, Recipe, ())
    return recipe, structurer.findings + structurer.notes


def structure_settings(cls: type[Settings], values: Mapping[str, Any], table: str) -> Settings:
    """Return a component with settings that are given as values, for example as `Data.recognise` returns them.

    Args:
        cls: Its class.
        values: Its settings; paths may be paths or text.
        table: The table of a recipe that they would stand in, for messages.

    Raises:
        InvalidRecipe: The settings are wrong.
    """
    structurer = Structurer(True)
    made = structurer.settings(as_tables(values), cls, (table,))
    if structurer.findings:
        raise InvalidRecipe(each.located({}, table) for each in structurer.findings)
    settings: Settings = made
    return settings


def as_tables(value: Any) -> Any:
    """Return values as a recipe holds them: tables, lists, text, numbers."""
    if isinstance(value, Mapping):
        return {str(key): as_tables(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [as_tables(each) for each in value]
    return str(value) if isinstance(value, Path) else value


class Structurer:
    """Reads values of a recipe into the types of the fields that hold them.

    Each method returns what it could read, or UNREADABLE, and appends a finding for each mistake.

    Args:
        allow_code: See `AllowCode`.
        texts: See `structure`.
    """

    def __init__(self, allow_code: AllowCode, texts: Mapping[Where, str] = NO_TEXTS) -> None:
        self.findings: list[Finding] = []
        self.notes: list[Finding] = []
        self._allow_code = allow_code
        self._texts = texts
        self._optimizer: type | None = None  # the class of [optimizer], which is read before [groups]

    def value(self, value: Any, wanted: Any, where: Where) -> Any:
        """Read a value into a type."""
        if isinstance(value, str) and (placeholder := _PLACEHOLDER.fullmatch(value)):
            return self._mistake(where, f"is a placeholder: write {placeholder[1]}")
        try:
            return self._reader(wanted)(value, wanted, where)
        except Exception as error:  # the code of a foreign settings class may raise anything
            return self._mistake(where, f"{type(error).__name__}: {error}")

    def settings(self, value: Any, cls: type, where: Where) -> Any:
        """Read a table into a settings class."""
        if not isinstance(value, Mapping):
            return self._wrong_type(value, cls, where)
        before = len(self.findings)
        values = self._fields(value, cls, where)
        for key, field in settings_fields(cls).items():
            if field.init and key not in value and field.default is attrs.NOTHING:
                self._missing(key, field_types(cls)[field.name], where)
        return self._made(cls, values, set(value), where, sound=len(self.findings) == before)

    # ---- a method for each sort of type -----------------------------------------------------------------------------

    def _reader(self, wanted: Any) -> Callable[[Any, Any, Where], Any]:
        if wanted is GroupSettings:
            return self._group
        readers: dict[Callable[[Any], bool], Callable[[Any, Any, Where], Any]] = {
            is_kind: self._component,
            attrs.has: self.settings,
            is_union: self._union,
            is_mapping: self._mapping,
            is_sequence: self._sequence,
            is_literal: self._literal,
            is_any: self._anything,
        }
        return next((reader for fits, reader in readers.items() if fits(wanted)), self._scalar)

    def _scalar(self, value: Any, wanted: Any, where: Where) -> Any:
        may_be_run = wanted is FileOrRun
        wanted = getattr(wanted, "__supertype__", wanted)  # that of a NewType
        if wanted in (str, Path) and where in self._texts and type(value) in (int, float, bool):
            value = self._texts[where]  # --set run.name=nan
        if isinstance(value, str) and wanted is str:
            return _string(value)
        if isinstance(value, str) and wanted is Path:
            return self._path(value, where, may_be_run)
        if isinstance(value, PathString) and value.written is not None and wanted in (int, float, bool):
            value = toml_value(value)  # an environment variable holds a text
        if type(value) is int and wanted is float:
            return float(value)
        return value if type(value) is wanted else self._wrong_type(value, wanted, where)

    def _path(self, value: str, where: Where, may_be_run: bool) -> Any:
        if control := _CONTROL.search(value):
            what = _NAMES_OF_CONTROLS.get(control[0], "a control character")
            hint = """write the path in single quotes, '…', in which a backslash is itself"""
            return self._mistake(where, f"a path that contains {what}, which a backslash made", hint)
        folder, resolved = (value.folder, value.resolved) if isinstance(value, PathString) else (Path.cwd(), True)
        variable = None if resolved else _VARIABLE.search(value)
        try:
            path = Path(os.path.normpath(folder.absolute() / Path(value).expanduser()))
            if may_be_run and not path.exists() and (run := Path("runs", value).absolute()).exists():
                path = run
            if variable and not path.exists():
                name = variable[1] or variable[2]
                message = f"{variable[0]} is taken literally, and there is no such path"
                return self._mistake(where, message, f'for the environment variable, write "${{env.{name}}}"')
        except (RuntimeError, OSError, ValueError) as error:
            return self._mistake(where, f"no file can have this name: {error}")
        return path

    def _anything(self, value: Any, wanted: Any, where: Where) -> Any:
        return _plain(value)

    def _literal(self, value: Any, wanted: Any, where: Where) -> Any:
        allowed = get_args(wanted)
        for each in allowed:
            if type(each) is type(plain(value)) and each == value:
                return each
        near = did_you_mean(str(value), [each for each in allowed if isinstance(each, str)])
        return self._wrong_type(value, wanted, where, near if near.startswith("did") else "")

    def _sequence(self, value: Any, wanted: Any, where: Where) -> Any:
        if not isinstance(value, list):
            hint = f"a list has brackets: [{display_value(value)}]" if isinstance(value, str | int | float) else ""
            return self._wrong_type(value, wanted, where, hint)
        item_types = get_args(wanted) or (Any, ...)
        made = get_origin(wanted) or wanted
        if made is not tuple or Ellipsis in item_types:
            item_types = (item_types[0],) * len(value)
        elif len(value) != len(item_types):
            return self._mistake(where, f"must have {len(item_types)} items, got {len(value)}")
        before = len(self.findings)
        items = [
            self.value(each, item, (*where, index))
            for index, (each, item) in enumerate(zip(value, item_types, strict=True))
        ]
        if len(self.findings) > before:
            return UNREADABLE
        return items if made is list else tuple(items)

    def _mapping(self, value: Any, wanted: Any, where: Where) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong_type(value, wanted, where)
        return {key: self.value(each, item_type(wanted), (*where, key)) for key, each in value.items()}

    def _union(self, value: Any, wanted: Any, where: Where) -> Any:
        if value is None and type(None) in get_args(wanted):
            return None
        members = [each for each in get_args(wanted) if each is not type(None)]
        if len(members) == 1:
            return self.value(value, members[0], where)
        if isinstance(value, Mapping):
            fitting = [each for each in members if is_mapping(each) or attrs.has(each)]
        elif isinstance(value, list):
            fitting = [each for each in members if is_sequence(each)]
        else:
            plain = [each for each in members if not (is_mapping(each) or attrs.has(each) or is_sequence(each))]
            fitting = [each for each in plain if type(value) is each] or plain
        before = len(self.findings)
        for each in fitting:
            found = self.value(value, each, where)
            new = self.findings[before:]
            inside = found is not UNREADABLE or any(finding.where != where for finding in new)
            if not new or (inside and len(fitting) == 1):  # it is of this type; if something is wrong, it is inside
                return found
            del self.findings[before:]
        return self._wrong_type(value, wanted, where)

    def _component(self, value: Any, kind: type[Component], where: Where) -> Any:
        if not isinstance(value, Mapping):
            hint = f'write it as {{ use = "{value}" }}' if isinstance(value, str) else ""
            return self._wrong_type(value, kind, where, hint)
        if "use" not in value:
            return self._mistake(where, 'has no "use", which names the component', _components(kind), at="key")
        cls = self._component_class(value["use"], kind, (*where, "use"))
        if cls is UNREADABLE:
            return cls
        if where == ("optimizer",):
            self._optimizer = cls
        return self.settings({key: each for key, each in value.items() if key != "use"}, cls, where)

    def _component_class(self, use: Any, kind: type[Component], where: Where) -> Any:
        group: str = kind.entry_points  # type: ignore[attr-defined]  # is_kind made sure
        if not isinstance(use, str):
            return self._wrong_type(use, str, where)
        if ":" in use and not (self._allow_code if isinstance(self._allow_code, bool) else use in self._allow_code):
            return self._mistake(where, _refused_code(use, self._allow_code))
        try:
            cls = registry.find(group, str(use), f"[{dotted(where[:-1])}]")
            path = f"{cls.__module__}:{cls.__qualname__}"
            if not (issubclass(cls, kind) and attrs.has(cls)):
                return self._mistake(where, f'"{use}" is not a {kind.__name__} (of {group}): {path}')
            if inspect.isabstract(cls):
                lacking = ", ".join(sorted(cls.__abstractmethods__))
                return self._mistake(where, f'"{use}" is unfinished: {path} lacks {lacking}')
            field_types(cls)
            if alias := registry.alias_of(group, use.rpartition("/")[2]) if ":" not in use else None:
                self.notes.append(Finding(printable(f'"{use}" is taken for "{alias}"'), where, "note"))
        except registry.NotRegisteredError as error:
            return self._mistake(where, error.message, error.hint)
        except ComponentError as error:
            return self._mistake(where, str(error))
        return cls

    def _group(self, value: Any, wanted: Any, where: Where) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong_type(value, GroupSettings, where)
        before = len(self.findings)
        own = settings_fields(GroupSettings).keys() - {"options"}
        values = self._fields({key: each for key, each in value.items() if key in own}, GroupSettings, where)
        options = {key: each for key, each in value.items() if key not in own}
        for key in options.keys() & _INSTEAD.keys():
            self._mistake((*where, key), "unknown key", _INSTEAD[key], at="key")
            del options[key]
        own_optimizer = type(values["optimizer"]) if "optimizer" in values else None
        optimizer = own_optimizer if "optimizer" in value else self._optimizer
        if optimizer is None:
            values["options"] = plain(options)
        else:
            values["options"] = self._fields(options, optimizer, where, also_known=own)
            self._validate(_incomplete(optimizer, values["options"], set(options)), values["options"], where)
        return self._made(GroupSettings, values, set(value), where, sound=len(self.findings) == before)

    # ---- the parts of a settings class ------------------------------------------------------------------------------

    def _fields(
        self, table: Mapping[str, Any], cls: type, where: Where, also_known: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Read what a table holds of a class's fields, in the class's order: field alias -> value."""
        known = {key: field for key, field in settings_fields(cls).items() if field.init}
        for key in table:
            if key not in known:
                near = did_you_mean(key, {*known, *also_known}) if len(self.findings) < MOST_MISTAKES else ""
                self._mistake((*where, key), "unknown key", near, at="key")
        values = {
            key: self.value(table[key], field_types(cls).get(field.name, Any), (*where, key))
            for key, field in known.items()
            if key in table
        }
        return {key: each for key, each in values.items() if each is not UNREADABLE}

    def _made(self, cls: type, values: dict[str, Any], given: set[str], where: Where, sound: bool) -> Any:
        """Make the object, or an incomplete one if something is wrong.

        Args:
            cls: The settings class.
            values: Field alias -> value, of what was given and could be read.
            given: Aliases of the fields that were given.
            where: The place of the table.
            sound: Whether all of it could be read.
        """
        for key, field in settings_fields(cls).items():
            # A default path is relative to the working directory, as one from the command line is.
            if isinstance(field.default, Path) and key not in values:
                values = values | {key: field.default.absolute()}
        made: Any = None
        if sound:
            try:
                with attrs.validators.disabled():  # they are called below, each on its own
                    made = cls(**values)
            except Exception as error:  # a foreign __attrs_post_init__, default or converter may raise anything
                self._mistake(where, exception_text(error))
        complete = made is not None
        invalid = self._validate(made if complete else _incomplete(cls, values, given), values, where, complete)
        if complete and not invalid:
            return made
        return _incomplete(cls, {key: each for key, each in values.items() if key not in invalid}, given | invalid)

    def _validate(self, settings: Any, given: Mapping[str, Any], where: Where, complete: bool = False) -> set[str]:
        """Call the validator of each given field, so that all can speak, and return the fields that are invalid."""
        invalid: set[str] = set()
        for key, field in settings_fields(type(settings)).items():
            if field.validator is None or key not in given or not (complete or field.converter is None):
                continue
            try:
                field.validator(settings, field, getattr(settings, field.name))
            except Exception as error:  # a foreign validator may raise anything
                if isinstance(error, AttributeError) and not complete:
                    continue  # it looks at another field, which could not be read
                invalid.add(key)
                self._mistake((*where, key), reword_validator(error, field))
        return invalid

    # ---- findings ---------------------------------------------------------------------------------------------------

    def _mistake(self, where: Where, message: str, hint: str = "", at: Literal["key", "value"] = "value") -> Any:
        self.findings.append(Finding(printable(message), where, at=at, hint=printable(hint)))
        return UNREADABLE

    def _wrong_type(self, value: Any, wanted: Any, where: Where, hint: str = "") -> Any:
        return self._mistake(where, f"must be {type_name(wanted)}, got {display_value(value)}", hint)

    def _missing(self, key: str, wanted: Any, where: Where) -> None:
        kind = item_type(wanted) if is_mapping(wanted) else without_none(wanted)
        if is_kind(kind):
            self._mistake(where, f'"{key}" is missing', _components(kind), at="key")
        else:
            self._mistake(where, f'"{key}" is missing: {type_name(wanted)}', at="key")


def _string(value: Any) -> str:
    """Return a string of the recipe as a plain one; what comes from environment variables is not to be shown."""
    if isinstance(value, PathString) and value.written is not None:
        hide(value, value.written)
    return str(value)


def _plain(value: Any) -> Any:
    """Return a value of any type with plain strings, as `_string` makes them; a tensor of a checkpoint is itself."""
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _incomplete(cls: type, values: Mapping[str, Any], unread: Collection[str]) -> Any:
    """Return an object of the values and of the defaults of all other fields but the unread ones."""
    made: Any = object.__new__(cls)
    for key, field in settings_fields(cls).items():
        default: Any = field.default
        if key in values:
            object.__setattr__(made, field.name, values[key])
        elif key in unread or default is attrs.NOTHING:
            continue
        elif not isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # to type checkers it is a function
            object.__setattr__(made, field.name, default)
        elif not default.takes_self:
            object.__setattr__(made, field.name, default.factory())
    return made


def _components(kind: Any) -> str:
    names = sorted({found.name for found in registry.registered(kind.entry_points)})
    return f"known here: {', '.join(names)}" if names else f"nothing is registered in {kind.entry_points}"


def _refused_code(use: str, allowed: AllowCode) -> str:
    code = f"runs code from {use.partition(':')[0]}"
    if allowed is False:
        return f'"{use}" is not a registered component. Add --allow-code to import it: it {code}'
    if allowed is NO_CODE:
        return f'"{use}" is not a registered component, and --no-code is given: to import it {code}'
    return f'"{use}" is not a registered component, and the recipe given on the command line does not name it'
