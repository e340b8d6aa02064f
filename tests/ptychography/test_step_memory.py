"""What ``plan`` says of memory is what the tensors of a real step take, counted while they live."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from pathlib import Path

import attrs
import pytest
from clients.replays import OfCuda, recording_with

from trainkit import State
from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.events import Live
from trainkit.recipe.resolve import resolve_text
from trainkit.recipe.sharing import recorded
from trainkit.recipe.sharing_inspection import inspect_sharing
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
EVEN = ("data.validation_fraction=0.0625", "data.batch_size=10", "run.epochs=3")  # 60 patterns are trained on
LIMITS = ("model.constraints.limits.use=limits", "model.constraints.limits.max_amplitude=1.0")
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
    sets = (*SCAN, f"run.dir={tmp_path}", "run.repeat_steps=false", *sets)
    resolved = resolve_text(small_recipe(), tmp_path, sets)
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


class Counting(OfCuda):
    """Takes the place of CUDA graphs, and counts what each would keep: the tensors that live at once while it is made.

    Steps are made when they would be recorded, and once more when they would be repeated.
    """

    def __init__(self) -> None:
        self.kept: list[int] = []

    def warm_up(self, operations: Callable[[], None]) -> None:
        operations()

    def record(self, operations: Callable[[], None], changing: object = ()) -> Callable[[], None]:
        with PeakMemory() as memory:
            operations()
        self.kept.append(memory.peak)
        return operations

    def wait(self) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sets", "kinds"),
    [
        ((), 1),
        (("data.batch_size=7",), 2),  # and of 6
        ((*LIMITS, "model.constraints.limits.every_steps=2"), 2),
        ((*LIMITS, "model.constraints.limits.every_steps=2", "data.batch_size=7"), 4),
        ((*LIMITS, "model.constraints.limits.start_epoch=1"), 2),
        ((*LIMITS, "model.constraints.limits.every_epochs=1"), 1),  # it is no part of a step
        ((*SLICES, "model.coarse.few.slices=2", "model.coarse.few.stop_epoch=1"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_recorded_steps_keep_what_their_kinds_say(sets: tuple[str, ...], kinds: int, tmp_path: Path) -> None:
    graphs = Counting()
    resolved = resolve_text(small_recipe(), tmp_path, (*SCAN, *EVEN, f"run.dir={tmp_path}", *sets))
    recipe = attrs.evolve(resolved.recipe, run=attrs.evolve(resolved.recipe.run, cuda_graph=True))
    with recording_with(graphs):
        start(attrs.evolve(resolved, recipe=recipe), Console(quiet=True))
    epoch = recipe.data.epoch_size()
    assert epoch is not None
    found = recipe.model.step_memory(recipe, ceil(epoch.items / epoch.batches))
    assert found is not None
    assert (len(graphs.kept), found.kinds) == (kinds, kinds)
    kept = sum(graphs.kept) + (kinds + 1) * found.batch  # those of the recordings, and the one that arrives
    assert 0.85 * kept < found.step + recorded(recipe, found) < 1.25 * kept


@pytest.mark.parametrize(
    ("every_steps", "said"), [(1, "1 kind of steps, of which 1"), (10, "2 kinds of steps, of which 2")]
)
def test_plan_says_how_many_kinds_of_steps_are_recorded(every_steps: int, said: str, tmp_path: Path) -> None:
    sets = (*EVEN, *LIMITS, f"model.constraints.limits.every_steps={every_steps}", "run.cuda_graph=true")
    lines = inspect_sharing(resolve_text(small_recipe(), tmp_path, (*SCAN, "run.device=cuda", *sets)), 1, None).lines
    assert f"with at most {said} at a time are recorded" in lines[-1]
    assert "recorded steps" in lines[-3]


def test_what_was_not_counted_is_not_estimated(tmp_path: Path) -> None:
    recipe = resolve_text(small_recipe(probe="opr_modes = 1"), tmp_path).recipe
    assert recipe.model.step_memory(recipe, 4) is None
