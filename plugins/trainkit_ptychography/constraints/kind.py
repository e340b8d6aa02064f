"""The kind "constraint": what is imposed on object or probe between optimizer steps. Other packages add their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import ge, optional

from trainkit import Component, Problem, component

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.objects.kind import LiveObject
    from trainkit_ptychography.probes.modes import ProbeModes


@component
class Constraint(Component):
    """Something that is imposed on object or probe after an optimizer step, for example limits of the phase.

    Attributes:
        start_epoch: The first epoch in which it is imposed.
        stop_epoch: The first epoch in which it is no longer imposed. If left out, it is imposed until the run ends.
        every_steps: It is imposed after every so many optimizer steps of the run.
        every_epochs: If it is given, it is imposed at the end of every so many epochs instead, before validation.
    """

    entry_points: ClassVar[str] = "trainkit.ptychography.constraints"

    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True
    of_object: ClassVar[bool] = True
    """Whether it changes the object; of an object of several modes, it is then imposed on each of them."""

    start_epoch: int = attrs.field(default=0, validator=ge(0))
    stop_epoch: int | None = attrs.field(default=None, validator=optional(ge(1)))
    every_steps: int = attrs.field(default=1, validator=ge(1))
    every_epochs: int | None = attrs.field(default=None, validator=optional(ge(1)))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check the epochs in which it is imposed."""
        epochs = recipe.run.num_epochs()
        if self.stop_epoch is not None and self.stop_epoch <= self.start_epoch:
            yield Problem(f"must come after the start: its start_epoch is {self.start_epoch}", "stop_epoch")
        elif self.every_epochs is not None and self.every_steps != 1:
            yield Problem("every_epochs is given, too: give only one of them", "every_steps")
        elif self.start_epoch >= epochs:
            yield Problem(f"the run has {epochs} epochs, so this is never imposed", "start_epoch", "warning")

    def imposed_at(self, epoch: int, step: int) -> bool:
        """Return whether it is imposed in an epoch (from 0) after ``step`` finished optimizer steps of the run.

        Example:
            >>> from trainkit_ptychography.constraints.limits import Limits
            >>> limits = Limits(start_epoch=1, stop_epoch=3, every_steps=2, max_amplitude=1.0)
            >>> [limits.imposed_at(epoch, step) for epoch, step in ((0, 2), (1, 3), (1, 4), (2, 6), (3, 8))]
            [False, False, True, True, False]
        """
        in_time = self.start_epoch <= epoch and (self.stop_epoch is None or epoch < self.stop_epoch)
        return in_time and step % self.every_steps == 0

    def imposed_after(self, epoch: int) -> bool:
        """Return whether it is imposed at the end of an epoch (from 0).

        Example:
            >>> from trainkit_ptychography.constraints.limits import Limits
            >>> limits = Limits(start_epoch=1, stop_epoch=6, every_epochs=2, max_amplitude=1.0)
            >>> [epoch for epoch in range(9) if limits.imposed_after(epoch)]
            [1, 3, 5]
        """
        in_time = self.start_epoch <= epoch and (self.stop_epoch is None or epoch < self.stop_epoch)
        return in_time and self.every_epochs is not None and (epoch + 1) % self.every_epochs == 0

    @abstractmethod
    def build(self, live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
        """Make the function that imposes it, in place; what does not train must stay as it is.

        Raises:
            RecipeError: It cannot be imposed on this object or probe.
        """
