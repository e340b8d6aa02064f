"""Tables to settings objects, by one rule.

A field typed with a *kind* (an abstract settings class bound to an entry-point group) is a table with ``use``: the
registry finds that class, and the rest of the table is structured into it. Everything else follows the field's type,
strictly: nothing is coerced but a whole number to a float where a float is wanted.

All mistakes are found at once. So a class whose fields are wrong still becomes an object, with the readable fields
alone, on which validators and rules say what else is wrong; touching a field that it lacks raises AttributeError.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.errors import AttributeValidationNote, BaseValidationError, ClassValidationError, IterableValidationError
from cattrs.errors import IterableValidationNote as IndexNote

from trainkit import registry
from trainkit.contracts import Component, Optimizer
from trainkit.errors import ComponentError, did_you_mean
from trainkit.recipe.fields import (
    field_types,
    is_any,
    is_kind,
    is_literal,
    is_mapping,
    is_sequence,
    is_union,
    item_type,
    settings_fields,
    shown,
    type_name,
    without_none,
)
from trainkit.recipe.positions import Where
from trainkit.recipe.problems import Finding
from trainkit.recipe.root import GroupSettings, Recipe
from trainkit.recipe.source import Text
from trainkit.recipe.tables import plain
from trainkit.recipe.wording import text_of, worded

AllowCode = bool | Collection[str]
"""Which ``use = "module:Class"`` may be imported: any (True), none (False), or those that are listed."""


class Structured(NamedTuple):
    """What became of a recipe's tree.

    Attributes:
        recipe: The settings; where there are findings, without what could not be read.
        findings: All mistakes.
    """

    recipe: Recipe
    findings: list[Finding]


class Unreadable:
    """Stands in a mapping for an item that could not be read: its name is known, nothing else."""

    __slots__ = ()


def structure(tree: Mapping[str, Any], allow_code: AllowCode = True) -> Structured:
    """Turn a recipe's tree into settings.

    Args:
        tree: The merged, interpolated tables.
        allow_code: See `AllowCode`.
    """
    converter = _converter(_optimizer_class(tree, allow_code), allow_code)
    try:
        return Structured(converter.structure(tree, Recipe), [])
    except ClassValidationError as error:
        return Structured(_readable(error), list(_findings(error, ())))


# ---- the rule for each type -----------------------------------------------------------------------------------------


class _MistakeError(Exception):
    """A mistake in one value, or in the key that it belongs to."""

    def __init__(self, message: str, hint: str = "", at: Literal["key", "value"] = "value") -> None:
        super().__init__(message)
        self.hint = hint
        self.at: Literal["key", "value"] = at


def _converter(optimizer: type | None, allow_code: AllowCode) -> Converter:
    converter = Converter(detailed_validation=True)
    for scalar in (int, float, bool, str):
        converter.register_structure_hook(scalar, _scalar)
    converter.register_structure_hook(Path, _path)
    converter.register_structure_hook_func(is_any, lambda value, _: plain(value))
    converter.register_structure_hook_func(is_literal, _literal)
    converter.register_structure_hook_func(is_sequence, lambda value, wanted: _sequence(value, wanted, converter))
    converter.register_structure_hook_func(is_mapping, lambda value, wanted: _mapping(value, wanted, converter))
    converter.register_structure_hook_func(is_union, lambda value, wanted: _union(value, wanted, converter))
    converter.register_structure_hook_func(attrs.has, lambda value, cls: _settings(value, cls, converter))
    converter.register_structure_hook_func(is_kind, lambda value, kind: _component(value, kind, converter, allow_code))
    converter.register_structure_hook(GroupSettings, lambda value, _: _group(value, optimizer, converter))
    return converter


def _scalar(value: Any, wanted: type) -> Any:
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is str and isinstance(value, str):
        return str(value)
    if type(value) is not wanted:
        raise _wrong_type(value, wanted)
    return value


def _path(value: Any, wanted: type) -> Path:
    if not isinstance(value, str):
        raise _wrong_type(value, wanted)
    folder = value.folder if isinstance(value, Text) else Path.cwd()
    return Path(os.path.normpath(folder.absolute() / Path(value).expanduser()))


def _literal(value: Any, wanted: Any) -> Any:
    allowed = get_args(wanted)
    for each in allowed:
        if type(each) is type(plain(value)) and each == value:
            return each
    names = [each for each in allowed if isinstance(each, str)]
    near = did_you_mean(value, names) if isinstance(value, str) else ""
    raise _MistakeError(f"must be {type_name(wanted)}, got {shown(value)}", near if near.startswith("did") else "")


def _sequence(value: Any, wanted: Any, converter: Converter) -> Any:
    if not isinstance(value, list):
        hint = f"[{shown(value)}]" if isinstance(value, str | int | float) else ""
        raise _wrong_type(value, wanted, f"a list has brackets: {hint}" if hint else "")
    item_types = get_args(wanted) or (Any, ...)
    made = get_origin(wanted) or wanted
    if made is tuple and Ellipsis not in item_types:
        if len(value) != len(item_types):
            raise _MistakeError(f"must have {len(item_types)} items, got {len(value)}")
    else:
        item_types = (item_types[0],) * len(value)
    items: list[Any] = []
    errors: list[Exception] = []
    for index, (each, wanted_item) in enumerate(zip(value, item_types, strict=True)):
        try:
            items.append(converter.structure(each, wanted_item))
        except Exception as error:  # whatever it is, it is shown with its place
            errors.append(_noted(error, IndexNote(f"item {index}", index, wanted_item)))
    if errors:
        raise IterableValidationError("items", errors, wanted)
    return items if made is list else tuple(items)


def _mapping(value: Any, wanted: Any, converter: Converter) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong_type(value, wanted)
    wanted_item = item_type(wanted)
    items: dict[str, Any] = {}
    errors: list[Exception] = []
    for key, each in value.items():
        try:
            items[key] = converter.structure(each, wanted_item)
        except Exception as error:  # whatever it is, it is shown with its place
            items[key] = _readable(error)
            errors.append(_noted(error, IndexNote(f"item {key}", key, wanted_item)))
    if errors:
        raise _with_readable(IterableValidationError("items", errors, wanted), items)
    return items


def _union(value: Any, wanted: Any, converter: Converter) -> Any:
    if value is None and type(None) in get_args(wanted):
        return None
    members = [each for each in get_args(wanted) if each is not type(None)]
    if isinstance(value, Mapping):
        fitting = [each for each in members if is_mapping(each) or attrs.has(each) or is_kind(each)]
    elif isinstance(value, list):
        fitting = [each for each in members if is_sequence(each)]
    else:
        exact = [each for each in members if type(value) is each]
        fitting = exact or [each for each in members if not (is_mapping(each) or attrs.has(each) or is_sequence(each))]
    if len(members) == 1:
        return converter.structure(value, members[0])
    for each in fitting:
        try:
            return converter.structure(value, each)
        except _MistakeError:
            continue
        except BaseValidationError:  # it has the member's shape; what is wrong is inside
            if len(fitting) == 1:
                raise
    raise _wrong_type(value, wanted)


def _settings(value: Any, cls: type, converter: Converter) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong_type(value, cls)
    values, errors = _fields(value, cls, converter)
    for key, field in settings_fields(cls).items():
        if field.init and key not in value and field.default is attrs.NOTHING:
            errors.append(_missing(key, field_types(cls)[field.name]))
    return _made(cls, values, set(value) - set(values), errors)


def _component(value: Any, kind: type[Component], converter: Converter, allow_code: AllowCode) -> Any:
    if not isinstance(value, Mapping):
        hint = f'{{ use = "{value}" }}' if isinstance(value, str) else ""
        raise _wrong_type(value, kind, f"write it as {hint}" if hint else "")
    if "use" not in value:
        raise _MistakeError("has no use, which names the component", _components(kind), at="key")
    rest = {key: each for key, each in value.items() if key != "use"}
    return _settings(rest, component_class(value["use"], kind, allow_code), converter)


def component_class(use: Any, kind: type[Component], allow_code: AllowCode = True) -> type[Component]:
    """Return the class that ``use`` names, made sure that it is of the kind.

    Raises:
        ClassValidationError: It names none, with the mistake at ``use``.
    """
    group: str = kind.entry_points  # type: ignore[attr-defined]  # is_kind made sure
    try:
        if not isinstance(use, str):
            raise _wrong_type(use, str)
        if ":" in use and not (allow_code if isinstance(allow_code, bool) else use in allow_code):
            raise _MistakeError(_refused_code(use, asked=allow_code is False))
        cls: type[Component] = registry.find(group, str(use))
        is_settings = issubclass(cls, kind) and bool(attrs.has(cls))
        if not is_settings:
            raise _MistakeError(f'"{use}" is no {kind.__name__} (of {group}): {cls.__module__}:{cls.__qualname__}')
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(cls.__abstractmethods__))
            raise _MistakeError(f'"{use}" is unfinished: {cls.__module__}:{cls.__qualname__} lacks {missing}')
        field_types(cls)
    except registry.NotRegisteredError as error:
        mistake = _MistakeError(error.message, error.hint)
    except ComponentError as error:
        mistake = _MistakeError(str(error))
    except _MistakeError as error:
        mistake = error
    else:
        return cls
    raise ClassValidationError("use", [_noted(mistake, AttributeValidationNote("use", "use", str))], kind)


def _group(value: Any, optimizer: type | None, converter: Converter) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong_type(value, GroupSettings)
    own = settings_fields(GroupSettings).keys() - {"options"}
    values, errors = _fields({key: each for key, each in value.items() if key in own}, GroupSettings, converter)
    options = {key: each for key, each in value.items() if key not in own}
    if "use" in options:
        del options["use"]
        mistake = _MistakeError(
            "a group has no optimizer of its own, it only overrides settings of [optimizer]", at="key"
        )
        errors.append(_noted(mistake, AttributeValidationNote("use", "use", str)))
    unread = set(value) - set(values)
    if optimizer is None:
        values["options"] = {key: plain(each) for key, each in options.items()}
    else:
        values["options"], wrong = _fields(options, optimizer, converter, also_known=own)
        stand_in = _stand_in(optimizer, values["options"], set(options))
        errors += [*wrong, *_invalid(stand_in, values["options"], complete=False).values()]
    return _made(GroupSettings, values, unread, errors)


def _optimizer_class(tree: Mapping[str, Any], allow_code: AllowCode) -> type | None:
    table = tree.get("optimizer")
    try:
        return component_class(table.get("use"), Optimizer, allow_code) if isinstance(table, Mapping) else None
    except ClassValidationError:  # said where the optimizer itself is structured
        return None


def _fields(
    table: Mapping[str, Any], cls: type, converter: Converter, also_known: Iterable[str] = ()
) -> tuple[dict[str, Any], list[Exception]]:
    """Structure what a table holds of a class's fields: field alias -> value, and what is wrong."""
    known = {key: field for key, field in settings_fields(cls).items() if field.init}
    values: dict[str, Any] = {}
    errors: list[Exception] = []
    for key, each in table.items():
        if key not in known:
            error: Exception = _MistakeError("unknown key", did_you_mean(key, {*known, *also_known}), at="key")
            errors.append(_noted(error, AttributeValidationNote(key, key, cls)))
            continue
        wanted = field_types(cls).get(known[key].name, Any)
        try:
            values[key] = converter.structure(each, wanted)
        except Exception as failed:  # whatever it is, it is shown with its place
            readable = _readable(failed)
            if not isinstance(readable, Unreadable):
                values[key] = readable
            errors.append(_noted(failed, AttributeValidationNote(key, key, wanted)))
    return values, errors


