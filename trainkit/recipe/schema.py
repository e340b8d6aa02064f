"""Makes the JSON Schema of the recipes that the installed components allow, for editors.

The schema refuses what `check` refuses for reasons of form: unknown or missing keys, wrong types, numbers out of range.
It refuses nothing that `check` takes, with one exception, which is named in docs/editors.md. The shape of it:

    trainkit.losses              a kind: any of its components, a class of the user's, or a table without `use`
    trainkit.losses/amplitude    a component: its name in `use`, and its keys
    whole:…                      the same names: which keys may not be missing, in a recipe that extends no other one
    group:adam                   a parameter group, whose keys depend on its optimizer
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs

from trainkit import registry
from trainkit.contracts import Optimizer
from trainkit.errors import ComponentError
from trainkit.recipe.docstrings import docstring, first_sentence, meanings
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
)
from trainkit.recipe.language import Inheritance, Sweep
from trainkit.recipe.ranges import Range, choices_of, range_of, range_of_items
from trainkit.recipe.root import LANGUAGE, GroupSettings, PhaseSettings, Recipe, RunSettings, defaults, exclusive_pair
from trainkit.recipe.search import KEYS, SEARCH, Search
from trainkit.recipe.sweep import SWEEP

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
TITLE = "trainkit recipe"
FILE = "recipe.schema.json"
"""What the file of the schema is usually called, beside the recipes."""
DIRECTIVE = f"#:schema ./{FILE}"
"""The first line of a recipe, from which editors know the schema."""

_REFERENCE = r"\$\{"  # a string such as "${run.name}" can stand for a value of any type
_OTHER_USE = r"[:/]|\$\{"  # module:Class, package/name, a reference
_REFERENCE_STRING: Schema = {"type": "string", "pattern": _REFERENCE}
_OPEN = {"additionalProperties": True}  # tombi takes a table whose schema does not say so for a closed one
_PLACES: dict[type, tuple[str, ...]] = {
    RunSettings: ("run",),
    GroupSettings: ("groups", "*"),
    PhaseSettings: ("groups", "*", "then", "*"),
}
_SCALARS = {int: "integer", float: "number", bool: "boolean"}


def recipe_schema() -> tuple[Schema, list[str]]:
    """Return the JSON Schema (draft-07), and a sentence for each component that could not be imported."""
    made = _Definitions()
    root = made.table(Recipe)
    groups = {"type": "object", "additionalProperties": made.any_group(closed=False)}
    root["properties"]["groups"] = _described(_or_reference(groups), meanings(Recipe)["groups"])
    for key, schema in made.table(Inheritance)["properties"].items():
        root["properties"][key] = {**schema, "type": "array"}
        root["properties"][key].pop("pattern")
    root["properties"][SWEEP] = _described({"type": "object", **_OPEN}, docstring(Sweep).text)
    search = made.table(Search)
    search["properties"][KEYS[1]] = {"type": "object", "description": meanings(Search)[KEYS[1]], **_OPEN}
    root["properties"][SEARCH] = _described(search, docstring(Search).text)
    root["properties"]["trainkit"] = _described({"enum": [LANGUAGE]}, meanings(Recipe)["trainkit"])
    root["allOf"] = [_unless_lacking(made.whole_recipe()), *_groups_by_optimizer(made)]
    schema = {"$schema": DRAFT, "title": TITLE, **root, "definitions": dict(sorted(made.definitions.items()))}
    return schema, made.broken


def _unless_lacking(whole: Schema) -> Schema:
    """Return what holds for a recipe that extends no other one, and has no sweep that may set what it lacks."""
    lacking = {"anyOf": [{"required": [key], **_OPEN} for key in ("extends", SWEEP)], **_OPEN}
    return {"if": {"not": lacking, **_OPEN}, "then": whole, **_OPEN}


def _groups_by_optimizer(made: _Definitions) -> Iterable[Schema]:
    """Yield what [groups] may hold, for each optimizer that [optimizer] may name, and if it names none."""
    found = made.components(Optimizer)
    held = {name: _holding(made.group(f"group:{name}", cls)) for name, cls in found.items()}
    for name, groups in held.items():
        use = {"properties": {"use": {"const": name}}, **_has_use()}
        yield {"if": {"properties": {"optimizer": use}, "required": ["optimizer"], **_OPEN}, "then": groups, **_OPEN}
    inherited = _holding(made.group("group:*", None))
    by_default = held[defaults("run")["optimizer"]["use"]]
    unnamed = {"properties": {"optimizer": {"not": _has_use(), "type": "object", **_OPEN}}, **_OPEN}
    extending = {"if": {"required": ["extends"], **_OPEN}, "then": inherited, "else": by_default, **_OPEN}
    yield {"if": unnamed, "then": extending, **_OPEN}


def _holding(group: Schema) -> Schema:
    """Return the schema of a recipe whose groups all have a schema."""
    return {"properties": {"groups": {"additionalProperties": group}}, **_OPEN}


class _Definitions:
    """Makes the schemas of types, and of settings classes once each.

    Attributes:
        definitions: What `$ref` refers to.
        broken: A sentence for each component that could not be imported.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self.broken: list[str] = []
        self._components: dict[str, dict[str, type[Any]]] = {}
        self._tables: dict[type[Any], dict[str, Schema]] = {}
        self._given = defaults("run")

    # ---- what a value may be ----------------------------------------------------------------------------------------

    def table(self, cls: Any, closed: bool = True) -> Schema:
        """Return the schema of a table with the settings of a class."""
        if cls in self._tables:
            made = {"type": "object", "properties": dict(self._tables[cls]), "additionalProperties": not closed}
            pair = exclusive_pair(_PLACES[cls]) if cls in _PLACES else None
            return made | ({"not": {"required": list(pair), **_OPEN}} if pair else {})
        texts = meanings(cls)
        properties = {}
        for key, field in settings_fields(cls).items():
            if field.init:
                schema = self.value(field_types(cls).get(field.name, Any), field)
                properties[key] = _described(schema, texts.get(field.name, "")) | _default(field)
        self._tables[cls] = properties
        return self.table(cls, closed)

    def value(self, wanted: Any, field: attrs.Attribute[Any] | None = None) -> Schema:
        """Return the schema of a value of a type.

        Args:
            wanted: The type.
            field: The setting that has it, whose validator states a range; None: it is part of another value.
        """
        plain = getattr(wanted, "__supertype__", wanted)  # that of a NewType
        if is_any(wanted):
            return {}
        if is_kind(wanted):
            return self._reference(wanted.entry_points, lambda: self._kind(wanted))
        if attrs.has(wanted):
            name = f"{wanted.__module__}:{wanted.__qualname__}"
            return _or_reference(self._reference(name, lambda: self.table(wanted)))
        if is_union(wanted):
            return self._any_of([each for each in get_args(wanted) if each is not type(None)], field)
        if is_mapping(wanted):
            item = self.value(item_type(wanted)) if get_args(wanted) else {}
            return _or_reference({"type": "object", "additionalProperties": item or True})
        if is_sequence(wanted):
            return self._list(wanted, field)
        if is_literal(wanted):
            return _one_of(get_args(wanted))
        if plain in (str, Path) or plain not in _SCALARS:
            return self._text(wanted, plain, field)
        if field is not None and (choices := choices_of(field)) is not None:
            return _one_of(choices)
        limits = _limits(range_of(field, plain is int)) if field is not None and plain is not bool else {}
        return _typed(_SCALARS[plain]) | limits

    def _text(self, wanted: Any, plain: Any, field: attrs.Attribute[Any] | None) -> Schema:
        if plain not in (str, Path):
            return {}  # the type of a third party, of which nothing is known
        if field is not None and (choices := choices_of(field)) is not None:
            return _one_of(choices)
        return {"type": "string"}

    def _any_of(self, members: list[Any], field: attrs.Attribute[Any] | None) -> Schema:
        if len(members) == 1:
            return self.value(members[0], field)
        found = [self.value(each, field) for each in members]
        if {} in found:
            return {}
        flat = [part for each in found for part in (each["anyOf"] if set(each) == {"anyOf"} else [each])]
        unique = [each for number, each in enumerate(flat) if each not in flat[:number]]
        return _any_of(unique)

    def _list(self, wanted: Any, field: attrs.Attribute[Any] | None) -> Schema:
        items = [each for each in get_args(wanted) if each is not Ellipsis]
        made = _typed("array")
        if not items:
            return made
        schemas = [self.value(each) for each in items]
        if field is not None and items[0] in (int, float):
            schemas[0] |= _limits(range_of_items(field, items[0] is int))
        if (get_origin(wanted) or wanted) is tuple and Ellipsis not in get_args(wanted):
            made |= {"minItems": len(items), "maxItems": len(items)}
            if any(each != items[0] for each in items):
                return made | {"items": _any_of([each for each in schemas if each]) if all(schemas) else {}}
        return made | {"items": schemas[0]}

    # ---- components -------------------------------------------------------------------------------------------------

    def components(self, kind: Any) -> dict[str, type[Any]]:
        """Return the components of a kind that can be imported: the name in `use` that stands for it alone -> class."""
        group: str = kind.entry_points
        if group not in self._components:
            known = registry.registered(group)
            names = [each.name for each in known]
            found = self._components[group] = {}
            for each in known:
                try:
                    cls = each.load()
                    if not (issubclass(cls, kind) and attrs.has(cls)):
                        raise ComponentError(f'"{each.name}" of {each.package} is no {kind.__name__}: {each.value}')
                    field_types(cls)
                except ComponentError as error:
                    self.broken.append(str(error))
                else:
                    name = each.name if names.count(each.name) == 1 else f"{each.package}/{each.name}"
                    found[name] = cls
        return self._components[group]

    def _kind(self, kind: Any) -> Schema:
        group: str = kind.entry_points
        found = self.components(kind)
        tables = [self._component(group, name, cls) for name, cls in found.items()]
        broken = sorted(
            {each.name for each in registry.registered(group)} - {name.rpartition("/")[2] for name in found}
        )
        text = f"A class as module:Class, a component of {group} as package/name, or one that cannot be imported here."
        use = {"anyOf": [*({"const": name} for name in broken), {"type": "string", "pattern": _OTHER_USE}]}
        listed = {"not": {"properties": {"use": {"enum": list(found)}}, **_OPEN}}
        other = {"type": "object", "properties": {"use": _described(use, text)}, "required": ["use"], **listed, **_OPEN}
        return {"anyOf": [*tables, other, self._inherited(kind), _REFERENCE_STRING]}

    def _component(self, group: str, name: str, cls: Any) -> Schema:
        def made() -> Schema:
            table = self.table(cls)
            table["properties"] = {"use": _described({"const": name}, first_sentence(cls)), **table["properties"]}
            return _described(table | {"required": ["use"]}, docstring(cls).text)

        return self._reference(f"{group}/{name}", made)

    def _inherited(self, kind: Any) -> Schema:
        """Return the schema of a table without `use`, which a recipe inherits: the keys of all components."""
        by_key: dict[str, tuple[list[Schema], list[Schema]]] = {}
        for name, cls in self.components(kind).items():
            for key, schema in self.table(cls)["properties"].items():
                known, places = by_key.setdefault(key, ([], []))
                if schema not in known:
                    known.append(schema)
                    place = f"{_pointer(f'{kind.entry_points}/{name}')}/properties/{key}"
                    places.append(schema if "$ref" in schema else {"$ref": place})
        keys = {key: _any_of(places) for key, (_, places) in by_key.items()}
        text = f"The name of a component of {kind.entry_points}, or a class as module:Class."
        use = {"enum": list(self.components(kind)), "description": text}  # offered, never there
        properties = {"use": use, **keys}
        return {"type": "object", "not": _has_use(), "properties": properties, "additionalProperties": False}

    # ---- parameter groups -------------------------------------------------------------------------------------------

    def any_group(self, closed: bool) -> Schema:
        """Return the schema of a parameter group under an optimizer that is not known."""
        own = self.table(GroupSettings, closed)
        del own["properties"]["options"]
        settings = {
            key: _described({}, schema.get("description", ""))
            for cls in self.components(Optimizer).values()
            for key, schema in self.table(cls)["properties"].items()
        }
        return own | {"properties": {**settings, **own["properties"]}}

    def group(self, name: str, optimizer: type[Any] | None) -> Schema:
        """Return the schema of a parameter group without unknown keys, unless its own optimizer is a foreign class.

        Args:
            name: What the definition is called.
            optimizer: The class of [optimizer]; None: any of those that are installed.
        """
        own = self.any_group(closed=True)
        if optimizer is None:
            closed = own
        else:
            closed = self.table(GroupSettings)
            del closed["properties"]["options"]
            closed["properties"] = {**self.table(optimizer)["properties"], **closed["properties"]}
        other = {"properties": {"use": {"type": "string", "pattern": _OTHER_USE}}, "required": ["use"], **_OPEN}
        foreign = {"properties": {"optimizer": {"anyOf": [other, _REFERENCE_STRING]}}, **_OPEN}
        by_own = {"if": foreign, "then": _OPEN, "else": own, **_OPEN}
        has_own = {"required": ["optimizer"], **_OPEN}
        return self._reference(name, lambda: {"if": has_own, "then": by_own, "else": closed, **_OPEN})

    # ---- what may not be missing ------------------------------------------------------------------------------------

    def whole_recipe(self) -> Schema:
        """Return which keys a recipe must have that extends no other one."""
        made = self._whole_table(Recipe, self._given)
        for key, given in self._given.items():
            if "use" in given:
                kind = field_types(Recipe)[key]
                by_default = {"if": _lacks_use(), "then": self.table(self.components(kind)[given["use"]]), **_OPEN}
                named = {"if": _has_use(), "then": made["properties"][key], **_OPEN}
                made["properties"][key] = {"allOf": [by_default, named]}
        lengths = [{"required": [key], **_OPEN} for key in ("epochs", "steps")]
        made["properties"]["run"] |= {"oneOf": lengths}
        return made

    def _whole_table(self, cls: type[Any], given: Mapping[str, Any] = {}) -> Schema:
        fields = {key: each for key, each in settings_fields(cls).items() if each.init}
        required = [key for key, each in fields.items() if each.default is attrs.NOTHING and key not in given]
        properties = {}
        for key, field in fields.items():
            inner = given.get(key)
            part = self._whole(field_types(cls).get(field.name, Any), inner if isinstance(inner, Mapping) else {})
            if part:
                properties[key] = part
        return ({"required": required} if required else {}) | {"properties": properties, **_OPEN}

    def _whole(self, wanted: Any, given: Mapping[str, Any] = {}) -> Schema:
        if is_union(wanted):
            found = [part for each in get_args(wanted) if (part := self._whole(each, given))]
            return found[0] if len(found) == 1 else {}
        if is_kind(wanted):
            return self._reference(f"whole:{wanted.entry_points}", lambda: self._whole_kind(wanted))
        if attrs.has(wanted):
            if given:
                return self._whole_table(wanted, given)
            return self._reference(
                f"whole:{wanted.__module__}:{wanted.__qualname__}", lambda: self._whole_table(wanted)
            )
        if is_mapping(wanted) and get_args(wanted):
            inner = self._whole(item_type(wanted))
            return {"additionalProperties": inner} if inner else {}
        if is_sequence(wanted) and get_args(wanted):
            inner = self._whole(item_type(wanted))
            return {"items": inner} if inner else {}
        return {}

    def _whole_kind(self, kind: Any) -> Schema:
        cases = []
        for name, cls in self.components(kind).items():
            table = self._whole_table(cls)
            if table.get("required") or table["properties"]:
                condition = {"properties": {"use": {"const": name}}, **_has_use()}
                cases.append({"if": condition, "then": table, **_OPEN})
        return {"required": ["use"], **({"allOf": cases} if cases else {}), **_OPEN}

    def _reference(self, name: str, make: Any) -> Schema:
        if name not in self.definitions:
            self.definitions[name] = {}  # while it is made: settings may contain themselves
            self.definitions[name] = make()
        return {"$ref": _pointer(name)}


