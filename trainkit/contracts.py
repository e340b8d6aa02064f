"""What a component is, which kinds there are, and what their live parts promise.

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

Any live part may also have ``on_<event>(state)`` methods (see `trainkit.events`, whose `Live` is a typed base for them)
and ``state_dict`` / ``load_state_dict``, which are then saved in each checkpoint and given back on resume.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, NewType, Protocol, TypeVar, dataclass_transform

import attrs

from trainkit.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, device, nn, optim

    from trainkit.recipe.root import Recipe

_C = TypeVar("_C", bound=type)

Batch = Mapping[str, Any]
"""What data yields: tensors with the item axis first. ``"index"`` (B,) says which items these are."""

Outputs = Mapping[str, Any]
"""What a model returns. With deep supervision: ``"logits"``, ``"logits_1"``, …"""

MetricName = NewType("MetricName", str)
"""A value's full name, ``<split>/<name>`` ("val/loss"). Checked wherever a settings class has one."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(attrs.field,))
def component(cls: _C) -> _C:
    """Make a settings class: a frozen attrs class whose fields are given by keyword."""
    made: _C = attrs.frozen(kw_only=True)(cls)
    return made


class Problem(NamedTuple):
    """Something wrong, or worth knowing, about settings, found without building anything.

    Attributes:
        message: One sentence: what is wrong and what to do. In a note: what will happen.
        key: The setting it is about, dotted, relative to the component that says it ("" for the component itself).
        severity: An "error" keeps the run from starting; a "warning" and a "note" are only shown.
    """

    message: str
    key: str = ""
    severity: Literal["error", "warning", "note"] = "error"


class Context(NamedTuple):
    """Where and as what this process runs."""

    seed: int
    device: device
    rank: int
    world: int
    folder: Path


@component
class Monitor:
    """The value that plateau, best checkpoint and early stopping look at unless they say otherwise.

    Attributes:
        metric: Its full name, ``<split>/<name>``.
        mode: Whether smaller ("min") or larger ("max") is better.
    """

    metric: MetricName = MetricName("val/loss")
    mode: Literal["min", "max"] = "min"

    def better(self, new: float, old: float | None, min_delta: float = 0.0) -> bool:
        """Return whether ``new`` is better than ``old`` (None: nothing was seen yet) by more than ``min_delta``.

        A value that is not finite is never better.
        """
        if not math.isfinite(new):
            return False
        return old is None or (old - new if self.mode == "min" else new - old) > min_delta

    def doubts(self, metric: str | None, mode: str | None) -> Iterable[Problem]:
        """Yield a warning if a part watches another metric than this one, and does not say which way is better.

        Args:
            metric: What the part watches, its setting ``metric``; None: this one.
            mode: Its setting ``mode``; None: as here.
        """
        if metric is not None and metric != self.metric and mode is None:
            yield Problem(
                f'"{metric}" is read with mode "{self.mode}" of [monitor], which is about "{self.metric}";'
                " set mode here",
                "metric",
                "warning",
            )


@component
class Component(ABC):
    """Settings of one part of a run."""

    requires: ClassVar[tuple[str, ...]] = ()
    """Modules that ``build`` imports beyond the core's; ``check`` looks them up without importing them."""
    accepts: ClassVar[type[Data]]
    """The data it works with, a kind of `Data` (default: any). ``check`` reports a recipe with other data."""

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what is wrong between fields, from settings alone; a plain string is an error about the whole table."""
        return ()

    def timeline(self, epochs: int) -> Iterable[tuple[int, str]]:
        """Yield (epoch, what happens then) for the plan of a run."""
        return ()


# ---- data -----------------------------------------------------------------------------------------------------------


class LiveData(Protocol):
    """An opened data set."""

    batches_per_epoch: int
    """Batches of an epoch, on this process. ``train`` yields exactly so many."""

    def train(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the batches ``start``… of an epoch: a function of (seed, epoch, rank) alone, never of global state."""
        ...

    def evaluate(self, split: str) -> Iterator[Batch]:
        """Yield this process's share of a split in a fixed order: held-out patterns, whole volumes.

        Under several processes the shares are disjoint and differ by at most one item; together they are the split.
        ``batch["index"]`` says which items these are.
        """
        ...

    def facts(self) -> Mapping[str, Any]:
        """Return what a model has to know of the data, as JSON values: channels, classes, sizes, preprocessing.

        It is saved in every checkpoint. `Data.recall` makes a stand-in of it, from which a model can be built where the
        data is not at hand. Data without this method has no facts.
        """
        ...


