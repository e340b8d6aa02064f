"""A guard against slowness that asks no clock: what fixed small runs count must be what `costs.toml` says.

A number that has grown names what became dearer; one that has shrunk is to be written down, so that it stays there.

    PYTHONPATH=tests python tests/core/test_costs.py    writes the numbers anew
"""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
import torch
from clients import crash_points
from clients.device_paths import as_on_a_device
from clients.replays import Replays, recording_with
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from core.test_devices import epoch_without_values
from trainkit.engine.build import build
from trainkit.engine.every_run import progress_chart
from trainkit.engine.loop import _train_epoch
from trainkit.engine.run_folder import created
from trainkit.recipe.resolve import resolve
from trainkit.recipe.shipped import shipped

FILE = Path(__file__).parent / "costs.toml"
VERSION = ".".join(torch.__version__.split(".")[:2])
STEPS: dict[str, tuple[str, ...]] = {
    "ptycho_staged": ("losses.data.use=amplitude",),
    "ptycho_thick_simulated": (),
    "ptycho_hash": (),
}
REPEATED: dict[str, tuple[str, ...]] = {"rates_by_epoch": (), "rates_by_step": ("scheduler.by=step",)}
VIEWS = {
    *("_conj", "_neg_view", "_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "diagonal", "expand"),
    *("imag", "lift_fresh", "permute", "real", "select", "slice", "split", "split_with_sizes", "squeeze", "t"),
    *("transpose", "unbind", "unfold", "unsqueeze", "view", "view_as_complex", "view_as_real"),
}
NOTES = {"_record_function_enter_new", "_record_function_exit", "profiler"}  # for a profiler, by torch's optimizers


class Launches(TorchDispatchMode):
    """Counts operations that a GPU would be asked for: all but views."""

    def __init__(self, graphs: Replays | None = None) -> None:
        super().__init__()
        self.number = 0
        self._graphs = graphs  # what these record and repeat is not counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._graphs is None or not self._graphs.inside:
            self.number += func._schema.name.rpartition("::")[2] not in VIEWS | NOTES
        return func(*args, **(kwargs or {}))


def launches(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """Return how many operations a step asks a device for, with all groups on."""
    counted = Launches()
    run, _ = epoch_without_values(name, STEPS[name], folder, monkeypatch, watcher=counted)
    return counted.number / run.state.step


class BetweenSteps:
    """Counts what is asked of a device from the end of one step to that of the next, where that one is repeated."""

    def __init__(self, counted: Launches, graphs: Replays) -> None:
        self._counted, self._graphs = counted, graphs
        self._before = (0, 0, 0)
        self.of_repeats: list[int] = []

    def on_step_end(self, state: Any) -> None:
        """Count the operations outside of recordings, and one for each recording that was repeated."""
        repeats = sum(self._graphs.repeats.values())
        now = (self._counted.number, repeats, len(self._graphs.recorded))
        asked, repeated, recorded = (after - before for after, before in zip(now, self._before, strict=True))
        self._before = now
        if repeated and not recorded:
            self.of_repeats.append(asked + repeated)


def launches_of_repeats(folder: Path, *sets: str) -> float:
    """Return how many operations a repeated step asks a device for, with all groups on, its batch included."""
    graphs = Replays()
    counted = Launches(graphs)
    small = ("data.scan_shape=[6, 6]", "data.detector_size=24", "data.batch_size=6", "run.threads=1")
    at_once = ("groups.probe.start_epoch=0", "groups.dr.start_epoch=0", f"run.dir={folder}")
    only = "drop=['loggers.tensorboard', 'hooks.truth']"
    with recording_with(graphs), as_on_a_device():
        resolved = resolve(shipped()["ptycho_staged"], (only, *small, *at_once, "run.cuda_graph=true", *sets))
        with created(resolved) as into:
            run = build(resolved, into)
        between = BetweenSteps(counted, graphs)
        run.add("between", between)
        run.emit("run_start")
        with counted:
            _train_epoch(run)
    return max(between.of_repeats)


ON_CPU = {"made": "run.repeat_steps=false", "repeated": "run.repeat_steps=true"}


def of_cpu(folder: Path, setting: str) -> tuple[float, float]:
    """Return how often a step of ptychography takes memory on the CPU, and how many operations it performs."""
    small = ("data.scan_shape=[8, 8]", "data.detector_size=32", "data.batch_size=8", "run.device=cpu", "run.threads=1")
    at_once = ("groups.probe.start_epoch=0", "groups.dr.start_epoch=0", f"run.dir={folder}")
    resolved = resolve(shipped()["ptycho_staged"], (*small, *at_once, setting))
    with created(resolved) as into:
        run = build(resolved, into)
    run.emit("run_start")
    for epoch in range(1, 20):  # what is made once is made, and steps of both sizes are repeated
        _train_epoch(run)
        run.state.epoch, run.state.epoch_step = epoch, run.state.step
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        _train_epoch(run)
    events = seen.profiler.kineto_results.events()
    taken = sum(event.name() == "[memory]" and event.nbytes() > 0 for event in events)
    performed = sum(event.name().startswith("aten::") for event in events)
    return taken / run.state.steps_per_epoch, performed / run.state.steps_per_epoch


LEAVES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("ptycho_staged", "ptycho_thick_simulated"),
        ("data.scan_shape=[8, 8]", "data.detector_size=32", "data.batch_size=8"),
    ),
    "segmentation_synthetic": ("data.steps_per_epoch=8", "data.patch_size=[16, 16, 16]", "model.channels=[4, 8]"),
}


