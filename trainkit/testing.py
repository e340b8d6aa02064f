"""The conformance suite that every registered component goes through, ours and a third party's.

A plugin's tests run it over the plugin's own components so:

    import pytest
    from trainkit.testing import cases

    @pytest.mark.parametrize("case", cases("my-plugin"), ids=str)
    def test_conformance(case):
        case.check()

Each check is a plain function that raises AssertionError with a sentence, so it can be called by itself as well.
Nothing here needs pytest, data or a GPU.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from unittest import SkipTest

import attrs

from trainkit import registry
from trainkit.contracts import (
    KINDS,
    Component,
    Context,
    Data,
    Hook,
    Inference,
    Loss,
    Metric,
    Model,
    Monitor,
    Optimizer,
    Point,
    Scheduler,
)
from trainkit.errors import ComponentError, did_you_mean
from trainkit.events import PHASES, listeners
from trainkit.groups.schedule import observe_epoch, point

HEAVY = ("torch", "numpy", "h5py", "monai")
"""Modules that a settings module must not import."""

Samples = Mapping[str, Mapping[str, Any]]
"""``group/name`` -> settings to test with, for components that have settings without a default."""


class Case(NamedTuple):
    """One check of one component; ``str`` of it is a readable test name."""

    name: str
    check: Callable[[], None]

    def __str__(self) -> str:
        return self.name


def cases(package: str | None = None, samples: Samples | None = None) -> list[Case]:
    """Return every check of every registered component; nothing is imported yet.

    Args:
        package: The distribution whose components are checked; None: all that are installed.
        samples: Settings for components that cannot be made from defaults alone.

    Raises:
        ComponentError: The package registers no component: a suite over nothing would pass.
    """
    packages = {each.package for group in registry.entry_point_groups() for each in registry.registered(group)}
    if package is not None and package not in packages:
        raise ComponentError(f'no component of a package "{package}" is registered; {did_you_mean(package, packages)}')
    found: list[Case] = []
    for group in registry.entry_point_groups():
        for each in registry.registered(group):
            if package is None or each.package == package:
                where = f"{group}/{each.name}"
                settings = (samples or {}).get(where, {})
                found.append(Case(f"{where} imports lightly", partial(imports_lightly, each.value)))
                for on_class in ON_CLASSES:
                    check = partial(_check_class, each, on_class, group)
                    found.append(Case(f"{where} {_in_words(on_class)}", check))
                for kind, on_settings in ON_SETTINGS:
                    if group in _groups_of(kind):
                        check = partial(_check_settings, each, on_settings, settings, where)
                        found.append(Case(f"{where} {_in_words(on_settings)}", check))
    return found


def imports_lightly(value: str) -> None:
    """Check that a component's module brings in none of `HEAVY`; all registered ones are tried in one new process."""
    values = sorted(
        {found.value for group in registry.entry_point_groups() for found in registry.registered(group)} | {value}
    )
    module = value.partition(":")[0]
    outcome = _imports(tuple(dict.fromkeys(each.partition(":")[0] for each in values)))[module]
    assert not isinstance(outcome, str), f"{module} cannot be imported: {outcome}"
    assert not outcome, f"{module} imports {', '.join(outcome)} when it is imported; do that inside build"


# ---- what holds for the class of every component --------------------------------------------------------------------


def is_a_component_of_its_kind(cls: type[Any], group: str) -> None:
    """Check that a class is decorated, concrete, and of the kind that its entry-point group belongs to."""
    assert issubclass(cls, Component), f"{_name(cls)} is not a trainkit.Component"
    assert getattr(cls, "entry_points", None) == group, (
        f"{_name(cls)} is registered in {group} but its kind belongs to {getattr(cls, 'entry_points', None)}"
    )
    assert "__attrs_attrs__" in vars(cls), f"{_name(cls)} lacks the decorator @component"
    positional = [field.name for field in _fields(cls) if not field.kw_only]
    assert not positional, f"{_name(cls)} takes {positional} by position; decorate it with @component"


def is_abstract_or_final(cls: type[Any], group: str) -> None:
    """Check that a class is concrete and everything it derives from is abstract: no component refines another."""
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    assert not missing, f"{_name(cls)} leaves {', '.join(missing)} abstract"
    concrete = [
        _name(base)
        for base in cls.__mro__[1:]
        if issubclass(base, Component) and base is not Component and not inspect.isabstract(base)
    ]
    assert not concrete, (
        f"{_name(cls)} derives from {', '.join(concrete)}, which is a component itself; compose instead"
    )


