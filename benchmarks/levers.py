"""Measures what the levers of a run give: CPU seconds per step and peak memory, for the U-Net of the hippocampi.

Each variant trains the same network (16-32-64-128, Dice + cross-entropy, Adam) on two patches of 48³ a step, in a
process of its own with one thread. A step is timed from the end of one to the end of the next, and the result is the
median. Memory is the largest resident size of the process in its steps, beyond what it had before the first one. The
values are those of a CPU: which lever pays on a GPU is another question.

    python benchmarks/levers.py [--steps 8] [--only bf16 …]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VARIANTS = {
    "none": (),
    "accumulate 2 × 1 patch": ("run.accumulate=2", "data.batch_size=1"),
    "ema": ("ema.decay=0.999",),
    "bf16": ("run.precision=bf16",),
    "fp16": ("run.precision=fp16",),
    "channels_last": ("run.channels_last=true",),
    "activation_checkpointing": ("run.activation_checkpointing=true",),
    "compile": ("run.compile=true",),
}
RECIPE = """
trainkit = 1
[run]
name = "levers"
epochs = 1
device = "cpu"
threads = 1
[validation]
every_epochs = 0
[pictures]
every_epochs = 0
[data]
use = "segmentation_synthetic"
num_cases = 4
size = [48, 48, 48]
patch_size = [48, 48, 48]
batch_size = 2
[model]
use = "unet"
channels = [16, 32, 64, 128]
[losses.overlap]
use = "dice_ce"
[inference]
use = "sliding_window"
"""


class Stopwatch:
    """Records when each step ends, and ends the run after the last one."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.ends: list[float] = []
        self.before = 0

    def on_step_start(self, state: object) -> None:
        if not self.ends:
            self.before = _resident()

    def on_step_end(self, state: object) -> None:
        self.ends.append(time.process_time())
        if len(self.ends) == self._steps:
            raise _Enough


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure(variant: str, steps: int) -> dict[str, float]:
    """Run one variant in this process."""
    from trainkit.console import Console
    from trainkit.engine import run_folder
    from trainkit.engine.build import build
    from trainkit.engine.loop import train
    from trainkit.recipe.resolve import resolve_text

    batches = steps * (2 if "accumulate" in variant else 1)
    resolved = resolve_text(RECIPE, Path.cwd(), [f"data.steps_per_epoch={batches}", *VARIANTS[variant]])
    began = time.process_time()
    with run_folder.created(resolved) as folder, Console(quiet=True).capture_logging():
        run = build(resolved, folder)
        watch = Stopwatch(steps)
        run.add("stopwatch", watch)
        with contextlib.suppress(_Enough):
            train(run)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - watch.before
    laps = [b - a for a, b in zip(watch.ends, watch.ends[1:], strict=False)]
    return {
        "seconds per step": statistics.median(laps[1:]),
        "peak MiB": peak / 2**20,
        "seconds to first step": watch.ends[0] - began,
    }


class _Enough(BaseException):
    """Ends the run before its validation, which is not measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--here", choices=VARIANTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        sys.stdout.write(json.dumps(measure(given.here, given.steps)))
        return
    sys.stdout.write(f"{'lever':26}{'s/step':>8}{'peak MiB':>10}{'first step s':>14}\n")
    for variant in given.only:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--here", variant, "--steps", str(given.steps)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": folder}
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
        if done.returncode:
            sys.stdout.write(f"{variant:26}{(done.stderr.strip().splitlines() or ['?'])[-1]}\n")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        seconds, peak, first = found.values()
        sys.stdout.write(f"{variant:26}{seconds:8.3f}{peak:10.0f}{first:14.1f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
