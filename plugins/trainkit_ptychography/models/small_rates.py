"""Learning rates of positions that are too small to move anything in the epochs of a run.

Adam moves a value by about its learning rate in a step, so positions get no further than that times all steps. A scaled
step is the learning rate times what the patterns of a point ask for, and each point has one in an epoch. On
`mos2_sim.h5`, 40 epochs of Adam with 1e-5 pixels moved displacements from 0.0982 to 0.0979 Å of error; 3e-3 to 5e-3
correct them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainkit import Problem

if TYPE_CHECKING:
    from trainkit import Recipe

_POSITIONS = {"dr": "displacements", "scan": "the whole scan", "scan_shifts": "scans"}  # groups in pixels
_STEPS = 100  # of an epoch, as `trainkit plan` assumes without data
_LEAST_PIXELS = 0.05  # that positions must be able to move in all
_LEAST_STEPS = 0.1  # scaled steps of 1 that they must be able to make in all
_ADAM, _SCALED = ("Adam", "AdamW"), "ScaledSteps"


def small_rates(recipe: Recipe) -> Iterator[Problem]:
    """Yield a warning for each group of positions that will hardly move, whatever patterns ask for."""
    epochs = recipe.run.num_epochs()
    for name, moved in _POSITIONS.items():
        group = recipe.groups.get(name)
        if group is None or group.start_epoch is None or group.then or group.lr == 0:
            continue  # it does not train, or changes its rate, or is stopped on purpose
        optimizer = group.optimizer or recipe.optimizer
        rate = group.lr if group.lr is not None else (group.lr_factor or 1.0) * optimizer.lr
        stop = epochs if group.stop_epoch is None else min(group.stop_epoch, epochs)
        trained = stop - group.start_epoch
        kind = type(optimizer).__name__
        if trained < 1 or not type(optimizer).__module__.startswith("trainkit.optimizers."):
            continue
        if kind in _ADAM and (furthest := rate * trained * _STEPS) < _LEAST_PIXELS:
            yield Problem(
                f"groups.{name}.lr = {rate:g} is too small to matter: in {trained} epochs, {moved} move by at most "
                f"{furthest:.2g} pixels (with {_STEPS} steps in each). With {kind.lower()}, 3e-3 to 1e-2 pixels are "
                "usual",
                severity="warning",
            )
        elif kind == _SCALED and (made := rate * trained / (1 - _momentum(optimizer))) < _LEAST_STEPS:
            yield Problem(
                f"groups.{name}.lr = {rate:g} is too small to matter: in {trained} epochs, {moved} make "
                f"{100 * made:.2g} % of the step that patterns ask for. With scaled_steps, 1.0 is a whole step, and "
                "usual",
                severity="warning",
            )


def _momentum(optimizer: object) -> float:
    return float(getattr(optimizer, "momentum", 0.0))
