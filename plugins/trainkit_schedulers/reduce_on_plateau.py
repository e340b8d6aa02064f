"""Lowers the learning rate whenever a metric has stopped improving."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs
from attrs.validators import ge, gt, in_, lt, optional

from trainkit import Memory, MetricName, Monitor, Point, Problem, Scheduler, Wait, component

if TYPE_CHECKING:
    from trainkit import Recipe


_BEYOND_EVERY_RUN = 20_000  # epochs; check looks no further


@component
class ReduceOnPlateau(Scheduler):
    """Multiplies the learning rate by ``factor`` whenever a metric has stopped improving.

    For runs whose length is not known beforehand. The rule is that of torch's ``ReduceLROnPlateau``. An epoch without
    the metric (no validation in it) is not counted; one whose metric is NaN or infinite counts as bad. With
    ``validation.beside = true``, the rate changes one epoch later.

    Attributes:
        metric: The value to watch, ``<split>/<name>``; default: that of the recipe's ``[monitor]``.
        mode: Whether smaller ("min") or larger ("max") is better; default: that of ``[monitor]``.
        factor: What the learning rate is multiplied by; between 0 and 1.
        patience: Number of bad epochs in a row that are tolerated; the next one lowers the rate; ≥ 0.
        threshold: How much better the metric must be to count; ≥ 0.
        threshold_mode: Whether ``threshold`` is a fraction of the best value ("rel") or a difference from it ("abs").
        cooldown: Epochs after a reduction in which nothing counts as bad; ≥ 0.
        min_lr: The learning rate is not lowered below this; ≥ 0.
        eps: A reduction by no more than this is not made; ≥ 0.

    Source:
        torch.optim.lr_scheduler.ReduceLROnPlateau.
    """

    takes_late_values: ClassVar[bool] = True

    metric: MetricName | None = None
    mode: Literal["min", "max"] | None = attrs.field(default=None, validator=optional(in_(("min", "max"))))
    factor: float = attrs.field(default=0.5, validator=[gt(0), lt(1)])
    patience: int = attrs.field(default=10, validator=ge(0))
    threshold: float = attrs.field(default=1e-4, validator=[ge(0), lt(math.inf)])
    threshold_mode: Literal["rel", "abs"] = attrs.field(default="rel", validator=in_(("rel", "abs")))
    cooldown: int = attrs.field(default=0, validator=ge(0))
    min_lr: float = attrs.field(default=0.0, validator=[ge(0), lt(math.inf)])
    eps: float = attrs.field(default=1e-8, validator=[ge(0), lt(math.inf)])

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what keeps the metric from ever counting as better, or from being read the right way round."""
        if self.threshold_mode == "rel" and self.threshold >= 1:
            yield Problem(
                f'with threshold_mode = "rel" the threshold is a fraction, below 1; got {self.threshold}', "threshold"
            )
        yield from recipe.monitor.doubts(self.metric, self.mode)

    def waits(self, recipe: Recipe) -> Iterable[Wait]:
        """Yield that the rate is lowered after one bad epoch more than ``patience``."""
        yield Wait("reduce the learning rate", "patience", self._first_reduction, self.metric)

    def _first_reduction(self, epochs: Iterator[int]) -> int | None:
        if self.patience >= _BEYOND_EVERY_RUN:
            return None  # without counting so far
        return next(islice(epochs, self.patience + 1, None), None)  # the first is the value to improve on

    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        """Return the learning rate after the reductions so far."""
        for _ in range(memory.get("reductions", 0)):
            lower = max(lr * self.factor, self.min_lr)
            if lr - lower <= self.eps:
                break  # every further reduction would start from the same value
            lr = lower
        return Point(lr)

    def observe(self, memory: Memory, metrics: Mapping[str, float], monitor: Monitor) -> Memory:
        """Count an epoch as better or bad.

        Returns:
            ``best`` (None before any), ``bad`` epochs in a row, epochs of ``cooldown`` left, and ``reductions`` made.
        """
        metric = self.metric or monitor.metric
        if metric not in metrics:
            return memory
        value, best = metrics[metric], memory.get("best")
        bad, cooldown = memory.get("bad", 0), memory.get("cooldown", 0)
        reductions = memory.get("reductions", 0)
        mode = self.mode or monitor.mode
        limit = None if best is None else self._limit(best, mode)
        if Monitor(metric=monitor.metric, mode=mode).better(value, limit):
            best, bad = value, 0
        else:
            bad += 1
        if cooldown > 0:
            cooldown, bad = cooldown - 1, 0
        if bad > self.patience:
            reductions, cooldown, bad = reductions + 1, self.cooldown, 0
        return {"best": best, "bad": bad, "cooldown": cooldown, "reductions": reductions}

    def _limit(self, best: float, mode: Literal["min", "max"]) -> float:
        """Return what a metric must be better than to count, rounded as torch does it."""
        threshold = -self.threshold if mode == "min" else self.threshold
        return best * (1.0 + threshold) if self.threshold_mode == "rel" else best + threshold

    def forget(self, memory: Memory) -> Memory:
        """Return the reductions alone, so that the learning rate stays as it is."""
        return {"reductions": memory.get("reductions", 0)}
