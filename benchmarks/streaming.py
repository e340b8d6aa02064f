"""Measures what large scans cost: a streamed epoch beside one in memory, memory, and how time and memory grow.

    python benchmarks/streaming.py [--large] [--rounds 3]

Scans are simulated as `diffraction_simulated` does, and stored as uint16 in an HDF5 file. Each case trains in a process
of its own, in turns. Times are those of an epoch's steps, by the clock and in CPU seconds of the whole process; the aim
is held by the least of each. On a busy machine, epochs differ from themselves by more than streaming costs; so what
batches alone take, streamed and in memory, is printed as well. Memory is the largest resident memory of the process,
less that with a scan of 256 patterns.

``--large`` adds 65,536 patterns of 128², whose file takes 2.1 GB, streamed by a process that may take 2 GB for them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from math import isqrt
from pathlib import Path
from typing import Any

import h5py
import numpy as np

AIM_STREAMED, AIM_MEMORY, AIM_LARGE_BYTES, AIM_LINEAR = 1.05, 1.1, 2e9, 1.25
STRIP = 16  # rows of scan points that are simulated at a time
BATCH = 64
TURNS = 7  # epochs of batches alone

RECIPE = """
trainkit = 1
[run]
name = "streaming"
epochs = {epochs}
device = "cpu"
threads = 1
dir = "{folder}"
[data]
use = "diffraction_hdf5"
path = "{path}"
patterns = "intensity"
positions = "positions"
positions_unit = "angstrom"
zero_frequency = "corner"
energy_kev = 80.0
pixel_size_angstrom = {pixel}
semiangle_mrad = 25.0
defocus_angstrom = 60.0
batch_size = {batch}
patterns_on = "{where}"
validation_fraction = 0.01
[model]
use = "ptychography"
probe = {{ use = "aperture", modes = {modes} }}
[losses.data]
use = "poisson"
[optimizer]
use = "scaled_steps"
[groups.probe]
start_epoch = 0
[groups.dr]
start_epoch = 0
[checkpoint]
every_epochs = 0
[validation]
every_epochs = 0
[pictures]
every_epochs = 0
"""


def simulated(folder: Path, num: int, size: int) -> Path:
    """Return the file of a square scan of so many patterns of so many rows and columns; it is made once."""
    from trainkit_ptychography.scans.simulated import SimulatedDiffraction
    from trainkit_ptychography.scans.simulated_live import simulate

    path, width = folder / f"scan-{num}-{size}.h5", isqrt(num)
    if path.exists():
        return path
    with h5py.File(path, "w") as file:
        frames = file.create_dataset("intensity", (num, size, size), np.uint16)
        places_N2 = np.empty((num, 2))
        rows = min(STRIP, width)
        for start in range(0, width, rows):
            settings = SimulatedDiffraction(
                scan_shape=(rows, width), detector_size=size, step_angstrom=0.5, dose_per_square_angstrom=1e6,
                energy_kev=80.0, semiangle_mrad=25.0, defocus_angstrom=60.0, batch_size=1, seed=start,
            )  # fmt: skip
            made = simulate(settings)
            part, pixel = slice(start * width, (start + rows) * width), made.scan.pixel_size_angstrom
            frames[part] = np.minimum(np.asarray(made.intensities_NYX), 2**16 - 1).astype(np.uint16)
            places_N2[part] = made.scan.positions_N2 * pixel + (start * 0.5, 0.0)
        file["positions"] = places_N2
        file.attrs["pixel"] = pixel
    return path


def train(path: Path, where: str, modes: int, steps: int, epochs: int) -> dict[str, Any]:
    """Train in this process, and return seconds of each epoch and the largest memory."""
    from trainkit import State
    from trainkit.engine.build import build
    from trainkit.engine.loop import train as train_run
    from trainkit.engine.run_folder import created
    from trainkit.recipe.resolve import resolve_text

    class Watch:
        wall: list[float] = []  # noqa: RUF012
        cpu: list[float] = []  # noqa: RUF012

        def on_epoch_start(self, state: State) -> None:
            self.began = time.perf_counter(), time.process_time()

        def on_step_end(self, state: State) -> None:
            if state.steps_in_epoch == min(steps, state.steps_per_epoch):
                self.wall.append((time.perf_counter() - self.began[0]) / state.steps_in_epoch)
                self.cpu.append((time.process_time() - self.began[1]) / state.steps_in_epoch)
                if steps < state.steps_per_epoch:
                    state.stop("measured")

    with h5py.File(path) as file:
        pixel = float(file.attrs["pixel"])
    with tempfile.TemporaryDirectory() as folder:
        text = RECIPE.format(
            folder=folder, path=path, where=where, modes=modes, pixel=pixel, batch=BATCH, epochs=epochs
        )
        resolved = resolve_text(text, Path(folder))
        began = time.process_time()
        with created(resolved) as into:
            run = build(resolved, into)
        opening = time.process_time() - began
        run.add("watch", Watch())
        train_run(run)
    return {"wall": Watch.wall, "cpu": Watch.cpu, "opening": opening, "peak": peak_bytes()}


def batches_alone(path: Path) -> dict[str, float]:
    """Return the least CPU seconds of a batch of an epoch, in memory and streamed, in turns."""
    from torch import device, set_num_threads

    from trainkit import Context
    from trainkit.recipe.resolve import resolve_text

    set_num_threads(1)
    with h5py.File(path) as file:
        pixel = float(file.attrs["pixel"])
    with tempfile.TemporaryDirectory() as folder:
        opened = {}
        for where in ("device", "disk"):
            text = RECIPE.format(folder=folder, path=path, where=where, modes=1, pixel=pixel, batch=BATCH, epochs=1)
            data = resolve_text(text, Path(folder)).recipe.data
            opened[where] = data.build(Context(0, device("cpu"), Path(folder)))
        seconds: dict[str, list[float]] = {where: [] for where in opened}
        for epoch in range(TURNS):
            for where, data in opened.items():
                began = time.process_time()
                number = sum(1 for _ in data.train(epoch, 0))
                seconds[where].append((time.process_time() - began) / number)
    return {where: min(each) for where, each in seconds.items()}


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def measured(path: Path, where: str, modes: int = 1, steps: int = 10**9, epochs: int = 1) -> dict[str, Any]:
    """Train in a process of its own."""
    return in_process_of_its_own(path, "--train", json.dumps([str(path), where, modes, steps, epochs]))


def in_process_of_its_own(path: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{path.name}, {' '.join(options)}: failed\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num", type=int, default=16384, help="patterns of the scan that is streamed")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--folder", type=Path, help="where scans are kept for the next time")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--batches", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.batches:
        print(json.dumps(batches_alone(given.batches)))
        return
    if given.train:
        path, where, modes, steps, epochs = json.loads(given.train)
        print(json.dumps(train(Path(path), where, modes, steps, epochs)))
        return
    missed: list[str] = []

    def hold(name: str, value: float, aim: float) -> None:
        print(f"{name}: {value:.3g}; aim: at most {aim:.3g}", flush=True)
        if value > aim:
            missed.append(name)

    with tempfile.TemporaryDirectory() as own:
        folder = (given.folder or Path(own)).resolve()
        folder.mkdir(exist_ok=True)
        streamed_beside_kept(folder, given, hold)
        growth(folder, hold)
        if given.large:
            path = simulated(folder, 65536, 128)
            empty = measured(simulated(folder, 256, 128), "disk", steps=4)
            large = measured(path, "disk", steps=100)
            print(
                f"65,536 patterns of 128²: {1e3 * large['wall'][0]:.1f} ms a step, {1e6 * large['cpu'][0] / BATCH:.0f} "
                f"CPU µs a pattern, opened in {large['opening']:.0f} CPU s"
            )
            hold("memory of 65,536 patterns of 128², bytes", large["peak"] - empty["peak"], AIM_LARGE_BYTES)
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


def streamed_beside_kept(folder: Path, given: argparse.Namespace, hold: Any) -> None:
    path = simulated(folder, given.num, 64)
    empty = measured(simulated(folder, 256, 64), "device", steps=3)
    kept, streamed = [], []
    for _ in range(given.rounds):
        kept.append(measured(path, "device", epochs=3))
        streamed.append(measured(path, "disk", epochs=3))
    ratios = {}
    for what in ("wall", "cpu"):
        one, other = (min(second for each in runs for second in each[what]) for runs in (kept, streamed))
        ratios[what] = other / one
        print(
            f"{given.num:,} patterns of 64², ms a step of {BATCH}, {what}: in memory {1e3 * one:.2f}, streamed "
            f"{1e3 * other:.2f}, ratio {other / one:.3f}"
        )
    alone = in_process_of_its_own(path, "--batches", str(path))
    print(f"batches alone, CPU ms: in memory {1e3 * alone['device']:.2f}, streamed {1e3 * alone['disk']:.2f}")
    hold("CPU of a streamed epoch, of one in memory", ratios["cpu"], AIM_STREAMED)
    size = 4 * given.num * 64**2
    for name, runs in (("in memory", kept), ("streamed", streamed)):
        more = statistics.median(each["peak"] for each in runs) - empty["peak"]
        print(
            f"memory, {name}: {more / 1e6:.0f} MB more than an empty scan, where the patterns are {size / 1e6:.0f} MB"
        )
        if name == "in memory":
            hold("memory of the patterns that are kept, of their size", more / size, AIM_MEMORY)


def growth(folder: Path, hold: Any) -> None:
    """Print how opening, a step and memory grow with patterns, pixels and modes."""
    print(
        f"{'patterns':>9} {'pixels':>7} {'modes':>6} {'opening CPU s':>14} {'CPU µs a pattern':>17} {'memory MB':>10}"
    )
    rows = {}
    for num, size, modes in (
        (1024, 64, 1),
        (4096, 64, 1),
        (16384, 64, 1),
        (4096, 128, 1),
        (4096, 64, 2),
        (4096, 64, 4),
    ):
        best = min(
            (measured(simulated(folder, num, size), "device", modes, 16) for _ in range(2)), key=lambda x: x["cpu"]
        )
        a_pattern = 1e6 * best["cpu"][0] / BATCH
        rows[num, size, modes] = a_pattern, best["opening"], best["peak"]
        print(
            f"{num:>9,} {size:>6}² {modes:>6} {best['opening']:>14.2f} {a_pattern:>17.0f} {best['peak'] / 1e6:>10.0f}",
            flush=True,
        )
    base = rows[4096, 64, 1]
    hold("µs a pattern at 16 times the patterns", rows[16384, 64, 1][0] / rows[1024, 64, 1][0], AIM_LINEAR)
    hold("µs a pixel at 4 times the pixels", rows[4096, 128, 1][0] / base[0] / 4, AIM_LINEAR)
    hold("µs a mode at 4 times the modes", rows[4096, 64, 4][0] / base[0] / 4, AIM_LINEAR)
    hold("opening, at 4 times the patterns", rows[16384, 64, 1][1] / base[1] / 4, AIM_LINEAR)


if __name__ == "__main__":
    main()
