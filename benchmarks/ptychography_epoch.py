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
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from epochs_in_turns import ByHand, in_turns, shown

from trainkit.engine.live_run import LiveRun
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
    return resolve(RECIPES / "ptycho_mos2.toml", (*sets, f"data.path={data}", 'drop=["hooks.truth", "losses.near"]'))


def plain_epochs(run: LiveRun) -> Iterator[float]:
    """Yield the CPU seconds of each epoch of a loop written by hand, which starts from the same state."""
    by_hand = ByHand(run)
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
        for place in torch.randperm(len(by_hand.amplitudes_NYX)).split(32):
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
    parser.add_argument("--modes", type=int, nargs="+", default=[1, 4])
    arguments = parser.parse_args()
    data = None if arguments.data is None else arguments.data.resolve()
    print("CPU seconds an epoch: minimum (median)")
    ratios = []
    for modes in arguments.modes:
        with tempfile.TemporaryDirectory() as folder:
            seconds = in_turns(settings(data, modes, arguments.rounds, Path(folder)), {"plain loop": plain_epochs})
        ratios.append(min(seconds["engine"]) / min(seconds["plain loop"]))
        print(f"{modes} mode(s): {shown(seconds, 3)}  ratio {ratios[-1]:.2f}", flush=True)
    sys.exit(0 if np.max(ratios) <= AIM else 1)


if __name__ == "__main__":
    main()
