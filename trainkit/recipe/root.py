"""The settings of a whole recipe: what each of its tables means.

The order of the fields is the order in which a recipe is written out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import ceil, inf
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs.validators import gt, lt, optional

from trainkit.contracts import (
    HARMLESS,
    INPUT_PATH,
    Data,
    FileOrRun,
    Hook,
    Inference,
    Logger,
    Loss,
    Metric,
    MetricName,
    Model,
    Monitor,
    Optimizer,
    Predictor,
    Scheduler,
    component,
)
from trainkit.printable import without_controls
from trainkit.recipe.parameter_patterns import Patterns, takes_rest

LANGUAGE = 1
"""The version of the recipe language that this code reads."""

ASSUMED_STEPS_PER_EPOCH = 100
"""The number of optimizer steps in an epoch that is assumed if the data is not opened."""

MOST_EPOCHS = 1_000_000
"""The longest run, in epochs: a plan is made of each of them."""

RAW = "_raw"
"""What the name of a split ends with in values of the raw weights, if those of the split are of their average."""

_LONGEST_NAME = 200  # file systems allow 255 bytes, and temporary files have longer names

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


def _at_least(least: int, most: float = inf) -> Any:
    def check(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
        if not least <= value < inf:
            raise ValueError(f"must be at least {least}, got {value}")
        if value > most:
            raise ValueError(f"must be at most {most}, got {value}")

    return check


def _language(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value != LANGUAGE:
        raise ValueError(f"this trainkit reads version {LANGUAGE} of the recipe language, the recipe says {value}")


def _device(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError(f'must be "auto", "cpu", "cuda", "cuda:N" or "mps", got "{value}"')


def seconds_of(duration: str) -> float | None:
    """Return the seconds of a duration such as "1d2h", "11h45m" or "90s"; None if it is not a duration.

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
        raise ValueError(f'must be a duration such as "11h45m" or "90s", got "{value}"')


