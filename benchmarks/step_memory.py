"""Compares the memory that ``trainkit plan --processes`` estimates for a step with the peak of a real step on a CPU.

    python benchmarks/step_memory.py

Each recipe is trained for three steps in a process of its own. The estimate is that of everything a step takes besides
weights, optimizer and data. "tensors": the tensors that lived at once in a real step. "resident": how far the resident
memory of the process rises above what it was before the first step (``VmHWM`` of Linux, reset there); with it, what
libraries of the CPU take for themselves, such as the work space of convolutions, is counted too.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from math import ceil
from pathlib import Path

from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.events import Live
from trainkit.recipe.resolve import Resolved, resolve
from trainkit.state import State
from trainkit_segmentation.models.peak_memory import PeakMemory

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
SYNTHETIC = (
    "data.num_cases=4",
    "data.size=[96, 96, 96]",
    "scheduler.use=none",
    'drop=["metrics"]',
    "monitor.metric=val/loss",
    "monitor.mode=min",
)
SIMULATED = ("data.scan_shape=[16, 16]", "scheduler.use=none", 'drop=["groups"]')
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "unet, 2 patches of 64³": ("segmentation_synthetic", ("data.batch_size=2", "data.patch_size=[64, 64, 64]")),
    "unet, 4 patches of 64³": ("segmentation_synthetic", ("data.batch_size=4", "data.patch_size=[64, 64, 64]")),
    "unet, 1 patch of 96³": ("segmentation_synthetic", ("data.batch_size=1", "data.patch_size=[96, 96, 96]")),
    "64 patterns of 128²": ("ptycho_staged", ("data.batch_size=64", "data.detector_size=128")),
    "64 patterns of 128², 4 modes": (
        "ptycho_staged",
        ("data.batch_size=64", "data.detector_size=128", "model.probe.modes=4"),
    ),
    "64 patterns of 128², 8 slices": (
        "ptycho_staged",
        (
            "data.batch_size=64",
            "data.detector_size=128",
            "model.slices=8",
            "model.thickness_angstrom=80.0",
            'optimizer={use="adam"}',
        ),
    ),
}


def resolved(recipe: str, sets: Sequence[str]) -> Resolved:
    """Return the recipe of a case."""
    common = SYNTHETIC if recipe.startswith("segmentation") else SIMULATED
    return resolve(RECIPES / f"{recipe}.toml", (*common, "run.steps=3", "run.device=cpu", *sets))


class Peak(Live):
    """Measures by how much the resident memory rises during the steps of a run."""

    def __init__(self) -> None:
        self.before = self.peak = self.tensors = 0

    def on_step_start(self, state: State) -> None:
        """Note what is there before the first step."""
        if not self.before:
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _status("VmRSS")
        self.counted = PeakMemory()
        self.counted.__enter__()

    def on_step_end(self, state: State) -> None:
        """Note the peak so far."""
        self.counted.__exit__(None, None, None)
        self.tensors = max(self.tensors, self.counted.peak)
        self.peak = _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def measured(name: str) -> tuple[int, int]:
    """Train a case in this process; return the bytes of its tensors, and by how many bytes its memory rose."""
    peak = Peak()
    with tempfile.TemporaryDirectory() as folder:
        start(
            resolved(CASES[name][0], (*CASES[name][1], f"run.dir={folder}")),
            Console(quiet=True),
            extra={"peak": lambda run: peak},
        )
    return peak.tensors, peak.peak - peak.before


def main() -> None:
    """Print a row for each case."""
    titles = "".join(f"{title:>14}" for title in ("estimate", "tensors", "resident"))
    print(f"{'step':32}{titles}{'ratio':>10}{'ratio':>10}")
    for name, (recipe, sets) in CASES.items():
        settings = resolved(recipe, sets).recipe
        epoch = settings.data.epoch_size()
        size = settings.data.batch_size  # type: ignore[attr-defined]  # data with batches
        if epoch is not None and recipe.startswith("ptycho"):
            size = ceil(epoch.items / epoch.batches)  # batches of a scan differ in size by at most one
        memory = settings.model.step_memory(settings, size)
        assert memory is not None
        said = subprocess.check_output([sys.executable, __file__, name], text=True).splitlines()[-1]
        tensors, resident = map(int, said.split())
        cells = "".join(f"{size / 2**20:10.0f} MiB" for size in (memory.step, tensors, resident))
        print(f"{name:32}{cells}{tensors / memory.step:10.2f}{resident / memory.step:10.2f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*measured(sys.argv[1]))
    else:
        main()
