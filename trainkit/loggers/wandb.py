"""Writes the values of a run for Weights & Biases, into files that can be uploaded later."""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar

import attrs
from attrs.validators import ge

from trainkit.contracts import HARMLESS, Context, Logger, component
from trainkit.errors import RecipeError


@component
class WandB(Logger):
    """Writes values, settings, texts and pictures for Weights & Biases, without a network; needs ``trainkit[wandb]``.

    The files are in the folder ``wandb`` of the run folder, and ``wandb sync RUN_FOLDER/wandb/offline-run-*`` uploads
    them. Values of finished epochs have the x-axis "finished_epochs", and those of single steps, named ``step/…``, have
    "finished_steps".

    Each start of a run writes files of its own, for the same run of W&B, whose id is that of the run folder. What a
    killed process wrote after its last checkpoint cannot be removed from its files. It is written again, at the same x
    and with the same value. A run that continues in a new folder is a new run of W&B; its values begin there, and its
    setting "trainkit/parent" is the id of its parent.

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
        if find_spec("wandb") is None:
            raise RecipeError("this logger needs wandb, which is not installed: pip install 'trainkit[wandb]'")
        from trainkit.loggers.in_background import InBackground
        from trainkit.loggers.wandb_live import WandBRun

        return InBackground(WandBRun(self), self.every_steps, self.gradient_norm_every_steps, capacity=self.capacity)
