"""Defines components, their kinds, and the interfaces of the live parts that they build.

A *kind* is an abstract settings class that names its entry-point group. A *component* is a frozen attrs class of such a
kind: typed, validated settings, and one ``build`` that makes the live object. Nothing here, and no settings module,
imports torch or numpy at run time, so that a recipe can be checked in an instant.

    Recipe (settings)     build(...)      live part
    Data             ───────────────▶     LiveData: train(epoch, start), evaluate(split), facts()
    Model            ───────────────▶     nn.Module: forward(batch) -> outputs
    Loss             ───────────────▶     (outputs, batch, model) -> scalar, or a SummedLoss
    Metric           ───────────────▶     LiveMetric: update, compute
    Inference        ───────────────▶     (model, batch) -> outputs
    Optimizer        ───────────────▶     torch.optim.Optimizer
    Scheduler        (is its own live part: pure functions of the group's clock)
    Hook, Logger     ───────────────▶     anything with on_<event>(state)
    Predictor        ───────────────▶     LivePredictor: items(inputs), predict(item, folder)
    Evaluator        ───────────────▶     LiveEvaluator: evaluate(predictions, truth)
    Calibrator       (is its own live part: it fits settings of a prediction to held-out items)
    Halver           (is its own live part: it compares two runs, each with half of the evidence)
    Exporter         (is its own live part: it writes a trained model to a file)

Any live part may also have ``on_<event>(state)`` methods (see `trainkit.events`, whose `Live` is a typed base for them)
and ``state_dict`` / ``load_state_dict``; its state is then saved in each checkpoint and restored on resume.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, NewType, Protocol, TypeVar, dataclass_transform

import attrs

from trainkit.errors import DataError, RecipeError
from trainkit.processes.exchange import Exchange

if TYPE_CHECKING:
    from torch import Tensor, device, nn, optim

    from trainkit.recipe.root import Recipe

_C = TypeVar("_C", bound=type)

Batch = Mapping[str, Any]
"""What data yields: name -> tensor, item axis first. ``"index"`` (B,) holds the numbers of the items."""

Outputs = Mapping[str, Any]
"""What a model returns: name -> tensor. With deep supervision, the names are ``"logits"``, ``"logits_1"``, …"""

MetricName = NewType("MetricName", str)
"""The full name of a value, ``<split>/<name>``, for example "val/loss". Settings of this type are checked for it."""

FileOrRun = NewType("FileOrRun", Path)
"""A path of a file or of a run folder, or the name of a run: a relative path that leads nowhere starts at ``runs/``."""


HARMLESS: Mapping[str, Any] = {"trainkit.harmless": True}
"""Metadata of a setting whose change on resume neither changes the training nor any value, such as a number of workers.

Instead of True it may hold a function of the recipe, for a setting that is harmless in some recipes only.
"""

KEEPS_VALUES: Mapping[str, Any] = {"trainkit.keeps_values": True}
"""Metadata of a setting of data that changes the training, but not what the values of the evaluated splits mean.

After a change of any other setting of the data, values of before and after a resume cannot be compared.
"""

INPUT_PATH: Mapping[str, Any] = {"trainkit.input_path": True}
"""Metadata of a setting that is a path: it must exist when a run starts. ``check`` and ``run`` look for it."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(attrs.field,))
def component(cls: _C) -> _C:
    """Turn a class into a settings class: a frozen attrs class whose fields are given by keyword."""
    made: _C = attrs.frozen(kw_only=True)(cls)
    return made


class Problem(NamedTuple):
    """A mistake in the settings, or something worth knowing about them, found without building anything.

    Attributes:
        message: One sentence that says what is wrong and what to do; in a note, what will happen.
        key: Dotted name of the setting, relative to the component that reports it ("" for the component itself).
        severity: An "error" prevents the run from starting; a "warning" or a "note" is only shown.
    """

    message: str
    key: str = ""
    severity: Literal["error", "warning", "note"] = "error"


class Progress(NamedTuple):
    """How far a long look at the data is (`Component.inspect`); it is shown for a moment and not kept.

    Attributes:
        done: What was looked at so far.
        total: What there is to look at.
        what: What is counted, for example "cases".
    """

    done: int
    total: int
    what: str


class Figures(NamedTuple):
    """What trials found, in numbers for programs (`Planner.draft`).

    Attributes:
        values: Name -> value of JSON, with the unit in the name.
    """

    values: Mapping[str, Any]


class Wait(NamedTuple):
    """How long a part of a run watches a value that does not improve, before it acts (`Component.waits`).

    Attributes:
        action: What it then does, as a verb: "reduce the learning rate".
        setting: The setting, a number, that makes it wait, for example "patience".
        acts: Is called with the epochs, in order, that end with a value of which only the first was an improvement.
            It returns the epoch at whose end the part acts; None: it would go on waiting.
        metric: The value's full name; None: that of [monitor].
        start: The first epoch whose value the part looks at. For a schedule, it is the group's phase that says so.
        stop: The epoch from which on there is nothing left that it could act on; None: the run's end.
    """

    action: str
    setting: str
    acts: Callable[[Iterator[int]], int | None]
    metric: MetricName | None = None
    start: int = 0
    stop: int | None = None


