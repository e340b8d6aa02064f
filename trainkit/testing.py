"""The conformance suite for registered components, both trainkit's own and those of third parties.

A plugin's tests run it over the plugin's components like this:

    import pytest
    from trainkit.testing import cases

    @pytest.mark.parametrize("case", cases("my-plugin"), ids=str)
    def test_conformance(case):
        case.check()

Each check is a plain function that raises AssertionError with a sentence, so it can also be called on its own. Nothing
here needs pytest or a GPU.

What components build is tried too: data are opened, models and losses make a step on them, metrics see held-out items,
hooks and loggers are part of small runs that are interrupted and resumed. What a part is tried with (`Trial`) is found
among the components of its own package, or of the package that has the kind of data which it accepts. Those that have
settings without a default, or need files, get them from `samples`; what cannot be tried is skipped, and says so.
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
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import SkipTest

import attrs

from trainkit import registry
from trainkit.conformance.of_data import (
    divides_batches_among_processes,
    opened,
    opens_without_seeding,
    yields_batches_by_seed_epoch_and_number,
)
from trainkit.conformance.of_hooks import continues_after_a_resume, leaves_the_training_as_it_is
from trainkit.conformance.of_losses import combines_as_it_says, computes_without_waiting, is_a_differentiable_scalar
from trainkit.conformance.of_metrics import (
    combines_what_processes_saw,
    computes_numbers_and_forgets,
    does_not_depend_on_how_items_are_batched,
)
from trainkit.conformance.of_models import (
    builds_a_network_that_learns,
    divides_its_parameters_into_groups,
    is_restored_from_its_state,
    steps_without_waiting,
)
from trainkit.conformance.randomness import untouched_randomness
from trainkit.conformance.trial import Samples, trials
from trainkit.conformance.trial import Trial as Trial
from trainkit.contracts import (
    AUTO,
    KINDS,
    Combine,
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
from trainkit.curvature import set_curvature
from trainkit.errors import ComponentError, PartError, RecipeError, did_you_mean
from trainkit.events import PHASES, listeners
from trainkit.groups.schedule import observe_epoch, point

HEAVY = ("torch", "numpy", "h5py", "monai")
"""Modules that a settings module must not import."""


class Case(NamedTuple):
    """One check of one component; ``str`` of it is a readable test name."""

    name: str
    check: Callable[[], None]

    def __str__(self) -> str:
        return self.name


def cases(package: str | None = None, samples: Samples | None = None) -> list[Case]:
    """Return every check of every registered component; nothing is imported yet.

    Args:
        package: The distribution whose components are checked; None: all installed ones.
        samples: Settings for components that have settings without a default.

    Raises:
        ComponentError: The package registers no component (a suite without any check would pass).
    """
    packages = {each.package for group in registry.entry_point_groups() for each in registry.registered(group)}
    if package is not None and package not in packages:
        raise ComponentError(f'no package "{package}" registers a component; {did_you_mean(package, packages)}')
    found: list[Case] = []
    for group in registry.entry_point_groups():
        for each in registry.registered(group):
            if package is None or each.package == package:
                where = f"{group}/{each.name}"
                settings = (samples or {}).get(where, {})
                found.append(Case(f"{where} imports lightly", partial(imports_lightly, each.value)))
                found.append(Case(f"{where} changes nothing for all", partial(changes_nothing_for_all, each.value)))
                for on_class in ON_CLASSES:
                    check = partial(_check_class, each, on_class, group)
                    found.append(Case(f"{where} {_sentence(on_class)}", check))
                for kind, on_settings in ON_SETTINGS:
                    if group in _groups_of(kind):
                        check = partial(_check_settings, each, on_settings, settings, where)
                        found.append(Case(f"{where} {_sentence(on_settings)}", check))
                for kind, on_trial in ON_TRIALS:
                    if group in _groups_of(kind):
                        check = partial(_check_live, each, on_trial, samples or {}, where)
                        found.append(Case(f"{where} {_sentence(on_trial)}", check))
    return found


def imports_lightly(value: str) -> None:
    """Check that importing a component's module imports none of `HEAVY`; one new process tries all registered ones."""
    module = value.partition(":")[0]
    heavy = _outcome(module).heavy
    assert not heavy, f"importing {module} also imports {', '.join(heavy)}; import it inside build"


