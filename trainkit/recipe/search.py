"""The table ``[search]`` of a recipe: what ``trainkit tune`` searches, by what, and what that costs.

    [search]
    trials = 40

    [search.keys]                                   any keys of the recipe
    optimizer.lr = { low = 1e-4, high = 1e-1, log = true }
    model.channels = { choices = [[8, 16], [16, 32]] }
    optimizer.momentum = { low = 0.0, high = 0.99, when = { optimizer.use = "sgd" } }

A trial is the recipe with a value of each key, as a layer over it, as ``--set`` is. So a value that changes ``use``
drops the keys beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from graphlib import TopologicalSorter
from typing import Any, Literal

import attrs
from attrs.validators import ge, le, optional

from trainkit.contracts import MetricName, Monitor, component
from trainkit.recipe.layers import merge
from trainkit.recipe.origin import Origin
from trainkit.recipe.positions import Where
from trainkit.recipe.references import has
from trainkit.recipe.root import Recipe, seconds_of
from trainkit.recipe.source import Layer
from trainkit.recipe.tables import plain

_TABLE = re.compile(r'\{ use = "([^"]+)"(?:, (.*))? \}')

SEARCH = "search"
KEYS = (SEARCH, "keys")
RANDOM_TRIALS = 10
"""Number of finished trials before a sampler begins to learn from them; until then, it draws at random."""


def _duration(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not seconds_of(value):
        raise ValueError(f'must be a duration such as "8h" or "90m", got "{value}"')


@component
class SearchedKey:
    """Which values of a key are tried: a range, or choices.

    Attributes:
        low: The smallest value. The range has whole numbers if the key takes no others.
        high: The largest value.
        step: The distance of two values. Not given: any value of the range.
        log: Whether values are drawn evenly on a logarithmic scale. ``low`` must be above 0.
        choices: The values, instead of a range; also lists, or whole tables such as ``{ use = "sgd", lr = 0.1 }``.
        when: Other searched keys, or keys in their choices -> the value, or the list of values, with which this key is
            searched. Without them it is as in the recipe. Not given: it is always searched.
    """

    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None
    when: Mapping[str, Any] = attrs.Factory(dict)


@component
class Objective:
    """A value that trials are judged by.

    Attributes:
        metric: Its full name.
        mode: Whether smaller ("min") or larger ("max") is better.
    """

    metric: MetricName
    mode: Literal["min", "max"]


@component
class Search:
    """What ``trainkit tune`` searches.

    Attributes:
        trials: Number of trials in all, also of those that fail or end early.
        time_limit: For how long a process begins new trials, for example "8h"; the one under way is finished.
        metric: The value by which trials are judged. Not given: that of [monitor].
        mode: Whether smaller ("min") or larger ("max") is better. Not given: that of [monitor].
        objectives: Several values by which trials are judged, instead of ``metric``: a name of your choice -> metric
            and mode. Those trials are best that no other one beats in all of them (Pareto).
        value: Which value of a run counts: the "best" of all epochs, which the best checkpoint has, or the "last" one.
            With several objectives, it is always the last, since all of them must belong to the same weights.
        sampler: What proposes values. "tpe": a tree-structured Parzen estimator, which learns from all trials before,
            also from those that ended early or diverged. "gp": a Gaussian process, which learns from finished trials
            alone; for few keys, mostly numbers, and few but long trials. "qmc": a scrambled Sobol sequence, which
            covers the ranges more evenly than draws at random. "random": evenly drawn values.
        pruner: What ends poor trials early, after a validation. "median": a trial whose best value so far is worse than
            the median of the others at the same point. "successive_halving" and "hyperband": trials that are not among
            the best third at points that lie ever further apart. "none". Not given: "median"; with several objectives,
            "none", which alone is possible.
        prune_after_trials: The first trials run to their end: so many, with "median".
        prune_after: No trial ends before so many epochs; steps, if [validation] has ``every_steps``.
        seed: Seed of the proposals. They depend on it, on the number of the trial and on the trials before.
        storage: Where Optuna keeps the study: "journal", a file that processes on several machines can share on a
            network file system, or "sqlite", for processes of one machine.
        keys: Key of the recipe -> which of its values are tried.
    """

    trials: int = attrs.field(default=40, validator=[ge(1), le(100_000)])
    time_limit: str | None = attrs.field(default=None, validator=optional(_duration))
    metric: MetricName | None = None
    mode: Literal["min", "max"] | None = None
    objectives: Mapping[str, Objective] = attrs.Factory(dict)
    value: Literal["best", "last"] | None = None
    sampler: Literal["tpe", "gp", "qmc", "random"] = "tpe"
    pruner: Literal["median", "successive_halving", "hyperband", "none"] | None = None
    prune_after_trials: int = attrs.field(default=5, validator=ge(0))
    prune_after: int = attrs.field(default=1, validator=ge(0))
    seed: int = attrs.field(default=0, validator=[ge(0), le(2**32 - 1)])
    storage: Literal["journal", "sqlite"] = "journal"
    keys: Mapping[str, SearchedKey] = attrs.Factory(dict)

    def judged_by(self, monitor: Monitor) -> tuple[Monitor, ...]:
        """Return the values by which trials are judged.

        Args:
            monitor: The recipe's ``[monitor]``.
        """
        if self.objectives:
            return tuple(Monitor(metric=each.metric, mode=each.mode) for each in self.objectives.values())
        return (Monitor(metric=self.metric or monitor.metric, mode=self.mode or monitor.mode),)

    @property
    def learns(self) -> bool:
        """Whether the sampler learns from trials, after the first `RANDOM_TRIALS`."""
        return self.sampler in ("tpe", "gp")

    @property
    def takes_best(self) -> bool:
        """Whether the best value of a run counts, and not its last one."""
        return not self.objectives and self.value != "last"

    @property
    def ends_early(self) -> str:
        """The pruner."""
        return "none" if self.objectives else self.pruner or "median"


# ---- the space of values --------------------------------------------------------------------------------------------


@attrs.frozen
class Parameter:
    """A searched key, checked.

    Attributes:
        name: The key, dotted.
        where: The key.
        place: Where it stands in ``[search]``.
        kind: Whether it has a range of whole numbers, one of any numbers, or choices.
        low: The smallest value of a range.
        high: Its largest value, which the step leads to.
        step: Its step; None: any value.
        log: Whether the range is logarithmic.
        choices: The values, as they are written in the recipe.
        labels: What the choices are called in tables, pictures and the storage.
        when: Key -> the values with which this one is searched.
    """

    name: str
    where: tuple[str, ...]
    place: Where
    kind: Literal["int", "float", "choice"]
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    labels: tuple[str | int | float | bool, ...] = ()
    when: Mapping[tuple[str, ...], tuple[Any, ...]] = attrs.Factory(dict)

    @property
    def in_words(self) -> str:
        """The values, in words."""
        if self.kind == "choice":
            return ", ".join(map(shown, self.labels))
        steps = f", step {self.step:g}" if self.step is not None and not (self.kind == "int" and self.step == 1) else ""
        return f"{self.low:g} to {self.high:g}{steps}{', log' * self.log}"

    @property
    def num_values(self) -> float:
        """Number of different values; infinite for a range without steps."""
        if self.kind == "choice":
            return len(self.choices)
        step = self.step or (1 if self.kind == "int" else None)
        return float("inf") if step is None else round((self.high - self.low) / step) + 1

    def value_in_words(self, value: Any) -> str:
        """Return a value of the key, or the number of its choice, in words."""
        return shown(self.labels[value] if self.kind == "choice" else value)

    def own_label(self, value: Any) -> Any:
        """Return a value of the recipe as a number, or as the label of its choice; None: it is not searched.

        Args:
            value: The value that the recipe has; of a table, with all of its settings.
        """
        if self.kind == "choice":
            same = (label for label, each in zip(self.labels, self.choices, strict=True) if _says(each, value))
            return next(same, None)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        step = self.step or (1 if self.kind == "int" else None)
        steps = 0.0 if step is None else (value - self.low) / step
        return value if abs(steps - round(steps)) < 1e-9 else None

    def applies(self, tree: Mapping[str, Any]) -> bool:
        """Return whether the key is searched, given the other values.

        Args:
            tree: The recipe with the values of all keys before this one.
        """
        return all(has(tree, key) and plain(value_at(tree, key)) in values for key, values in self.when.items())


def _says(choice: Any, value: Any) -> bool:
    """Return whether a choice says what a recipe has; a table may leave out settings."""
    if isinstance(choice, Mapping):
        return isinstance(value, Mapping) and all(key in value and _says(choice[key], value[key]) for key in choice)
    return isinstance(choice, bool) == isinstance(value, bool) and bool(plain(choice) == value)


def shown(value: Any) -> str:
    """Return a value of a searched key as tables and messages show it.

    Example:
        >>> shown(0.00123456), shown(True), shown("adam")
        ('0.001235', 'true', 'adam')
    """
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shown_in_short(value: Any) -> str:
    """Return a value as narrow columns and pictures show it: of a table with ``use``, without what all have in common.

    Example:
        >>> shown_in_short('{ use = "sgd", momentum = 0.9 }')
        'sgd, momentum = 0.9'
    """
    if isinstance(value, str) and (table := _TABLE.fullmatch(value)):
        return ", ".join(part for part in table.groups() if part)
    return shown(value)


def last_of_steps(low: float, high: float, step: float) -> float:
    """Return the largest value of a range that whole steps lead to.

    Example:
        >>> last_of_steps(0.1, 1.0, 0.25)
        0.85
    """
    first, distance = Decimal(str(low)), Decimal(str(step))
    return float(first + (Decimal(str(high)) - first) // distance * distance)


def value_at(tree: Any, where: Where) -> Any:
    """Return what a tree of tables has at a place."""
    for part in where:
        tree = tree[part]
    return tree


def depends(one: Parameter, other: Parameter) -> bool:
    """Return whether the value of another key decides whether, or in which table, a key is searched."""
    table = other.where[:-1] if other.where[-1] == "use" else other.where
    inside = len(one.where) > len(table) and one.where[: len(table)] == table
    return inside or any(key[: len(table)] == table for key in one.when)


def in_order(parameters: Mapping[str, Parameter]) -> list[Parameter]:
    """Return searched keys so that each follows those on which it depends.

    Raises:
        graphlib.CycleError: They depend on each other.
    """
    graph = {
        name: [other for other, each in parameters.items() if other != name and depends(one, each)]
        for name, one in parameters.items()
    }
    return [parameters[name] for name in TopologicalSorter(graph).static_order()]


@attrs.frozen
class SearchSpace:
    """The searched keys of a recipe, in the order in which they get their values.

    Attributes:
        settings: The table ``[search]``.
        parameters: The keys.
    """

    settings: Search
    parameters: tuple[Parameter, ...]

    @property
    def num_points(self) -> float:
        """The number of different trials, if no key had a condition."""
        number = 1.0
        for each in self.parameters:
            number *= each.num_values
        return number


def chosen(
    base: Layer, parameters: tuple[Parameter, ...], choose: Callable[[Parameter], Any]
) -> tuple[Layer, dict[str, Any]]:
    """Return a recipe with values of its searched keys, and these values.

    Args:
        base: The recipe.
        parameters: The searched keys, in order.
        choose: Returns the value of a key; for one with choices, the number of its choice.
    """
    layer, values = base, {}
    for each in parameters:
        if each.applies(layer.tree):
            values[each.name] = value = choose(each)
            layer = merge(layer, layer_of(each, each.choices[value] if each.kind == "choice" else value, base, value))
    return layer, values


def layer_of(parameter: Parameter, value: Any, base: Layer, number: Any = None) -> Layer:
    """Return a layer that sets a searched key; its places are those of the value in ``[search]``.

    Args:
        parameter: The key.
        value: Its value.
        base: The recipe, which knows the places.
        number: The number of the choice.
    """
    tree: dict[str, Any] = {parameter.where[-1]: value}
    for part in reversed(parameter.where[:-1]):
        tree = {part: tree}
    at_key = base.origins.get(parameter.place, Origin(f"[{SEARCH}]"))
    origins: dict[Where, Origin] = {parameter.where: at_key}
    if parameter.kind == "choice":
        item = (*parameter.place, "choices", number)
        origins[parameter.where] = attrs.evolve(base.origins.get(item, at_key), key=at_key.key)
        for place, origin in base.origins.items():
            if len(place) > len(item) and place[: len(item)] == item:
                origins[(*parameter.where, *place[len(item) :])] = origin
    return Layer(tree, origins)


def own_values(parameters: tuple[Parameter, ...], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values of searched keys that a recipe has itself, as numbers or labels of choices.

    Args:
        parameters: The searched keys.
        tree: The recipe, as complete tables.
    """
    found = {each.name: each.own_label(value_at(tree, each.where)) for each in parameters if has(tree, each.where)}
    return {name: value for name, value in found.items() if value is not None}


