"""Detects that a metric has stopped improving; shared by `early_stopping` and `stop_group`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import attrs
from attrs.validators import ge, in_, lt, optional

from trainkit.contracts import Hook, MetricName, Monitor, Problem, component
from trainkit.events import Live

if TYPE_CHECKING:
    from trainkit.recipe.root import Recipe
    from trainkit.state import EpochValues, State

_LOGGER = logging.getLogger("trainkit")


@component
class PatienceHook(Hook):
    """Acts when a metric has not improved for a number of epochs.

    Only epochs with a value of the metric are checked; NaN and infinite values are not an improvement.

    Attributes:
        metric: The value to watch, ``<split>/<name>``; default: that of the recipe's ``[monitor]``.
        mode: Whether smaller ("min") or larger ("max") is better; default: that of ``[monitor]``.
        patience: Number of epochs without improvement after which the hook acts; ≥ 1.
        min_delta: A value is an improvement if it is better than the best so far by more than this; the metric's own
            unit, ≥ 0.

    Source:
        Prechelt: "Early stopping - but when?" (1998), criterion UP.
    """

    takes_late_values: ClassVar[bool] = True

    metric: MetricName | None = None
    mode: Literal["min", "max"] | None = attrs.field(default=None, validator=optional(in_(("min", "max"))))
    patience: int = attrs.field(default=10, validator=ge(1))
    min_delta: float = attrs.field(default=0.0, validator=[ge(0), lt(math.inf)])

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield a warning if ``mode`` may not fit the metric."""
        yield from recipe.monitor.doubts(self.metric, self.mode)

    def first_end(self, epochs: Iterator[int], first_epoch: int) -> int | None:
        """Return the epoch at whose end the patience has ended, if no value after the first one is an improvement.

        Args:
            epochs: The epochs with a value, in order.
            first_epoch: The patience counts from this epoch at the earliest.
        """
        since = max(next(epochs, first_epoch), first_epoch - 1)
        return next((epoch for epoch in epochs if epoch - since >= self.patience), None)


@attrs.define
class Patience(Live):
    """Counts the epochs in which a metric has not improved. A base of live parts: what happens then is theirs.

    Attributes:
        settings: The metric to watch, and the patience.
        best: The best value so far; None before the first.
        since: The epoch from which the patience counts; None: from the next value on.
        watched: The metric and the mode of ``best``; None before the first value.
    """

    settings: PatienceHook
    best: float | None = None
    since: int | None = None
    watched: list[str] | None = None

    def ended(self, values: EpochValues, state: State, first_epoch: int) -> str | None:
        """Check the value of an epoch; return the reason to act if the patience has ended, else None.

        Args:
            values: One of `State.values_to_act_on`.
            state: The state at the end of an epoch, the same one or the next.
            first_epoch: The patience counts from this epoch at the earliest.
        """
        metric = self._watched_now(state)[0]
        if metric not in values.metrics:
            return None
        value = values.metrics[metric]
        if self.since is None:
            self.since = values.epoch - 1
        self._take_in(value, values.epoch, state)
        waited = values.epoch - max(self.since, first_epoch - 1)
        if waited < self.settings.patience:
            return None
        self.since = None  # if the run continues in spite of this, it has the whole patience again
        best = "no finite value so far" if self.best is None else f"best {self.best:.6g}"
        if values.epoch < state.epoch:  # whose own value may be better
            when = f"after epoch {values.epoch + 1}"
            return f"{when}, {metric} had not improved for {waited} epochs ({best}, then {value:.6g})"
        return f"{metric} has not improved for {waited} epochs ({best}, now {value:.6g})"

    def on_resume(self, state: State) -> None:
        """Begin anew if the values to come cannot be compared with those before."""
        now = self._watched_now(state)
        why = state.redefined(now[0])
        if self.watched not in (None, now):
            why = f"it now watches {now[0]} ({now[1]})"
        if why is not None and (self.best, self.since) != (None, None):
            self.best = self.since = None
            name = type(self.settings).__name__
            _LOGGER.warning("%s: the best value so far and the patience begin anew, because %s", name, why)

    def on_checkpoint(self, state: State) -> None:
        """Take in the value of an evaluation inside an epoch, which may be the best of the epoch."""
        metric = self._watched_now(state)[0]
        if state.steps_in_epoch and state.evaluated_step == state.step and metric in state.metrics:
            self._take_in(state.metrics[metric], state.epoch, state)

    def _watched_now(self, state: State) -> list[str]:
        return [self.settings.metric or state.monitor.metric, self.settings.mode or state.monitor.mode]

    def _take_in(self, value: float, epoch: int, state: State) -> None:
        self.watched = self._watched_now(state)
        if Monitor(mode=cast(Any, self.watched[1])).better(value, self.best, self.settings.min_delta):
            self.best, self.since = value, epoch

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as JSON."""
        return {"best": self.best, "since": self.since, "watched": self.watched}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best, self.since, self.watched = saved["best"], saved["since"], saved.get("watched")