def changes_nothing_for_all(value: str) -> None:
    """Check that importing a component's module prints nothing, and changes nothing for the whole process.

    Args:
        value: The class, as ``module:Class``; a new process imports its module.
    """
    effects = _outcome(value.partition(":")[0]).effects
    assert not effects, f"{effects[0]}; do it where a run asks for it, or not at all"


# ---- what holds for the class of every component --------------------------------------------------------------------


def is_a_component_of_its_kind(cls: type[Any], group: str) -> None:
    """Check that a class is decorated, concrete, and of the kind that its entry-point group belongs to."""
    assert issubclass(cls, Component), f"{_name(cls)} is not a trainkit.Component"
    assert getattr(cls, "entry_points", None) == group, (
        f"{_name(cls)} is registered in {group}, but its kind belongs to {getattr(cls, 'entry_points', None)}"
    )
    assert "__attrs_attrs__" in vars(cls), f"{_name(cls)} lacks the decorator @component"
    positional = [field.name for field in _fields(cls) if not field.kw_only]
    assert not positional, f"{_name(cls)} takes {positional} as positional arguments; decorate it with @component"


def is_abstract_or_final(cls: type[Any], group: str) -> None:
    """Check that a class is concrete and its base classes are abstract: no component derives from another."""
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
    """Check that a class has a docstring, and that it or a base class describes each setting under ``Attributes:``."""
    own = vars(cls).get("__doc__") or ""
    assert own.strip(), f"{_name(cls)} has no docstring; `trainkit show` prints it"
    described = {name for base in cls.__mro__ for name in _described(vars(base).get("__doc__") or "")}
    missing = [field.name for field in _fields(cls) if field.init and field.name not in described]
    assert not missing, f'{_name(cls)} does not describe {", ".join(missing)} under "Attributes:" in its docstring'


def has_types_that_can_be_read(cls: type[Any], group: str) -> None:
    """Check that the types of all settings can be resolved at run time, because recipes are read by these types."""
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
    """Check that ``requires`` holds names of modules, and that ``timeline`` yields epochs of the run with texts."""
    odd = [module for module in settings.requires if not isinstance(module, str) or not module]
    assert not odd, f"requires contains {odd}; it must contain names of modules"
    for epoch, what in settings.timeline(10):
        assert 0 <= epoch <= 10, f"the timeline of a run of 10 epochs contains epoch {epoch}"
        assert what, f"the timeline has an empty text for epoch {epoch}"


def is_a_sound_schedule(scheduler: Scheduler) -> None:
    """Check that a schedule's rates are finite and ≥ 0 over the horizon, warm-up included, and depend only on ``t``."""
    lr = 3e-3
    plain, warmed = _changed(scheduler, warmup=0), _changed(scheduler, warmup=4)
    for horizon in (1, 2, 3, 10, 97):
        for settings, ticks in ((plain, horizon), (warmed, horizon + 4)):
            points = [_point(settings, t, ticks, lr, {}) for t in range(ticks)]
            for t, each in enumerate(points):
                assert each.lr >= 0, f"the learning rate is {each.lr} at tick {t} of {ticks}"
            again = [_point(settings, t, ticks, lr, {}) for t in reversed(range(ticks))]
            assert again[::-1] == points, f"at(t, {ticks}, …) returns other values when it is called in another order"


