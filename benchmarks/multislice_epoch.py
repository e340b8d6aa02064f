"""Measures an epoch of multislice ptychography: CPU seconds over those of a plain torch loop, and over PtyRAD's.

The engine trains the recipe ``ptycho_thick``, with hooks, held-out patterns, logs and a checkpoint each epoch; the
plain loop is what one would write by hand: autograd through all slices, Adam, object, probe and positions on, and the
slices coupled after each epoch. PtyRAD computes the same in a process of its own (`ptyrad_peer.py`), if --ptyrad names
the Python of an environment that has it. All have one thread and batch size, and take turns, epoch by epoch. It is the
CPU's clock; the minimum over the epochs counts, and the median is shown beside it.

    python benchmarks/multislice_epoch.py [--data thick_sto_sim.h5] [--ptyrad ENV/bin/python] [--rounds 4]
                                          [--waves recomputed stored]

Without --data a scan of the same size is simulated, which PtyRAD cannot read.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from epochs_in_turns import ByHand, in_turns, shown
from with_ptyrad import PtyRAD, why_no_ptyrad

from trainkit.engine.live_run import LiveRun
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.constraints.slice_coupling_live import gaussian_weights

AIMS = {"plain loop": 0.7, "PtyRAD": 0.45}  # with stored waves, which the recipe has
RECIPES = Path(__file__).parents[1] / "recipes"
COMMON = ("run.threads=1", "run.device=cpu", "groups.dr.start_epoch=0", "pictures.every_epochs=0")
BATCH = 16
SIGMA = 3.0  # Å, of the recipe's coupling
SIMULATED = (
    'data={ use = "diffraction_simulated", scan_shape = [24, 24], detector_size = 80, energy_kev = 300.0, slices = 15, '
    "thickness_angstrom = 117.0, pixel_size_angstrom = 0.22, semiangle_mrad = 30.0, defocus_angstrom = 120.0, "
    f"batch_size = {BATCH}, validation_fraction = 0.02 }}"
)


def settings(data: Path | None, waves: str, epochs: int, folder: Path) -> Any:
    source = SIMULATED if data is None else f"data.path={data}"
    sets = (*COMMON, f"model.waves={waves}", f"run.epochs={epochs}", f"run.dir={folder}", source)
    return resolve(RECIPES / "ptycho_thick.toml", (*sets, 'drop=["hooks.truth"]'))


def plain_epochs(run: LiveRun) -> Iterator[float]:
    """Yield the CPU seconds of each epoch of a loop written by hand, which starts from the same state."""
    by_hand, model = ByHand(run), cast(Any, run.state.model)
    phase_SHW = torch.zeros_like(model.object.maps[0]).requires_grad_()
    with torch.no_grad():
        kernel_YX = model.propagation.common_kernel()[0].clone()
        weights_SS = gaussian_weights(len(phase_SHW), SIGMA / float(model.propagation.distance)).float()
    optimizer = torch.optim.Adam(
        [
            {"params": [phase_SHW], "lr": 3e-2},
            {"params": [by_hand.probe], "lr": 1e-3},
            {"params": [by_hand.dr_N2], "lr": 4e-2},
        ]
    )
    while True:
        began, total = time.process_time(), 0.0
        for place in torch.randperm(len(by_hand.amplitudes_NYX)).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            wave = by_hand.wave(place)
            slices = by_hand.patches(torch.polar(torch.ones_like(phase_SHW), phase_SHW), place).unbind(0)
            for number, slice_BYX in enumerate(slices):
                wave = (torch.fft.ifft2(torch.fft.fft2(wave) * kernel_YX) if number else wave) * slice_BYX
            loss = by_hand.misfit(wave, place) + 0.03 * phase_SHW.abs().mean()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(place)
        with torch.no_grad():
            phase_SHW.copy_((weights_SS @ phase_SHW.flatten(1)).view_as(phase_SHW)).clamp_(min=0)
        yield time.process_time() - began


def ptyrad_epochs(python: Path, data: Path, iterations: int) -> Callable[[LiveRun], Iterator[float]]:
    """Return what yields the CPU seconds of each of PtyRAD's iterations, over all patterns."""

    def epochs(run: LiveRun) -> Iterator[float]:
        slices = cast(Any, run.state.model).propagation.slices
        return PtyRAD(python, data, slices, BATCH, iterations).iterations()

    return epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="thick_sto_sim.h5; left out: a simulated scan of the same size")
    parser.add_argument("--ptyrad", type=Path, help="Python of an environment that has PtyRAD")
    parser.add_argument("--rounds", type=int, default=4, help="epochs, 3 or more")
    parser.add_argument("--waves", nargs="+", default=["stored", "recomputed"])
    arguments = parser.parse_args()
    if arguments.rounds < 3:
        parser.error("--rounds: the first and the last epoch hold the run's start and end, so give 3 or more")
    data = None if arguments.data is None else arguments.data.resolve()
    others: dict[str, Callable[[LiveRun], Iterator[float]]] = {"plain loop": plain_epochs}
    if (why := why_no_ptyrad(arguments.ptyrad, data)) is None:
        others["PtyRAD"] = ptyrad_epochs(arguments.ptyrad, cast(Path, data), arguments.rounds)
    else:
        print(f"PtyRAD is not measured: {why}")
    print("CPU seconds an epoch: minimum (median)")
    missed = False
    for number, waves in enumerate(arguments.waves):
        with tempfile.TemporaryDirectory() as folder:
            seconds = in_turns(settings(data, waves, arguments.rounds, Path(folder)), others)
        ratios = {name: min(seconds["engine"]) / min(seconds[name]) for name in others}
        print(f"waves {waves}: {shown(seconds, 2)}")
        print("    engine over " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()), flush=True)
        missed = missed or (number == 0 and any(ratio > AIMS[name] for name, ratio in ratios.items()))
    sys.exit(int(missed))


if __name__ == "__main__":
    main()
