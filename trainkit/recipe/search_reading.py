"""Reads the table ``[search]`` of a recipe, and finds what is wrong with it.

Whether the recipe has a key, and takes the values that are tried, is found by trying them: the recipe is checked with
both ends of each range and with each choice, and what is wrong only then is said of the value. A key that is inside a
table with choices, or has conditions, is tried with each choice on which it depends.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from graphlib import CycleError
from itertools import islice, product
from typing import Any, Literal

import attrs
import tomli_w

from trainkit.contracts import AUTO
from trainkit.errors import did_you_mean
from trainkit.recipe.declarations import is_harmless, keeps_values
from trainkit.recipe.fields import display_value, settings_fields
from trainkit.recipe.origin import dotted
from trainkit.recipe.positions import Where, dotted_key
from trainkit.recipe.problems import Finding
from trainkit.recipe.references import has, places
from trainkit.recipe.root import Recipe
from trainkit.recipe.rules import known_names
from trainkit.recipe.search import (
    KEYS,
    RANDOM_TRIALS,
    SEARCH,
    Parameter,
    Search,
    SearchedKey,
    SearchSpace,
    chosen,
    cost_in_short,
    depends,
    in_order,
    last_of_steps,
    shown,
    value_at,
)
from trainkit.recipe.source import Layer
from trainkit.recipe.structure import Structurer
from trainkit.recipe.tables import plain

Probe = Callable[[Layer], list[Finding]]
"""Returns what is wrong with a recipe."""

_RESERVED = {
    ("run", "name"): "each trial has a name of its own",
    ("run", "dir"): "all trials are in one folder",
    ("trainkit",): "it is the version of the recipe language",
}
_MOST_CONTEXTS = 64  # combinations of choices that are tried for a key that depends on them
_LONGEST_SHOWN = 80  # characters of a value in a message
_RANGE = frozenset(settings_fields(SearchedKey))
_FORMS = "{ low = 1e-4, high = 1e-1, log = true } or { choices = [1, 2] }"


def read_search(
    whole: Layer, base: Layer, table: Any, recipe: Recipe, resolved: Mapping[str, Any] | None, probe: Probe
) -> tuple[SearchSpace | None, list[Finding]]:
    """Return what a recipe searches, and what is wrong with that.

    Args:
        whole: The recipe with ``[search]``, before references are replaced.
        base: The same without ``[search]``.
        table: The table, with its references replaced.
        recipe: The settings of the recipe; they lack what could not be read.
        resolved: The recipe as complete tables; None: it has mistakes.
        probe: Finds what is wrong with a variant of ``base``.

    Returns:
        None in place of the space if there is a mistake.
    """
    if not isinstance(table, Mapping):
        return None, [Finding(f"must be a table, got {display_value(table)}", (SEARCH,))]
    structurer = Structurer(allow_code=False)
    leaves, found = _leaves(table.get("keys", {}))
    settings = structurer.settings({k: v for k, v in table.items() if k != "keys"}, Search, (SEARCH,))
    found += structurer.findings
    found += _as_far_as_read(_objective_mistakes(settings, recipe))
    tree = resolved if resolved is not None else base.tree
    parameters: dict[str, Parameter] = {}
    for where, place, value in leaves:
        structurer = Structurer(allow_code=False)
        key = structurer.settings(value, SearchedKey, place)
        mistakes = [*structurer.findings, *_key_mistakes(where, place, settings)]
        if dotted(where) in parameters:
            mistakes.append(Finding(f"{dotted(where)} is searched twice", place, at="key"))
        if not structurer.findings:
            mistakes += _range_mistakes(key, place)
        if mistakes:
            found += mistakes
            continue
        found += _notes_on_range(key, place)
        parameters[dotted(where)] = _parameter(where, place, key, whole)
    if any(each.severity == "error" for each in found):
        return None, found
    found += _conditions(parameters)
    if any(each.severity == "error" for each in found):
        return None, found
    try:
        ordered = in_order(parameters)
    except CycleError as error:
        names = " and ".join(dict.fromkeys(error.args[1]))
        place = parameters[error.args[1][0]].place
        return None, [*found, Finding(f"{names} are searched only if the other one is", place, at="key")]
    tried = _Trying(base, tuple(ordered), probe, tree, whole.origins)
    done = []
    for each in ordered:
        mistakes, kind = tried.mistakes(each)
        found += mistakes
        done.append(attrs.evolve(each, kind=kind))
    if any(each.severity == "error" for each in found):
        return None, found
    space = SearchSpace(attrs.evolve(settings, keys={}), tuple(done))
    found += [*_incomparable(space, recipe), *_notes(space, recipe)]
    return (None if any(each.severity == "error" for each in found) else space), found


def _as_far_as_read(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield findings, up to the first one that would need settings that could not be read."""
    with contextlib.suppress(AttributeError):
        yield from findings