def is_documented(cls: type[Any], group: str) -> None:
    """Check that a class says what it does, and it or a base class describes each setting under ``Attributes:``."""
    own = vars(cls).get("__doc__") or ""
    assert own.strip(), f"{_name(cls)} has no docstring; `trainkit show` prints it"
    described = {name for base in cls.__mro__ for name in _described(vars(base).get("__doc__") or "")}
    missing = [field.name for field in _fields(cls) if field.init and field.name not in described]
    assert not missing, f'{_name(cls)} does not describe {", ".join(missing)} under "Attributes:" in its docstring'


def has_types_that_can_be_read(cls: type[Any], group: str) -> None:
    """Check that the types of all settings can be resolved at run time, since recipes are structured by them."""
    try:
        typing.get_type_hints(cls)
    except NameError as error:
        raise AssertionError(
            f"{_name(cls)}: {error}; a setting's type must be imported at run time, not under TYPE_CHECKING"
        ) from error


ON_CLASSES: tuple[Callable[[type[Any], str], None], ...] = (
    is_a_component_of_its_kind,
    is_abstract_or_final,
    is_documented,
    has_types_that_can_be_read,
)
"""Checks of a component's class and the entry-point group that it is registered in."""


# ---- what holds for the settings of a kind --------------------------------------------------------------------------


def states_modules_and_timeline(settings: Component) -> None:
    """Check that a component states the modules it needs, and its part in a run's timeline, in the agreed form."""
    odd = [module for module in settings.requires if not isinstance(module, str) or not module]
    assert not odd, f"requires holds {odd}; it must hold names of modules"
    for epoch, what in settings.timeline(10):
        assert 0 <= epoch <= 10, f"the timeline of a run of 10 epochs speaks of epoch {epoch}"
        assert what, f"the timeline says nothing of epoch {epoch}"


def is_a_sound_schedule(scheduler: Scheduler) -> None:
    """Check that a schedule gives finite rates ≥ 0 over the whole horizon, warm-up included, and is a pure function."""
    lr = 3e-3
    plain, warmed = _changed(scheduler, warmup=0), _changed(scheduler, warmup=4)
    for horizon in (1, 2, 3, 10, 97):
        for settings, ticks in ((plain, horizon), (warmed, horizon + 4)):
            points = [point(settings, t, ticks, lr, {}) for t in range(ticks)]
            for t, each in enumerate(points):
                _is_sound_point(each, f"tick {t} of {ticks}")
            again = [point(settings, t, ticks, lr, {}) for t in reversed(range(ticks))]
            assert again[::-1] == points, f"at(t, {ticks}, …) answers differently when asked in another order"