class EpochSize(NamedTuple):
    """How long an epoch is, as far as settings and headers say (`Data.epoch_size`).

    Attributes:
        batches: Number of batches.
        items: Number of different items that are trained on.
        what: What an item is, in the plural, for example "scan points".
    """

    batches: int
    items: int
    what: str


class StepMemory(NamedTuple):
    """What training takes on the device of one process, known before it runs (`Model.step_memory`). All in bytes.

    Attributes:
        weights: The parameters and buffers.
        average: The averaged weights; 0: there are none.
        optimizer: The optimizer's state.
        data: What the data keep on the device.
        step: Everything else that a step takes at once: batch, activations, gradients.
        how: How the figure was found, in words.
        batch_statistics: Whether layers compute statistics of the batch, as BatchNorm does.
        batch: The batch alone, which is part of ``step``.
        kinds: How many kinds of steps there are, at most: batches differ in size, or `step_variant` in its value
            (`Component.steps_can_be_recorded`). A recorded step keeps the memory of its kind.
    """

    weights: int
    average: int
    optimizer: int
    data: int
    step: int
    how: str
    batch_statistics: bool = False
    batch: int = 0
    kinds: int = 1

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.average + self.optimizer + self.data + self.step


Depth = Literal["headers", "all"]
"""How closely ``check --data`` looks: only at what files declare, within seconds, or at all that training will see."""


class Context(NamedTuple):
    """The process in which a live part runs.

    Attributes:
        seed: Seed of the run.
        device: Device of the model and the batches.
        folder: The run folder.
        exchange: Which parts of each whole batch this process computes, and what it tells the other processes.
    """

    seed: int
    device: device
    folder: Path
    exchange: Exchange = Exchange()

    @property
    def rank(self) -> int:
        """The number of this process, from 0. Only the first one, 0, writes files."""
        return self.exchange.rank

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.exchange.world


@component
class Monitor:
    """The value that plateau schedules, the best checkpoint and early stopping watch by default.

    Attributes:
        metric: The value's full name, ``<split>/<name>``.
        mode: Whether smaller ("min") or larger ("max") is better.
    """

    metric: MetricName = MetricName("val/loss")
    mode: Literal["min", "max"] = "min"

    def better(self, new: float, old: float | None, min_delta: float = 0.0) -> bool:
        """Return whether ``new`` is better than ``old`` (None: there is no old value) by more than ``min_delta``.

        A value that is not finite is never better, and any finite one is better than it.
        """
        if not math.isfinite(new):
            return False
        return old is None or not math.isfinite(old) or (old - new if self.mode == "min" else new - old) > min_delta

    def doubts(self, metric: str | None, mode: str | None) -> Iterable[Problem]:
        """Yield a warning if a part watches a metric other than this one but sets no mode of its own.

        Args:
            metric: The part's setting ``metric``; None: it watches this one.
            mode: The part's setting ``mode``; None: it uses this one.
        """
        if metric is not None and metric != self.metric and mode is None:
            yield Problem(
                f'"{metric}" is read with mode "{self.mode}" of [monitor], which is set for "{self.metric}";'
                " set mode here too",
                "metric",
                "warning",
            )