@component
class Data(Component):
    """Where the training data comes from."""

    entry_points: ClassVar[str] = "trainkit.data"

    def splits(self) -> tuple[str, ...]:
        """Return the splits there are, "train" first; each other one is validated under its name."""
        return ("train",)

    def inspect(self) -> Iterable[str]:
        """Yield lines that sum the data up for a person (``check --data``); may read files."""
        return ()

    @abstractmethod
    def build(self, context: Context) -> LiveData:
        """Open the data."""

    def recall(self, facts: Mapping[str, Any]) -> Any:
        """Return a stand-in for the opened data, from which a model can be built.

        Args:
            facts: What ``LiveData.facts`` returned, from a checkpoint.

        Raises:
            DataError: A model of this data cannot be built without the data itself (the default), or the facts are of
                other data.
        """
        raise DataError(f"{type(self).__name__} cannot be recalled from a checkpoint: open the data itself")


Component.accepts = Data  # type: ignore[type-abstract]  # here, where Data is known


# ---- model ----------------------------------------------------------------------------------------------------------


@component
class Model(Component):
    """What is trained."""

    entry_points: ClassVar[str] = "trainkit.models"

    def groups(self) -> Mapping[str, bool] | None:
        """Return parameter group -> does it train without a ``start_epoch``? None: known only after building."""
        return {"other": True}

    @abstractmethod
    def build(self, data: Any) -> nn.Module:
        """Make the network; ``forward``: batch -> outputs.

        Args:
            data: The opened data, which is of the kind that the model ``accepts``; or its stand-in (`Data.recall`).
        """

    def parameter_groups(self, model: Any) -> Mapping[str, Iterable[nn.Parameter]]:
        """Return the parameters of each group of the built model; each trainable one in exactly one group."""
        return {"other": model.parameters()}


@component
class Inference(Component):
    """How validation and prediction get from a batch to outputs."""

    entry_points: ClassVar[str] = "trainkit.inference"

    @abstractmethod
    def build(self, data: Any) -> Callable[[nn.Module, Batch], Outputs]:
        """Make the function (model, batch) -> outputs for the opened data, or its stand-in."""


# ---- losses and metrics ---------------------------------------------------------------------------------------------