def _pointer(name: str) -> str:
    return f"#/definitions/{name.replace('~', '~0').replace('/', '~1')}"


def _lacks_use() -> Schema:
    return {"not": _has_use(), "type": "object", **_OPEN}


def _has_use() -> Schema:
    return {"required": ["use"], **_OPEN}


def _typed(kind: str) -> Schema:
    """Return the schema of a number, a boolean or a list, or of a string with a reference in its place."""
    return {"type": [kind, "string"], "pattern": _REFERENCE}


def _one_of(choices: Sequence[Any]) -> Schema:
    """Return the schema of a choice, or of a string with a reference in its place.

    The pattern repeats the choices, because the message of an editor that finds none of them shows the pattern.
    """
    texts = [f"^{re.escape(each)}$" for each in choices if isinstance(each, str)]
    return {"anyOf": [{"enum": list(choices)}, {"type": "string", "pattern": "|".join([*texts, _REFERENCE])}]}


def _or_reference(schema: Schema) -> Schema:
    return {"anyOf": [schema, _REFERENCE_STRING]}


def _any_of(schemas: list[Schema]) -> Schema:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _described(schema: Schema, text: str) -> Schema:
    return {**schema, "description": text} if text else schema


def _limits(found: Range) -> Schema:
    names = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
    return {name: bound for name, bound in zip(names, found, strict=True) if bound is not None}


def _default(field: attrs.Attribute[Any]) -> Schema:
    default = field.default
    made = getattr(default, "factory", None)
    if made is not None and not default.takes_self:  # type: ignore[union-attr]
        default = made()
    default = list(default) if isinstance(default, tuple) else default
    plain = isinstance(default, bool | int | float | str) or (
        isinstance(default, list) and all(isinstance(each, bool | int | float | str) for each in default)
    )
    return {"default": default} if plain else {}