# ---- the keys -------------------------------------------------------------------------------------------------------


def _leaves(table: Any) -> tuple[list[tuple[tuple[str, ...], Where, Any]], list[Finding]]:
    """Return each searched key, its place in the table and its range; and what is wrong with the table."""
    if not isinstance(table, Mapping):
        return [], [Finding(f"must be a table, got {display_value(table)}", KEYS)]
    leaves = []
    for name, value in table.items():
        parts = dotted_key(name)
        where = parts[0] if parts and parts[1] == len(name) else (name,)
        leaves += list(_leaves_at(where, (*KEYS, name), value))
    if not leaves:
        message = (
            f'nothing is searched: add [search.keys] with, for example, "optimizer.lr" = {_FORMS.split(" or ")[0]}'
        )
        return [], [Finding(message, (SEARCH,), at="key")]
    wrong = [
        Finding(f"must be a table, got {display_value(value)}", place, hint=f"write {_FORMS}")
        for _, place, value in leaves
        if not isinstance(value, Mapping)
    ]
    return [leaf for leaf in leaves if isinstance(leaf[2], Mapping)], wrong


def _leaves_at(where: tuple[str, ...], place: Where, value: Any) -> Iterator[tuple[tuple[str, ...], Where, Any]]:
    """Yield the ranges in a value: it is a table of further keys unless it has settings of a range."""
    settings = (
        {key for key, each in value.items() if not isinstance(each, Mapping)} if isinstance(value, Mapping) else ()
    )
    if isinstance(value, Mapping) and value and value.keys() != {"when"} and not _RANGE.intersection(settings):
        for name, each in value.items():
            yield from _leaves_at((*where, name), (*place, name), each)
    else:
        yield where, place, value


def _key_mistakes(where: tuple[str, ...], place: Where, settings: Search) -> Iterator[Finding]:
    if where in _RESERVED:
        yield Finding(f"{dotted(where)} cannot be searched: {_RESERVED[where]}", place, at="key")
    elif where[0] in (SEARCH, "sweep", "extends", "drop"):
        yield Finding(f"{where[0]} is no setting of a run", place, at="key")
    elif where[0] == "monitor" and not getattr(settings, "objectives", {}) and getattr(settings, "metric", 0) is None:
        yield Finding(
            "trials are judged by [monitor], so it must be the same in all of them; set [search] metric and mode",
            place,
            at="key",
        )


def _range_mistakes(key: SearchedKey, place: Where) -> Iterator[Finding]:
    low, high, step = key.low, key.high, key.step
    if key.choices is not None:
        for name in ("low", "high", "step"):
            if getattr(key, name) is not None:
                yield Finding("choices are given too; a key has a range or choices", (*place, name), at="key")
        if key.log:
            yield Finding("choices are not drawn on a scale; take it out", (*place, "log"), at="key")
        if len(key.choices) < 2:
            yield Finding("must have at least two values", (*place, "choices"))
        seen: list[Any] = []
        for number, value in enumerate(key.choices):
            if any(value == each for each in seen):
                yield Finding("is the same as an earlier value", (*place, "choices", number))
            seen.append(value)
        return
    if low is None or high is None:
        missing = " and ".join(f'"{name}"' for name in ("low", "high") if getattr(key, name) is None)
        yield Finding(f"{missing} is missing, or choices", place, at="key", hint=f"write {_FORMS}")
        return
    for name, value in (("low", low), ("high", high), ("step", step)):
        if value is not None and not math.isfinite(value):
            yield Finding(f"must be a finite number, got {value}", (*place, name))
            return
    if low >= high:
        yield Finding(f"must be above low = {low:g}, got {high:g}", (*place, "high"))
    elif key.log and low <= 0:
        yield Finding(f"must be above 0 on a logarithmic scale, got {low:g}", (*place, "low"))
    elif step is not None and step <= 0:
        yield Finding(f"must be above 0, got {step:g}", (*place, "step"))
    elif step is not None and step > high - low:
        yield Finding(f"must be at most high - low = {high - low:g}, got {step:g}", (*place, "step"))
    elif step is not None and key.log:
        yield Finding("a logarithmic range has no steps; take one of the two out", (*place, "step"), at="key")


