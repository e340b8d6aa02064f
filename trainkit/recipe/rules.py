"""Finds mistakes between settings that are valid on their own, without building anything.

Each rule is a generator of findings. If parts of a recipe could not be read, a rule that needs them ends there, and the
findings that it made before are kept.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from importlib import metadata
from importlib.util import find_spec
from typing import get_args

from trainkit import registry
from trainkit.contracts import Component, Hook, MetricName, Model, Problem, Scheduler
from trainkit.errors import did_you_mean
from trainkit.recipe.fields import field_types, settings_fields
from trainkit.recipe.group_epochs import declared_groups
from trainkit.recipe.group_rules import Rule, group_rules
from trainkit.recipe.positions import Where
from trainkit.recipe.problems import Finding
from trainkit.recipe.promises import gives, reasons_against_recordings
from trainkit.recipe.root import Recipe, exclusive_pair
from trainkit.recipe.sharing import sharing_rules
from trainkit.recipe.tables import walk_settings
from trainkit.recipe.waiting import never_acting
from trainkit.recipe.weight_search import search_rules


def findings(recipe: Recipe, complete: bool) -> list[Finding]:
    """Apply every rule.

    Args:
        recipe: The settings.
        complete: Whether the whole recipe could be read.
    """
    rules: list[Rule] = [
        *group_rules(recipe),
        _levers,
        _recorded_steps,
        _shards,
        _validation_beside,
        _rare_validation,
        _clashing_values,
        _metric_names,
        _facts_of_weights,
        search_rules,
    ]
    rules.append(never_acting)
    components = [(where, each) for where, each, _ in walk_settings(recipe) if isinstance(each, Component)]
    rules += [_missing_modules(where, each) for where, each in components]
    rules.append(lambda _: _side_effects(components))
    found = list(_exclusive_settings(recipe))
    complete = complete and not found
    for rule in rules:
        try:
            found.extend(rule(recipe))
        except Exception as error:  # groups(), splits() or names() of a component may raise anything
            if complete:
                found.append(Finding(f"a component raised an error while it was checked: {describe_exception(error)}"))
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


def _levers(recipe: Recipe) -> Iterator[Finding]:
    """Find settings of [run] that cannot work with the model, or have no effect on it."""
    if recipe.model.computes_complex and recipe.run.precision == "fp16":
        yield Finding(
            f"{type(recipe.model).__name__} computes complex numbers: autocast leaves them in fp32, so fp16 saves "
            "nothing, and torch cannot scale their gradients, as fp16 needs it",
            ("run", "precision"),
            hint='use "fp32"',
        )
    elif recipe.model.computes_complex and recipe.run.precision == "bf16":
        yield Finding(
            f"bf16 changes nothing: {type(recipe.model).__name__} computes complex numbers, and autocast leaves them "
            "in fp32",
            ("run", "precision"),
            "note",
        )
    if recipe.run.compile and recipe.model.computes_complex:
        yield Finding(
            f"{type(recipe.model).__name__} computes complex numbers, which torch.compile leaves out or, in some "
            "versions, compiles to wrong results",
            ("run", "compile"),
        )
    if recipe.run.channels_last and recipe.model.computes_complex:
        yield Finding(
            f"{type(recipe.model).__name__} has no convolutions, so it has no effect", ("run", "channels_last")
        )
    if recipe.run.compile and recipe.run.activation_checkpointing:
        yield Finding(
            "with compile = true, torch decides itself which activations it computes again; set one of the two",
            ("run", "activation_checkpointing"),
        )
    if recipe.run.activation_checkpointing and type(recipe.model).recomputed_blocks is Model.recomputed_blocks:
        yield Finding(
            f"{type(recipe.model).__name__} does not say which of its parts can be computed again",
            ("run", "activation_checkpointing"),
        )


def _recorded_steps(recipe: Recipe) -> Iterator[Finding]:
    """Find what keeps steps from being recorded, if they are to be."""
    run, place = recipe.run, ("run", "cuda_graph")
    if not run.cuda_graph:
        return
    if run.device in ("cpu", "mps"):
        yield Finding(f'there are CUDA graphs on CUDA only, and run.device = "{run.device}"', place)
    for reason, part in reasons_against_recordings(recipe):
        why = "; set one or the other"
        if part is not None:
            why = ": it does not say that nothing but tensors changes from step to step (steps_can_be_recorded)"
        yield Finding(f"steps with {reason} cannot be recorded{why}", place)


def _validation_beside(recipe: Recipe) -> Iterator[Finding]:
    """Find what cannot work if values come while the next epoch trains."""
    place = ("validation", "beside")
    if not recipe.validation.beside:
        return
    if recipe.validation.every_steps:
        yield Finding("evaluations every few steps are made in line; remove validation.every_steps", place)
    others = {"shards": recipe.run.shards > 0, "compile": recipe.run.compile}
    if given := [f"run.{name}" for name, is_given in others.items() if is_given]:
        yield Finding(f"does not work with {', '.join(given)}; set one or the other", place)
    later: list[str] = []
    for where, part, _ in walk_settings(recipe):
        if not isinstance(part, Component):
            continue
        name = f"{type(part).__name__} ({'.'.join(map(str, where))})"
        observes = isinstance(part, Scheduler) and type(part).observe is not Scheduler.observe
        if observes and not gives(part, "takes_late_values"):
            yield Finding(
                f"{name} sets the learning rate by values, and does not say that it works if it observes those of an "
                "epoch at the end of the next one (takes_late_values); use another schedule, or evaluate in line",
                place,
            )
        elif isinstance(part, Hook) and not gives(part, "takes_late_values"):
            yield Finding(
                f"{name} does not say that it works if the values of an epoch come while the next one trains "
                "(takes_late_values); leave it out, or evaluate in line",
                place,
            )
        elif observes or type(part).waits is not Component.waits:
            later.append(name)
    if later:
        yield Finding(f"acts on the values of an epoch at the end of the next one: {', '.join(later)}", place, "note")


def _shards(recipe: Recipe) -> Iterator[Finding]:
    """Find shards that cannot work, whatever the number of processes."""
    if recipe.run.shards > 1:
        yield from (each for each in sharing_rules(recipe, 1) if each.severity == "error")


def _facts_of_weights(recipe: Recipe) -> Iterator[Finding]:
    """Find facts of initial weights that the model does not read, or cannot."""
    if recipe.initial_weights is None:
        return
    known = recipe.model.facts_of_weights
    for name, value in recipe.initial_weights.facts.items():
        where = ("initial_weights", "facts", name)
        if name not in known:
            hint = did_you_mean(name, known) if known else ""
            yield Finding("the model reads no such fact", where, at="key", hint=hint)
        elif known[name] is bool and not isinstance(value, bool):
            yield Finding("must be true or false", where)
        elif known[name] is list and not _are_names(value):
            yield Finding('must be a list of names, each once, such as ["T1", "T2"]', where)


def _are_names(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(each, str) and each for each in value)
        and len(set(value)) == len(value)
    )


# ---- names of values ------------------------------------------------------------------------------------------------


def _rare_validation(recipe: Recipe) -> Iterator[Finding]:
    if not recipe.validation.every_epochs and not recipe.validation.every_steps:
        message = "validation happens only at the end of the run; until then, nothing can react to its values"
        yield Finding(message, ("validation", "every_epochs"), "warning")


def _clashing_values(recipe: Recipe) -> Iterator[Finding]:
    for name in recipe.losses:
        if name == "loss":
            yield Finding('choose another name: "train/loss" is the sum of all losses', ("losses", name), at="key")
        elif not name.strip() or "/" in name:
            yield Finding(
                'its value is called "train/<name>", so the name cannot be empty or contain "/"',
                ("losses", name),
                at="key",
            )
        elif name == "skipped" and recipe.run.precision == "fp16":
            yield Finding(
                'choose another name: with fp16, "train/skipped" is the share of skipped steps',
                ("losses", name),
                at="key",
            )
    taken = {"loss": "the sum of all losses"}
    taken |= {name: f"losses.{name}" for name, loss in recipe.losses.items() if loss.on_validation}
    for key, metric in recipe.metrics.items():
        for name in metric.names() or ():
            if name in taken:
                yield Finding(
                    f'its value "{name}" has the same name as that of {taken[name]}', ("metrics", key), at="key"
                )
            taken[name] = f"metrics.{key}"


def _metric_names(recipe: Recipe) -> Iterator[Finding]:
    wanted = [(where, name) for where, name in named_values(recipe)]
    known, all_known = known_names(recipe)
    groups = declared_groups(recipe)
    for where, name in wanted:
        group_unknown = groups is None and name.startswith("lr/")
        is_known = name in known or any(fnmatchcase(name, each) for each in known)
        if not is_known and not group_unknown and (all_known or name.startswith("train/")):
            yield Finding(f'no value "{name}" is computed', where, hint=did_you_mean(name, known))


def known_names(recipe: Recipe) -> tuple[list[str], bool]:
    """Return the full names (or patterns) of the values that a run computes, and whether these are all of them."""
    names = ["train/loss", *(f"train/{loss}" for loss in recipe.losses)]
    names += ["train/skipped"] if recipe.run.precision == "fp16" else []
    all_known = True
    validated = [name for name, loss in recipe.losses.items() if loss.on_validation]
    metrics = [metric.names() for metric in recipe.metrics.values()]
    for split in recipe.evaluated_splits():
        names += [f"{split}/{each}" for each in ([*(["loss"] if validated else []), *validated])]
        names += [f"{split}/{each}" for some in metrics for each in some or ()]
    hooks = [hook.names() for hook in (*recipe.hooks.values(), *recipe.loggers.values())]
    names += [each for some in hooks for each in some or ()]
    names += [f"lr/{group}" for group in declared_groups(recipe) or ()]
    all_known = None not in metrics and None not in hooks
    return list(dict.fromkeys(names)), all_known


def named_values(recipe: Recipe) -> Iterator[tuple[Where, str]]:
    """Yield each value that a setting names, such as "val/loss": the place of the setting, and the value's name."""
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