# ---- the cost -------------------------------------------------------------------------------------------------------


def cost_in_words(space: SearchSpace, recipe: Recipe, steps_per_epoch: int) -> Iterator[str]:
    """Yield the lines of a plan about a search.

    Args:
        space: What is searched.
        recipe: The recipe.
        steps_per_epoch: Optimizer steps of an epoch.
    """
    settings = space.settings
    judged = " and ".join(f"{each.metric} ({each.mode})" for each in settings.judged_by(recipe.monitor))
    yield f"trainkit tune: {settings.trials} trials, judged by {judged}, search"
    for each in space.parameters:
        conditions = "; ".join(f"{'.'.join(key)} = {' or '.join(map(shown, v))}" for key, v in each.when.items())
        yield f"  {each.name}: {each.in_words}" + (f" (if {conditions})" if conditions else "")
    least, most = _lengths(space, recipe, steps_per_epoch)
    length = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    told = "" if recipe.run.steps is not None else f" of {steps_per_epoch} an epoch"
    yield (
        f"a whole trial takes {length} steps{told}; all {settings.trials} take at most {settings.trials * most:,}"
        f"{_early_in_words(settings)}"
    )
    if settings.learns and settings.trials > RANDOM_TRIALS:
        yield f"the first {RANDOM_TRIALS} trials are drawn at random, and the sampler learns from then on"


