"""``trainkit show``: explains a component, or a table of a recipe, and its settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from trainkit import registry
from trainkit.aliases import way_to
from trainkit.cli import completion
from trainkit.cli.options import JSON
from trainkit.cli.output import echo, echo_json, fitted, styled
from trainkit.errors import RecipeError, did_you_mean


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit show run\n"
    "  trainkit show scheduler\n"
    "  trainkit show cosine\n"
    "  trainkit show losses/amplitude"
)
@click.argument("name", required=False, shell_complete=completion.components)
@JSON
def command(name: str | None, as_json: bool) -> None:
    """Explain NAME: a table or key of a recipe, such as run, groups or extends, or a component.

    A component has the name that a recipe gives after `use`. If components of several kinds have this name, all of them
    are shown; put the kind before the name to see one of them. Without NAME, the tables of a recipe are listed.
    """
    from trainkit.cli.plugin_inspection import refuse_harmful
    from trainkit.recipe.docstrings import docstring
    from trainkit.recipe.language import kinds_of_tables, tables

    if name is None:
        _list_tables(as_json)
        return
    known, kinds = tables(), kinds_of_tables()
    table = name.strip("[]").partition(".")[0]
    groups = {each.removeprefix("trainkit."): each for each in registry.entry_point_groups()}
    kind: Any = kinds.get(table)
    group = kind.entry_points if kind is not None else groups.get(name.removeprefix("trainkit."))
    matches = _matching(name)
    refuse_harmful({group for group, _ in matches} | ({group} if group is not None else set()))
    if not matches and table not in known and group is None:
        raise _unknown(name, [*known, *kinds, *groups])
    number = 0
    if not matches and table in known:
        number += 1
        if as_json:
            echo_json("table", name=table, text=docstring(known[table]).text, settings=_facts(known[table]))
        else:
            echo(styled(f"[{table}]" if known[table] is not known["extends"] else "extends, drop", bold=True))
            echo(fitted(explain(known[table])))
    elif group is not None:
        number += 1
        _show_kind(table if table in kinds else "", group, as_json)
    for group, found in matches:
        if as_json:
            facts = {"kind": group, "name": found.name, "package": found.package, "version": found.version}
            cls = found.load()
            echo_json("component", **facts, source=found.value, text=docstring(cls).text, settings=_facts(cls))
            continue
        if number:
            echo()
        number += 1
        echo(styled(f"{group}/{found.name}", bold=True), f"  ({found.package} {found.version}, {found.value})")
        echo(fitted(explain(found.load())))


def _list_tables(as_json: bool) -> None:
    """List the tables and keys of a recipe, each with its meaning."""
    from trainkit.recipe.docstrings import first_sentence, meanings
    from trainkit.recipe.language import kinds_of_tables, tables
    from trainkit.recipe.root import Recipe

    known, kinds = tables(), kinds_of_tables()
    texts = meanings(Recipe)
    said = {name: texts.get(name) or meanings(known[name]).get(name) or first_sentence(known[name]) for name in known}
    said |= {name: texts.get(name) or first_sentence(kinds[name]) for name in kinds}
    order = [*(key for key in texts if key in said), *(key for key in said if key not in texts)]
    width = max(map(len, said))
    for name in order:
        if as_json:
            kind = kinds[name].entry_points if name in kinds else None  # type: ignore[attr-defined]
            echo_json("table", name=name, text=said[name], components_of=kind)
        else:
            echo(styled(f"{name:<{width}}", bold=True), f"  {said[name]}")


def _show_kind(table: str, group: str, as_json: bool) -> None:
    """Print what the components of an entry-point group have in common, and list them.

    Args:
        table: The table of a recipe that holds them; empty: they stand in tables of other components.
        group: The entry-point group.
        as_json: Whether to print an object.
    """
    from trainkit.recipe.docstrings import docstring
    from trainkit.recipe.fields import settings_fields

    known = registry.registered(group)
    kind = registry.kind_of(group)
    text = docstring(kind).text if kind is not None else ""
    if as_json:
        names = [each.name for each in known]
        echo_json("kind", name=table or None, kind=group, text=text, components=names)
        return
    echo(styled(f"[{table}]" if table else group, bold=True), f'  a table with "use": a component of {group}')
    echo(text)
    if kind is not None and settings_fields(kind):
        echo("\nSettings of all of them")
        for line in _settings(kind):
            echo(line)
    echo("\nComponents")
    width = max((len(each.name) for each in known), default=0)
    for each in known:
        echo(f"  {each.name:<{width}}  {_sentence(each)}")


def _sentence(found: registry.RegisteredComponent) -> str:
    from trainkit.errors import ComponentError
    from trainkit.recipe.docstrings import first_sentence

    try:
        return first_sentence(found.load())
    except ComponentError as error:
        return str(error)


def _matching(name: str) -> list[tuple[str, registry.RegisteredComponent]]:
    """Return the components of a name, or else those that a name from another program stands for."""
    kind, _, use = name.rpartition("/")
    found = [
        (group, each)
        for group in registry.entry_point_groups()
        for each in registry.registered(group)
        if kind in ("", group, group.removeprefix("trainkit."), each.package)
    ]
    exact = [(group, each) for group, each in found if each.name == use]
    return exact or [(group, each) for group, each in found if each.name == registry.alias_of(group, use)]


def _unknown(name: str, tables: list[str]) -> RecipeError:
    known = [(group, found) for group in registry.entry_point_groups() for found in registry.registered(group)]
    qualified = "/" in name
    names = {f"{g.removeprefix('trainkit.')}/{f.name}" if qualified else f.name for g, f in known}
    ways = [(g, way) for g in registry.entry_point_groups() if (way := way_to(g, name.rpartition("/")[2]))]
    if ways:
        return RecipeError("\n".join(f'"{name}" is no component of {group}; {way}' for group, way in ways))
    near = did_you_mean(name, names | (set() if qualified else set(tables)))
    return RecipeError(f'no component "{name}" is installed, and no table of a recipe has this name; {near}')


def explain(cls: type[Any]) -> str:
    """Return a component's docstring, then each setting with its type, default, range and meaning."""
    from trainkit.recipe.docstrings import docstring
    from trainkit.recipe.fields import settings_fields

    heading = "Settings" if settings_fields(cls) else "It has no settings."
    return "\n".join([docstring(cls).text, "", heading, *_settings(cls)])


def _facts(cls: type[Any]) -> Iterator[dict[str, Any]]:
    """Yield each setting of a class as values of JSON."""
    from trainkit.recipe.explanation import settings_of

    for each in settings_of(cls):
        yield {
            "key": each.key,
            "value_type": each.annotation,
            "required": each.required,
            "default": each.default,
            "range": each.range or None,
            "text": each.text or None,
            "components_of": each.components_of,
        }


def _settings(cls: type[Any]) -> Iterator[str]:
    """Yield the lines about the settings of a class."""
    from trainkit.recipe.explanation import settings_of

    for each in settings_of(cls):
        default = ", required" if each.required else ", a table" if each.is_table else ""
        if not default and each.has_default:
            default = f" = {each.default!r}" if each.default is not None else ", optional"
        yield f"  {each.key}: {each.annotation}{default}{', ' * bool(each.range)}{each.range}"
        if each.text:
            yield f"      {each.text}"
        if each.components_of is not None:
            names = ", ".join(found.name for found in registry.registered(each.components_of))
            yield f"      components of {each.components_of}: {names or 'none is installed'}"
