"""Writes the values of a run to MLflow."""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar

import attrs
from attrs.validators import ge

from trainkit.contracts import HARMLESS, Context, Logger, component
from trainkit.errors import RecipeError


@component
class MLflow(Logger):
    """Writes values, settings, texts and pictures to MLflow, in a thread of its own. It needs ``trainkit[mlflow]``.

    The run of MLflow has the tag "trainkit.run", the id of the run folder. A run that continues in its folder continues
    the same run of MLflow. MLflow cannot remove values, so those that a killed process wrote after its last checkpoint
    stay, and are not written again. A run that continues in a new folder is a new run of MLflow, with the tag
    "trainkit.parent"; its values begin there.

    Values of single steps are named ``step/…``; the step of all others is the number of finished epochs.

    Attributes:
        tracking_uri: The server or the store, for example "http://localhost:5000" or "sqlite:///mlflow.db"; default:
            MLFLOW_TRACKING_URI, or MLflow's own default. A password belongs into an environment variable of MLflow.
        experiment: The name of the experiment; default: the name of the run.
        pictures: Whether pictures are uploaded as artifacts.
        every_steps: Optimizer steps between two values of single steps; 0: none are written.
        gradient_norm_every_steps: Steps of an epoch between two gradients whose norms are computed; 0: none are.
        capacity: How many entries wait for the server at most; what comes then is lost, which is said.
    """

    steps_can_be_recorded: ClassVar[bool] = True

    tracking_uri: str | None = None
    experiment: str | None = None
    pictures: bool = True
    takes_late_values: ClassVar[bool] = True

    every_steps: int = attrs.field(default=50, validator=ge(0), metadata=HARMLESS)
    gradient_norm_every_steps: int = attrs.field(default=10, validator=ge(0), metadata=HARMLESS)
    capacity: int = attrs.field(default=1000, validator=ge(1), metadata=HARMLESS)

    def build(self, context: Context) -> object:
        """Make the live part."""
        if find_spec("mlflow") is None:
            raise RecipeError("this logger needs MLflow, which is not installed: pip install 'trainkit[mlflow]'")
        from trainkit.loggers.in_background import InBackground
        from trainkit.loggers.mlflow_live import MLflowRun

        return InBackground(MLflowRun(self), self.every_steps, self.gradient_norm_every_steps, capacity=self.capacity)
