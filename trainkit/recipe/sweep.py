"""The table ``[sweep]`` of a recipe: which runs it describes, how they are called, and what is wrong with it.

    [sweep]                          every combination of the values
    optimizer.lr = [1e-2, 1e-3]

    [sweep.together.size]            keys that move together: the first values, then the second ones, …
    data.patch_size = [[64, 64, 64], [96, 96, 96]]
    data.batch_size = [4, 2]

A point of the sweep is a layer over the rest of the recipe, as ``--set`` is. So a value that changes ``use`` drops the
keys beside it, and a mistake in a point has the place of the value in the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import attrs
from xxhash import xxh3_64_hexdigest

from trainkit.recipe.fields import display_value, settings_fields
from trainkit.recipe.layers import merge
from trainkit.recipe.origin import Origin, dotted
from trainkit.recipe.positions import Where, dotted_key
from trainkit.recipe.problems import Finding
from trainkit.recipe.references import has
from trainkit.recipe.root import Recipe, RunSettings
from trainkit.recipe.source import Layer, PathString
from trainkit.recipe.tables import plain
from trainkit.words import some_of

SWEEP = "sweep"
MOST_POINTS = 1000
_MANY_POINTS = 100  # from so many on, the number is pointed out
_TOGETHER = "together"
_LONGEST_NAME = 80  # characters of the name of a run
_NAME, _DIR = ("run", "name"), ("run", "dir")


@attrs.frozen
class SweepPoint:
    """What tells a run of a sweep apart from the others.

    Attributes:
        folder: The folder that holds the runs of the sweep.
        values: Key of the recipe -> its value, for each key that the sweep changes.
    """

    folder: Path
    values: Mapping[Where, Any]


class Point(NamedTuple):
    """A run of a sweep, before it is checked.

    Attributes:
        name: Its name.
        values: See `SweepPoint`.
        layer: The settings that make it.
    """

    name: str
    values: Mapping[Where, Any]
    layer: Layer


def points(base: Layer, sets: Layer, stem: str) -> tuple[list[Point], list[Finding]]:
    """Return the points of a sweep.

    Args:
        base: The whole recipe, before references are replaced.
        sets: The layer of ``--set``, which is part of it.
        stem: The name of the recipe file without its suffix.

    Returns:
        The points, the last key changing fastest, and what is wrong with the table. If there is a mistake, there are no
        points.
    """
    axes, found = _read(base, sets)
    number = prod(len(axis.rows) for axis in axes)
    if number > MOST_POINTS:
        found.append(Finding(f"{_factors(axes)} runs; a sweep may have {MOST_POINTS}", (SWEEP,), at="key"))
    run = base.tree.get("run")
    run = run if isinstance(run, Mapping) else {}
    name = run.get("name", stem)
    named_by_user = isinstance(name, str) and "${" in name.replace("$${", "")
    above = stem if named_by_user else name
    try:
        field = settings_fields(RunSettings)["name"]
        field.validator(None, field, f"{above}_{SWEEP}")  # type: ignore[misc]  # it has one
    except ValueError as error:
        found.append(Finding(str(error), _NAME))
    if found:
        return [], found
    if number >= _MANY_POINTS:
        found.append(Finding(f"{_factors(axes)} runs, one after the other", (SWEEP,), "warning", at="key"))
    combinations = list(product(*(axis.rows for axis in axes)))
    short = short_names([key for axis in axes for key in axis.keys])
    names = _distinct([(_label(axes, rows, short), repr(plain([row.tree for row in rows]))) for rows in combinations])
    folder = run.get("dir", PathString("runs", Path.cwd()))
    made = []
    for label, rows in zip(names, combinations, strict=True):
        own: dict[str, Any] = {} if named_by_user else {"name": PathString(label, Path.cwd())}
        if isinstance(folder, PathString):
            own["dir"] = PathString(f"{folder}/{above}_{SWEEP}", folder.folder)
        here = base.origins.get((SWEEP,), Origin(f"[{SWEEP}]"))
        layer = Layer({"run": own}, {("run", key): here for key in own})
        for row in rows:
            layer = merge(Layer(_without_name(row.tree), row.origins), layer)
        values = {key: plain(value) for row in rows for key, value in row.values.items() if key != _NAME}
        made.append(Point(label, values, layer))
    return made, found


class _Row(NamedTuple):
    """The values of one place of an axis.

    Attributes:
        values: Key -> value.
        tree: The same as tables.
        origins: Where each of them stands.
    """

    values: Mapping[Where, Any]
    tree: dict[str, Any]
    origins: dict[Where, Origin]


class _Axis(NamedTuple):
    """A key, or several keys that move together, and their values."""

    keys: tuple[Where, ...]
    rows: tuple[_Row, ...]


class _Key(NamedTuple):
    """A key of the recipe that is swept, its place in the table, and its values."""

    where: tuple[str, ...]
    place: Where
    values: list[Any]


# ---- reading --------------------------------------------------------------------------------------------------------


def _read(base: Layer, sets: Layer) -> tuple[list[_Axis], list[Finding]]:
    table = base.tree[SWEEP]
    found: list[Finding] = []
    if not isinstance(table, Mapping):
        return [], [Finding(f"must be a table, got {display_value(table)}", (SWEEP,))]
    groups: list[tuple[Where, list[_Key]]] = []
    for name, value in table.items():
        if name != _TOGETHER:
            groups += [((), [key]) for key in _keys({name: value}, (SWEEP,), found)]
        elif not isinstance(value, Mapping):
            found.append(Finding(f"must be a table, got {display_value(value)}", (SWEEP, name)))
        else:
            groups += list(_moving_together(value, found))
    known: list[Where] = []
    for _, keys in groups:
        for key in keys:
            found += _mistakes_of(key, known, sets)
            known.append(key.where)
    axes = []
    for place, keys in groups:
        lengths = {dotted(key.where): len(key.values) for key in keys}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} has {number}" for name, number in lengths.items())
            found.append(Finding(f"keys that move together need equally many values; {told}", place, at="key"))
            continue
        rows = tuple(_row(keys, number, base.origins) for number in range(len(keys[0].values)))
        found += _repetitions(keys, rows)
        axes.append(_Axis(tuple(key.where for key in keys), rows))
    if not axes and not found:
        found.append(Finding("names no key; write, for example, optimizer.lr = [1e-2, 1e-3]", (SWEEP,), at="key"))
    return axes, found


def _keys(table: Mapping[str, Any], place: Where, found: list[Finding]) -> Iterator[_Key]:
    """Yield the keys of a table with lists of values; a quoted key such as "optimizer.lr" is read as a dotted one."""
    for name, value in table.items():
        parts = dotted_key(name)
        where = parts[0] if parts and parts[1] == len(name) else (name,)
        yield from _keys_at(where, (*place, name), value, found)


def _keys_at(where: tuple[str, ...], place: Where, value: Any, found: list[Finding]) -> Iterator[_Key]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _keys_at((*where, name), (*place, name), each, found)
    elif not isinstance(value, list):
        shown = display_value(value)
        found.append(Finding(f"must be a list of values, got {shown}", place, hint=f"write [{shown}]"))
    elif not value:
        found.append(Finding("must have at least one value", place))
    else:
        yield _Key(where, place, value)


def _moving_together(table: Mapping[str, Any], found: list[Finding]) -> Iterator[tuple[Where, list[_Key]]]:
    for name, value in table.items():
        place = (SWEEP, _TOGETHER, name)
        if name in _TABLES or not isinstance(value, Mapping):
            example = f"[{SWEEP}.{_TOGETHER}.size]"
            message = f"keys that move together stand in a table with a name of your choice, such as {example}"
            found.append(Finding(message, place, at="key"))
        elif keys := list(_keys(value, place, found)):
            yield place, keys


_TABLES = settings_fields(Recipe).keys()


def _mistakes_of(key: _Key, known: Sequence[Where], sets: Layer) -> Iterator[Finding]:
    where, name = key.where, dotted(key.where)
    if where == _DIR:
        yield Finding("all runs of a sweep are in one folder", key.place, at="key")
    for other in known:
        if where == other:
            yield Finding(f"{name} is given values twice", key.place, at="key")
        elif where[: len(other)] == other or other[: len(where)] == where:
            yield Finding(f"{name} and {dotted(other)} overlap; give each run the values of both", key.place, at="key")
    if has(sets.tree, where):
        yield Finding(
            "the sweep gives it its values",
            where,
            hint=f"--set {SWEEP}.{name}=[…] gives it others, and --set 'drop=[\"{SWEEP}\"]' makes it a single run",
        )


def _repetitions(keys: Sequence[_Key], rows: Sequence[_Row]) -> Iterator[Finding]:
    seen: list[str] = []
    for number, row in enumerate(rows):
        text = repr(plain(row.tree))
        if text in seen:
            yield Finding("is the same as an earlier value", (*keys[0].place, number))
        seen.append(text)


def _row(keys: Sequence[_Key], number: int, origins: Mapping[Where, Origin]) -> _Row:
    """Return the values of several keys as a layer; each setting comes from where its value stands in the sweep."""
    tree: dict[str, Any] = {}
    own: dict[Where, Origin] = {}
    for key in keys:
        table, (*outer, last) = tree, key.where
        for part in outer:
            table = table.setdefault(part, {})
        table[last] = key.values[number]
        above = len(key.place) - len(key.where)  # the parts of the place that are not parts of the key
        for depth in range(1, len(key.where)):
            if (origin := origins.get(key.place[: above + depth] if above > 0 else key.place)) is not None:
                own.setdefault(key.where[:depth], origin)
        item = (*key.place, number)
        for place, origin in origins.items():
            if place[: len(item)] == item:
                own[(*key.where, *place[len(item) :])] = origin
        if (at_key := origins.get(key.place)) is not None:
            value = origins.get(item, at_key).value
            own[key.where] = Origin(at_key.source, at_key.key, value)
    return _Row({key.where: key.values[number] for key in keys}, tree, own)


def _without_name(tree: dict[str, Any]) -> dict[str, Any]:
    """Return tables without the name of the run, which became part of the point's name."""
    run = tree.get("run")
    if not isinstance(run, dict) or "name" not in run:
        return tree
    return {**tree, "run": {key: value for key, value in run.items() if key != "name"}}