def _power_of_two(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value < 0 or value & (value - 1):
        raise ValueError(f"must be a power of two, or 0 for no shards, got {value}")


def _folder_name(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if (
        not value.strip()
        or value in (".", "..")
        or re.search(r'[/\\:*?"<>|\t\n]', value)
        or without_controls(value) != value
    ):
        raise ValueError(f"must be a valid name of a folder, got {value!r}")
    if (length := len(value.encode())) > _LONGEST_NAME:
        raise ValueError(f"must be a name of a folder, of at most {_LONGEST_NAME} bytes; it has {length}")


def _not_empty(instance: object, attribute: attrs.Attribute[Mapping[str, Any]], value: Mapping[str, Any]) -> None:
    if not value:
        raise ValueError(f'at least one is needed: [{attribute.name}.NAME] with "use"')


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


MOST_RECORDINGS = 8
"""Recorded steps that are kept at a time (`RunSettings.cuda_graph`); steps of further kinds are made as usual."""


@component
class RunSettings:
    """Settings of the run as a whole.

    Attributes:
        name: Name of the run and of its folder. Default: the name of the recipe file without ".toml".
        epochs: Length of the run in passes over the training data. At most 1,000,000. Exactly one of ``epochs`` and
            ``steps`` is given.
        steps: Length of the run in optimizer steps, including those that fp16 skips.
        most_steps_per_epoch: Number of optimizer steps after which an epoch ends even if the data has more batches, for
            example to validate more often. Not given: an epoch is a pass over the training data.
        seed: Seed of everything random.
        device: "auto" (the first available of cuda, mps and cpu), "cpu", "cuda", "cuda:N" or "mps".
        precision: "fp32"; or "bf16" or "fp16" for autocast to bfloat16 or float16. With "fp16", the loss is scaled so
            that small gradients do not vanish, and a step in which a gradient overflows does not update the parameters:
            schedules do not count it, and "train/skipped" is the share of such steps.
        deterministic: Use deterministic algorithms only. On CUDA this is slower, and needed to resume to the same bits.
            An operation that has no deterministic algorithm is an error.
        threads: Number of CPU threads of torch. Default: torch's own choice.
        accumulate: Number of batches in one optimizer step, which follows the gradient of their mean loss.
        channels_last: Keep weights of convolutions, and batches, with the channels of each pixel or voxel side by side,
            for which some devices have faster kernels. The last digits of results change.
        activation_checkpointing: Compute the activations within each block of the model again in the backward pass,
            instead of keeping them. Gradients are the same; a step takes less memory, and about a third more time.
        compile: Compile the model's forward and backward pass in training with ``torch.compile``. The first step of
            each shape of batch takes up to minutes; evaluation is not compiled. What cannot be compiled is said.
        cuda_graph: Record what a step asks a CUDA device for, as a CUDA graph, and repeat it by one call a step. It
            helps where a step is many small operations, as in ptychography. For each shape of batch, and each stage of
            parameter groups, a step is recorded anew, which keeps the memory of a step. It works in one process,
            without ``precision = "fp16"``, ``accumulate``, ``shards``, ``compile`` and ``activation_checkpointing``,
            and with parts that allow it. The last digits of results change. So far it was tried only on the CPU, by
            repeating what a step had asked for.
        repeat_steps: On a CPU, take down the operations of a step once, and perform them in later steps without the
            Python that asked for them, where all parts allow it. Results are the same. Set it to false to follow a
            step with a debugger, or to print from within the model.
        time_limit: How long the process may run, for example "11h45m" or "90s". It writes a checkpoint and stops
            before that time.
        shards: Number of parts into which each batch is divided, a power of two, or 0. With shards, 1, 2, 4, … up to so
            many processes train to the same bits, also if their number changes on a resume: each part has random
            numbers of its own, and what parts computed is added up in a fixed order. Layers that compute statistics of
            a batch, such as BatchNorm, compute those of a part.
        patience: How long a process waits for the others before the run is given up, for example "30m".
        dir: The folder that holds the run folders. Default: "runs" below the working directory.
    """

    name: str = attrs.field(validator=_folder_name, metadata=HARMLESS)
    epochs: int | None = attrs.field(default=None, validator=optional(_at_least(1, MOST_EPOCHS)))
    steps: int | None = attrs.field(default=None, validator=optional(_at_least(1, 10**12)))
    most_steps_per_epoch: int | None = attrs.field(default=None, validator=optional(_at_least(1)))
    seed: int = attrs.field(default=0, validator=_at_least(0))
    device: str = attrs.field(default="auto", validator=_device)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    deterministic: bool = False
    threads: int | None = attrs.field(default=None, validator=optional(_at_least(1)))
    accumulate: int = attrs.field(default=1, validator=_at_least(1))
    channels_last: bool = False
    activation_checkpointing: bool = False
    compile: bool = False
    cuda_graph: bool = False
    repeat_steps: bool = True
    time_limit: str | None = attrs.field(default=None, validator=optional(_duration), metadata=HARMLESS)
    shards: int = attrs.field(default=0, validator=_power_of_two)
    patience: str = attrs.field(default="30m", validator=_duration, metadata=HARMLESS)
    dir: Path = attrs.field(default=Path("runs"), metadata=HARMLESS)

    def num_epochs(self, steps_per_epoch: int = ASSUMED_STEPS_PER_EPOCH) -> int:
        """Return the number of epochs of the run; the last one may be incomplete.

        Args:
            steps_per_epoch: Optimizer steps of an epoch. It matters only if the length of the run is given in steps;
                1 then gives the most epochs that the run can have.
        """
        if self.steps is not None:
            return ceil(self.steps / steps_per_epoch)
        assert self.epochs is not None  # `check` made sure that one of the two is given
        return self.epochs


@component
class Average:
    """A moving average of the weights. Validation and prediction use it; training goes on with the raw weights.

    The average smooths out the noise of single steps, so its values are often better, most of all under a learning rate
    that does not decay. With it, the values of a split such as "val/loss", and the best checkpoint by them, are those
    of the average. Each checkpoint has both weights.

    Attributes:
        decay: Share of the average that stays in it at each update, > 0 and < 1: it covers about the last
            1 / (1 - decay) updates. Update n takes at most (1 + n) / (10 + n), so that the first are soon forgotten.
        validate_raw: Whether the raw weights are evaluated too, which takes as long again. Their values have names such
            as "val_raw/loss".

    Source:
        Polyak, Juditsky: "Acceleration of stochastic approximation by averaging" (1992).
    """

    decay: float = attrs.field(default=0.999, validator=[gt(0), lt(1)])
    validate_raw: bool = False


@component
class InitialWeights:
    """Weights that the model begins with, from a run or a file. Optimizers and schedules begin anew.

    They are loaded once, when the run begins; a resumed run does not need the file. No code in the file is run. Where
    channels or classes differ, a segmentation network takes those of the same name.

    Attributes:
        path: A run folder or the name of a run below ``runs/``, of which the best checkpoint is taken if one is known
            as the best, else the newest; a checkpoint of trainkit; a safetensors file; or a torch file of weights such
            as MONAI's ``.pt`` and nnU-Net's ``.pth``.
        take: Patterns of the weights that are loaded: names ("encoder.*"), or parameter groups ("encoder").
        skip: Patterns of those among them that are not loaded.
        rename: Beginning of a name in the file -> the beginning of that name in the model, for example
            ``{ "unet." = "network." }``. Not given: common prefixes such as "module." are recognised.
        facts: What the file does not say of the data that the weights were trained with, or says in other words. Which
            facts there are, the model says; a segmentation network reads ``channels`` and ``classes``, lists of names
            in the order of the file (without the background), and ``exclusive``, whether a voxel has at most one class.
    """

    path: FileOrRun = attrs.field(metadata=INPUT_PATH)
    take: tuple[str, ...] = ("*",)
    skip: tuple[str, ...] = ()
    rename: Mapping[str, str] = attrs.Factory(dict)
    facts: Mapping[str, Any] = attrs.Factory(dict)


def _nothing_reacts_to_values(recipe: Recipe) -> bool:
    """Return whether no schedule, hook or checkpoint depends on how often the splits are evaluated."""
    ranked = recipe.checkpoint.best and recipe.monitor.metric.partition("/")[0] in recipe.evaluated_splits()
    return not (_observing(recipe) or ranked or recipe.hooks)


def _observing(recipe: Recipe) -> bool:
    groups = recipe.groups.values()
    schedulers = [recipe.scheduler, *(each.scheduler for each in groups)]
    schedulers += [phase.scheduler for each in groups for phase in each.then.values()]
    return any(each is not None and type(each).observe is not Scheduler.observe for each in schedulers)


def _nothing_acts_on_values(recipe: Recipe) -> bool:
    """Return whether nothing can decide by values; a hook that observes may, whatever it says."""
    return not (_observing(recipe) or any(hook.phase != "log" for hook in recipe.hooks.values()))


_HARMLESS_UNLESS_WATCHED = {**HARMLESS, "trainkit.harmless": _nothing_reacts_to_values}
_HARMLESS_UNLESS_ACTED_ON = {**HARMLESS, "trainkit.harmless": _nothing_acts_on_values}


@component
class Validation:
    """When the splits other than "train" are evaluated.

    Attributes:
        every_epochs: Number of epochs from one time to the next; 0: only at the end of the run.
        every_steps: Number of optimizer steps from one further time to the next; 0: not by steps.
        beside: Evaluate in a second process while the training goes on with the next epoch, where CPUs are free. The
            values of the same weights are the same, to the bit. What acts on the values of an epoch acts at the end of
            the next one: a plateau schedule changes the learning rate one epoch later, early stopping ends the run
            after one epoch more. That depends on this setting alone, also where the run evaluates in line. The line,
            the logged values and the checkpoint of an epoch are written when its values have come: a process that is
            killed before loses that epoch. It takes the memory of a second run, without gradients, and of two copies of
            a checkpoint. The first evaluation of each start is made in line too, to see that both find the same; that
            of the last epoch, and of epochs with pictures of predictions, is made in line.
    """

    every_epochs: int = attrs.field(default=1, validator=_at_least(0), metadata=_HARMLESS_UNLESS_WATCHED)
    every_steps: int = attrs.field(default=0, validator=_at_least(0), metadata=_HARMLESS_UNLESS_WATCHED)
    beside: bool = attrs.field(default=False, metadata=_HARMLESS_UNLESS_ACTED_ON)


PICTURES_EVERY_EPOCHS = 10
"""Epochs from one time that pictures are made to the next, if the recipe does not say how often."""

PICTURES_SHARE = 0.03
"""Largest share of a run's time that they take then."""


@component
class Pictures:
    """When pictures are made. The last epoch always has them.

    Attributes:
        every_epochs: Number of epochs from one time to the next; 0: only at the end of the run. Not given: every 10
            epochs, as long as pictures take at most 3 % of the time that the run is expected to take, or 1.5 s. So a
            run of a minute or less has those of its last epoch only. `trainkit picture` asks for some at any time.
        every_steps: Number of optimizer steps from one further time to the next; 0: not by steps.
    """

    every_epochs: int | None = attrs.field(default=None, validator=optional(_at_least(0)))
    every_steps: int = attrs.field(default=0, validator=_at_least(0))


COPIED_FROM_BYTES = 5_000_000
"""The size of a checkpoint from which on it is written in the background."""


@component
class Checkpoints:
    """Which checkpoints are written and kept.

    Attributes:
        every_epochs: Number of epochs from one checkpoint to the next; 0: only at the end of the run.
        every_steps: Number of optimizer steps from one further checkpoint to the next; 0: not by steps.
        every_minutes: A further checkpoint is written when the last one is this old, in minutes; 0: not by time.
        keep_last: Number of newest checkpoints to keep.
        keep_every: Keep the checkpoints of epochs divisible by this number as well; 0: none.
        best: Number of best checkpoints by [monitor] to keep as well.
        in_background: Write checkpoints of 5 MB and more while the training goes on. The training waits for a copy
            alone, which takes as much memory of the host for the rest of the run, and for the last checkpoint. Where
            that memory is not free, it waits for every checkpoint.
    """

    every_epochs: int = attrs.field(default=1, validator=_at_least(0))
    every_steps: int = attrs.field(default=0, validator=_at_least(0))
    every_minutes: float = attrs.field(default=0.0, validator=_at_least(0))
    keep_last: int = attrs.field(default=3, validator=_at_least(1))
    keep_every: int = attrs.field(default=0, validator=_at_least(0))
    best: int = attrs.field(default=1, validator=_at_least(0))
    in_background: bool = True


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
    lr: float | None = attrs.field(default=None, validator=optional(_at_least(0)))
    lr_factor: float | None = attrs.field(default=None, validator=optional(_at_least(0)))
    optimizer: Optimizer | None = None
    scheduler: Scheduler | None = None


@component
class GroupSettings:
    """Settings of one parameter group. What it does not set is as in [optimizer] and [scheduler].

    Attributes:
        lr: Its learning rate; 0: it trains, but stays as it is.
        lr_factor: Its learning rate as a multiple of the optimizer's ``lr``, instead of ``lr``.
        start_epoch: First epoch in which it trains, counted from 0. Not given: the model decides, epoch 0 or never.
        stop_epoch: First epoch in which it no longer trains; 0: it never trains. Not given: it trains to the end of
            the run.
        optimizer: Its own optimizer. Not given: it shares [optimizer] with all groups that have none of their own.
        scheduler: Its schedule, on its own clock.
        then: What changes for it at later epochs, by names of your choice: ``[groups.object.then.finish]``.
        parameters: Which parameters it holds, as patterns of their names such as "encoder.*". A pattern that begins
            with "!" takes away what it matches. "rest", or a list that begins with "*" or with a "!" pattern, takes all
            parameters that no other group names. Not given: the model's own group of this name. Either all groups have
            patterns or none.
        options: Settings of its optimizer that it overrides, by name; in the recipe they stand beside its other keys.
    """

    lr: float | None = attrs.field(default=None, validator=optional(_at_least(0)))
    lr_factor: float | None = attrs.field(default=None, validator=optional(_at_least(0)))
    start_epoch: int | None = attrs.field(default=None, validator=optional(_at_least(0)))
    stop_epoch: int | None = attrs.field(default=None, validator=optional(_at_least(0)))
    optimizer: Optimizer | None = None
    scheduler: Scheduler | None = None
    then: Mapping[str, PhaseSettings] = attrs.Factory(dict)
    parameters: Patterns | None = attrs.field(default=None, validator=_patterns)
    options: Mapping[str, Any] = attrs.Factory(dict)


def _range(instance: object, attribute: attrs.Attribute[Any], value: tuple[float, float]) -> None:
    low, high = value
    if not 0 < low < high < inf:
        raise ValueError(f"must be two positive numbers, the smaller one first, got [{low:g}, {high:g}]")


@component
class WeightSearch:
    """How a weight "auto" of a regulariser is chosen: by short runs (branches) that differ in that weight alone.

    The run begins with the weight 0. Its last epochs are repeated, as branches, with several weights: 0, both ends of a
    range and one between them, and then by golden section, on a logarithmic scale. If the best is at an end of the
    range, the range is widened. The weight with which held-out data are predicted best is that of the run. With
    several weights "auto", one is chosen after the other.

    Attributes:
        between: The smallest and the largest weight to begin with. Not given: what is usual for the loss.
        branches: Number of branches for each weight, at least 5.
        epochs: Length of a branch. Not given: a quarter of the run.
        metric: The value of held-out data that decides. Not given: that of [monitor].
        mode: Whether smaller ("min") or larger ("max") is better. Not given: that of [monitor].
    """

    between: tuple[float, float] | None = attrs.field(default=None, validator=optional(_range))
    branches: int = attrs.field(default=6, validator=_at_least(5))
    epochs: int | None = attrs.field(default=None, validator=optional(_at_least(1)))
    metric: MetricName | None = None
    mode: Literal["min", "max"] | None = None

    def watched(self, monitor: Monitor) -> Monitor:
        """Return which value decides, and whether it should be small or large.

        Args:
            monitor: The recipe's ``[monitor]``.
        """
        return Monitor(metric=self.metric or monitor.metric, mode=self.mode or monitor.mode)


@component
class Recipe:
    """A whole training run.

    Attributes:
        trainkit: Version of the recipe language.
        run: Settings of the run as a whole.
        monitor: The value that plateau, best checkpoint and early stopping look at.
        validation: When the splits other than "train" are evaluated.
        pictures: When pictures are made.
        data: The training data.
        model: The model that is trained.
        initial_weights: Weights that the model begins with; if not given, they are random or the model's own.
        losses: The losses; their weighted sum is minimised.
        weight_search: How a weight "auto" of a loss is chosen.
        metrics: Further values that are computed on the splits other than "train".
        inference: How validation computes outputs from a batch.
        predict: How ``trainkit predict`` predicts new inputs; if not given, as is usual for the data.
        optimizer: The optimizer of every group that has none of its own.
        groups: Parameter groups that have settings of their own.
        scheduler: The schedule of every group that has none.
        ema: A moving average of the weights; not given: there is none.
        hooks: Further parts that act around the training loop.
        checkpoint: Which checkpoints are written and kept.
        loggers: Where values and pictures are written, apart from the run folder.
    """

    trainkit: int = attrs.field(validator=_language)
    run: RunSettings
    monitor: Monitor = attrs.Factory(Monitor)
    validation: Validation = attrs.Factory(Validation)
    pictures: Pictures = attrs.field(factory=Pictures, metadata=HARMLESS)
    data: Data
    model: Model
    initial_weights: InitialWeights | None = None
    losses: Mapping[str, Loss] = attrs.field(validator=_not_empty)
    weight_search: WeightSearch | None = None
    metrics: Mapping[str, Metric] = attrs.Factory(dict)
    inference: Inference
    predict: Predictor | None = attrs.field(default=None, metadata=HARMLESS)
    optimizer: Optimizer
    groups: Mapping[str, GroupSettings] = attrs.Factory(dict)
    scheduler: Scheduler
    ema: Average | None = None
    hooks: Mapping[str, Hook] = attrs.Factory(dict)
    checkpoint: Checkpoints = attrs.field(factory=Checkpoints, metadata=HARMLESS)
    loggers: Mapping[str, Logger] = attrs.field(factory=dict, metadata=HARMLESS)

    def evaluated_splits(self) -> dict[str, str]:
        """Return what is evaluated: the name before the "/" of its values -> the split of the data."""
        splits = self.data.splits()[1:]
        raw = {f"{split}{RAW}": split for split in splits} if self.ema is not None and self.ema.validate_raw else {}
        return dict(zip(splits, splits, strict=True)) | raw


def defaults(name: str) -> dict[str, Any]:
    """Return the default settings of a recipe, without those of the components' own classes.

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
