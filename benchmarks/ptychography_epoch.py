"""Measures an epoch of single-slice ptychography: CPU seconds in addition to a plain torch loop that computes the same.

The engine trains as `trainkit run` does, with hooks, held-out patterns, logs and a checkpoint each epoch, but without
what the plain loop does not have: a group for the defocus, and the anchor of positions. The plain loop is what one
would write by hand: autograd, Adam, object, probe and positions on. Both have one thread, the same patterns and batch
size, and take turns, epoch by epoch. It is the CPU's clock, which other jobs disturb least; the minimum over the epochs
counts, and the median is shown beside it. The floor is what no program of this kind can do without: four Fourier
transforms and three products for each pattern and mode, on arrays that stay where they are.

    python benchmarks/ptychography_epoch.py [--data mos2_sim.h5] [--rounds 8] [--cases 1x32 4x32 1x128]

A case is probe modes x patterns of a batch; it need not have an aim. Without --data a scan of the same size is
simulated.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from epochs_in_turns import ByHand, in_turns, shown

from trainkit.engine.live_run import LiveRun
from trainkit.recipe.resolve import resolve

AIM = 1.0  # of the plain loop's time
AIMS = {"1x32": 2.8, "4x32": 1.8, "1x128": 2.3}  # modes x patterns of a batch -> times the floor
RECIPES = Path(__file__).parents[1] / "recipes"
COMMON = (
    "run.threads=1",
    "run.device=cpu",
    "losses.data.use=amplitude",
    "groups.probe.start_epoch=0",
    "groups.dr.start_epoch=0",
    "pictures.every_epochs=0",
)
SIMULATED = ("data.scan_shape=[32, 32]", "data.detector_size=64", "data.validation_fraction=0.02")


def settings(data: Path | None, modes: int, batch: int, epochs: int, folder: Path) -> Any:
    own = (f"model.probe.modes={modes}", f"data.batch_size={batch}", f"run.epochs={epochs}", f"run.dir={folder}")
    sets = (*COMMON, *own)
    if data is None:
        return resolve(RECIPES / "ptycho_staged.toml", (*sets, *SIMULATED))
    sets = (*sets, f"data.path={data}", "model.probe.trained_aberrations=[]")
    return resolve(RECIPES / "ptycho_mos2.toml", (*sets, 'drop=["hooks.truth", "losses.near", "groups.aberrations"]'))


def floor_epochs(run: LiveRun) -> Iterator[float]:
    """Yield the CPU seconds of the transforms and products of each epoch."""
    data: Any = run.state.data
    modes: Any = cast(Any, run.state.model).probe.modes
    batch = len(next(iter(data.train(0, 0)))["index"])
    wave_MBYX = torch.randn(len(modes), batch, *data.detector_shape, dtype=torch.complex64)
    factor_BYX = torch.polar(torch.ones(wave_MBYX.shape[1:]), torch.randn(wave_MBYX.shape[1:]))
    while True:
        began = time.process_time()
        for _ in range(data.batches_per_epoch):
            forth_MBYX = torch.fft.fft2(torch.fft.ifft2(wave_MBYX).mul_(factor_BYX))
            torch.fft.ifft2(torch.fft.fft2(forth_MBYX.mul_(factor_BYX)).mul_(factor_BYX))
        yield time.process_time() - began


def plain_epochs(run: LiveRun) -> Iterator[float]:
    """Yield the CPU seconds of each epoch of a loop written by hand, which starts from the same state."""
    by_hand = ByHand(run)
    batch = len(next(iter(cast(Any, run.state.data).train(0, 0)))["index"])
    maps = torch.zeros_like(cast(Any, run.state.model).object.maps).requires_grad_()
    optimizer = torch.optim.Adam(
        [
            {"params": [maps], "lr": 5e-3},
            {"params": [by_hand.probe], "lr": 1e-3},
            {"params": [by_hand.dr_N2], "lr": 5e-3},
        ]
    )
    while True:
        began, total = time.process_time(), 0.0
        for place in torch.randperm(len(by_hand.amplitudes_NYX)).split(batch):
            optimizer.zero_grad(set_to_none=True)
            patch = by_hand.patches(maps, place)
            loss = by_hand.misfit(by_hand.wave(place) * torch.polar(torch.exp(-patch[1]), patch[0]), place)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(place)
        yield time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="mos2_sim.h5; left out: a simulated scan of the same size")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--cases", nargs="+", default=list(AIMS), metavar="MODESxBATCH")
    arguments = parser.parse_args()
    data = None if arguments.data is None else arguments.data.resolve()
    print("CPU seconds an epoch: minimum (median)")
    others = {"plain loop": plain_epochs, "floor": floor_epochs}
    missed = False
    for case in arguments.cases:
        modes, batch = (int(each) for each in case.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            resolved = settings(data, modes, batch, arguments.rounds, Path(folder))
            seconds = in_turns(resolved, others)
        of_plain, of_floor = (min(seconds["engine"]) / min(seconds[name]) for name in others)
        missed |= of_plain > AIM or of_floor > AIMS.get(case, float("inf"))
        print(f"{case:6s} {shown(seconds, 3)}  of the plain loop {of_plain:.2f}  times the floor {of_floor:.2f}")
    aims = ", ".join(f"{aim} ({case})" for case, aim in AIMS.items())
    print(f"cases: probe modes x patterns of a batch; aims: at most {AIM} of the plain loop, times the floor {aims}")
    sys.exit(missed)


if __name__ == "__main__":
    main()