def bytes_left_by_steps(name: str, folder: Path) -> int:
    """Return by how many bytes the tensors that somebody holds have grown in 48 steps, each made as usual."""
    usual = ("run.repeat_steps=false", "run.device=cpu", "run.threads=1", "run.epochs=99", f"run.dir={folder}")
    resolved = resolve(shipped()[name], (*LEAVES[name], *usual))
    with created(resolved) as into:
        run = build(resolved, into)
    run.emit("run_start")
    held = []
    for epoch in range(1, 10):
        _train_epoch(run)
        run.state.epoch, run.state.epoch_step = epoch, run.state.step
        gc.collect()
        memories = {
            each.untyped_storage()._cdata: each.untyped_storage().nbytes()
            for each in gc.get_objects()
            if isinstance(each, torch.Tensor)
        }
        held.append(sum(memories.values()))
    assert run.state.step == 72
    return held[8] - held[2]


def file_operations(folder: Path) -> dict[str, int]:
    """Return how often a run of three epochs with twelve checkpoints and TensorBoard changes files, by kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress_chart, "draw", lambda *_: None)  # as in all tests
        code, seen = crash_points.in_child(folder, crash_points.run)
    assert code == 0
    return dict(sorted(Counter(each.partition(" ")[0] for each in seen).items()))


def imports(*command: str) -> int:
    """Return how many modules a command has imported when it ends."""
    code = (
        "import atexit, sys; atexit.register(lambda: print(f'\\nmodules {len(sys.modules)}'));"
        "from trainkit.cli import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    found = re.search(r"^modules (\d+)$", done.stdout, re.MULTILINE)
    assert found is not None
    return int(found[1])


def imports_until_the_first_step(folder: Path) -> int:
    """Return how many modules a run has imported after its first step, most of them torch's."""
    code = (
        "import os, sys; from trainkit.engine.step import Step; update = Step.update\n"
        "def first(step): update(step); print(f'\\nmodules {len(sys.modules)}', flush=True); os._exit(0)\n"
        "Step.update = first\nfrom trainkit.cli import main; main()"
    )
    small = ("data.scan_shape=[8, 8]", "data.detector_size=32", "run.device=cpu", f"run.dir={folder}")
    options = [part for each in small for part in ("--set", each)]
    command = [sys.executable, "-c", code, "run", "ptycho_staged", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"^modules (\d+)$", done.stdout, re.MULTILINE)
    assert found is not None
    return int(found[1])


COMMANDS = {"help": ("--help",), "check": ("check", "ptycho_staged"), "plan": ("plan", "ptycho_staged")}