@component
class Component(ABC):
    """Settings of one part of a run."""

    requires: ClassVar[tuple[str, ...]] = ()
    """Modules that ``build`` imports and the core does not; ``check`` looks for them without importing them."""
    accepts: ClassVar[type[Data]]
    """The kind of `Data` that it works with (default: any). ``check`` reports a recipe with other data."""
    steps_can_be_tried: ClassVar[bool] = False
    """Of a model, a loss or an optimizer, or what it is made of: True if a step changes nothing that lasts but
    parameters, buffers, attributes of modules, and the optimizer's ``state``. Runs in which groups start later then try
    a few steps of the stages to come, with copies of these, so that the time left is right from the second epoch on.
    Classes of other packages do not inherit it."""
    steps_can_be_recorded: ClassVar[bool] = False
    """Of a model, a loss or an optimizer, or what it is made of: True if what a step asks the device for can be
    recorded once and then repeated without any Python, as ``run.repeat_steps`` and ``run.cuda_graph`` do it. So no
    value is read from the device, and what differs between two steps in which the same groups train is in tensors that
    keep their places in memory: parameters, buffers, the batch, learning rates. Where Python makes a difference, for
    example at every tenth step or from some epoch on, the built model has a method ``step_variant(state)``: a step is
    repeated only for steps for which it returned the same value, which can be hashed, and not at all if it returned
    None. What the model does in ``on_step_end`` is recorded, too.
    Of a hook, a logger or another part that listens to ``step_start``, ``backward_end`` or ``step_end``: True if it
    keeps neither batch, outputs nor gradients of a step, because the next one may be written over them; and if all
    that it changes is in tensors. Classes of other packages do not inherit it."""

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what is wrong with the settings together; a plain string is an error about the whole component."""
        return ()

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[str | Problem | Progress]:
        """Look at the data, for ``check --data``.

        Args:
            recipe: The whole recipe.
            depth: With "headers", look only at what can be read within seconds, and say what was left out.

        Yields:
            Lines that summarise the data; `Problem`, an error if a run would refuse the data and a warning if there is
            a doubt, with numbers and the line to paste; and `Progress`, while it takes long.

        Raises:
            DataError: The data cannot be read.
        """
        return ()

    def timeline(self, epochs: int) -> Iterable[tuple[int, str]]:
        """Yield (epoch, what happens then) for the plan of a run."""
        return ()

    def waits(self, recipe: Recipe) -> Iterable[Wait]:
        """Yield what it does once a value has not improved for long enough.

        ``check`` and ``run`` warn if the run is too short for it.
        """
        return ()


# ---- data -----------------------------------------------------------------------------------------------------------


class LiveData(Protocol):
    """An opened data set."""

    batches_per_epoch: int
    """Number of whole batches in an epoch, those of all processes together."""

    def train(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from number ``start`` on.

        They depend on (seed, epoch, number of the batch, part) alone, never on global state.

        With several processes or shards (`Data.divides_batches`), each whole batch is divided into
        ``context.exchange.num_parts`` parts by `part_of`. Of each whole batch, those in ``context.exchange.parts`` are
        yielded, one after the other.
        """
        ...

    def evaluate(self, split: str) -> Iterator[Batch]:
        """Yield this process's share of a split in a fixed order, for example held-out patterns or whole volumes.

        With several processes or shards, the split is divided by `part_of`, and the parts in ``context.exchange.parts``
        are yielded, one after the other. ``batch["index"]`` holds the numbers of the items.
        """
        ...

    def facts(self) -> Mapping[str, Any]:
        """Return what a model must know about the data, as JSON values, for example channels, classes and sizes.

        The facts are saved in every checkpoint. From them, `Data.recall` makes a stand-in with which a model can be
        built where the data is not available. This method is optional: data without it has no facts.

        Another optional method is ``fingerprint()``. It returns what tells the data from other data, as JSON values,
        for example a digest of each split. Without it, trainkit looks at the files in the folders that settings name.
        Data that divide their items into splits, for example by the run's seed, may have ``split_fingerprint()``: split
        -> what tells its items from others. It says whether values of two runs are of the same items.

        A third one is ``summary()``, which returns in one phrase what was opened, for the first lines of a run, for
        example "1,024 patterns of 64 × 64 pixels, 51 held out".

        What stands under ``"inputs"`` says how the inputs of a prediction are found; it may change on a resume.
        """
        ...


@component
class Data(Component):
    """Where the training data comes from."""

    entry_points: ClassVar[str] = "trainkit.data"
    predictor: ClassVar[str | None] = None
    """The `Predictor` (its ``use``) of models trained on it, unless [predict] names another; None: there is none."""
    evaluator: ClassVar[str | None] = None
    """The `Evaluator` (its ``use``) that compares predictions for such data with the truth; None: there is none."""
    calibrator: ClassVar[str | None] = None
    """The `Calibrator` (its ``use``) of models trained on it; None: there is none."""
    halver: ClassVar[str | None] = None
    """The `Halver` (its ``use``) of models trained on it; None: there is none."""
    divides_batches: ClassVar[bool] = False
    """Whether batches and splits are divided into parts (see `LiveData`). Several processes and shards need it."""

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Return the settings with which this component reads what is at a path; None: it does not know it.

        ``trainkit init`` asks every installed component. To answer, look at names and at small files, not at voxels or
        patterns. A component that cannot tell its files from others returns None.

        Args:
            path: A folder or a file, absolute.
        """
        return None

    @classmethod
    def contents(cls, settings: Mapping[str, Any]) -> Iterator[Any]:
        """Open what was recognised, and yield progress, and at last what planners need to know of what is in it.

        Settings say how data are read, and contents what was found when they were: whether values are counts, how
        large cases are. Of which class the contents are, each kind of data says; planners of any package get them.

        Yields:
            `Progress`; a `Problem` for each reason why the recipe will be doubtful; and once, unless nothing can be
            said, the contents.

        Args:
            settings: With which `recognise` recognised the data, and what the user added. Some may be missing.

        Raises:
            DataError: The data cannot be read, so nothing can be planned.
        """
        return iter(())

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, "train" first; all others are evaluated in validation."""
        return ("train",)

    def epoch_size(self) -> EpochSize | None:
        """Return how long an epoch is, without reading more than headers; None: it is known only when it runs.

        ``trainkit plan --processes`` asks for it.

        Raises:
            DataError: The data cannot be found or read.
        """
        return None

    def settings_of_fold(self, fold: int, number: int) -> Mapping[str, Any]:
        """Return the settings that make this data that of one fold of a cross-validation.

        Args:
            fold: The fold that is held out, from 0.
            number: Number of folds.

        Returns:
            Setting -> value, for example ``{"split": {"use": "folds", "folds": 5, "fold": 0}}``.

        Raises:
            RecipeError: The data cannot be divided into folds (the default).
            DataError: It cannot be divided into so many.
        """
        raise RecipeError(f"--folds: {type(self).__name__} cannot be divided into folds; it is trained on as a whole")

    def against_waiting(self, context: Context) -> str | None:
        """Return which settings would let steps wait less for this data, as an instruction; None: none would.

        A run says it at its end if its steps waited for a considerable share of their time.

        Args:
            context: Where the run takes place.
        """
        return None

    @abstractmethod
    def build(self, context: Context) -> LiveData:
        """Open the data."""

    def recall(self, facts: Mapping[str, Any]) -> Any:
        """Return a stand-in for the opened data, from which a model can be built.

        Args:
            facts: What ``LiveData.facts`` returned, from a checkpoint.

        Raises:
            DataError: A model for this data cannot be built without the data itself (the default), or the facts belong
                to other data.
        """
        raise DataError(f"with {type(self).__name__}, a model cannot be built from a checkpoint alone; open the data")


