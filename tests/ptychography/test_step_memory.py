"""What ``plan`` says of memory is what the tensors of a real step take, counted while they live."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import pytest

from trainkit import State
from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.events import Live
from trainkit.recipe.resolve import resolve_text
from trainkit_segmentation.models.peak_memory import PeakMemory

from .small_recipe import small_recipe

SCAN = (
    "run.epochs=1",
    "run.device=cpu",
    "data.scan_shape=[8, 8]",
    "data.detector_size=48",
    "validation.every_epochs=0",
)
MOVING = ("groups.probe.start_epoch=0", "groups.dr.start_epoch=0")
SLICES = ("model.slices=6", "model.thickness_angstrom=60.0")


class Counted(Live):
    """Counts the tensors of each step."""

    def __init__(self) -> None:
        self.peak = 0

    def on_step_start(self, state: State) -> None:
        self.memory = PeakMemory()
        self.memory.__enter__()

    def on_step_end(self, state: State) -> None:
        self.memory.__exit__(None, None, None)
        self.peak = max(self.peak, self.memory.peak)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sets",
    [
        (),
        ("model.probe.modes=3", "data.batch_size=20"),
        ("losses.data.use=poisson", *MOVING),
        (*SLICES, "model.probe.modes=2", "data.batch_size=12"),
        (*SLICES, "model.waves=recomputed"),
    ],
    ids=" ".join,
)
def test_a_step_takes_what_its_sizes_say(sets: tuple[str, ...], tmp_path: Path) -> None:
    resolved = resolve_text(small_recipe(), tmp_path, (*SCAN, f"run.dir={tmp_path}", *sets))
    recipe, counted = resolved.recipe, Counted()
    outcome = start(resolved, Console(quiet=True), extra={"counted": lambda run: counted})
    epoch = recipe.data.epoch_size()
    assert epoch is not None
    assert epoch.batches == outcome.run.state.data.batches_per_epoch
    found = recipe.model.step_memory(recipe, ceil(epoch.items / epoch.batches))
    assert found is not None
    assert 0.93 * counted.peak < found.step < 1.2 * counted.peak  # a step may come to take less than was counted
    tensors = [*outcome.run.state.model.parameters()]
    assert found.weights == pytest.approx(sum(each.nbytes for each in tensors), rel=0.01)


def test_what_was_not_counted_is_not_estimated(tmp_path: Path) -> None:
    recipe = resolve_text(small_recipe(probe="opr_modes = 1"), tmp_path).recipe
    assert recipe.model.step_memory(recipe, 4) is None
