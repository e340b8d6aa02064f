"""What is wrong between settings that are right each for itself; found without building anything.

Each rule is a generator of findings. A recipe with mistakes of structure lacks what could not be read; a rule that
comes to such a place ends there, having said what it knows.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from importlib import metadata
from importlib.util import find_spec
from typing import get_args

from trainkit import registry
from trainkit.contracts import Component, MetricName, Problem, Scheduler
from trainkit.errors import did_you_mean
from trainkit.recipe.fields import field_types, settings_fields
from trainkit.recipe.group_epochs import ActiveEpochs, active_epochs, declared_groups, idle_stretches, warmup_problem
from trainkit.recipe.parameter_patterns import takes_rest
from trainkit.recipe.positions import Where
from trainkit.recipe.problems import Finding
from trainkit.recipe.root import GroupSettings, Recipe, exclusive_pair
from trainkit.recipe.tables import walk_settings

Rule = Callable[[Recipe], Iterator[Finding]]


def findings(recipe: Recipe, complete: bool) -> list[Finding]:
    """Apply every rule.

    Args:
        recipe: The settings.
        complete: Whether all of the recipe could be read.
    """
    rules: list[Rule] = [
        _patterns,
        _unknown_groups,
        _idle_epochs,
        _warm_ups,
        _clashing_values,
        _metric_names,
    ]
    for name in getattr(recipe, "groups", ()):
        rules += [_rule_of_group(name), _rule_of_phases(name)]
    components = [(where, each) for where, each, _ in walk_settings(recipe) if isinstance(each, Component)]
    rules += [_missing_modules(where, each) for where, each in components]
    found = list(_exclusive_settings(recipe))
    complete = complete and not found
    for rule in rules:
        try:
            found.extend(rule(recipe))
        except Exception as error:  # a component's groups(), splits(), names() may raise anything
            if complete:
                found.append(Finding(f"a component cannot tell about itself: {describe_exception(error)}"))
    for where, each in components:
        found += _own_problems(where, each, recipe, complete)
    return found


def _exclusive_settings(recipe: Recipe) -> Iterator[Finding]:
    for where, settings, _ in walk_settings(recipe):
        if pair := exclusive_pair(where):
            given = [name for name in pair if getattr(settings, name, "unreadable") is not None]
            if len(given) == 2:
                yield Finding(f"{pair[0]} is given too; only one of the two can be", (*where, pair[1]), at="key")
            elif where == ("run",) and not given:
                yield Finding('"epochs" or "steps" is missing: how long the run lasts', where, at="key")


# ---- parameter groups -----------------------------------------------------------------------------------------------


def _patterns(recipe: Recipe) -> Iterator[Finding]:
    without = [name for name, group in recipe.groups.items() if group.parameters is None]
    if len(without) < len(recipe.groups):
        for name in without:
            yield Finding(
                "has no parameters, but other groups have: if one has patterns, all must", ("groups", name), at="key"
            )
    rest = [name for name, group in recipe.groups.items() if group.parameters and takes_rest(group.parameters)]
    for name in rest[1:]:
        message = f"takes the rest of the parameters, as groups.{rest[0]} does; only one group can"
        yield Finding(message, ("groups", name, "parameters"))


def _unknown_groups(recipe: Recipe) -> Iterator[Finding]:
    declared = declared_groups(recipe)
    if declared is None:
        return
    for name in recipe.groups:
        if name not in declared:
            yield Finding("the model has no such group", ("groups", name), at="key", hint=did_you_mean(name, declared))


def _rule_of_group(name: str) -> Rule:
    where = ("groups", name)

    def times(recipe: Recipe) -> Iterator[Finding]:
        group, epochs = recipe.groups[name], _most_epochs(recipe)
        start = group.start_epoch
        if start is not None and start >= epochs:
            yield Finding(f"the run ends before: it has {_epochs_in_words(recipe)}", (*where, "start_epoch"))
        stop = group.stop_epoch
        if stop is not None and stop <= (start or 0):
            begin = f"its start_epoch is {start}" if start else "it starts at 0"
            yield Finding(f"must come after the start: {begin}", (*where, "stop_epoch"))
        elif stop is not None and stop > epochs and recipe.run.steps is None:
            yield Finding(f"the run ends before, at epoch {epochs}", (*where, "stop_epoch"), "note")
        declared = declared_groups(recipe)
        if declared is not None and declared.get(name) is False and start is None:
            yield Finding("stays frozen: give it start_epoch if it is to train", where, "note", at="key")

    return times


def _rule_of_phases(name: str) -> Rule:
    def phases(recipe: Recipe) -> Iterator[Finding]:
        group, epochs = recipe.groups[name], _most_epochs(recipe)
        trains_at_once = (declared_groups(recipe) or {}).get(name, True)
        start = 0 if group.start_epoch is None and trains_at_once else group.start_epoch
        starts: dict[int, str] = {}
        for key, phase in group.then.items():
            where = ("groups", name, "then", key)
            changes = (getattr(phase, each, "unreadable") for each in ("lr", "lr_factor", "optimizer", "scheduler"))
            if all(change is None for change in changes):
                yield Finding("changes nothing: give it lr, lr_factor, optimizer or scheduler", where, at="key")
            begin = getattr(phase, "start_epoch", None)
            if begin is None:
                continue
            at = (*where, "start_epoch")
            if start is None:
                yield Finding(f"groups.{name} never trains: give it start_epoch", where, at="key")
            elif begin <= start:
                yield Finding(f"must come after the start of the group, at epoch {start}", at)
            if group.stop_epoch is not None and begin >= group.stop_epoch:
                yield Finding(f"the group stops before, at epoch {group.stop_epoch}", at)
            elif begin >= epochs:
                yield Finding(f"the run ends before: it has {_epochs_in_words(recipe)}", at)
            if begin in starts:
                yield Finding(f"the phase {starts[begin]} starts at the same epoch", at)
            starts[begin] = key

    return phases


def _idle_epochs(recipe: Recipe) -> Iterator[Finding]:
    declared = declared_groups(recipe)
    epochs = _most_epochs(recipe)
    if declared is None or any(_wrong_times(group, epochs) for group in recipe.groups.values()):
        return
    known = active_epochs(recipe, declared, epochs)
    idle = idle_stretches(known.values(), epochs)
    if not idle:
        return
    # The group that stops where the first stretch begins, else the one that starts where it ends.
    begin, end = idle[0]
    stopping = [("groups", name, "stop_epoch") for name, span in known.items() if 0 < span.stop == begin]
    starting = [("groups", name, "start_epoch") for name, span in known.items() if span.start == end]
    where: Where = [*stopping, *starting, ("groups",)][0]
    several = len(idle) > 1 or end - begin > 1
    written = ", ".join(f"{first} to {stop - 1}" if stop - first > 1 else str(first) for first, stop in idle)
    message = f"no parameter group trains in epoch{'s' if several else ''} {written}"
    if recipe.run.steps is None or begin == 0:
        yield Finding(message, where, at="key")
    else:
        yield Finding(f"{message}, if the run lasts that long", where, "note", at="key")


def _warm_ups(recipe: Recipe) -> Iterator[Finding]:
    declared = declared_groups(recipe)
    if declared is None:
        return
    most = _most_epochs(recipe)
    for name, epochs in active_epochs(recipe, declared, most).items():
        for table, holder, scheduler, (start, stop) in _schedules(recipe, name, epochs):
            if scheduler.by == "step" or (recipe.run.steps is not None and stop == most):
                continue  # how many steps an epoch has is known when the data is opened
            if start is None or start >= stop:
                continue
            if problem := warmup_problem(scheduler, stop - start):
                whose = f"group {name}" + (f", phase {table[-1]}" if "then" in table else "")
                message = problem if table == holder else f"{whose}: {problem}"
                yield Finding(message, (*holder, "scheduler", "warmup"))


def _schedules(
    recipe: Recipe, name: str, epochs: ActiveEpochs
) -> Iterator[tuple[Where, Where, Scheduler, ActiveEpochs]]:
    """Yield each phase of a group: its table, the table that holds its scheduler, the scheduler, the phase's epochs."""
    group = recipe.groups.get(name, GroupSettings())
    table: Where = ("groups", name)
    holder = table if group.scheduler else ()
    scheduler = group.scheduler or recipe.scheduler
    phases = sorted(group.then.items(), key=lambda item: item[1].start_epoch)
    ends = [*(phase.start_epoch for _, phase in phases), epochs.stop]
    yield table, holder, scheduler, ActiveEpochs(epochs.start, ends[0])
    for (key, phase), end in zip(phases, ends[1:], strict=True):
        start = None if epochs.start is None else phase.start_epoch
        own: Where = (*table, "then", key)
        yield own, own if phase.scheduler else holder, phase.scheduler or scheduler, ActiveEpochs(start, end)


