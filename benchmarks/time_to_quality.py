"""Measures how long training takes until the result is as good as that of a plain torch loop: CPU seconds.

The plain loop is what one would write by hand: autograd, Adam for object, probe and positions, 30 epochs. Ours is the
recipe ``ptycho_mos2`` as it comes, with fewer epochs. Both have one thread and the same patterns, and take turns, epoch
by epoch; held-out patterns, logs and a checkpoint each epoch count as ours. How near both are to the truth (correlation
of the phase, root mean square error of the positions) is looked at after each epoch, off the clock. A scan is reached
in the first epoch of ours in which both are at least as good as those of the plain loop at its end.

    python benchmarks/time_to_quality.py [--mos2 mos2_sim.h5] [--epochs 10] [--scans "few electrons" …]

Without --mos2, simulated scans alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from epochs_in_turns import ByHand, in_turns

from trainkit.engine.live_run import LiveRun
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.hooks.truth_live import compare

AIM = 1 / 15  # of the plain loop's time, in the median over scans
GOOD = 0.98
PLAIN_EPOCHS = 30
RECIPE = Path(__file__).parents[1] / "recipes" / "ptycho_mos2.toml"
COMMON = (
    *("run.threads=1", "run.device=cpu", "data.batch_size=32", "model.probe.modes=1", "pictures.every_epochs=0"),
    'drop=["hooks.truth"]',
)
SIMULATED: dict[str, tuple[str, ...]] = {
    "simulated": (),
    "near focus": ("data.defocus_angstrom=25.0", "data.scan_shape=[28, 28]"),
    "few electrons": ("data.dose_per_square_angstrom=1e4",),
    "wide steps": ("data.step_angstrom=0.8", "data.scan_shape=[24, 24]", "data.position_error_angstrom=0.15"),
}
_SIMULATE = (
    'data={ use = "diffraction_simulated", scan_shape = [32, 32], step_angstrom = 0.5, detector_size = 64, '
    "position_error_angstrom = 0.1, dose_per_square_angstrom = 1e5, batch_size = 32, validation_fraction = 0.02 }"
)


class Progress:
    """How near a reconstruction is to the truth after each epoch, and the CPU seconds until then."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float]] = []  # seconds, r, position error in Å

    def add(self, seconds: float, model: Any, data: Any) -> None:
        r, error, _ = compare(data, model)
        before = self.rows[-1][0] if self.rows else 0.0
        self.rows.append((before + seconds, r, error))

    def seconds_until(self, r: float, error: float = float("inf")) -> float:
        """Return the seconds until both are reached; infinity if they are not."""
        return next((seconds for seconds, now, off in self.rows if now >= r and off <= error), float("inf"))


class Plain:
    """The plain loop, and the reconstruction as it has it."""

    def __init__(self, run: LiveRun, progress: Progress) -> None:
        self._model: Any = run.state.model
        self._data: Any = run.state.data
        self._progress = progress
        self._by_hand = ByHand(run)
        self._maps = torch.zeros_like(self._model.object.maps).requires_grad_()

    def epochs(self) -> Iterator[float]:
        """Train an epoch whenever it is asked for, and yield its CPU seconds."""
        by_hand = self._by_hand
        optimizer = torch.optim.Adam(
            [
                {"params": [self._maps], "lr": 5e-3},
                {"params": [by_hand.probe], "lr": 1e-3},
                {"params": [by_hand.dr_N2], "lr": 5e-3},
            ]
        )
        while True:
            began = time.process_time()
            for place in torch.randperm(len(by_hand.amplitudes_NYX)).split(32):
                optimizer.zero_grad(set_to_none=True)
                patch = by_hand.patches(self._maps, place)
                wave = by_hand.wave(place) * torch.polar(torch.exp(-patch[1]), patch[0])
                by_hand.misfit(wave, place).backward()
                optimizer.step()
            seconds = time.process_time() - began
            self._look(seconds)
            yield seconds

    @torch.no_grad()
    def _look(self, seconds: float) -> None:
        model, by_hand = self._model, self._by_hand
        own = [model.object.maps, model.probe.modes, model.dr]
        kept = [each.clone() for each in own]
        dr_N2 = torch.zeros_like(model.dr)
        dr_N2[self._data.train_index] = by_hand.dr_N2
        probe = (torch.view_as_complex(by_hand.probe) * by_hand.peak) / model.probe.scale
        for parameter, value in zip(own, (self._maps, torch.view_as_real(probe), dr_N2), strict=True):
            parameter.copy_(value.view_as(parameter))
        self._progress.add(seconds, model, self._data)
        for parameter, value in zip(own, kept, strict=True):
            parameter.copy_(value)


def measured(sets: tuple[str, ...], epochs: int) -> tuple[Progress, Progress]:
    """Train both on a scan, and return the progress of ours, and that of the plain loop."""
    ours, plain = Progress(), Progress()

    with tempfile.TemporaryDirectory() as folder:
        resolved = resolve(RECIPE, (*sets, *COMMON, f"run.epochs={epochs}", f"run.dir={folder}"))

        def plain_epochs(run: LiveRun) -> Iterator[float]:
            looking = Plain(run, plain).epochs()
            per_epoch = -(-PLAIN_EPOCHS // epochs)  # it has more epochs than ours

            def several() -> Iterator[float]:
                while True:
                    yield sum(next(looking) for _ in range(per_epoch))

            return several()

        in_turns(
            resolved,
            {"plain loop": plain_epochs},
            look=lambda state, seconds: ours.add(seconds, state.model, state.data),
        )
    plain.rows = plain.rows[:PLAIN_EPOCHS]
    return ours, plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mos2", type=Path, help="mos2_sim.h5")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--scans", nargs="+", choices=list(SIMULATED), default=list(SIMULATED))
    given = parser.parse_args()
    scans = {} if given.mos2 is None else {"mos2_sim.h5": (f"data.path={given.mos2.resolve()}",)}
    scans |= {name: (_SIMULATE, *SIMULATED[name]) for name in given.scans}
    heads = (f"plain loop, {PLAIN_EPOCHS} epochs", f"ours, {given.epochs} epochs")
    print(f"{'scan':16}{heads[0]:>32}{heads[1]:>32}   as good after      r = {GOOD} after")
    shares = []
    for name, sets in scans.items():
        ours, plain = measured(sets, given.epochs)
        seconds, r, error = plain.rows[-1]
        reached = ours.seconds_until(r, error)
        shares.append(reached / seconds)
        ends = [f"{s:.2f} s, r {now:.4f}, {off:.4f} Å" for s, now, off in (plain.rows[-1], ours.rows[-1])]
        as_good = f"{reached:.2f} s = 1/{seconds / reached:.1f}"
        print(f"{name:16}{ends[0]:>32}{ends[1]:>32}   {as_good:16}   {ours.seconds_until(GOOD):.2f} s", flush=True)
    median = statistics.median(shares)
    print(f"in the median, 1/{1 / median:.1f} of the plain loop's time; aim: 1/{1 / AIM:.0f}")
    sys.exit(0 if median <= AIM else 1)


if __name__ == "__main__":
    main()