def _notes_on_range(key: SearchedKey, place: Where) -> Iterator[Finding]:
    if key.step is not None and key.low is not None and key.high is not None:
        last = last_of_steps(key.low, key.high, key.step)
        if not math.isclose(last, key.high, rel_tol=1e-9, abs_tol=1e-12):
            message = f"is not reached: steps of {key.step:g} from {key.low:g} end at {last:g}"
            yield Finding(message, (*place, "high"), "note")


def _parameter(where: tuple[str, ...], place: Where, key: SearchedKey, whole: Layer) -> Parameter:
    when = {
        name: tuple(plain(each) for each in (value if isinstance(value, list) else [value]))
        for name, value in _flat_conditions(key.when)
    }
    common: dict[str, Any] = {"name": dotted(where), "where": where, "place": place, "when": when}
    if key.choices is not None:
        raw = tuple(value_at(whole.tree, place)["choices"])
        return Parameter(kind="choice", choices=raw, labels=tuple(map(_label, key.choices)), **common)
    assert key.low is not None
    assert key.high is not None
    high = key.high if key.step is None else last_of_steps(key.low, key.high, key.step)
    whole_numbers = all(type(each) is int for each in (key.low, key.high, *([key.step] if key.step else [])))
    kind: Literal["int", "float"] = "int" if whole_numbers else "float"
    return Parameter(kind=kind, low=key.low, high=high, step=key.step, log=key.log, **common)