def _side_effects(components: Iterable[tuple[Where, Component]]) -> Iterator[Finding]:
    """Yield a warning for each component whose import printed something, or changed something for all parts."""
    said: set[str] = set()
    for where, part in components:
        for effect in registry.side_effects(type(part).__module__):
            if effect not in said:
                said.add(effect)
                yield Finding(effect, (*where, "use"), "warning")


def _missing_modules(where: Where, part: Component) -> Rule:
    return lambda recipe: missing_modules(where, part)


def missing_modules(where: Where, part: Component) -> Iterator[Finding]:
    """Yield a finding for each module that a component needs and that is not installed.

    Args:
        where: The place of the component in the recipe.
        part: The component.
    """
    for module in type(part).requires:
        if not _is_there(module.partition(".")[0]):
            yield Finding(
                f"needs the module {module}, which is not installed", (*where, "use"), hint=_install(part, module)
            )


def _is_there(module: str) -> bool:
    try:
        return module in sys.modules or find_spec(module) is not None
    except (ImportError, ValueError):  # a broken parent, or a module without a spec
        return False


def _install(part: Component, module: str) -> str:
    """Return the command that installs a module, if possible by an extra of the component's distribution."""
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
            found.append(Finding(f"raised an error while it was checked: {describe_exception(error)}", where, at="key"))
    return found


def describe_exception(error: Exception) -> str:
    """Return an exception's type and message, and the line of code that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno}, in {frame.name})"
