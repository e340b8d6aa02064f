"""Warns if a value that the recipe watches is not computed, is not a number, or comes too rarely to act on."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from trainkit.errors import did_you_mean
from trainkit.events import Live
from trainkit.recipe.origin import dotted
from trainkit.recipe.rules import named_values
from trainkit.recipe.waiting import never_acting

if TYPE_CHECKING:
    from trainkit.recipe.root import Recipe
    from trainkit.state import State

_LOGGER = logging.getLogger("trainkit")


class WatchedValues(Live):
    """Part of every run: looks for each value that a setting names, such as ``monitor.metric``, once it must be there.

    The values of a split must be there after its first evaluation, and all others at the end of that epoch. What waits
    for a value that never comes (the best checkpoint, early stopping, a plateau schedule) would wait in silence.

    Args:
        recipe: The recipe.

    Attributes:
        is_checked: Whether the recipe is the one that was checked when the run began, so that what was found then need
            not be said again; a resume may have changed it.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self.is_checked = True
        self._wanted = {dotted(where): name for where, name in named_values(recipe)}
        self._evaluated_splits = recipe.evaluated_splits()
        self._finite = True
        self._evaluated_before = -1  # the step of the last evaluation of another process, whose values are not at hand

    def on_run_start(self, state: State) -> None:
        """Warn of parts that can never act, if that was not known before the steps per epoch were."""
        self._evaluated_before = state.evaluated_step
        known = {finding.where for finding in never_acting(self._recipe)} if self.is_checked else ()
        for finding in never_acting(self._recipe, state.steps_per_epoch):
            if finding.severity == "warning" and finding.where not in known:
                _LOGGER.warning(
                    "%s: %s", dotted(finding.where), ". ".join(filter(None, (finding.message, finding.hint)))
                )

    def on_checkpoint(self, state: State) -> None:
        """Look at the values after an evaluation, and at the end of an epoch."""
        if state.awaits_values or state.evaluated_step == self._evaluated_before:
            return
        for setting, name in [*self._wanted.items()]:
            if state.steps_in_epoch and name.partition("/")[0] not in self._evaluated_splits:
                continue
            del self._wanted[setting]
            if name not in state.metrics:
                hint = did_you_mean(name, state.metrics)
                _LOGGER.warning('%s = "%s", but no such value was computed; %s', setting, name, hint)
        value = state.metrics.get(state.monitor.metric, 0.0)
        if self._finite and not math.isfinite(value):
            self._finite = False
            when = f"step {state.step}" if state.steps_in_epoch else f"epoch {state.epoch}"
            _LOGGER.warning(
                "%s is %s after %s; it does not count as an improvement, and is not the best",
                state.monitor.metric,
                value,
                when,
            )
