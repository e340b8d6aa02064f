"""Writes the values of a run to trackio."""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar

import attrs
from attrs.validators import ge

from trainkit.contracts import HARMLESS, Context, Logger, component
from trainkit.errors import RecipeError


@component
class Trackio(Logger):
    """Writes values, settings and pictures to the local database of trackio. It needs ``trainkit[trackio]``.

    ``trackio show`` opens its dashboard; the database is in the folder that the environment variable TRACKIO_DIR names,
    by default in the cache of Hugging Face. Values of single steps are named ``step/…``; the step of all others is the
    number of finished epochs.

    The run of trackio has the id of the run folder as its name. A run that continues in its folder continues it.
    trackio cannot remove values, so those that a killed process wrote after its last checkpoint stay, and are not
    written again. A run that continues in a new folder is a new run of trackio; its values begin there, and its
    setting "trainkit.parent" is the id of its parent.

    Attributes:
        project: The project; default: the name of the run.
        pictures: Whether pictures are written.
        every_steps: Optimizer steps between two values of single steps; 0: none are written.
        gradient_norm_every_steps: Steps of an epoch between two gradients whose norms are computed; 0: none are.
        capacity: How many entries wait to be written at most; what comes then is lost, which is said.
    """

    steps_can_be_recorded: ClassVar[bool] = True

    project: str | None = None
    pictures: bool = True
    takes_late_values: ClassVar[bool] = True

    every_steps: int = attrs.field(default=50, validator=ge(0), metadata=HARMLESS)
    gradient_norm_every_steps: int = attrs.field(default=10, validator=ge(0), metadata=HARMLESS)
    capacity: int = attrs.field(default=1000, validator=ge(1), metadata=HARMLESS)

    def build(self, context: Context) -> object:
        """Make the live part."""
        if find_spec("trackio") is None:
            raise RecipeError("this logger needs trackio, which is not installed: pip install 'trainkit[trackio]'")
        from trainkit.loggers.in_background import InBackground
        from trainkit.loggers.trackio_live import TrackioRun

        return InBackground(TrackioRun(self), self.every_steps, self.gradient_norm_every_steps, capacity=self.capacity)
