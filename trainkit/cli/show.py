"""``trainkit show``: explains what a component does, and its settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import attrs
import click

from trainkit import registry
from trainkit.cli import completion
from trainkit.cli.options import JSON
from trainkit.cli.output import echo, echo_json, styled
from trainkit.errors import RecipeError, did_you_mean


@click.command(epilog="\b\nExamples:\n  trainkit show cosine\n  trainkit show losses/amplitude")
@click.argument("name", shell_complete=completion.components)
@JSON
def command(name: str, as_json: bool) -> None:
    """Explain the component NAME: what it does, and its settings.

    NAME is the name that a recipe gives after `use`. If components of several kinds have this name, all of them are
    shown; put the kind before the name to see one of them.
    """
    for number, (group, found) in enumerate(_matching(name)):
        if as_json:
            facts = {"kind": group, "name": found.name, "package": found.package, "version": found.version}
            cls = found.load()
            echo_json("component", **facts, source=found.value, text=_sections(cls)[0], settings=_facts(cls, ""))
            continue
        if number:
            echo()
        echo(styled(f"{group}/{found.name}", bold=True), f"  ({found.package} {found.version}, {found.value})")
        echo(explain(found.load()))


def _matching(name: str) -> list[tuple[str, registry.RegisteredComponent]]:
    kind, _, use = name.rpartition("/")
    known = [(group, found) for group in registry.entry_point_groups() for found in registry.registered(group)]
    matches = [(g, f) for g, f in known if f.name == use and kind in ("", g, g.removeprefix("trainkit."), f.package)]
    if not matches:
        near = did_you_mean(name, {f"{g.removeprefix('trainkit.')}/{f.name}" if kind else f.name for g, f in known})
        raise RecipeError(f'no component "{name}" is installed; {near}')
    return matches


def explain(cls: type[Any]) -> str:
    """Return a component's docstring, then each setting with its type, default and meaning."""
    from trainkit.recipe.fields import settings_fields

    text, _ = _sections(cls)
    heading = "Settings" if settings_fields(cls) else "It has no settings."
    return "\n".join([text, "", heading, *_settings(cls, "")])


def _facts(cls: type[Any], table: str) -> Iterator[dict[str, Any]]:
    """Yield each setting of a class as values of JSON, with ``table`` before its key."""
    from trainkit.recipe.fields import field_types, is_kind, settings_fields

    meanings = _meanings(cls)
    for key, field in settings_fields(cls).items():
        wanted = field_types(cls)[field.name]
        inner = [each for each in (wanted, *getattr(wanted, "__args__", ())) if attrs.has(each)]
        kind: Any = next((each for each in inner if is_kind(each)), None)
        yield {
            "key": f"{table}{key}",
            "value_type": _type_text(field, wanted),
            "required": field.default is attrs.NOTHING,
            "default": _default_value(field),
            "text": meanings.get(field.name),
            "components_of": kind.entry_points if kind is not None else None,
        }
        for each in inner:
            if not is_kind(each):
                yield from _facts(each, f"{table}{key}.")
                break


def _default_value(field: attrs.Attribute[Any]) -> Any:
    """Return the default of a setting; None: it has none, or none that JSON can hold."""
    made = getattr(field.default, "factory", None)
    if field.default is attrs.NOTHING or (made is not None and field.default.takes_self):  # type: ignore[union-attr]
        return None
    value = field.default if made is None else made()
    return None if attrs.has(type(value)) or callable(value) else value


def _meanings(cls: type[Any]) -> dict[str, str]:
    """Return what the docstring of a class and those of its parents say about each setting."""
    meanings: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        meanings |= _sections(each)[1]
    return meanings


def _settings(cls: type[Any], table: str) -> Iterator[str]:
    """Yield the lines about the settings of a class, with ``table`` before their names."""
    from trainkit.recipe.fields import field_types, is_kind, settings_fields

    meanings = _meanings(cls)
    for key, field in settings_fields(cls).items():
        wanted = field_types(cls)[field.name]
        inner = [each for each in (wanted, *getattr(wanted, "__args__", ())) if attrs.has(each)]
        kind: Any = next((each for each in inner if is_kind(each)), None)
        own_table = next((each for each in inner if not is_kind(each)), None)
        default = ", a table" if own_table and field.default is not attrs.NOTHING else _default(field)
        yield f"  {table}{key}: {_type_text(field, wanted)}{default}"
        if field.name in meanings:
            yield f"      {meanings[field.name]}"
        if kind is not None:
            names = ", ".join(found.name for found in registry.registered(kind.entry_points))
            yield f"      components of {kind.entry_points}: {names or 'none is installed'}"
        if own_table is not None:
            yield from _settings(own_table, f"{table}{key}.")


def _sections(cls: type[Any]) -> tuple[str, dict[str, str]]:
    """Return a class's docstring without its "Attributes:" section, and that section: name -> text."""
    own = vars(cls).get("__doc__") or ""
    before, heading, rest = inspect.cleandoc(own).partition("\nAttributes:\n")
    if not heading:
        return before.strip(), {}
    section = re.match(r"(?:[ \t]+\S.*(?:\n|$)|\n(?=[ \t]))*", rest)
    taken = section[0] if section else ""
    meanings: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc("\n" + taken).splitlines():
        entry = re.match(r"(\w+)(?: \([^)]*\))?: *(.*)", line)
        if entry and not line.startswith(" "):
            name = entry[1]
            meanings[name] = entry[2]
        elif name:
            meanings[name] = f"{meanings[name]} {line.strip()}".strip()
    return f"{before.strip()}\n\n{rest[len(taken) :].strip()}".strip(), meanings


def _type_text(field: attrs.Attribute[Any], wanted: Any) -> str:
    return field.type if isinstance(field.type, str) else getattr(wanted, "__name__", str(wanted))


def _default(field: attrs.Attribute[Any]) -> str:
    if field.default is attrs.NOTHING:
        return ", required"
    made = getattr(field.default, "factory", None)
    if made is None:
        return f" = {field.default!r}" if field.default is not None else ", optional"
    return "" if field.default.takes_self else f" = {made()!r}"  # type: ignore[union-attr]