@pytest.fixture(scope="module")
def costs() -> dict[str, Any]:
    """The numbers of the repository."""
    read = tomli.loads(FILE.read_text())
    if read["torch"] != VERSION:
        pytest.skip(f"the numbers are those of torch {read['torch']}, and this is {VERSION}")
    return read


def hold(now: float, then: float, share: float = 0.02) -> None:
    """Hold a number against that of the repository."""
    advice = "if that is meant, write the numbers anew: PYTHONPATH=tests python tests/core/test_costs.py"
    assert now <= then * (1 + share), f"dearer: {now:g}, it was {then:g}; {advice}"
    assert now >= then * (1 - 5 * share), f"cheaper: {now:g}, it was {then:g}; {advice}"


@pytest.mark.filterwarnings("ignore:.*to a meta parameter in the current model:UserWarning")
@pytest.mark.parametrize("name", STEPS)
def test_a_step_asks_a_device_for_as_much_as_before(
    name: str, costs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hold(launches(name, tmp_path, monkeypatch), costs["launches_a_step"][name])


@pytest.mark.parametrize("by", REPEATED)
def test_a_repeated_step_asks_a_device_for_as_much_as_before(
    by: str, costs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert launches_of_repeats(tmp_path, *REPEATED[by]) == costs["launches_a_repeated_step"][by]


@pytest.mark.parametrize("how", ON_CPU)
def test_a_step_on_a_cpu_costs_as_much_as_before(how: str, costs: dict[str, Any], tmp_path: Path) -> None:
    taken, performed = of_cpu(tmp_path, ON_CPU[how])
    hold(taken, costs["allocations_a_step"][how])
    hold(performed, costs["operations_a_step"][how])


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch's objects that are looked at
@pytest.mark.parametrize("name", LEAVES)
def test_steps_leave_nothing_behind(name: str, tmp_path: Path) -> None:
    assert bytes_left_by_steps(name, tmp_path) < 2**16


@pytest.mark.slow
@pytest.mark.skipif(threading.active_count() > 8, reason="forks, which many threads do not survive")
def test_a_run_changes_files_as_often_as_before(costs: dict[str, Any], tmp_path: Path) -> None:
    assert file_operations(tmp_path) == costs["file_operations"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_as_much_as_before(command: str, costs: dict[str, Any]) -> None:
    hold(imports(*COMMANDS[command]), costs["modules_imported"][command], share=0.05)


@pytest.mark.slow
def test_a_run_imports_as_much_as_before_until_its_first_step(costs: dict[str, Any], tmp_path: Path) -> None:
    hold(imports_until_the_first_step(tmp_path), costs["modules_imported"]["first_step"], share=0.05)


def _tables() -> Iterator[tuple[str, dict[str, float]]]:
    import tempfile

    def each(compute: Callable[[Path, pytest.MonkeyPatch], Any]) -> Any:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            return compute(Path(folder), patch)

    yield "launches_a_step", {name: each(lambda f, p, n=name: launches(n, f, p)) for name in STEPS}
    repeats = {by: each(lambda f, _, s=sets: launches_of_repeats(f, *s)) for by, sets in REPEATED.items()}
    yield "launches_a_repeated_step", repeats
    on_cpu = {how: each(lambda folder, _, s=setting: of_cpu(folder, s)) for how, setting in ON_CPU.items()}
    yield "allocations_a_step", {how: taken for how, (taken, _) in on_cpu.items()}
    yield "operations_a_step", {how: performed for how, (_, performed) in on_cpu.items()}
    yield "file_operations", each(lambda folder, _: file_operations(folder))
    first_step = {"first_step": each(lambda folder, _: imports_until_the_first_step(folder))}
    yield "modules_imported", {name: imports(*command) for name, command in COMMANDS.items()} | first_step


if __name__ == "__main__":
    lines = [
        "# What fixed small runs count. Written by: PYTHONPATH=tests python tests/core/test_costs.py",
        f'torch = "{VERSION}"',
    ]
    for table, numbers in _tables():
        lines += ["", f"[{table}]", *(f"{name} = {number:g}" for name, number in numbers.items())]
    FILE.write_text("\n".join(lines) + "\n")
