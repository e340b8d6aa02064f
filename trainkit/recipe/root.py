"""The whole recipe as settings: what each table of the file means.

The order of the fields is the order in which a recipe is written out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import ceil, inf
from pathlib import Path
from typing import Any, Literal

import attrs

from trainkit.contracts import (
    Data,
    Hook,
    Inference,
    Logger,
    Loss,
    Metric,
    Model,
    Monitor,
    Optimizer,
    Scheduler,
    component,
)
from trainkit.recipe.parameter_patterns import Patterns, takes_rest

LANGUAGE = 1
"""The version of the recipe language that is read here."""

ASSUMED_STEPS_PER_EPOCH = 100
"""Optimizer steps of an epoch that are assumed where the data is not opened."""

_RATE = ("lr", "lr_factor")
_EXCLUSIVE = {("run",): ("epochs", "steps"), ("groups", "*"): _RATE, ("groups", "*", "then", "*"): _RATE}


def exclusive_pair(where: Sequence[str | int]) -> tuple[str, str] | None:
    """Return the two settings of a table of which only one can be given; None if it has no such pair.

    A layer of a recipe that gives one of them drops the other one that it inherits.

    Args:
        where: The place of the table.

    Example:
        >>> exclusive_pair(("groups", "probe"))
        ('lr', 'lr_factor')
    """
    for table, pair in _EXCLUSIVE.items():
        if len(table) == len(where) and all(name in ("*", key) for name, key in zip(table, where, strict=True)):
            return pair
    return None


def _at_least(least: int) -> Any:
    def check(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
        if not least <= value < inf:
            raise ValueError(f"must be at least {least}, got {value}")

    return check


def _not_below_zero(instance: object, attribute: attrs.Attribute[int | None], value: int | None) -> None:
    if value is not None and value < 0:
        raise ValueError(f"must be at least 0, got {value}")


def _positive_if_given(instance: object, attribute: attrs.Attribute[float | None], value: float | None) -> None:
    if value is not None and not 0 < value < float("inf"):
        raise ValueError(f"must be a positive number, got {value!r}")


def _language(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value != LANGUAGE:
        raise ValueError(f"this trainkit reads version {LANGUAGE} of the recipe language, the recipe says {value}")


def _device(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError(f'must be "auto", "cpu", "cuda", "cuda:N" or "mps", got "{value}"')


def seconds_of(duration: str) -> float | None:
    """Return the seconds of a duration as "1d2h", "11h45m" or "90s"; None if it is none.

    Example:
        >>> seconds_of("11h45m")
        42300.0
    """
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", duration)
    if not duration or found is None:
        return None
    return float(
        sum(int(number or 0) * unit for number, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True))
    )


def _duration(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not seconds_of(value):
        raise ValueError(f'must be a duration as "11h45m" or "90s", got "{value}"')


def _folder_name(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not value.strip() or value in (".", "..") or re.search(r'[/\\:*?"<>|\x00-\x1f]', value):
        raise ValueError(f"names a folder, so it cannot be {value!r}")


def _not_empty(instance: object, attribute: attrs.Attribute[Mapping[str, Any]], value: Mapping[str, Any]) -> None:
    if not value:
        raise ValueError(f"at least one is needed: [{attribute.name}.NAME] with its use")


def _patterns(instance: object, attribute: attrs.Attribute[Any], value: Patterns | None) -> None:
    if value is None or value == "rest":
        return
    if not value or "" in value or "!" in value:
        raise ValueError("must be patterns of parameter names, at least one")
    if takes_rest(value) and (more := [each for each in value[1:] if not each.startswith("!")]):
        raise ValueError(
            f'begins with "{value[0]}", so it takes all that no other group names, and only patterns that begin with '
            f'"!" can follow, not "{more[0]}"'
        )


@component
class RunSettings:
    """What holds for the run as a whole.

    Attributes:
        name: What it is called, also its folder; the recipe file's name without ".toml" if not said.
        epochs: The run lasts so many passes over the training data. Either this or ``steps`` is given.
        steps: The run lasts so many optimizer steps.
        seed: Everything random follows from it.
        device: "auto" (the first of cuda, mps, cpu that is there), "cpu", "cuda", "cuda:N" or "mps".
        precision: "fp32", or "bf16" for autocast to bfloat16.
        deterministic: Use deterministic algorithms only. On CUDA slower, and what resuming to the same bits needs;
            an operation that has no such algorithm is an error.
        threads: CPU threads of torch; torch's own choice if not said.
        accumulate: Batches whose gradients make up one optimizer step, that of their mean loss.
        time_limit: How long the process may run, as "11h45m" or "90s": it ends with a checkpoint in time before that.
        dir: The folder that holds the run folders; "runs" below the working directory if not said.
    """

    name: str = attrs.field(validator=_folder_name)
    epochs: int | None = attrs.field(default=None, validator=attrs.validators.optional(_at_least(1)))
    steps: int | None = attrs.field(default=None, validator=attrs.validators.optional(_at_least(1)))
    seed: int = attrs.field(default=0, validator=_at_least(0))
    device: str = attrs.field(default="auto", validator=_device)
    precision: Literal["fp32", "bf16"] = "fp32"
    deterministic: bool = False
    threads: int | None = attrs.field(default=None, validator=attrs.validators.optional(_at_least(1)))
    accumulate: int = attrs.field(default=1, validator=_at_least(1))
    time_limit: str | None = attrs.field(default=None, validator=attrs.validators.optional(_duration))
    dir: Path = Path("runs")

    def num_epochs(self, steps_per_epoch: int = ASSUMED_STEPS_PER_EPOCH) -> int:
        """Return how many epochs the run has, the last one perhaps unfinished.

        Args:
            steps_per_epoch: Optimizer steps of an epoch; it matters only where the run's length is given in steps.
        """
        if self.steps is not None:
            return ceil(self.steps / steps_per_epoch)
        assert self.epochs is not None  # `check` made sure that one of the two is given
        return self.epochs


@component
class Validation:
    """When the splits other than "train" are evaluated.

    Attributes:
        every_epochs: After every so many epochs, and at the end of the run; 0: only at the end.
        every_steps: After every so many optimizer steps of the run as well; 0: not by steps.
    """

    every_epochs: int = attrs.field(default=1, validator=_at_least(0))
    every_steps: int = attrs.field(default=0, validator=_at_least(0))


@component
class Pictures:
    """When pictures are made.

    Attributes:
        every_epochs: After every so many epochs, and at the end of the run; 0: only at the end.
        every_steps: After every so many optimizer steps of the run as well; 0: not by steps.
    """

    every_epochs: int = attrs.field(default=10, validator=_at_least(0))
    every_steps: int = attrs.field(default=0, validator=_at_least(0))


@component
class Checkpoints:
    """Which checkpoints are written and kept.

    Attributes:
        every_epochs: One is written after every so many epochs, and at the end of the run; 0: only at the end.
        every_steps: One is written after every so many optimizer steps of the run as well; 0: not by steps.
        every_minutes: One is written when the last one is so many minutes old; 0: not by time.
        keep_last: So many of the newest stay.
        keep_every: Those of epochs divisible by it stay as well; 0: none.
        best: So many of the best by [monitor] stay as well.
    """

    every_epochs: int = attrs.field(default=1, validator=_at_least(0))
    every_steps: int = attrs.field(default=0, validator=_at_least(0))
    every_minutes: float = attrs.field(default=0.0, validator=_at_least(0))
    keep_last: int = attrs.field(default=3, validator=_at_least(1))
    keep_every: int = attrs.field(default=0, validator=_at_least(0))
    best: int = attrs.field(default=1, validator=_at_least(0))


@component
class PhaseSettings:
    """What changes for a parameter group at an epoch: its optimizer, its learning rate, its schedule.

    What a phase does not set stays as it was in the group. Its schedule runs on a clock of its own, from the phase's
    first epoch to the next phase's, or to the group's stop.

    Attributes:
        start_epoch: First epoch of the phase, counted from 0 over the whole run.
        lr: Learning rate from then on. Not given: that of ``optimizer`` where the phase has one, else the group's.
        lr_factor: Learning rate as a multiple of the optimizer's ``lr``, instead of ``lr``.
        optimizer: Optimizer from then on; it starts without a memory. Not given: the group's goes on.
        scheduler: Schedule from then on. Not given: the group's, from its beginning.
    """

    start_epoch: int = attrs.field(validator=_at_least(1))
    lr: float | None = attrs.field(default=None, validator=_positive_if_given)
    lr_factor: float | None = attrs.field(default=None, validator=_positive_if_given)
    optimizer: Optimizer | None = None
    scheduler: Scheduler | None = None


@component
class GroupSettings:
    """What a parameter group has of its own; what it does not set is as in [optimizer] and [scheduler].

    Attributes:
        lr: Its learning rate.
        lr_factor: Its learning rate as a multiple of the optimizer's ``lr``, instead of ``lr``.
        start_epoch: First epoch in which it trains, counted from 0. Not said: the model decides, from 0 or never.
        stop_epoch: First epoch in which it no longer trains. Not said: it trains to the end.
        optimizer: Its own optimizer. Not given: it shares [optimizer] with all groups that have none of their own.
        scheduler: Its schedule, on its own clock.
        then: What changes for it at later epochs, by names of your choice: ``[groups.object.then.finish]``.
        parameters: Which parameters it holds, as patterns of their names ("encoder.*"); a pattern that begins with "!"
            takes away. "rest", or a list that begins with "*" or "!…": those that no other group's patterns name. Not
            given: the model's own group of this name. Either all groups have patterns or none.
        options: Settings of [optimizer] that it overrides, by name; in the recipe they stand beside the others.
    """

    lr: float | None = attrs.field(default=None, validator=_positive_if_given)
    lr_factor: float | None = attrs.field(default=None, validator=_positive_if_given)
    start_epoch: int | None = attrs.field(default=None, validator=_not_below_zero)
    stop_epoch: int | None = attrs.field(default=None, validator=_not_below_zero)
    optimizer: Optimizer | None = None
    scheduler: Scheduler | None = None
    then: Mapping[str, PhaseSettings] = attrs.Factory(dict)
    parameters: Patterns | None = attrs.field(default=None, validator=_patterns)
    options: Mapping[str, Any] = attrs.Factory(dict)


@component
class Recipe:
    """A whole training run.

    Attributes:
        trainkit: Version of the recipe language.
        run: What holds for the run as a whole.
        monitor: The value that plateau, best checkpoint and early stopping look at.
        validation: When the splits other than "train" are evaluated.
        pictures: When pictures are made.
        data: What it is trained on.
        model: What is trained.
        losses: What is minimised: the weighted sum of these.
        metrics: What else is computed on the splits other than "train".
        inference: How validation gets from a batch to outputs.
        optimizer: The optimizer of every group that has none of its own.
        groups: Parameter groups that have something of their own.
        scheduler: The schedule of every group that has none.
        hooks: What else happens around the loop.
        checkpoint: Which checkpoints are written and kept.
        loggers: Where values and pictures are written besides the run folder.
    """

    trainkit: int = attrs.field(validator=_language)
    run: RunSettings
    monitor: Monitor = attrs.Factory(Monitor)
    validation: Validation = attrs.Factory(Validation)
    pictures: Pictures = attrs.Factory(Pictures)
    data: Data
    model: Model
    losses: Mapping[str, Loss] = attrs.field(validator=_not_empty)
    metrics: Mapping[str, Metric] = attrs.Factory(dict)
    inference: Inference
    optimizer: Optimizer
    groups: Mapping[str, GroupSettings] = attrs.Factory(dict)
    scheduler: Scheduler
    hooks: Mapping[str, Hook] = attrs.Factory(dict)
    checkpoint: Checkpoints = attrs.Factory(Checkpoints)
    loggers: Mapping[str, Logger] = attrs.Factory(dict)


def defaults(name: str) -> dict[str, Any]:
    """Return the settings that hold where no recipe says otherwise.

    Those of the components' own classes are not among them.

    Args:
        name: The run's name.
    """
    tables = {
        "run": RunSettings,
        "monitor": Monitor,
        "validation": Validation,
        "pictures": Pictures,
        "checkpoint": Checkpoints,
    }
    simple = {
        table: {f.name: f.default for f in attrs.fields(cls) if isinstance(f.default, bool | int | float | str)}
        for table, cls in tables.items()
    }
    simple["run"]["name"] = name
    components = {"inference": {"use": "plain"}, "optimizer": {"use": "adam"}, "scheduler": {"use": "none"}}
    return simple | components
