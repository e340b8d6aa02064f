"""Ends the training of one parameter group while the others continue."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from trainkit.contracts import Context, Phase, Problem, Wait, component
from trainkit.errors import RecipeError, did_you_mean
from trainkit.hooks.patience import Patience, PatienceHook

if TYPE_CHECKING:
    from trainkit.recipe.root import Recipe
    from trainkit.state import State


@component
class StopGroup(PatienceHook):
    """Freezes a parameter group for the rest of the run when a metric has not improved for a number of epochs.

    Use it for parameters that overfit, such as scan positions, which can lower the training loss without coming nearer
    to the truth. The patience counts from the start of the group. The run ends when no group is left to train.
    With ``validation.beside = true``, the group trains for one epoch more.

    Attributes:
        group: The parameter group.
    """

    phase: ClassVar[Phase] = "mutate"

    group: str

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield a warning if ``mode`` may not fit the metric, and an error if the group does not exist."""
        yield from super().problems(recipe)
        known = recipe.groups if any(each.parameters for each in recipe.groups.values()) else recipe.model.groups()
        if known is not None and self.group not in known:
            yield Problem(f'the model has no group "{self.group}"; {did_you_mean(self.group, known)}', "group")

    def waits(self, recipe: Recipe) -> Iterable[Wait]:
        """Yield that the group is stopped at the end of the patience."""
        group = recipe.groups.get(self.group)
        start = 0 if group is None or group.start_epoch is None else group.start_epoch
        stop = None if group is None else group.stop_epoch
        acts = partial(self.first_end, first_epoch=start)
        yield Wait(f"stop the group {self.group}", "patience", acts, self.metric, start, stop)

    def build(self, context: Context) -> object:
        """Make the live part."""
        return _GroupWatch(self)


class _GroupWatch(Patience):
    settings: StopGroup

    def on_run_start(self, state: State) -> None:
        """Check that the group exists."""
        name = self.settings.group
        if name not in state.groups:
            raise RecipeError(f'hook stop_group: there is no group "{name}"; {did_you_mean(name, state.groups)}')

    def on_epoch_end(self, state: State) -> None:
        """Check the newest value of an epoch in which the group trained."""
        group = state.groups[self.settings.group]
        if not group.active or group.start_epoch is None:
            return
        for values in state.values_to_act_on:
            if group.trains_in(values.epoch) and (reason := self.ended(values, state, group.start_epoch)):
                state.stop_group(self.settings.group, reason)