Component.accepts = Data  # type: ignore[type-abstract]  # set here, because Data is defined after Component


# ---- model ----------------------------------------------------------------------------------------------------------


@component
class Model(Component):
    """What is trained."""

    entry_points: ClassVar[str] = "trainkit.models"
    computes_complex: ClassVar[bool] = False
    """True if the forward pass computes complex numbers. Some settings of [run] then have no effect, or are refused."""
    facts_of_weights: ClassVar[Mapping[str, type]] = {}
    """Facts that `adapt_weights` reads, and ``initial_weights.facts`` may give: name -> ``list`` (of names) or bool."""

    def groups(self) -> Mapping[str, bool] | None:
        """Return parameter group -> whether it trains if no ``start_epoch`` is set; None: known only after building."""
        return {"other": True}

    def groups_with_curvature(self) -> tuple[str, ...]:
        """Return the groups for whose parameters the built model tells the loss's curvature (`set_curvature`)."""
        return ()

    def recomputed_blocks(self, model: Any) -> Iterable[nn.Module]:
        """Return the parts of the built model whose activations ``run.activation_checkpointing`` computes again.

        Good parts hold several layers, and none holds another one: the input of each is kept, and what it computes on
        the way to its output is not. A model that has none cannot be trained with that setting.
        """
        return ()

    @abstractmethod
    def build(self, data: Any) -> nn.Module:
        """Make the network, whose ``forward`` takes a batch and returns outputs.

        Args:
            data: The opened data, of the kind that the model ``accepts``, or its stand-in (`Data.recall`).
        """

    def step_memory(self, recipe: Recipe, batch_size: int) -> StepMemory | None:
        """Return what training takes, without reading more of the data than headers; None: it is not known.

        ``trainkit plan --processes`` asks for it.

        Args:
            recipe: The recipe.
            batch_size: Number of items whose gradient is computed at once: the share of a process.

        Raises:
            DataError: The data cannot be found or read.
        """
        return None

    def example(self, data: Any) -> ExampleBatch | None:
        """Return an example of what the built model takes, for export; None: it is not known (the default).

        Args:
            data: The stand-in for the data that the model was built from (`Data.recall`).
        """
        return None

    def parameter_groups(self, model: Any) -> Mapping[str, Iterable[nn.Parameter]]:
        """Return the parameters of each group of the built model; each trainable one must be in exactly one group."""
        return {"other": model.parameters()}

    def adapt_weights(
        self, weights: Mapping[str, Tensor], model: nn.Module, facts: Mapping[str, Any], data: Any
    ) -> tuple[Mapping[str, Tensor], Iterable[str]]:
        """Fit the weights of another model to the sizes of this one, for [initial_weights]; by default, leave them.

        Args:
            weights: Name in the model's state -> value that was read.
            model: The built model, with random weights.
            facts: What the file says of the data that the weights were trained with: ``LiveData.facts`` in a checkpoint
                of trainkit, the other values of a torch file; may be empty. Those of ``initial_weights.facts`` replace
                them.
            data: The opened data.

        Returns:
            The weights to load, and sentences on what was done. Weights that are left out stay as the model made them.
        """
        return weights, ()


@component
class Inference(Component):
    """Computes the outputs for a batch in validation and prediction."""

    entry_points: ClassVar[str] = "trainkit.inference"

    @abstractmethod
    def build(self, data: Any) -> Callable[[nn.Module, Batch], Outputs]:
        """Make the function (model, batch) -> outputs for the opened data or its stand-in."""


# ---- losses and metrics ---------------------------------------------------------------------------------------------


AUTO: Literal["auto"] = "auto"
"""The weight of a regulariser that ``trainkit run`` chooses by held-out data (see `Loss.weight`)."""


def _weight(instance: object, attribute: attrs.Attribute[Any], value: float | Literal["auto"]) -> None:
    if value != AUTO and not math.isfinite(value):
        raise ValueError(f"must be a finite number, got {value!r}")


Combine = Literal["mean", "sums", "once"]
"""How the losses of a step's parts (accumulated batches, shards, processes) are combined into one loss.

mean    the mean over items: each part is weighted by its number of items
sums    sums are added up over the parts, and the loss is computed from them, for example batch Dice or a masked mean
once    the loss does not depend on the items (a regulariser): it is computed once per step
"""


