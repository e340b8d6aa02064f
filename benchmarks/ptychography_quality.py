"""Measures the quality of the shipped recipes on data with a known answer: prints a table over seeds.

`mos2_sim.h5` (1,024 patterns of 64², simulated by multislice, positions wrong by 0.098 Å) holds its true phase and
positions: correlation and gain (strength) of the phase after the best shift, and root mean square error of a
coordinate, of the points that are trained on. `siemens-star-small.npz.bz2` is measured: the amplitude loss over all
patterns after 20 epochs, beside 0.01475, the mean over the last epoch of a plain torch loop with the same loss, Adam
and learning rates.

    python benchmarks/ptychography_quality.py --mos2 mos2_sim.h5 --siemens siemens-star-small.npz.bz2 [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from trainkit import State
from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.hooks.truth_live import agreement, position_errors
from trainkit_ptychography.losses.amplitude import Amplitude

RECIPES = Path(__file__).parents[1] / "recipes"
MOS2_AIMS = {30: (0.930, 0.041), 100: (0.925, 0.045)}  # epochs -> least correlation, largest error in Å
SIEMENS_AIM = 0.01475


def reconstruct(recipe: str, data: Path, *sets: str) -> State:
    with tempfile.TemporaryDirectory() as folder:
        fixed = (f"data.path={data}", f"run.dir={folder}", "run.device=cpu", "run.threads=1", "pictures.every_epochs=0")
        resolved = resolve(RECIPES / f"{recipe}.toml", (*fixed, "checkpoint.every_epochs=1000", *sets))
        return start(resolved, Console(quiet=True)).run.state


@torch.no_grad()
def amplitude_loss(state: State) -> float:
    """Return the amplitude loss over all patterns, trained on or held out."""
    data: Any = state.data
    loss = Amplitude().build(data)
    batches = [batch for split in ("train", "val") for batch in data.evaluate(split)]
    total = sum(float(loss(state.model(batch), batch, state.model)) * len(batch["index"]) for batch in batches)
    return total / sum(len(batch["index"]) for batch in batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mos2", type=Path)
    parser.add_argument("--siemens", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="sets", action="append", default=[], help="change the recipe of mos2")
    arguments = parser.parse_args()
    reached = True
    if arguments.mos2:
        for epochs, (least_r, largest_error) in MOS2_AIMS.items():
            found = []
            for seed in arguments.seeds:
                sets = (f"run.seed={seed}", f"run.epochs={epochs}", *arguments.sets)
                state = reconstruct("ptycho_mos2", arguments.mos2.resolve(), *sets)
                data: Any = state.data
                model: Any = state.model
                reconstruction = model.reconstruction()
                found.append((*agreement(data, reconstruction), position_errors(data, reconstruction)[0]))
                r, gain, error = found[-1]
                print(f"mos2, {epochs} epochs, seed {seed}: r {r:.4f}  gain {gain:.3f}  positions {error:.4f} Å")
            r, gain, error = (mean(values) for values in zip(*found, strict=True))
            reached &= r >= least_r and error <= largest_error
            print(
                f"mos2, {epochs} epochs, mean:   r {r:.4f} (≥ {least_r})  gain {gain:.3f}  "
                f"positions {error:.4f} Å (≤ {largest_error})"
            )
    if arguments.siemens:
        losses = []
        for seed in arguments.seeds:
            state = reconstruct("ptycho_siemens", arguments.siemens.resolve(), f"run.seed={seed}")
            losses.append(amplitude_loss(state))
            print(f"siemens, 20 epochs, seed {seed}: amplitude loss {losses[-1]:.5f}")
        reached &= mean(losses) <= SIEMENS_AIM
        print(f"siemens, 20 epochs, mean:   amplitude loss {mean(losses):.5f} (≤ {SIEMENS_AIM})")
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
