"""Detects that a metric has stopped improving; shared by `early_stopping` and `stop_group`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs.validators import ge, in_, lt, optional

from trainkit.contracts import Hook, MetricName, Monitor, Problem, component
from trainkit.events import Live

if TYPE_CHECKING:
    from trainkit.recipe.root import Recipe
    from trainkit.state import State


@component
class PatienceHook(Hook):
    """Does something once a metric has not got better for some epochs.

    It is looked at only in epochs that have the metric; NaN and infinite values are no improvement.

    Attributes:
        metric: The value to watch, ``<split>/<name>``; not given: the recipe's ``[monitor]``.
        mode: Whether smaller ("min") or larger ("max") is better; not given: as ``[monitor]`` says.
        patience: Epochs without improvement after which it happens; ≥ 1.
        min_delta: How much better than the best so far counts as improvement; the metric's own unit, ≥ 0.

    Source:
        Prechelt: "Early stopping - but when?" (1998), criterion UP.
    """

    metric: MetricName | None = None
    mode: Literal["min", "max"] | None = attrs.field(default=None, validator=optional(in_(("min", "max"))))
    patience: int = attrs.field(default=10, validator=ge(1))
    min_delta: float = attrs.field(default=0.0, validator=[ge(0), lt(math.inf)])

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what may keep the metric from being read the right way round."""
        yield from recipe.monitor.doubts(self.metric, self.mode)


@attrs.define
class Patience(Live):
    """Counts the epochs in which a metric has not got better; base of the live parts that do something then.

    Attributes:
        settings: What is watched, and for how long.
        best: The best value so far; None before the first.
        since: The epoch from which the patience counts; None before the first.
    """

    settings: PatienceHook
    best: float | None = None
    since: int | None = None

    def ended(self, state: State, first_epoch: int) -> str | None:
        """Take in this epoch's value; return what to say if the patience is at its end, else None.

        Args:
            state: At the end of an epoch.
            first_epoch: Patience never counts from before this one.
        """
        metric = self.settings.metric or state.monitor.metric
        if metric not in state.metrics:
            return None
        value = state.metrics[metric]
        if self.since is None:
            self.since = state.epoch - 1
        watched = Monitor(mode=self.settings.mode or state.monitor.mode)
        if watched.better(value, self.best, self.settings.min_delta):
            self.best, self.since = value, state.epoch
        waited = state.epoch - max(self.since, first_epoch - 1)
        if waited < self.settings.patience:
            return None
        best = "no finite value so far" if self.best is None else f"best {self.best:.6g}"
        return f"{metric} has not got better for {waited} epochs ({best}, now {value:.6g})"

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as JSON."""
        return {"best": self.best, "since": self.since}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over what an earlier run's `state_dict` returned."""
        self.best, self.since = saved["best"], saved["since"]