def has_a_sound_memory(scheduler: Scheduler) -> None:
    """Check that a schedule's memory is JSON, survives being saved, and is never changed in place."""
    watched = {value for field in _fields(type(scheduler)) if _is_full_name(value := getattr(scheduler, field.name))}
    monitor = Monitor()
    values = [2.0, 1.0, 1.5, math.nan, None, *[1.0] * 30, 0.5, *[0.5] * 30]
    memory: Mapping[str, Any] = {}
    for t, value in enumerate(values, start=1):
        metrics = {} if value is None else dict.fromkeys({monitor.metric, *watched}, value)
        memory_before, metrics_before = copy.deepcopy((memory, metrics))
        after = observe_epoch(scheduler, t, memory, metrics, monitor)
        assert memory == memory_before, "observe changes the memory that it was given; return a new one"
        assert repr(metrics) == repr(metrics_before), "observe changes the metrics that it was given"
        try:
            saved = json.loads(json.dumps(dict(after), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise AssertionError(f"the memory {after!r} is not JSON: {error}") from error
        assert saved == after, f"the memory {after!r} comes back from JSON as {saved!r}"
        horizon = len(values) + scheduler.warmup + 1
        now = point(scheduler, t, horizon, 3e-3, after)
        _is_sound_point(now, f"tick {t}, with the memory {after!r}")
        assert point(scheduler, t, horizon, 3e-3, saved) == now, "a saved memory gives another learning rate"
        memory = saved


def builds_an_optimizer(optimizer: Optimizer) -> None:
    """Check that groups keep name, rate and overrides, that a step moves what has a gradient, and nothing else."""
    import torch

    _needs(optimizer)
    overrides = _overrides(optimizer)
    moved, still = (torch.nn.Parameter(torch.linspace(0.5, 1.5, 6).reshape(2, 3)) for _ in range(2))
    groups: list[dict[str, Any]] = [
        {"name": "moved", "params": [moved], "lr": 0.25},
        {"name": "still", "params": [still], "lr": 0.125, **overrides},
    ]
    given = [dict(group) for group in groups]
    built = optimizer.build(groups)
    assert isinstance(built, torch.optim.Optimizer), f"build gives {type(built).__name__}, not a torch.optim.Optimizer"
    assert [list(group) for group in groups] == [list(group) for group in given], "build writes into the groups given"
    first, second = built.param_groups
    assert (first.get("name"), second.get("name")) == ("moved", "still"), "the groups' names do not arrive"
    assert (first["lr"], second["lr"]) == (0.25, 0.125), "the groups' learning rates do not arrive"
    for name, value in overrides.items():
        if name in second:
            assert second[name] == value, f"a group's {name} = {value} does not arrive: {second[name]}"
            assert first[name] == getattr(optimizer, name), f"{name} of the settings does not arrive: {first[name]}"
    before = moved.detach().clone()
    for _ in range(2):
        moved.grad = 2 * moved.detach()
        built.step()
    assert not torch.equal(moved, before), "two steps do not move a parameter that has a gradient"
    assert torch.isfinite(moved).all(), "two steps make a parameter non-finite"
    assert torch.equal(still, before), "a parameter without a gradient is moved; frozen groups rely on its staying"


def builds_a_listener(hook: Hook) -> None:
    """Check that a hook's live part listens, to events that there are, and saves its state whole or not at all."""
    import torch

    _needs(hook)
    assert hook.phase in PHASES, f'phase "{hook.phase}" is none of {", ".join(PHASES)}'
    names = hook.names()
    assert names is None or all(map(_is_full_name, names)), f"names() gives {names}; full names are <split>/<name>"
    with tempfile.TemporaryDirectory() as folder:
        part = hook.build(Context(seed=0, device=torch.device("cpu"), rank=0, world=1, folder=Path(folder)))
        try:
            heard = listeners({type(part).__name__: part})
        except ComponentError as error:
            raise AssertionError(str(error)) from error
    assert any(heard.values()), f"{type(part).__name__} has no on_<event> method, so it never does anything"
    saves, loads = hasattr(part, "state_dict"), hasattr(part, "load_state_dict")
    assert saves == loads, f"{type(part).__name__} has only one of state_dict and load_state_dict"


def builds_a_function(inference: Inference) -> None:
    """Check that ``build`` takes the opened data, and nothing else."""
    try:
        inspect.signature(inference.build).bind(None)
    except TypeError as error:
        raise AssertionError(f"{type(inference).__name__}.build must take the opened data: {error}") from error


def states_its_splits(data: Data) -> None:
    """Check that data names its splits, "train" first."""
    splits = data.splits()
    assert splits, "splits() is empty"
    assert splits[0] == "train", f'splits() begins with "{splits[0]}"; "train" comes first'
    assert len(set(splits)) == len(splits), f"splits() names one twice: {splits}"
    odd = [split for split in splits if not re.fullmatch(r"\w+", split)]
    assert not odd, f"names of splits are words, got {odd}"


def states_its_groups(model: Model) -> None:
    """Check that a model says what data it takes, and its parameter groups if it knows them."""
    assert isinstance(model.accepts, type), f"accepts is {model.accepts!r}; it must be a kind of Data"
    assert issubclass(model.accepts, Data), f"accepts is {_name(model.accepts)}; it must be a kind of Data"
    groups = model.groups()
    if groups is not None:
        assert groups, "groups() is empty; a model has at least one parameter group"
        for name, trains in groups.items():
            assert re.fullmatch(r"\w+", name), f'"{name}" cannot stand in a recipe as [groups.{name}]'
            assert isinstance(trains, bool), f'groups() gives {trains!r} for "{name}"; it must be True or False'


def has_a_sound_weight(loss: Loss) -> None:
    """Check that a loss has a finite weight, and says whether it is a regulariser."""
    assert math.isfinite(loss.weight), f"weight is {loss.weight}"
    assert isinstance(loss.on_validation, bool), f"on_validation is {loss.on_validation!r}"


def states_its_names(metric: Metric) -> None:
    """Check that a metric gives its names without a split."""
    names = metric.names()
    if names is not None:
        assert names, "names() is empty; return None if they are known only after building"
        assert len(set(names)) == len(names), f"names() gives one twice: {names}"
        full = [name for name in names if "/" in name]
        assert not full, f"names() gives {full}; the split is put before them later"


ON_SETTINGS: tuple[tuple[type[Component], Callable[[Any], None]], ...] = (
    (Component, states_modules_and_timeline),
    (Data, states_its_splits),
    (Model, states_its_groups),
    (Loss, has_a_sound_weight),
    (Metric, states_its_names),
    (Inference, builds_a_function),
    (Optimizer, builds_an_optimizer),
    (Scheduler, is_a_sound_schedule),
    (Scheduler, has_a_sound_memory),
    (Hook, builds_a_listener),
)
"""Kind -> a check of settings of that kind, and of what they build."""


# ---- how the checks are run -----------------------------------------------------------------------------------------


def _check_class(found: registry.RegisteredComponent, check: Callable[[type[Any], str], None], group: str) -> None:
    check(_load(found), group)


def _check_settings(
    found: registry.RegisteredComponent, check: Callable[[Any], None], settings: Mapping[str, Any], where: str
) -> None:
    cls = _load(found)
    missing = [
        field.name
        for field in _fields(cls)
        if field.init and field.default is attrs.NOTHING and field.name not in settings
    ]
    assert not missing, f'{where} has no default for {", ".join(missing)}: give samples={{"{where}": {{…}}}}'
    try:
        made = cls(**settings)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{where} does not accept its own defaults: {error}") from error
    check(made)


def _load(found: registry.RegisteredComponent) -> type[Any]:
    try:
        return found.load()
    except ComponentError as error:
        raise AssertionError(str(error)) from error


def _groups_of(kind: type[Component]) -> frozenset[str]:
    """Return the entry-point groups of a kind and of the kinds under it; those of `Component` are all there are."""
    if kind is Component:
        return frozenset(registry.entry_point_groups())
    return frozenset(each.entry_points for each in KINDS if issubclass(each, kind))  # type: ignore[attr-defined]


def _needs(settings: Component) -> None:
    missing = [module for module in settings.requires if find_spec(module) is None]
    if missing:
        raise SkipTest(f"{_name(type(settings))} builds with {', '.join(missing)}, which is not installed")


_TRY_IMPORTS = """
import importlib, json, sys
modules, heavy = json.loads(sys.argv[1])
outcome = {}
for module in modules:
    before = set(sys.modules)
    try:
        importlib.import_module(module)
        outcome[module] = [each for each in heavy if each in sys.modules and each not in before]
    except Exception as error:
        outcome[module] = f"{type(error).__name__}: {error}"
print(json.dumps(outcome))
"""


@cache
def _imports(modules: tuple[str, ...]) -> dict[str, str | list[str]]:
    """Return module -> what of `HEAVY` its import brought in first, or why it failed."""
    run = subprocess.run(
        [sys.executable, "-c", _TRY_IMPORTS, json.dumps([modules, HEAVY])],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert run.returncode == 0, f"importing the registered components ended Python: {run.stderr}"
    outcome: dict[str, str | list[str]] = json.loads(run.stdout.splitlines()[-1])
    return outcome


def _fields(cls: type[Any]) -> tuple[attrs.Attribute[Any], ...]:
    return attrs.fields(cls) if attrs.has(cls) else ()


def _described(docstring: str) -> Iterable[str]:
    """Yield the names that a Google-style docstring describes under ``Attributes:``."""
    lines = inspect.cleandoc(docstring).splitlines()
    if "Attributes:" not in lines:
        return
    for line in lines[lines.index("Attributes:") + 1 :]:
        if line and not line.startswith(" "):
            return
        if name := re.match(r" {4}(\w+)(?: \([^)]*\))?: *\S", line):
            yield name[1]


def _is_full_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w+/\S+", value) is not None


def _is_sound_point(found: Point, where: str) -> None:
    assert isinstance(found, Point), f"at gives {type(found).__name__}, not a Point ({where})"
    assert math.isfinite(found.lr), f"the learning rate is {found.lr} at {where}"
    assert found.lr >= 0, f"the learning rate is {found.lr} at {where}"
    assert found.momentum is None or 0 <= found.momentum < 1, f"the momentum is {found.momentum} at {where}"


def _overrides(settings: Component) -> dict[str, float]:
    """Return another valid value for each setting that is a number."""
    others: dict[str, float] = {}
    for field in _fields(type(settings)):
        value = getattr(settings, field.name)
        if isinstance(value, float) and field.name != "lr":
            for other in (value / 2, 0.0625):
                if other != value and _accepts(settings, field.name, other):
                    others[field.name] = other
                    break
    return others


def _accepts(settings: Component, name: str, value: float) -> bool:
    try:
        _changed(settings, **{name: value})
    except ValueError:
        return False
    return True


def _changed(settings: Any, **changes: Any) -> Any:
    return attrs.evolve(settings, **changes)


def _name(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _in_words(check: Callable[..., None]) -> str:
    return check.__name__.replace("_", " ")