def has_a_sound_memory(scheduler: Scheduler) -> None:
    """Check that a schedule's memory is JSON, is the same after being saved, and is never changed in place."""
    watched = {value for field in _fields(type(scheduler)) if _is_full_name(value := getattr(scheduler, field.name))}
    monitor = Monitor()
    values = [2.0, 1.0, 1.5, math.nan, None, *[1.0] * 30, 0.5, *[0.5] * 30]
    memory: Mapping[str, Any] = {}
    for t, value in enumerate(values, start=1):
        metrics = {} if value is None else dict.fromkeys({monitor.metric, *watched}, value)
        memory_before, metrics_before = copy.deepcopy((memory, metrics))
        after = observe_epoch(scheduler, t, memory, metrics, monitor)
        assert memory == memory_before, "observe changes the memory that is passed to it; return a new one"
        assert repr(metrics) == repr(metrics_before), "observe changes the metrics that are passed to it"
        try:
            saved = json.loads(json.dumps(dict(after), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise AssertionError(f"the memory {after!r} is not JSON: {error}") from error
        assert saved == after, f"the memory {after!r} is read back from JSON as {saved!r}"
        horizon = len(values) + scheduler.warmup + 1
        now = _point(scheduler, t, horizon, 3e-3, after)
        assert now.lr >= 0, f"the learning rate is {now.lr} at tick {t}, with the memory {after!r}"
        assert _point(scheduler, t, horizon, 3e-3, saved) == now, "a saved memory gives another learning rate"
        memory = saved


def acts_when_it_says(scheduler: Scheduler) -> None:
    """Check that, under a value that never improves, the rate first reacts after the epoch that ``waits`` states."""
    recipe: Any = SimpleNamespace(monitor=Monitor(), groups={})
    epochs = 200
    waits = list(_changed(scheduler, warmup=0).waits(recipe))
    stated = [epoch for wait in waits if (epoch := wait.acts(iter(range(epochs)))) is not None]
    metrics = dict.fromkeys({recipe.monitor.metric, *(wait.metric for wait in waits if wait.metric)}, 1.0)
    settings = _changed(scheduler, warmup=0, by="epoch")
    memory: Mapping[str, Any] = {}
    for epoch in range(epochs if waits else 0):
        memory = observe_epoch(settings, epoch + 1, memory, metrics, recipe.monitor)
        next_rate = [_point(settings, epoch + 1, epochs + 1, 3e-3, remembered) for remembered in (memory, {})]
        if next_rate[0] != next_rate[1]:
            assert stated, f"waits states no epoch within {epochs}, but the rate reacts after epoch {epoch}"
            assert epoch == min(stated), f"waits states epoch {min(stated)}, but the rate reacts after epoch {epoch}"
            return
    assert not stated, f"waits states epoch {min(stated)}, but the rate does not react within {epochs} epochs"


def builds_an_optimizer(optimizer: Optimizer) -> None:
    """Check that groups keep name, rate and overrides, and that a step changes only parameters with a gradient."""
    import torch

    _needs(optimizer)
    overrides = _overrides(optimizer)
    moved, still = (torch.nn.Parameter(torch.linspace(0.5, 1.5, 6).reshape(2, 3)) for _ in range(2))
    for parameter in (moved, still):
        set_curvature(parameter, lambda: torch.full((3,), 2.0))  # of the sum of squares, as a model may tell it
    groups: list[dict[str, Any]] = [
        {"name": "moved", "params": [moved], "lr": 0.25},
        {"name": "still", "params": [still], "lr": 0.125, **overrides},
    ]
    given = [dict(group) for group in groups]
    built = optimizer.build(groups)
    made = type(built).__name__
    assert isinstance(built, torch.optim.Optimizer), f"build returns {made}, not a torch.optim.Optimizer"
    assert [list(group) for group in groups] == [list(group) for group in given], "build changes the groups given"
    first, second = built.param_groups
    assert (first.get("name"), second.get("name")) == ("moved", "still"), "build loses the groups' names"
    assert (first["lr"], second["lr"]) == (0.25, 0.125), "build loses the groups' learning rates"
    for name, value in overrides.items():
        if name in second:
            assert second[name] == value, f"build loses a group's {name} = {value}; the optimizer has {second[name]}"
            assert first[name] == getattr(optimizer, name), f"build ignores {name}; the optimizer has {first[name]}"
    before = moved.detach().clone()
    for _ in range(2):
        moved.grad = 2 * moved.detach()
        built.step()
    assert not torch.equal(moved, before), "two steps do not change a parameter that has a gradient"
    assert torch.isfinite(moved).all(), "after two steps a parameter is not finite"
    assert torch.equal(still, before), "a step changes a parameter without a gradient; frozen groups must not change"
    twin = torch.nn.Parameter(moved.detach().clone())
    set_curvature(twin, lambda: torch.full((3,), 2.0))
    fresh = [{**groups[0], "params": [twin]}, {**groups[1], "params": [torch.nn.Parameter(before.clone())]}]
    restored = optimizer.build(fresh)
    restored.load_state_dict(copy.deepcopy(built.state_dict()))
    for parameter, steps in ((moved, built), (twin, restored)):
        parameter.grad = 2 * parameter.detach()
        steps.step()
    assert torch.equal(moved, twin), "a new optimizer with the saved state of this one makes another step"


def builds_a_listener(hook: Hook) -> None:
    """Check that a hook's live part listens to existing events, and has both state_dict and load_state_dict or none."""
    import torch

    _needs(hook)
    assert hook.phase in PHASES, f'phase is "{hook.phase}"; it must be one of {", ".join(PHASES)}'
    names = hook.names()
    assert names is None or all(map(_is_full_name, names)), f"names() returns {names}; full names are <split>/<name>"
    with tempfile.TemporaryDirectory() as folder:
        with untouched_randomness(f"{type(hook).__name__}.build", "leave them as they are"):
            try:
                part = hook.build(Context(seed=0, device=torch.device("cpu"), folder=Path(folder)))
            except RecipeError as error:  # something that it needs is not installed, for example
                raise SkipTest(f"{type(hook).__name__} cannot be built here: {error}") from error
        try:
            called = listeners({type(part).__name__: part})
        except ComponentError as error:
            raise AssertionError(str(error)) from error
    assert any(called.values()), f"{type(part).__name__} has no on_<event> method, so it never does anything"
    saves, loads = hasattr(part, "state_dict"), hasattr(part, "load_state_dict")
    assert saves == loads, f"{type(part).__name__} has only one of state_dict and load_state_dict"


def builds_a_function(inference: Inference) -> None:
    """Check that ``build`` takes the opened data as its only argument."""
    try:
        inspect.signature(inference.build).bind(None)
    except TypeError as error:
        raise AssertionError(f"{type(inference).__name__}.build must take the opened data: {error}") from error


def states_its_splits(data: Data) -> None:
    """Check that data names its splits, "train" first, and yields batches of each, if it can be opened."""
    splits = data.splits()
    assert splits, "splits() is empty"
    assert splits[0] == "train", f'splits() begins with "{splits[0]}"; "train" must come first'
    assert len(set(splits)) == len(splits), f"splits() contains a name twice: {splits}"
    odd = [split for split in splits if not re.fullmatch(r"\w+", split)]
    assert not odd, f"names of splits must be words (letters, digits, _), got {odd}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            live = opened(data, Path(folder))
        except SkipTest:
            return
        number = getattr(live, "batches_per_epoch", None)
        assert isinstance(number, int), (
            f"{type(live).__name__} must have batches_per_epoch, a whole number, not {number}"
        )
        for split in splits[1:]:
            assert next(iter(live.evaluate(split)), None) is not None, f'evaluate("{split}") yields nothing'


def states_its_groups(model: Model) -> None:
    """Check that a model states the kind of data that it accepts, and its parameter groups if it knows them."""
    assert isinstance(model.accepts, type), f"accepts is {model.accepts!r}; it must be a subclass of Data"
    assert issubclass(model.accepts, Data), f"accepts is {_name(model.accepts)}; it must be a subclass of Data"
    groups = model.groups()
    if groups is not None:
        assert groups, "groups() is empty; a model must have at least one parameter group"
        for name, trains in groups.items():
            assert re.fullmatch(r"\w+", name), f'"{name}" cannot be written in a recipe as [groups.{name}]'
            assert isinstance(trains, bool), f'groups() returns {trains!r} for "{name}"; it must be True or False'
        for name in model.groups_with_curvature():
            assert name in groups, f'groups_with_curvature() names "{name}", which is not in groups()'


def has_a_sound_weight(loss: Loss) -> None:
    """Check that a loss has a finite weight, and that it says whether it is a regulariser and how it combines."""
    assert loss.weight == AUTO or math.isfinite(loss.weight), f"weight is {loss.weight}"
    assert loss.combine() in typing.get_args(Combine), f"combine() is {loss.combine()!r}, none of {Combine}"
    assert isinstance(loss.on_validation, bool), f"on_validation is {loss.on_validation!r}"


def states_its_names(metric: Metric) -> None:
    """Check that a metric states its names without a split."""
    names = metric.names()
    if names is not None:
        assert names, "names() is empty; return None if they are known only after building"
        assert len(set(names)) == len(names), f"names() contains a name twice: {names}"
        full = [name for name in names if "/" in name]
        assert not full, f"names() returns {full}; leave the split out, it is added later"


ON_SETTINGS: tuple[tuple[type[Component], Callable[[Any], None]], ...] = (
    (Component, states_modules_and_timeline),
    (Data, states_its_splits),
    (Data, yields_batches_by_seed_epoch_and_number),
    (Data, opens_without_seeding),
    (Data, divides_batches_among_processes),
    (Model, states_its_groups),
    (Loss, has_a_sound_weight),
    (Metric, states_its_names),
    (Inference, builds_a_function),
    (Optimizer, builds_an_optimizer),
    (Scheduler, is_a_sound_schedule),
    (Scheduler, has_a_sound_memory),
    (Scheduler, acts_when_it_says),
    (Hook, builds_a_listener),
)
"""Pairs of a kind and a check for settings of that kind and what they build."""

ON_TRIALS: tuple[tuple[type[Component], Callable[[Any, Any], None]], ...] = (
    (Model, builds_a_network_that_learns),
    (Model, divides_its_parameters_into_groups),
    (Model, is_restored_from_its_state),
    (Model, steps_without_waiting),
    (Loss, is_a_differentiable_scalar),
    (Loss, combines_as_it_says),
    (Loss, computes_without_waiting),
    (Metric, computes_numbers_and_forgets),
    (Metric, does_not_depend_on_how_items_are_batched),
    (Metric, combines_what_processes_saw),
    (Hook, leaves_the_training_as_it_is),
    (Hook, continues_after_a_resume),
)
"""Pairs of a kind and a check of what its settings build, with a `Trial` of it; of hooks, with all trials there are."""


# ---- how the checks are run -----------------------------------------------------------------------------------------


def _check_class(found: registry.RegisteredComponent, check: Callable[[type[Any], str], None], group: str) -> None:
    check(_load(found), group)


def _check_settings(
    found: registry.RegisteredComponent, check: Callable[[Any], None], settings: Mapping[str, Any], where: str
) -> None:
    check(_made(found, settings, where))


def _check_live(
    found: registry.RegisteredComponent, check: Callable[[Any, Any], None], samples: Samples, where: str
) -> None:
    made = _made(found, samples.get(where, {}), where)
    _needs(made)
    possible = trials(made, found.package, samples)
    if isinstance(made, Hook):
        check(made, possible)
        return
    trial = next((each for each in possible if each.model is not None), None)
    if trial is None:
        accepts = type(made).accepts.__name__
        raise SkipTest(
            f"{where} accepts {accepts}, and no data and model of this kind can be built here without settings: give "
            'samples={"trainkit.data/NAME": {…}}, and of a model that takes them'
        )
    try:
        check(made, trial)
    except RecipeError as error:
        raise SkipTest(f"{where} does not fit the data that it is tried with; give samples: {error}") from error


def _made(found: registry.RegisteredComponent, settings: Mapping[str, Any], where: str) -> Any:
    cls = _load(found)
    missing = [
        field.name
        for field in _fields(cls)
        if field.init and field.default is attrs.NOTHING and field.name not in settings
    ]
    assert not missing, f'{where} has no default for {", ".join(missing)}: give samples={{"{where}": {{…}}}}'
    try:
        return cls(**settings)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{where} refuses its own defaults or the samples: {error}") from error


def _load(found: registry.RegisteredComponent) -> type[Any]:
    try:
        return found.load()
    except ComponentError as error:
        raise AssertionError(str(error)) from error


def _groups_of(kind: type[Component]) -> frozenset[str]:
    """Return the entry-point groups of a kind and of the kinds derived from it; for `Component`, all groups."""
    if kind is Component:
        return frozenset(registry.entry_point_groups())
    return frozenset(each.entry_points for each in KINDS if issubclass(each, kind))  # type: ignore[attr-defined]


def _needs(settings: Component) -> None:
    missing = [module for module in settings.requires if find_spec(module) is None]
    if missing:
        raise SkipTest(f"{_name(type(settings))} needs {', '.join(missing)}, which is not installed")


_TRY_IMPORTS = """
import importlib, json, sys
from trainkit.import_effects import watched_import
modules, heavy = json.loads(sys.argv[1])
outcome = {}
for module in modules:
    before, effects = set(sys.modules), []
    try:
        with watched_import(module, effects):
            importlib.import_module(module)
        outcome[module] = [[each for each in heavy if each in sys.modules and each not in before], effects]
    except Exception as error:
        outcome[module] = f"{type(error).__name__}: {error}"
print(json.dumps(outcome))
"""


class _Imported(NamedTuple):
    """What the import of a module did.

    Attributes:
        heavy: Which of `HEAVY` it was the first to import.
        effects: A sentence for each effect on the whole process.
    """

    heavy: list[str]
    effects: list[str]


def _outcome(module: str) -> _Imported:
    """Return what the import of a module did in a new process; one process tries all registered modules.

    Raises:
        AssertionError: It cannot be imported, or ends the process.
    """
    values = {found.value for group in registry.entry_point_groups() for found in registry.registered(group)}
    outcomes = _imports(tuple(sorted({each.partition(":")[0] for each in values} | {module})))
    if outcomes is None:  # one of them ends the process, for which the others are not blamed
        outcomes = _imports((module,))
    assert outcomes is not None, f"importing {module} ends the process"
    outcome = outcomes[module]
    assert not isinstance(outcome, str), f"{module} cannot be imported: {outcome}"
    return _Imported(*outcome)


@cache
def _imports(modules: tuple[str, ...]) -> dict[str, str | list[list[str]]] | None:
    """Return module -> what its import did, or why it failed; None: the process ended."""
    run = subprocess.run(
        [sys.executable, "-c", _TRY_IMPORTS, json.dumps([modules, HEAVY])],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    if run.returncode != 0 or not run.stdout.strip():
        return None
    outcome: dict[str, str | list[list[str]]] = json.loads(run.stdout.splitlines()[-1])
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


def _point(scheduler: Scheduler, t: int, horizon: int, lr: float, memory: Mapping[str, Any]) -> Point:
    """Return what a run would use, which refuses what is no learning rate or momentum."""
    try:
        return point(scheduler, t, horizon, lr, memory)
    except PartError as error:
        raise AssertionError(str(error)) from error


def _overrides(settings: Component) -> dict[str, float]:
    """Return a different valid value for each setting that is a number."""
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


def _sentence(check: Callable[..., None]) -> str:
    return check.__name__.replace("_", " ")