def _flat_conditions(table: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in table.items():
        parts = None if above else dotted_key(name)
        where = parts[0] if parts and parts[1] == len(name) else (*above, name)
        if isinstance(value, Mapping):
            yield from _flat_conditions(value, where)
        else:
            yield where, value


def _label(value: Any) -> str | int | float | bool:
    """Return what a choice is called: itself, or how a list or a table is written on one line."""
    value = plain(value)
    return value if isinstance(value, str | int | float | bool) else in_line(value)


def in_line(value: Any) -> str:
    """Return a value as TOML has it on one line.

    Example:
        >>> in_line({"use": "sgd", "betas": [0.9, 0.99]})
        '{ use = "sgd", betas = [0.9, 0.99] }'
    """
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{dotted((key,))} = {in_line(each)}' for key, each in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_line, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


# ---- conditions -----------------------------------------------------------------------------------------------------


def _conditions(parameters: Mapping[str, Parameter]) -> Iterator[Finding]:
    for one in parameters.values():
        for key in one.when:
            place = (*one.place, "when")
            others = [each for each in parameters.values() if each is not one and key[: len(each.where)] == each.where]
            if not others:
                yield Finding(
                    f"{dotted(key)} is not searched, so it is the same in every trial",
                    place,
                    hint=did_you_mean(dotted(key), [each.name for each in parameters.values() if each is not one]),
                )
            elif others[0].kind == "float":
                yield Finding(f"{others[0].name} has a range, in which it hardly ever has one value", place)


# ---- trying values --------------------------------------------------------------------------------------------------


@attrs.frozen
class _Trying:
    """Tries the values of searched keys.

    Attributes:
        base: The recipe.
        parameters: All searched keys, in order.
        probe: Finds what is wrong with a variant of it.
        tree: The recipe as complete tables.
        origins: The places of ``[search]``.
    """

    base: Layer
    parameters: tuple[Parameter, ...]
    probe: Probe
    tree: Mapping[str, Any]
    origins: Mapping[Where, Any]

    def mistakes(self, one: Parameter) -> tuple[list[Finding], Literal["int", "float", "choice"]]:
        """Return what is wrong with the values of a key, and of which kind its range is."""
        found: dict[Finding, None] = {}
        kinds = set()
        contexts = list(self._contexts(one))
        if not contexts:
            known = [f"{dotted(key)} = {some}" for key in one.when for some in [self._known(key)] if some]
            hint = f"it has {'; '.join(known)}" if known else ""
            return [
                Finding("is never searched: no trial meets the condition", (*one.place, "when"), hint=hint)
            ], one.kind
        for layer, said in contexts:
            if (lost := self._without_table(one, layer)) is not None:
                found[lost] = None
                continue
            before = set(map(_as_said, self.probe(layer)))
            kinds.add(kind := self._kind(one, layer, before))
            for number, value, place in self._values(one, kind):
                tried = attrs.evolve(one, when={}, kind=kind)
                variant = _with(layer, tried, number if one.kind == "choice" else value)
                for each in self.probe(variant):
                    if _as_said(each) not in before:
                        found[self._moved(each, one, place, value, said)] = None
                found |= dict.fromkeys(self._overwritten(one, layer, place))
        return list(found), "int" if "int" in kinds else "choice" if one.kind == "choice" else "float"

    def _contexts(self, one: Parameter) -> Iterator[tuple[Layer, str]]:
        """Yield variants of the recipe in which a key is searched, and the choices that make each, in words."""
        needed = self._needed(one)
        options: list[Sequence[float]] = [
            range(len(each.choices)) if each.kind == "choice" else _ends(each) for each in needed
        ]
        seen: set[str] = set()
        for values in islice(product(*options), _MOST_CONTEXTS):
            picked = {each.name: value for each, value in zip(needed, values, strict=True)}
            layer, got = _chosen_as(self.base, needed, picked)
            words = ", ".join(f"{p.name} = {p.value_in_words(got[p.name])}" for p in needed if p.name in got)
            if one.applies(layer.tree) and words not in seen:
                seen.add(words)
                yield layer, words

    def _needed(self, one: Parameter) -> list[Parameter]:
        """Return the keys on which a key depends, directly or not, in order."""
        names: set[str] = set()
        waiting = [one]
        while waiting:
            each = waiting.pop()
            more = [p for p in self.parameters if p.name != each.name and p.name not in names and depends(each, p)]
            names |= {p.name for p in more}
            waiting += more
        return [each for each in self.parameters if each.name in names and each.name != one.name]

    def _known(self, key: tuple[str, ...]) -> str:
        """Return the values that a key has in the choices, in words."""
        values: list[str] = []
        for each in self.parameters:
            if each.kind == "choice" and key[: len(each.where)] == each.where:
                rest = key[len(each.where) :]
                values += [shown(plain(value_at(c, rest))) for c in each.choices if not rest or has(c, rest)]
        return " or ".join(dict.fromkeys(values))

    def _without_table(self, one: Parameter, layer: Layer) -> Finding | None:
        """Return that the recipe lacks the table that a key is in; None: it has it."""
        above = one.where[:-1]
        if not above or has(self.tree, above) or has(layer.tree, above):
            return None
        tables = [dotted(each) for each in places(dict(self.tree)) if isinstance(value_at(self.tree, each), Mapping)]
        last = next(
            n for n in range(1, len(above) + 1) if not has(self.tree, above[:n]) and not has(layer.tree, above[:n])
        )
        missing = dotted(above[:last])
        near = did_you_mean(missing, tables)
        hint = near if near.startswith("did you") else f"add [{missing}] to the recipe, with what is not searched"
        return Finding(f"the recipe has no [{missing}]", one.place, at="key", hint=hint)

    def _kind(self, one: Parameter, layer: Layer, before: Collection[Any]) -> Literal["int", "float", "choice"]:
        """Return of which kind a range is: one of whole numbers, if only these are taken."""
        if one.kind != "int":
            return one.kind
        as_float = attrs.evolve(one, when={}, kind="float")
        variant = _with(layer, as_float, float(one.low))
        wrong = [each for each in self.probe(variant) if each.where == one.where and _as_said(each) not in before]
        as_int = _with(layer, attrs.evolve(as_float, kind="int"), int(one.low))
        fine = all(each.where != one.where for each in self.probe(as_int))
        return "int" if wrong and fine else "float"

    def _values(self, one: Parameter, kind: str) -> Iterator[tuple[int, Any, Where]]:
        """Yield the values to try, each with its number and its place."""
        if one.kind == "choice":
            for number, value in enumerate(one.choices):
                yield number, value, (*one.place, "choices", number)
        else:
            for number, name in enumerate(("low", "high")):
                value = getattr(one, name)
                yield number, int(value) if kind == "int" else float(value), (*one.place, name)

    def _moved(self, finding: Finding, one: Parameter, place: Where, value: Any, said: str) -> Finding:
        """Return what is wrong with a value as a finding at the place where the value stands in ``[search]``."""
        message, hint = finding.message, finding.hint
        inside = finding.where[: len(one.where)] == one.where
        at_key = inside and finding.where == one.where and finding.at == "key"
        if inside and not at_key:
            place = (*place, *finding.where[len(one.where) :])
        elif at_key:
            place = one.place
        else:
            label = in_line(plain(value))
            label = label if len(label) <= _LONGEST_SHOWN else f"{label[:_LONGEST_SHOWN]}…"
            message = f"with {one.name} = {label}, {dotted(finding.where)}: {message}"
        if said:
            more = f"so it is with {said}"
            if message == "unknown key":
                key, _, found = said.partition(" = ")
                more += f"; if it is meant for others only, add a condition: when = {{ {key} = … }}" if found else ""
            hint = f"{hint}\n    {more}" if hint else more
        return Finding(message, place, at=finding.at if inside else "value", hint=hint)

    def _overwritten(self, one: Parameter, layer: Layer, place: Where) -> Iterator[Finding]:
        """Find a choice of a table that sets a key that is searched as well, with this choice."""
        if one.kind != "choice" or place[-2] != "choices":
            return
        number = int(place[-1])
        choice = one.choices[number]
        variant = _with(layer, attrs.evolve(one, when={}), number)
        for other in self.parameters:
            rest = other.where[len(one.where) :]
            below = other.name != one.name and other.where[: len(one.where)] == one.where
            if below and isinstance(choice, Mapping) and has(choice, rest) and other.applies(variant.tree):
                yield Finding(
                    f"{other.name} is searched, so it has no value of its own here", (*place, *rest), at="key"
                )


def _with(layer: Layer, parameter: Parameter, value: Any) -> Layer:
    """Return a recipe with the value of one key, or with a choice by its number."""
    return chosen(layer, (parameter,), lambda each: value)[0]


def _chosen_as(base: Layer, parameters: Sequence[Parameter], values: Mapping[str, Any]) -> tuple[Layer, dict[str, Any]]:
    return chosen(base, tuple(parameters), lambda each: values[each.name])


def _ends(one: Parameter) -> Sequence[float]:
    """Return the values of a range on which another key may depend."""
    if one.kind == "int" and one.num_values <= _MOST_CONTEXTS:
        return range(int(one.low), int(one.high) + 1, int(one.step or 1))
    return (one.low,)


def _as_said(finding: Finding) -> tuple[str, Where, str]:
    return finding.message, finding.where, finding.severity


# ---- objectives and notes -------------------------------------------------------------------------------------------


def _objective_mistakes(settings: Search, recipe: Recipe) -> Iterator[Finding]:
    given = getattr(settings, "metric", None)
    if settings.objectives:
        for name in ("metric", "mode"):
            if getattr(settings, name, None) is not None:
                yield Finding("objectives are given too; a search has one of the two", (SEARCH, name), at="key")
        if len(settings.objectives) < 2:
            yield Finding("one objective is written as metric and mode of [search]", (SEARCH, "objectives"), at="key")
        if getattr(settings, "pruner", None) not in (None, "none"):
            yield Finding("with several objectives, no trial can be ended early", (SEARCH, "pruner"), hint='use "none"')
        if getattr(settings, "value", None) == "best":
            message = "with several objectives, the last values count: the best ones may be of different epochs"
            yield Finding(message, (SEARCH, "value"), hint='use "last"')
        metrics = [getattr(each, "metric", None) for each in settings.objectives.values()]
        for name, metric in zip(settings.objectives, metrics, strict=True):
            if metric is not None and metrics.count(metric) > 1:
                yield Finding(f'"{metric}" is named twice', (SEARCH, "objectives", name, "metric"))
    elif given is not None and given != recipe.monitor.metric and settings.mode is None:
        yield Finding(
            f'is missing, since "{given}" is not the value of [monitor]: mode = "min" or "max"', (SEARCH, "metric")
        )
    yield from _unknown_values(settings, recipe)


def _unknown_values(settings: Search, recipe: Recipe) -> Iterator[Finding]:
    """Find a value that no run computes, and warn of one that says nothing about held-out data."""
    named: dict[Where, Any] = {(SEARCH, "metric"): getattr(settings, "metric", None)}
    named |= {
        (SEARCH, "objectives", key, "metric"): getattr(each, "metric", None)
        for key, each in settings.objectives.items()
    }
    known, all_known = known_names(recipe)
    for where, name in named.items():
        is_known = name is None or any(name == each or fnmatchcase(name, each) for each in known)
        if not is_known and (all_known or name.startswith("train/")):
            yield Finding(f'no value "{name}" is computed', where, hint=did_you_mean(name, known))
    whole = not settings.objectives or all(hasattr(each, "mode") for each in settings.objectives.values())
    for judged in settings.judged_by(recipe.monitor) if whole else ():
        if judged.metric.startswith("train/"):
            place = next((where for where, name in named.items() if name == judged.metric), (SEARCH,))
            message = f"{judged.metric} is of the training data, so the trial that fits its noise best may win"
            yield Finding(message, place, "warning", at="value" if place != (SEARCH,) else "key")


def _incomparable(space: SearchSpace, recipe: Recipe) -> Iterator[Finding]:
    """Find keys that change what the values mean by which trials are judged."""
    judged_by = space.settings.judged_by(recipe.monitor)
    changed = {each.metric: [p for p in space.parameters if _computes(p, each.metric, recipe)] for each in judged_by}
    free = [
        name
        for name in known_names(recipe)[0]
        if not name.startswith(("lr/", "train/"))
        and "*" not in name
        and not any(_computes(each, name, recipe) for each in space.parameters)
    ]
    for metric, parameters in changed.items():
        for each in parameters:
            yield Finding(
                f"{metric} is computed with it, so its values in different trials could not be compared",
                each.place,
                at="key",
                hint=f'judge trials by another value: [search] metric = "{free[0]}"' if free else "",
            )
    split = judged_by[0].metric.partition("/")[0]
    if split in recipe.evaluated_splits():
        for each in space.parameters:
            fixed = keeps_values(recipe, each.where) or is_harmless(recipe, each.where)
            if each.where[0] == "data" and not fixed:
                message = f"it may change the held-out data, and trials are judged by {judged_by[0].metric}"
                yield Finding(message, each.place, "note", at="key")


def _computes(parameter: Parameter, metric: str, recipe: Recipe) -> bool:
    """Return whether a value has another meaning with another value of a key."""
    split, _, short = metric.partition("/")
    table, name = parameter.where[0], parameter.where[1] if len(parameter.where) > 1 else None
    is_evaluated = split in recipe.evaluated_splits()
    if table == "losses" and (is_evaluated or split == "train"):
        sources = [key for key, loss in recipe.losses.items() if loss.on_validation or not is_evaluated]
        return (short == "loss" and (name is None or name in sources)) or (short == name and name in sources)
    if table == "metrics" and is_evaluated:
        names = [known for key, each in recipe.metrics.items() if name in (None, key) for known in each.names() or ()]
        return any(fnmatchcase(short, known) for known in names)
    return False


def _notes(space: SearchSpace, recipe: Recipe) -> Iterator[Finding]:
    settings = space.settings
    names = {each.where for each in space.parameters}
    for name, loss in recipe.losses.items():
        if loss.weight == AUTO and ("losses", name, "weight") not in names:
            yield Finding(
                '"auto" would be a search within each trial; search it here instead',
                ("losses", name, "weight"),
                hint=f'paste "losses.{name}.weight" = {{ low = 1e-3, high = 10.0, log = true }} into [search.keys]',
            )
    yield Finding(
        f"trainkit tune: {cost_in_short(space, recipe)}; trainkit run does not search", (SEARCH,), "note", at="key"
    )
    if settings.objectives:
        yield Finding("with several objectives, every trial runs to its end", (SEARCH, "objectives"), "note", at="key")
    if settings.ends_early != "none" and not recipe.validation.every_epochs and not recipe.validation.every_steps:
        yield Finding(
            "nothing is validated before the end, so no trial ends early", ("validation", "every_epochs"), "note"
        )
    if space.num_points < settings.trials:
        message = f"there are only {space.num_points:.0f} different trials; a repeated one is not trained again"
        yield Finding(message, (SEARCH, "trials"), "note")
    if settings.learns and settings.trials <= RANDOM_TRIALS:
        message = f"the first {RANDOM_TRIALS} trials are drawn at random, so in so few the sampler learns nothing"
        yield Finding(message, (SEARCH, "trials"), "note")
