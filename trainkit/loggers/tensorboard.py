"""Writes curves, pictures, texts and hyperparameters for TensorBoard."""

from __future__ import annotations

from typing import ClassVar

import attrs
from attrs.validators import ge

from trainkit.contracts import HARMLESS, Context, Logger, component


@component
class TensorBoard(Logger):
    """Writes curves, pictures, texts and hyperparameters for TensorBoard, into ``tensorboard/`` of the run folder.

    There is one writer for each split, so that ``train`` and ``val`` share a chart. The x-axis of all charts is the
    number of finished epochs, except for those in the group ``step``, where it is the number of finished optimizer
    steps of the run.

        loss/total, loss/<name>     the weighted sum of the losses, and each loss if there are several
        metrics/<name>              metrics; those of single classes are in groups of their own, metrics_<name>/<class>
        lr/<group>                  learning rates; 0 while a group does not train
        grad_norm/<group>           L2 norm of a group's gradient before it is clipped, a mean over the epoch
        stages/<group>_optimization_started, …_stopped    1.0 where a group starts or stops to train
        time/…                      seconds of an epoch, and the share of the steps' time spent waiting for data
        values/<full name>          what parts log under other names
        step/…                      the same over steps: single steps, and evaluations inside an epoch
        best/<full name>            held-out values of the best epoch so far, by [monitor]

    The page of hyperparameters shows the settings of all runs below ``--logdir``, first those in which they differ.
    Pictures are sorted by what they are worth. The recipe and what each resume changed are texts. To see all pictures,
    use ``tensorboard --logdir … --samples_per_plugin=images=200``; by default it keeps 10 random ones of each name.

    Attributes:
        every_steps: Optimizer steps between two values of single steps; 0: none are written.
        gradient_norm_every_steps: Steps of an epoch between two gradients whose norms are computed, beginning with the
            first one; 0: none are. It takes about 4 µs on a CPU, and launches as many kernels on a GPU, for each
            parameter tensor; nothing waits for the device.
    """

    steps_can_be_recorded: ClassVar[bool] = True

    takes_late_values: ClassVar[bool] = True

    every_steps: int = attrs.field(default=50, validator=ge(0), metadata=HARMLESS)
    gradient_norm_every_steps: int = attrs.field(default=10, validator=ge(0), metadata=HARMLESS)

    def build(self, context: Context) -> object:
        """Make the live part."""
        from trainkit.loggers.tensorboard_live import LiveTensorBoard

        return LiveTensorBoard(self)