def _most_epochs(recipe: Recipe) -> int:
    """Return how many epochs the run has; if its length is given in steps, as many as it can have."""
    return recipe.run.num_epochs(steps_per_epoch=1)


def _epochs_in_words(recipe: Recipe) -> str:
    epochs = _most_epochs(recipe)
    return f"at most {epochs} epochs, one a step" if recipe.run.steps else f"{epochs} epochs, 0 to {epochs - 1}"


def _wrong_times(group: GroupSettings, epochs: int) -> bool:
    start = group.start_epoch or 0
    return start >= epochs or (group.stop_epoch is not None and group.stop_epoch <= start)


# ---- names of values ------------------------------------------------------------------------------------------------


def _clashing_values(recipe: Recipe) -> Iterator[Finding]:
    for name in recipe.losses:
        if name == "loss":
            yield Finding('"train/loss" is the sum of all losses; call this one otherwise', ("losses", name), at="key")
        elif not name.strip() or "/" in name:
            yield Finding(
                'its value is called "train/<name>", so it needs a name without "/"', ("losses", name), at="key"
            )
    taken = {"loss": "the sum of all losses"}
    taken |= {name: f"losses.{name}" for name, loss in recipe.losses.items() if loss.on_validation}
    for key, metric in recipe.metrics.items():
        for name in metric.names() or ():
            if name in taken:
                yield Finding(f'its value "{name}" is also that of {taken[name]}', ("metrics", key), at="key")
            taken[name] = f"metrics.{key}"


