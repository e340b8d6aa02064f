"""The whole recipe as settings: what each table of the file means.

The order of the fields is the order in which a recipe is written out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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

LANGUAGE = 1
"""The version of the recipe language that is read here."""


def _at_least(least: int) -> Any:
    def check(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
        if value < least:
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


@component
class RunSettings:
    """What holds for the run as a whole.

    Attributes:
        name: What it is called, also its folder; the recipe file's name without ".toml" if not said.
        epochs: How often the training data is gone through.
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
    epochs: int = attrs.field(validator=_at_least(1))
    seed: int = attrs.field(default=0, validator=_at_least(0))
    device: str = attrs.field(default="auto", validator=_device)
    precision: Literal["fp32", "bf16"] = "fp32"
    deterministic: bool = False
    threads: int | None = attrs.field(default=None, validator=attrs.validators.optional(_at_least(1)))
    accumulate: int = attrs.field(default=1, validator=_at_least(1))
    time_limit: str | None = attrs.field(default=None, validator=attrs.validators.optional(_duration))
    dir: Path = Path("runs")


@component
class Validation:
    """When the splits other than "train" are evaluated.

    Attributes:
        every_epochs: After each so many epochs, and after the last one.
    """

    every_epochs: int = attrs.field(default=1, validator=_at_least(1))


@component
class Pictures:
    """When pictures are made.

    Attributes:
        every_epochs: After each so many epochs, and at the end; 0: only at the end.
    """

    every_epochs: int = attrs.field(default=10, validator=_at_least(0))


@component
class Checkpoints:
    """Which checkpoints are written and kept.

    Attributes:
        every_epochs: One is written after each so many epochs, and after the last one.
        keep_last: So many of the newest stay.
        keep_every: Those of epochs divisible by it stay as well; 0: none.
        best: So many of the best by [monitor] stay as well.
    """

    every_epochs: int = attrs.field(default=1, validator=_at_least(1))
    keep_last: int = attrs.field(default=3, validator=_at_least(1))
    keep_every: int = attrs.field(default=0, validator=_at_least(0))
    best: int = attrs.field(default=1, validator=_at_least(0))


@component
class GroupSettings:
    """What a parameter group has of its own; what it does not set is as in [optimizer] and [scheduler].

    Attributes:
        lr: Its learning rate.
        start_epoch: First epoch in which it trains, counted from 0. Not said: the model decides, from 0 or never.
        stop_epoch: First epoch in which it no longer trains. Not said: it trains to the end.
        scheduler: Its schedule, on its own clock.
        parameters: Which parameters it holds, as patterns of their names ("encoder.*"). Not said: the model's own group
            of this name. Either all groups have patterns or none.
        options: Settings of [optimizer] that it overrides, by name; in the recipe they stand beside the others.
    """

    lr: float | None = attrs.field(default=None, validator=_positive_if_given)
    start_epoch: int | None = attrs.field(default=None, validator=_not_below_zero)
    stop_epoch: int | None = attrs.field(default=None, validator=_not_below_zero)
    scheduler: Scheduler | None = None
    parameters: tuple[str, ...] | None = None
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
        optimizer: The one optimizer.
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
