"""Measures an epoch of single-slice ptychography: CPU seconds in addition to a plain torch loop that computes the same.

The engine trains as `trainkit run` does, with hooks, held-out patterns, logs and a checkpoint each epoch; the plain
loop is what one would write by hand: autograd, Adam, object, probe and positions on. Both have one thread, the same
patterns and batch size, and take turns, epoch by epoch. It is the CPU's clock, which other jobs disturb least; the
minimum over the epochs counts, and the median is shown beside it.

    python benchmarks/ptychography_epoch.py [--data mos2_sim.h5] [--rounds 8] [--modes 1 4]

Without --data a scan of the same size is simulated.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from trainkit import State
from trainkit.engine.build import build
from trainkit.engine.every_run.saving import Saver
from trainkit.engine.loop import train
from trainkit.engine.run import Run
from trainkit.engine.run_folder import created
from trainkit.recipe.resolve import resolve

AIM = 1.0
RECIPES = Path(__file__).parents[1] / "recipes"
COMMON = (
    "run.threads=1",
    "run.device=cpu",
    "data.batch_size=32",
    "losses.data.use=amplitude",
    "groups.probe.start_epoch=0",
    "groups.dr.start_epoch=0",
    "pictures.every_epochs=0",
)
SIMULATED = ("data.scan_shape=[32, 32]", "data.detector_size=64", "data.validation_fraction=0.02")


def settings(data: Path | None, modes: int, epochs: int, folder: Path) -> Any:
    sets = (*COMMON, f"model.probe.modes={modes}", f"run.epochs={epochs}", f"run.dir={folder}")
    if data is None:
        return resolve(RECIPES / "ptycho_staged.toml", (*sets, *SIMULATED))
    return resolve(RECIPES / "ptycho_mos2.toml", (*sets, f"data.path={data}", 'drop=["hooks.truth"]'))


class Turns:
    """Times an epoch of the engine with its checkpoint, and then one of the loop; called after all other parts."""

    def __init__(self, plain: Iterator[float]) -> None:
        self.plain, self.engine_seconds, self.plain_seconds = plain, list[float](), list[float]()

    def on_epoch_start(self, state: State) -> None:
        self.began = time.process_time()

    def on_checkpoint(self, state: State) -> None:
        self.engine_seconds.append(time.process_time() - self.began)
        with torch.enable_grad():
            self.plain_seconds.append(next(self.plain))


def plain_epochs(run: Run) -> Iterator[float]:
    """Yield the CPU seconds of each epoch of a loop written by hand, which starts from the same state."""
    model: Any = run.state.model
    data: Any = run.state.data
    amplitudes_NYX = torch.cat([batch["amplitudes"] for batch in data.evaluate("train")])
    index_N = torch.cat([batch["index"] for batch in data.evaluate("train")])
    size = amplitudes_NYX.shape[1]
    corner_N2, remainder_N2 = model.motion.corner_N2[index_N], model.motion.remainder_N2[index_N]
    probe = torch.view_as_real(torch.from_numpy(model.reconstruction().probe_MYX)).clone().requires_grad_()
    peak = float(probe.detach().norm(dim=-1).max())
    probe.data /= peak
    maps = torch.zeros_like(model.object.maps).requires_grad_()
    dr_N2 = torch.zeros(len(index_N), 2, requires_grad=True)
    frequency, along = torch.fft.fftfreq(size), torch.arange(size)
    optimizer = torch.optim.Adam(
        [{"params": [maps], "lr": 5e-3}, {"params": [probe], "lr": 1e-3}, {"params": [dr_N2], "lr": 5e-3}]
    )
    while True:
        began, total = time.process_time(), 0.0
        for place in torch.randperm(len(index_N)).split(32):
            optimizer.zero_grad(set_to_none=True)
            shift = remainder_N2[place] + dr_N2[place]
            turns = (
                frequency[None, :, None] * shift[:, 0, None, None] + frequency[None, None, :] * shift[:, 1, None, None]
            )
            ramp = torch.exp(-2j * torch.pi * turns)
            wave = torch.fft.ifft2(torch.fft.fft2(torch.view_as_complex(probe) * peak)[:, None] * ramp)
            rows = corner_N2[place, 0, None, None] + along[None, :, None]
            columns = corner_N2[place, 1, None, None] + along[None, None, :]
            patch = maps[:, rows, columns]
            far = torch.fft.fft2(wave * torch.polar(torch.exp(-patch[1]), patch[0]), norm="ortho")
            intensity = (far.real**2 + far.imag**2).sum(0)
            loss = ((intensity + 1e-9).sqrt() - amplitudes_NYX[place]).pow(2).sum() / len(place)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(place)
        yield time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="mos2_sim.h5; left out: a simulated scan of the same size")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--modes", type=int, nargs="+", default=[1, 4])
    arguments = parser.parse_args()
    data = None if arguments.data is None else arguments.data.resolve()
    print("CPU seconds an epoch: minimum (median)")
    ratios = []
    for modes in arguments.modes:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            resolved = settings(data, modes, arguments.rounds, Path(folder))
            run = build(resolved, stack.enter_context(created(resolved)))
            turns = Turns(plain_epochs(run))
            run.add("saver", Saver(run))
            run.add("turns", turns)
            train(run)
            run.emit("run_end")
        engine, plain = turns.engine_seconds, turns.plain_seconds
        ratios.append(min(engine) / min(plain))
        shown = [f"{min(times):.3f} ({statistics.median(times):.3f})" for times in (engine, plain)]
        print(f"{modes} mode(s): engine {shown[0]}  plain loop {shown[1]}  ratio {ratios[-1]:.2f}")
    sys.exit(0 if np.max(ratios) <= AIM else 1)


if __name__ == "__main__":
    main()