def _factors(axes: Sequence[_Axis]) -> str:
    numbers = [len(axis.rows) for axis in axes]
    return f"{' × '.join(map(str, numbers))} = {prod(numbers)}" if len(numbers) > 1 else str(numbers[0])


# ---- names ----------------------------------------------------------------------------------------------------------


def short_names(keys: Sequence[Where]) -> dict[Where, str]:
    """Return as few last parts of each key as tell it apart from the others.

    Example:
        >>> list(short_names([("groups", "a", "lr"), ("groups", "b", "lr"), ("model", "use")]).values())
        ['a_lr', 'b_lr', 'model']
    """
    shown = {key: key[:-1] if len(key) > 1 and key[-1] == "use" else key for key in keys}
    names = {}
    for key, parts in shown.items():
        others = [other for each, other in shown.items() if each != key]
        lengths = range(1, len(parts) + 1)
        fewest = next((n for n in lengths if all(other[-n:] != parts[-n:] for other in others)), len(parts))
        names[key] = "_".join(map(str, parts[-fewest:]))
    return names


def _label(axes: Sequence[_Axis], rows: Sequence[_Row], short: Mapping[Where, str]) -> str:
    """Return the name of a point: what differs. Where ``run.name`` moves with other keys, it stands for all of them."""
    parts = []
    for axis, row in zip(axes, rows, strict=True):
        if _NAME in row.values:
            parts.append(value_in_words(row.values[_NAME]))
        else:
            parts += [f"{short[key]}_{value_in_words(row.values[key])}" for key in axis.keys]
    return re.sub(r"[^\w.+-]+", "_", "-".join(parts)).strip("._") or "run"