def _finite(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number, got {value!r}")


Combine = Literal["mean", "sums", "once"]
"""How the parts of a step's items (accumulated batches, shards, processes) combine to the loss of all of them.

mean    the mean over items: parts are weighted by their number of items
sums    sums, from which a value is computed when they are added up: the Dice of a whole batch, a masked mean
once    the value does not depend on the items (a regulariser): it is computed once a step
"""


class SummedLoss(Protocol):
    """What a loss with ``combine() == "sums"`` builds."""

    def sums(self, outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
        """Return what adds up over parts of a batch, a tensor of any one shape."""
        ...

    def value(self, sums: Tensor) -> Tensor:
        """Return the loss, a scalar, of sums that were added up."""
        ...

    def __call__(self, outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
        """Return the loss of one batch, ``value(sums(outputs, batch, model))``."""
        ...


@component
class Loss(Component):
    """A term of what is minimised; the total is the weighted sum of all.

    Attributes:
        weight: What its value is multiplied by in the total; any finite number.
    """

    entry_points: ClassVar[str] = "trainkit.losses"
    on_validation: ClassVar[bool] = True
    """False for a regulariser, which says nothing about held-out data."""

    def combine(self) -> Combine:
        """Return how the parts of a step combine, see `Combine`."""
        return "mean"

    weight: float = attrs.field(default=1.0, validator=_finite)

    @abstractmethod
    def build(self, data: Any) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
        """Make the function (outputs, batch, model) -> scalar: the mean over the batch, or what ``combine`` says."""


class LiveMetric(Protocol):
    """Accumulates over a split."""

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in one batch."""
        ...

    def compute(self) -> dict[str, float]:
        """Return name -> value over all that was taken in, on all ranks, and start anew."""
        ...


@component
class Metric(Component):
    """A figure of merit, computed on every split but "train"."""

    entry_points: ClassVar[str] = "trainkit.metrics"
    may_be_missing: ClassVar[bool] = False
    """True where an evaluation may have no value for a name, for example for a class that is in no case."""

    def names(self) -> tuple[str, ...] | None:
        """Return the names that ``compute`` gives, without split. None: known only after building.

        A ``*`` in a name stands for what only the data knows, such as the class in "dice_*".
        """
        return None

    @abstractmethod
    def build(self, data: Any) -> LiveMetric:
        """Make the accumulator."""


# ---- optimizer and schedulers ---------------------------------------------------------------------------------------


def _positive(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{attribute.name} must be a positive number, got {value!r}")


@component
class Optimizer(Component):
    """Updates the parameters of a run, or of the groups that name an optimizer of their own.

    A parameter group may override its settings by name, or name an optimizer of its own instead.

    Attributes:
        lr: Learning rate of every group that sets none.
    """

    entry_points: ClassVar[str] = "trainkit.optimizers"

    lr: float = attrs.field(default=1e-3, validator=_positive)

    @abstractmethod
    def build(self, groups: list[dict[str, Any]]) -> optim.Optimizer:
        """Make it.

        Args:
            groups: One dict a parameter group: ``name``, ``params``, ``lr``, and the fields of these settings that the
                group overrides, under the fields' names.
        """


class Point(NamedTuple):
    """What a schedule says for one tick. ``momentum`` None: leave it (beta1, for optimizers of Adam's family)."""

    lr: float
    momentum: float | None = None


Memory = Mapping[str, Any]
"""What a schedule remembers of the metrics: JSON values alone."""


@component
class Scheduler(Component):
    """A learning rate over a parameter group's own clock.

    The clock counts ticks (epochs, or optimizer steps) from the group's start. A schedule is a closed form of it, so
    nothing has to be restored on resume; what depends on metrics is folded into a JSON memory.

    Attributes:
        by: Whether a tick is an "epoch" or an optimizer "step".
        warmup: Ticks of a linear ramp before the schedule begins; the schedule then runs over what is left.
    """

    entry_points: ClassVar[str] = "trainkit.schedulers"

    by: Literal["epoch", "step"] = "epoch"
    warmup: int = attrs.field(default=0, validator=attrs.validators.ge(0))

    @abstractmethod
    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        """Return what holds after ``t`` ticks.

        Args:
            t: Ticks of the group's clock, 0 ≤ t < horizon, warm-up not counted.
            horizon: Ticks from the group's start (and warm-up) to its stop or the run's end.
            lr: The group's own learning rate.
            memory: What ``observe`` last returned; at first empty.
        """

    def observe(self, memory: Memory, metrics: Mapping[str, float], monitor: Monitor) -> Memory:
        """Fold an epoch's metrics into the memory; called after each epoch in which the group trained."""
        return memory


# ---- hooks and loggers -------------------------------------------------------------------------------------

Phase = Literal["mutate", "observe", "log", "persist"]


@component
class Hook(Component):
    """Something that happens around the loop: its live part has ``on_<event>(state)`` methods."""

    entry_points: ClassVar[str] = "trainkit.hooks"
    phase: ClassVar[Phase] = "observe"
    """At one event, hooks that change the run go first, then those that look, log and save."""
    before: ClassVar[tuple[str, ...]] = ()
    """Names (their keys in the recipe) of hooks of the same phase that must come after this one."""
    after: ClassVar[tuple[str, ...]] = ()
    """Names (their keys in the recipe) of hooks of the same phase that must come before this one."""

    def names(self) -> tuple[str, ...] | None:
        """Return the full names of values that it adds to ``state.metrics``. None: known only after building."""
        return ()

    @abstractmethod
    def build(self, context: Context) -> object:
        """Make the live part."""


@component
class Logger(Hook):
    """A hook that writes values and pictures somewhere."""

    entry_points: ClassVar[str] = "trainkit.loggers"
    phase: ClassVar[Phase] = "log"


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
)