class SummedLoss(Protocol):
    """What a loss with ``combine() == "sums"`` builds."""

    def sums(self, outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
        """Return a tensor, always of the same shape, that is added up over the parts of a step."""
        ...

    def value(self, sums: Tensor) -> Tensor:
        """Return the loss, a scalar, for sums that were added up over all parts."""
        ...

    def __call__(self, outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
        """Return the loss of one batch, ``value(sums(outputs, batch, model))``."""
        ...


@component
class Loss(Component):
    """A term of the training loss, which is the weighted sum of all terms.

    Attributes:
        weight: Factor of this term in the total; any finite number. Of a regulariser also "auto": ``trainkit run``
            repeats the end of the run with several weights, and takes the one that predicts held-out data best; see
            docs/chosen_weights.md.
    """

    entry_points: ClassVar[str] = "trainkit.losses"
    on_validation: ClassVar[bool] = True
    """False for a regulariser, which says nothing about held-out data."""

    def combine(self) -> Combine:
        """Return how the losses of a step's parts are combined, see `Combine`."""
        return "mean"

    def usual_weights(self, recipe: Recipe) -> tuple[float, float]:
        """Return the smallest and the largest weight that are usual, between which ``weight = "auto"`` begins.

        Args:
            recipe: The whole recipe; what is usual may depend on the other losses.
        """
        return 1e-4, 1.0

    weight: float | Literal["auto"] = attrs.field(default=1.0, validator=_weight)

    @abstractmethod
    def build(self, data: Any) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
        """Make the function (outputs, batch, model) -> scalar: the mean over the batch unless ``combine`` differs."""


class LiveMetric(Protocol):
    """Accumulates a metric over a split.

    In a run of several processes or shards, two further methods are needed. ``share()`` returns what was added since
    the last ``compute``, as an object that can be pickled, without tensors on a device. ``merge(shares)`` replaces it
    by that of all processes: ``shares`` is a list of what their ``share`` returned, in the order of the parts.

    An optional method ``rows()`` yields the values of single items behind what ``compute`` returned last, as mappings
    of column -> value, such as ``{"case": "p1", "class": "liver", "dice": 0.9}``. The run folder gets them as
    ``cases.csv``, in which rows with the same texts are one line.
    """

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Add one batch."""
        ...

    def compute(self) -> dict[str, float]:
        """Return name -> value over all batches that were added or merged, and reset."""
        ...


@component
class Metric(Component):
    """A figure of merit, computed on every split except "train"."""

    entry_points: ClassVar[str] = "trainkit.metrics"
    may_be_missing: ClassVar[bool] = False
    """True if an evaluation may have no value for a name, for example for a class that occurs in no case."""

    def names(self) -> tuple[str, ...] | None:
        """Return the names of the values that ``compute`` returns, without split; None: known only after building.

        A ``*`` in a name stands for something that only the data knows, such as the class in "dice_*".
        """
        return None

    def is_measured_after(self, epochs: int) -> bool:
        """Return whether a validation after so many finished epochs measures it; that at the run's end always does."""
        return True

    @abstractmethod
    def build(self, data: Any) -> LiveMetric:
        """Make the accumulator."""


# ---- optimizer and schedulers ---------------------------------------------------------------------------------------


def positive(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    """Refuse a setting that is not a positive, finite number."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{attribute.name} must be a positive number, got {value!r}")


@component
class Optimizer(Component):
    """Updates the parameters of a run, or of the groups that name an optimizer of their own.

    A parameter group may override these settings by name in ``[groups.NAME]``, or have an optimizer of its own.

    Attributes:
        lr: Learning rate of each group that sets none of its own.
    """

    entry_points: ClassVar[str] = "trainkit.optimizers"

    lr: float = attrs.field(default=1e-3, validator=positive)

    @abstractmethod
    def build(self, groups: list[dict[str, Any]]) -> optim.Optimizer:
        """Make the torch optimizer.

        Args:
            groups: One dict per parameter group: ``name``, ``params``, ``lr``, and the settings that the group
                overrides, under their own names.
        """


class Point(NamedTuple):
    """The values that a schedule sets at one tick.

    Attributes:
        lr: The learning rate.
        momentum: The momentum, or beta1 for optimizers of the Adam family; None: it stays as it is.
    """

    lr: float
    momentum: float | None = None


Memory = Mapping[str, Any]
"""What a schedule remembers about the metrics, as JSON values."""


@component
class Scheduler(Component):
    """Sets the learning rate of a parameter group as a function of the group's own clock.

    The clock counts ticks (epochs or optimizer steps) from the group's start. A schedule is a pure function of it, so
    nothing has to be restored on resume. A schedule that depends on metrics keeps what it needs in a JSON memory.

    Attributes:
        by: Whether a tick is an "epoch" or an optimizer "step".
        warmup: Ticks of linear warm-up before the schedule begins; the schedule runs over the remaining ticks.
    """

    entry_points: ClassVar[str] = "trainkit.schedulers"
    takes_late_values: ClassVar[bool] = False
    """Whether it works with ``validation.beside = true``; one that does not ``observe`` always does.

    The metrics of an epoch are then observed when the next epoch ends, so the rate that follows from them is that of
    the epoch after the next. ``at`` is called for the epoch between without them."""

    by: Literal["epoch", "step"] = "epoch"
    warmup: int = attrs.field(default=0, validator=attrs.validators.ge(0))

    @abstractmethod
    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        """Return the learning rate (and momentum) after ``t`` ticks.

        Args:
            t: Ticks of the group's clock, without warm-up, 0 ≤ t < horizon.
            horizon: Ticks from the end of the warm-up to the group's stop or the run's end.
            lr: The group's learning rate before the schedule.
            memory: What ``observe`` last returned; empty at first.
        """

    def observe(self, memory: Memory, metrics: Mapping[str, float], monitor: Monitor) -> Memory:
        """Return the memory updated with an epoch's metrics.

        It is called at the end of each epoch in which the group trained; with ``validation.beside = true``, at the end
        of the next one, if the group trains in that too.
        """
        return memory

    def forget(self, memory: Memory) -> Memory:
        """Return the memory without the values in it; called on a resume from which on they mean something else."""
        return {}


# ---- hooks and loggers -------------------------------------------------------------------------------------

Phase = Literal["mutate", "observe", "log", "persist"]


@component
class Hook(Component):
    """Acts at events of the training loop: its live part has ``on_<event>(state)`` methods."""

    entry_points: ClassVar[str] = "trainkit.hooks"
    phase: ClassVar[Phase] = "observe"
    """At an event, hooks that change the run are called first, then those that observe, log and save.

    A failure of a hook that logs does not end the run: it is said once."""
    before: ClassVar[tuple[str, ...]] = ()
    """Names (their keys in the recipe) of hooks of the same phase that must come after this one."""
    after: ClassVar[tuple[str, ...]] = ()
    """Names (their keys in the recipe) of hooks of the same phase that must come before this one."""
    takes_late_values: ClassVar[bool] = False
    """Whether it works with ``validation.beside = true``.

    At the end of an epoch, the values of the splits may be missing in ``state.metrics`` then. A hook that decides by
    them takes ``state.values_to_act_on`` there, those of the epoch before; one that shows them has ``on_late_values``.
    Validation events are fired only for an evaluation in line, such as that of an epoch with pictures, which precedes
    them."""

    def names(self) -> tuple[str, ...] | None:
        """Return the full names of the values that it adds to ``state.metrics``; None: known only after building."""
        return ()

    @abstractmethod
    def build(self, context: Context) -> object:
        """Make the live part."""


@component
class Logger(Hook):
    """A hook that writes values and pictures somewhere."""

    entry_points: ClassVar[str] = "trainkit.loggers"
    phase: ClassVar[Phase] = "log"


# ---- prediction -----------------------------------------------------------------------------------------------------


class Member(NamedTuple):
    """A trained model that takes part in a prediction.

    Attributes:
        name: The checkpoint that it is from, for messages.
        model: The model in eval mode, on the device; it computes in the precision in which it was evaluated.
        data: The stand-in for its training data, from `Data.recall`.
        inference: How validation computed its outputs.
    """

    name: str
    model: nn.Module
    data: Any
    inference: Inference


@attrs.frozen
class PredictionItem:
    """Something that is predicted as a whole, for example the images of one patient.

    Attributes:
        name: Its name in messages and results, a name that a file can have. Each item has its own.
        files: The files that it is read from.
        problem: Why it cannot be predicted, for example because a file is missing; None: nothing is known against it.
    """

    name: str
    files: tuple[Path, ...]
    problem: str | None = None


class LivePredictor(Protocol):
    """Predicts with loaded models."""

    def items(self, inputs: Iterable[Path]) -> Iterable[PredictionItem]:
        """Return what there is to predict in the files and folders that a user names.

        Raises:
            DataError: There is nothing in them.
        """
        ...

    def predict(self, item: PredictionItem, folder: Path) -> str:
        """Predict an item, and write the result below a folder, which is empty at first.

        All that was written is moved to the folder that the user named, once it is complete and on the disk.

        Returns:
            What was found, in a few words.

        Raises:
            DataError: The item cannot be read. Others are predicted all the same.
        """
        ...


@component
class Predictor(Component):
    """Predicts new inputs with trained models, without their training data."""

    entry_points: ClassVar[str] = "trainkit.predictors"

    def takes_calibration(self) -> bool:
        """Return whether results depend on what a `Calibrator` fits and none of it is set; by default, they do not."""
        return False

    @abstractmethod
    def build(self, members: tuple[Member, ...], device: device, tell: Callable[[Progress], None]) -> LivePredictor:
        """Make the live part.

        Args:
            members: The models, whose outputs are averaged if there are several.
            device: The device that they are on.
            tell: Shows how far the prediction of an item is.

        Raises:
            RecipeError: The settings do not fit the models.
            CheckpointError: The models do not fit each other.
        """


# ---- export ---------------------------------------------------------------------------------------------------------


class ExampleBatch(NamedTuple):
    """What a model takes, for export.

    Attributes:
        inputs: The names that its forward pass reads from a batch -> a tensor with two items, on the CPU.
        outputs: Names of the outputs that are exported.
        sizes: Name of an input -> axis -> name of the size along it, for all axes whose size may vary, except axis 0.
        multiples: Name of a size -> what it has to be a multiple of, if not of 1.
        meaning: What the inputs and outputs mean, as JSON values, for whoever opens the exported model.
    """

    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    sizes: Mapping[str, Mapping[int, str]]
    multiples: Mapping[str, int]
    meaning: Mapping[str, Any]


class BuiltModel(NamedTuple):
    """A trained model, on the CPU, in eval mode and in float32.

    Attributes:
        settings: The settings that it was built from.
        model: The model with its trained weights.
        data: The stand-in for its training data.
        inference: How validation computed its outputs.
    """

    settings: Model
    model: nn.Module
    data: Any
    inference: Inference


class TrainedModel(Protocol):
    """A checkpoint that is exported."""

    @property
    def name(self) -> str:
        """The checkpoint, for messages."""
        ...

    @property
    def weights(self) -> Mapping[str, Any]:
        """State of the model; the averaged one if the run had any."""
        ...

    @property
    def about(self) -> Mapping[str, Any]:
        """Where the model comes from, and the facts of its training data, as JSON values."""
        ...

    def settings(self) -> Model:
        """Return the settings of the model.

        Raises:
            RecipeError: The recipe in the checkpoint cannot be used here.
        """
        ...

    def build(self) -> BuiltModel:
        """Build the model.

        Raises:
            CheckpointError: It cannot be built without the training data.
            RecipeError: The recipe in the checkpoint cannot be used here.
        """
        ...


@component
class Exporter(Component):
    """Writes a trained model in a form that another program opens."""

    entry_points: ClassVar[str] = "trainkit.exporters"
    suffix: ClassVar[str] = ""
    """Ending of the file that it writes; empty: it writes a folder."""

    @abstractmethod
    def export(self, trained: TrainedModel, path: Path) -> Iterable[str]:
        """Write a model, and return sentences about what was written.

        Args:
            trained: The model.
            path: The file to write, or an existing empty folder. It is moved to its place once it is complete.

        Raises:
            RecipeError: A model of this kind cannot be written in this form.
        """


# ---- evaluation of files --------------------------------------------------------------------------------------------


class Evaluation(NamedTuple):
    """What a comparison of predictions with the truth found.

    Attributes:
        rows: The lines of ``cases.csv``, for example one for each case and class, all with the same columns.
        summary: What ``summary.json`` holds, as JSON values.
        lines: What is printed: means, and how they were computed.
        failed: Case -> why it could not be compared.
        unpaired: A sentence for each reason why cases were not compared that is no failure, with their names.
    """

    rows: tuple[Mapping[str, str | float | None], ...]
    summary: Mapping[str, Any]
    lines: tuple[str, ...]
    failed: Mapping[str, str]
    unpaired: tuple[str, ...]


class HeldOut(NamedTuple):
    """Items that a model was not trained on, and its outputs for them.

    Attributes:
        data: The opened data.
        batch: A batch of a split other than "train".
        outputs: What the inference of the run returned for it.
    """

    data: Any
    batch: Batch
    outputs: Outputs


class HeldOutEvaluation(NamedTuple):
    """What the held-out items of a cross-validation say.

    Attributes:
        rows: The lines of ``cases.csv``, as in `Evaluation`.
        summary: What ``summary.json`` holds, as JSON values.
        lines: What is printed.
        predict: Settings of [predict] that suit these items best, as JSON values; ``ensemble.json`` holds them.
    """

    rows: tuple[Mapping[str, str | float | None], ...] = ()
    summary: Mapping[str, Any] = {}
    lines: tuple[str, ...] = ()
    predict: Mapping[str, Any] = {}


class LiveEvaluator(Protocol):
    """Compares the files of predictions with the truth."""

    def evaluate(self, predictions: Path, truth: Path) -> Evaluation:
        """Compare two folders, or two files.

        Raises:
            DataError: There is nothing to compare.
        """
        ...


@component
class Evaluator(Component):
    """Compares predictions with the truth, both given as files."""

    entry_points: ClassVar[str] = "trainkit.evaluators"

    @abstractmethod
    def build(
        self,
        data: Data | None,
        facts: Mapping[str, Any] | None,
        truth: Path,
        tell: Callable[[Progress], None],
    ) -> LiveEvaluator:
        """Make the live part, which knows what the values in the files mean.

        Args:
            data: The data of a recipe, if one is given.
            facts: What a checkpoint says of its training data (`LiveData.facts`), if a run is given.
            truth: Where the truth is; files beside it may say what its values mean.
            tell: Shows how far the comparison is.

        Raises:
            RecipeError: Nothing says what the values mean, or the settings do not fit the data.
            DataError: What should say it cannot be read.
        """

    def evaluate_held_out(self, held_out: Iterable[HeldOut]) -> HeldOutEvaluation:
        """Evaluate all items of a cross-validation, each by the model that was not trained on it.

        By default, nothing is evaluated.
        """
        return HeldOutEvaluation()


# ---- calibration ----------------------------------------------------------------------------------------------------


class OpenedRun(NamedTuple):
    """A trained model, and its training data, opened again.

    Attributes:
        member: The model.
        data: The opened data, which is the same as in the training.
        held_out: The names of the splits that the model was not trained on.
    """

    member: Member
    data: Any
    held_out: tuple[str, ...]


class Calibration(NamedTuple):
    """What held-out items say of the confidence of a prediction.

    Attributes:
        predict: Settings of [predict] that were fitted, as JSON values; empty: none is better than what is there.
        depends_on: The keys of [predict] for other values of which the fit does not hold.
        results: What was measured, as JSON values.
        rows: The lines of ``cases.csv``, as in `Evaluation`.
        lines: What is printed.
        doubts: A sentence for each reason why the result is doubtful.
        pictures: Name of a PNG file -> a function that draws it into the file at a path.
    """

    predict: Mapping[str, Any]
    depends_on: tuple[str, ...]
    results: Mapping[str, Any]
    rows: tuple[Mapping[str, str | float | None], ...]
    lines: tuple[str, ...]
    doubts: tuple[str, ...] = ()
    pictures: Mapping[str, Callable[[Path], None]] = {}


@component
class Calibrator(Component):
    """Fits settings of a prediction to held-out items, so that what it says of its confidence is true."""

    entry_points: ClassVar[str] = "trainkit.calibrators"

    @abstractmethod
    def calibrate(
        self, runs: tuple[OpenedRun, ...], predictor: Predictor, device: device, tell: Callable[[Progress], None]
    ) -> Calibration:
        """Fit on some of the held-out items, and measure on the others.

        Args:
            runs: The models that predict together, each with its data.
            predictor: How they predict.
            device: The device that the models are on.
            tell: Shows how far it is.

        Raises:
            RecipeError: The settings do not fit the models.
            DataError: There are too few held-out items.
        """


# ---- halves ---------------------------------------------------------------------------------------------------------


class Agreement(NamedTuple):
    """What two results from halves of the same evidence have in common.

    Attributes:
        name: Of what they are halves; files of it are called so.
        results: What was measured, as JSON values.
        rows: The lines of a table.
        lines: What is printed.
        doubts: A sentence for each reason why the result is doubtful.
        pictures: Name of a PNG file -> a function that draws it into the file at a path.
    """

    name: str
    results: Mapping[str, Any]
    rows: tuple[Mapping[str, str | float | None], ...]
    lines: tuple[str, ...]
    doubts: tuple[str, ...] = ()
    pictures: Mapping[str, Callable[[Path], None]] = {}


@component
class Halver(Component):
    """Says how a run is repeated with each half of its evidence, and how far both results agree."""

    entry_points: ClassVar[str] = "trainkit.halvers"

    def check(self, recipe: Recipe) -> None:
        """Check, before the halves are trained, that their results can be compared.

        Args:
            recipe: The recipe of the whole run.

        Raises:
            DataError: They cannot; the message says why.
        """

    @abstractmethod
    def changes(self, recipe: Recipe, checkpoint: Path, half: int) -> Mapping[str, Any]:
        """Return what to change in the recipe of a run, as nested tables; ``drop`` lists settings to take out.

        Args:
            recipe: The recipe.
            checkpoint: The checkpoint of the run.
            half: 1 or 2.

        Raises:
            RecipeError: The run cannot be repeated with a half.
        """

    @abstractmethod
    def compare(self, recipe: Recipe, one: Path, other: Path) -> Agreement:
        """Compare the results of both halves.

        Args:
            recipe: The recipe of the whole run.
            one: Its run folder with the first half.
            other: The one with the second half.

        Raises:
            DataError: The results cannot be compared.
        """


# ---- planners --------------------------------------------------------------------------------------------------------


class Recognised(NamedTuple):
    """Data that a component knows.

    Attributes:
        use: The name of the component.
        data: Its class.
        settings: The settings with which it reads the data: those with which it recognised them (`Data.recognise`), and
            what the user added; see `structure_settings`.
        contents: What is in the data (`Data.contents`); None: nothing can be said, or they were not looked into.
        told: The keys of the settings that the user said, with ``--set``.
    """

    use: str
    data: type[Data]
    settings: Mapping[str, Any]
    contents: Any = None
    told: Collection[str] = ()


@component
class Planner(Component):
    """Writes a recipe for data of a kind that it ``accepts``, for ``trainkit init``.

    Attributes:
        memory_gb: Memory of the device that training may take, in 10⁹ bytes.
        network: The network to plan; None: the planner's choice.
        calibrate: Whether to find out by trials what the data do not say, such as the geometry of a scan. Only if it
            ``calibrates``.
        picture: Where to draw what the trials found; None: nowhere.
    """

    entry_points: ClassVar[str] = "trainkit.planners"
    calibrates: ClassVar[bool] = False
    """Whether it can find out something by trials."""

    memory_gb: float = attrs.field(default=8.0, validator=positive)
    network: str | None = None
    calibrate: bool = False
    picture: Path | None = None

    @abstractmethod
    def draft(self, found: Recognised) -> Iterator[str | Progress | Problem | Figures]:
        """Yield the lines of a recipe (see `RecipeText`), and before them progress, if that takes long.

        A `Problem` says why the recipe is doubtful; it is written all the same. `Figures` are what ``init --json``
        prints of trials.

        Args:
            found: The data, with what is in them.

        Raises:
            DataError: The data cannot be read.
            RecipeError: It cannot plan what is asked for.
        """


KINDS: tuple[type[Component], ...] = (
    Data,
    Model,
    Loss,
    Metric,
    Inference,
    Optimizer,
    Scheduler,
    Hook,
    Logger,
    Predictor,
    Evaluator,
    Calibrator,
    Halver,
    Planner,
)