def _made(cls: type, values: dict[str, Any], unread: set[str], errors: list[Exception]) -> Any:
    """Make the object; with errors, a stand-in of what is readable goes with them.

    Args:
        cls: The settings class.
        values: Field alias -> value.
        unread: Aliases of fields that were given and could not be read.
        errors: What is wrong so far.
    """
    for key, field in settings_fields(cls).items():
        # A default path is relative to the working directory, as one from the command line is.
        if isinstance(field.default, Path) and key not in values:
            values = values | {key: field.default.absolute()}
    made: Any = None
    if not errors:
        try:
            with attrs.validators.disabled():  # they are called below, each for itself
                made = cls(**values)
        except Exception as error:  # a foreign __attrs_post_init__, default or converter may raise anything
            errors = [_MistakeError(text_of(error))]
    invalid = _invalid(made or _stand_in(cls, values, unread), values, complete=made is not None)
    if errors or invalid:
        valid = {key: each for key, each in values.items() if key not in invalid}
        group = ClassValidationError(cls.__name__, [*errors, *invalid.values()], cls)
        raise _with_readable(group, _stand_in(cls, valid, unread | set(invalid)))
    return made


def _stand_in(cls: type, values: Mapping[str, Any], unread: set[str]) -> Any:
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


def _invalid(settings: Any, given: Mapping[str, Any], complete: bool) -> dict[str, Exception]:
    """Call the validator of each given field, so that all speak: field alias -> what it said."""
    errors: dict[str, Exception] = {}
    for key, field in settings_fields(type(settings)).items():
        if field.validator is None or key not in given or not (complete or field.converter is None):
            continue
        try:
            field.validator(settings, field, getattr(settings, field.name))
        except Exception as error:  # a foreign validator may raise anything
            if isinstance(error, AttributeError) and not complete:
                continue  # it looks at another field, which could not be read
            errors[key] = _noted(_MistakeError(worded(error, field)), AttributeValidationNote(key, key, None))
    return errors