def _metric_names(recipe: Recipe) -> Iterator[Finding]:
    wanted = [(where, name) for where, name in _named_values(recipe)]
    known, all_known = known_names(recipe)
    groups = declared_groups(recipe)
    for where, name in wanted:
        group_unknown = groups is None and name.startswith("lr/")
        is_known = name in known or any(fnmatchcase(name, each) for each in known)
        if not is_known and not group_unknown and (all_known or name.startswith("train/")):
            yield Finding(f'no value "{name}" is computed', where, hint=did_you_mean(name, known))


def known_names(recipe: Recipe) -> tuple[list[str], bool]:
    """Return the full names, or patterns of them, of the values that a run computes, and whether these are all."""
    names = ["train/loss", *(f"train/{loss}" for loss in recipe.losses)]
    all_known = True
    validated = [name for name, loss in recipe.losses.items() if loss.on_validation]
    metrics = [metric.names() for metric in recipe.metrics.values()]
    for split in recipe.data.splits():
        if split != "train":
            names += [f"{split}/{each}" for each in ([*(["loss"] if validated else []), *validated])]
            names += [f"{split}/{each}" for some in metrics for each in some or ()]
    hooks = [hook.names() for hook in (*recipe.hooks.values(), *recipe.loggers.values())]
    names += [each for some in hooks for each in some or ()]
    names += [f"lr/{group}" for group in declared_groups(recipe) or ()]
    all_known = None not in metrics and None not in hooks
    return list(dict.fromkeys(names)), all_known


def _named_values(recipe: Recipe) -> Iterator[tuple[Where, str]]:
    for where, settings, _ in walk_settings(recipe):
        for key, field in settings_fields(type(settings)).items():
            wanted = field_types(type(settings)).get(field.name)
            if wanted is MetricName or MetricName in get_args(wanted):
                value = getattr(settings, field.name, None)
                if isinstance(value, str):
                    yield (*where, key), value
                elif isinstance(value, list | tuple):
                    yield from (((*where, key, index), each) for index, each in enumerate(value))


# ---- components -----------------------------------------------------------------------------------------------------


def _missing_modules(where: Where, part: Component) -> Rule:
    def look_up(recipe: Recipe) -> Iterator[Finding]:
        for module in type(part).requires:
            if not _is_there(module.partition(".")[0]):
                yield Finding(
                    f"needs the module {module}, which is not installed", (*where, "use"), hint=_install(part, module)
                )

    return look_up


def _is_there(module: str) -> bool:
    try:
        return module in sys.modules or find_spec(module) is not None
    except (ImportError, ValueError):  # a broken parent, or a module without a spec
        return False


def _install(part: Component, module: str) -> str:
    """Return the command that brings a module: the extra of the part's own distribution that has it, else itself."""
    name = module.partition(".")[0]
    value = f"{type(part).__module__}:{type(part).__qualname__}"
    for found in registry.registered(getattr(part, "entry_points", "")):
        if found.value == value:
            for line in metadata.requires(found.package) or ():
                needed = re.match(r"[A-Za-z0-9._-]+", line)
                extra = re.search(r"""extra\s*==\s*["']([^"']+)["']""", line)
                if needed and extra and needed[0].lower().replace("-", "_") == name.lower():
                    return f"pip install '{found.package}[{extra[1]}]'"
    return f"pip install {name}"


def _own_problems(where: Where, part: Component, recipe: Recipe, complete: bool) -> Iterable[Finding]:
    found: list[Finding] = []
    data = getattr(recipe, "data", None)
    try:
        if data is not None and where[0] != "data" and not isinstance(data, part.accepts):
            message = f"works with {part.accepts.__name__}, but [data] is {type(data).__name__}"
            return [Finding(message, (*where, "use"))]  # what else it says would rest on data that it does not know
        for problem in part.problems(recipe):
            if isinstance(problem, str):
                problem = Problem(problem)
            key: Where = tuple(problem.key.split(".")) if problem.key else ()
            found.append(Finding(problem.message, (*where, *key), problem.severity, at="value" if key else "key"))
    except Exception as error:  # foreign code may raise anything
        if complete:
            found.append(Finding(f"cannot tell about itself: {describe_exception(error)}", where, at="key"))
    return found


def describe_exception(error: Exception) -> str:
    """Return an exception's type and message, and the line of code that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno}, in {frame.name})"