def _early_in_words(settings: Search) -> str:
    if settings.ends_early == "none":
        return ""
    first = f" after the first {settings.prune_after_trials}" if settings.ends_early == "median" else ""
    return f", and fewer since poor ones end early{first} (pruner {settings.ends_early})"


def cost_in_short(space: SearchSpace, recipe: Recipe) -> str:
    """Return what a search is, in a few words."""
    names = [each.name for each in space.parameters]
    run = recipe.run
    length = f"{run.num_epochs()} epochs" if run.steps is None else f"{run.steps:,} steps"
    listed = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    return f"{space.settings.trials} trials of {length} search {listed}"


def _lengths(space: SearchSpace, recipe: Recipe, steps_per_epoch: int) -> tuple[int, int]:
    """Return how many steps a trial has at least and at most, if it does not end early."""
    run = recipe.run
    usual = run.steps if run.steps is not None else run.num_epochs() * steps_per_epoch
    for each in space.parameters:
        if each.where in (("run", "epochs"), ("run", "steps")):
            factor = steps_per_epoch if each.where[1] == "epochs" else 1
            ends = [v for v in each.choices if type(v) is int] if each.kind == "choice" else [each.low, each.high]
            every = [int(end) * factor for end in ends] + ([usual] if each.when else [])
            return min(every, default=usual), max(every, default=usual)
    return usual, usual