# ---- small things ---------------------------------------------------------------------------------------------------


def _missing(key: str, wanted: Any) -> _MistakeError:
    kind = item_type(wanted) if is_mapping(wanted) else without_none(wanted)
    if is_kind(kind):
        return _MistakeError(f'"{key}" is missing', _components(kind), at="key")
    return _MistakeError(f'"{key}" is missing: {type_name(wanted)}', at="key")


def _components(kind: Any) -> str:
    names = sorted({found.name for found in registry.registered(kind.entry_points)})
    return f"known here: {', '.join(names)}" if names else f"nothing is registered in {kind.entry_points}"


def _refused_code(use: str, asked: bool) -> str:
    if asked:
        module = use.partition(":")[0]
        return f'"{use}" is not a registered component. Add --allow-code to import it: it runs code from {module}'
    return f'"{use}" is not a registered component, and the recipe given on the command line does not name it'


def _wrong_type(value: Any, wanted: Any, hint: str = "") -> _MistakeError:
    return _MistakeError(f"must be {type_name(wanted)}, got {shown(value)}", hint)


def _noted(error: Exception, note: str) -> Exception:
    error.__notes__ = [*getattr(error, "__notes__", []), note]
    return error


def _with_readable(error: BaseValidationError, readable: Any) -> BaseValidationError:
    error.readable = readable  # type: ignore[attr-defined]
    return error


def _readable(error: Exception) -> Any:
    return getattr(error, "readable", Unreadable())


def _findings(error: Exception, where: Where) -> Iterator[Finding]:
    if isinstance(error, BaseValidationError):
        for each in error.exceptions:
            note = getattr(each, "__notes__", [None])[-1]
            key = getattr(note, "name", getattr(note, "index", None))
            yield from _findings(each, where if key is None else (*where, key))
    elif isinstance(error, _MistakeError):
        yield Finding(str(error), where, at=error.at, hint=error.hint)
    else:
        yield Finding(f"{type(error).__name__}: {error}", where)
