"""Ends a run that no longer gets better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs.validators import ge, in_, lt, optional

from trainkit.contracts import Context, Hook, MetricName, Problem, component

if TYPE_CHECKING:
    from trainkit.recipe.root import Recipe
    from trainkit.state import State


@component
class EarlyStopping(Hook):
    """Ends the run, with a checkpoint, once a metric has not got better for some epochs.

    The patience counts anew from the start of the last parameter group: a stage still to come is never cut off. It is
    looked at only in epochs that have the metric; NaN and infinite values are no improvement.

    Attributes:
        metric: The value to watch, ``<split>/<name>``; not given: the recipe's ``[monitor]``.
        mode: Whether smaller ("min") or larger ("max") is better; not given: as ``[monitor]`` says.
        patience: Epochs without improvement after which the run ends; ≥ 1.
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
        monitor = recipe.monitor
        if self.metric is not None and self.metric != monitor.metric and self.mode is None:
            yield Problem(
                f'"{self.metric}" is read with mode "{monitor.mode}" of [monitor], which is about "{monitor.metric}";'
                " set mode here",
                "metric",
                "warning",
            )

    def build(self, context: Context) -> object:
        """Make the live part."""
        return _Watch(self)


@attrs.define
class _Watch:
    """Attributes: the best value so far, and the epoch from which the patience counts (both None before the first)."""

    settings: EarlyStopping
    best: float | None = None
    since: int | None = None

    def on_epoch_end(self, state: State) -> None:
        """Look at this epoch's value."""
        metric = self.settings.metric or state.monitor.metric
        if metric not in state.metrics:
            return
        value = state.metrics[metric]
        if self.since is None:
            self.since = state.epoch - 1
        if self._better(value, self.settings.mode or state.monitor.mode):
            self.best, self.since = value, state.epoch
        last_start = max(
            (each.start_epoch for each in state.groups.values() if each.start_epoch is not None), default=0
        )
        waited = state.epoch - max(self.since, last_start - 1)
        if waited >= self.settings.patience:
            best = "no finite value so far" if self.best is None else f"best {self.best:.6g}"
            state.stop(f"{metric} has not got better for {waited} epochs ({best}, now {value:.6g})")

    def _better(self, value: float, mode: Literal["min", "max"]) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        gain = self.best - value if mode == "min" else value - self.best
        return gain > self.settings.min_delta

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as JSON."""
        return {"best": self.best, "since": self.since}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take up where a run left off."""
        self.best, self.since = saved["best"], saved["since"]