def value_in_words(value: Any) -> str:
    """Return a value in few words, for names and tables.

    Example:
        >>> value_in_words({"use": "pixels", "size": [64, 64]})
        'pixels_size_64x64'
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, str):
        return value.rstrip("/").rpartition("/")[2]
    if isinstance(value, list):
        are_numbers = all(isinstance(each, int | float) for each in value)
        return ("x" if are_numbers else "+").join(map(value_in_words, value))
    if isinstance(value, Mapping):
        first = [value_in_words(value["use"])] if "use" in value else []
        return "_".join([*first, *(f"{key}_{value_in_words(each)}" for key, each in value.items() if key != "use")])
    return str(value)


def sweep_table(runs: Sequence[tuple[str, Mapping[Where, Any]]]) -> Iterator[str]:
    """Yield the lines of a table of the runs of a sweep.

    Args:
        runs: The name of each, and its values of the keys that the sweep changes.
    """
    keys = short_names(list(dict.fromkeys(key for _, values in runs for key in values)))
    rows = [["run", *keys.values()]]
    rows += [[name, *(value_in_words(values[key]) if key in values else "-" for key in keys)] for name, values in runs]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        line = [f"{name:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))]
        yield "  ".join(line)


def _distinct(labels: Sequence[tuple[str, str]]) -> list[str]:
    """Return names that differ, also for file systems that ignore case.

    Args:
        labels: Each name, and a text that is another one for each point.
    """
    taken = [name.casefold() for name, _ in labels]
    names = []
    for name, text in labels:
        if len(name) > _LONGEST_NAME or taken.count(name.casefold()) > 1:
            mark = xxh3_64_hexdigest(text.encode())[:6]
            name = f"{name[: _LONGEST_NAME - len(mark) - 1]}-{mark}"
        names.append(name)
    return names


def distinct_stems(files: Sequence[Path]) -> list[str]:
    """Return names of files that differ: without suffixes, with as many of their folders as that takes.

    Example:
        >>> distinct_stems([Path("a/lr.toml"), Path("b/lr.toml")])
        ['a_lr', 'b_lr']
    """
    parts = [(*each.absolute().parts[1:-1], each.stem) for each in files]
    for number in range(1, max(map(len, parts)) + 1):
        names = [re.sub(r"[^\w.+-]+", "_", "_".join(each[-number:])).strip("._") or "recipe" for each in parts]
        if len({each.casefold() for each in names}) == len(names):
            return names
    return [f"{each.stem}_{number}" for number, each in enumerate(files, start=1)]


def in_which(found: Iterable[tuple[str, Finding]], number: int) -> dict[str, Finding]:
    """Return each finding once, and say in which points it was made unless that is in all of them.

    Args:
        found: The name of the point, and the finding.
        number: Number of all points.

    Returns:
        The text of a finding as it was made -> the finding.
    """
    first: dict[str, Finding] = {}
    names: dict[str, list[str]] = {}
    for name, finding in found:
        first.setdefault(str(finding), finding)
        names.setdefault(str(finding), []).append(name)
    for text, finding in first.items():
        if len(names[text]) < number:
            where = f"in {len(names[text])} of the {number} runs of the sweep: {some_of(names[text], 4)}"
            hint = f"{finding.hint}\n    {where}" if finding.hint else where
            first[text] = attrs.evolve(finding, hint=hint)
    return first


def equal_runs(runs: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[Finding]:
    """Find runs of a sweep that have one name, or equal settings.

    Args:
        runs: The name and the resolved tables of each.
    """
    names: set[str] = set()
    seen: dict[str, str] = {}
    for name, tree in runs:
        if name.casefold() in names:
            message = f'several runs of the sweep are called "{name}"'
            hint = "name a key that differs, for example ${optimizer.lr}, or leave the name to the sweep"
            yield Finding(message, _NAME, hint=hint)
        names.add(name.casefold())
        run = {key: value for key, value in tree["run"].items() if key not in ("name", "dir")}
        text = repr({**tree, "run": run})
        if text in seen and seen[text] != name:
            yield Finding(f"the runs {seen[text]} and {name} have equal settings", (SWEEP,), at="key")
        seen.setdefault(text, name)
