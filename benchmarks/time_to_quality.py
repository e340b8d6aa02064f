"""Measures how long training takes until the result is as good as that of a plain torch loop: CPU seconds.

The plain loop is what one would write by hand: autograd, Adam for object, probe and positions, 30 epochs. Ours is the
recipe ``ptycho_mos2`` as it comes, with fewer epochs. Both have one thread and the same patterns, and take turns, epoch
by epoch; held-out patterns, logs and a checkpoint each epoch count as ours. How near both are to the truth (correlation
of the phase, root mean square error of the positions) is looked at after each epoch, off the clock. A scan is reached
in the first epoch of ours in which both are at least as good as those of the plain loop at its end. PtyRAD gets as many
iterations, in a process of its own (`ptyrad_peer.py`), if --ptyrad names the Python of an environment that has it.

    python benchmarks/time_to_quality.py [--mos2 mos2_sim.h5] [--epochs 10] [--scans "few electrons" …]
                                         [--ptyrad ENV/bin/python]

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
from with_ptyrad import PtyRAD, why_no_ptyrad, write_scan

from trainkit.engine.live_run import LiveRun
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.hooks.truth_live import compare
from trainkit_ptychography.models.output import agreement_with_truth
from trainkit_ptychography.physics.quality import position_rmse

AIM = 1 / 15  # of the time of the plain loop, or of PtyRAD, in the median over scans
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


class Peer:
    """PtyRAD's iterations on the scan of a run, and its result.

    Attributes:
        seconds: CPU seconds of all iterations; 0: it is not measured.
        r: The correlation of its phase.
        error: The error of its positions, in Å.
    """

    def __init__(self, python: Path | None, file: Path | None) -> None:
        self.seconds = self.r = self.error = 0.0
        self._python, self._file = python, file

    def measure(self, run: LiveRun, folder: Path) -> None:
        """Let it reconstruct, if there is one."""
        data: Any = run.state.data
        if self._python is None:
            return
        file = self._file
        if file is None:
            file = folder / "scan.h5"
            write_scan(data, run.recipe.data, file)
        peer = PtyRAD(self._python, file, slices=1, batch=32, iterations=PLAIN_EPOCHS)
        self.seconds = sum(peer.iterations())
        assert peer.found is not None
        found, scan, trained = peer.found.reconstruction(data.scan), data.scan, data.train_index.numpy()
        agreement = agreement_with_truth(found, data)
        assert agreement is not None
        self.r = agreement.pearson
        pixels = position_rmse(found.positions_N2[trained], scan.truth.positions_N2[trained])
        self.error = pixels * scan.pixel_size_angstrom


def measured(sets: tuple[str, ...], epochs: int, peer: Peer) -> tuple[Progress, Progress]:
    """Train all on a scan, and return the progress of ours, and that of the plain loop."""
    ours, plain = Progress(), Progress()

    with tempfile.TemporaryDirectory() as folder:
        resolved = resolve(RECIPE, (*sets, *COMMON, f"run.epochs={epochs}", f"run.dir={folder}"))

        def plain_epochs(run: LiveRun) -> Iterator[float]:
            looking = Plain(run, plain).epochs()
            peer.measure(run, Path(folder))
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
    parser.add_argument("--scans", nargs="*", choices=list(SIMULATED), default=list(SIMULATED))
    parser.add_argument("--ptyrad", type=Path, help="Python of an environment that has PtyRAD")
    given = parser.parse_args()
    python = given.ptyrad
    if (why := why_no_ptyrad(python, Path())) is not None:
        print(f"PtyRAD is not measured: {why}")
        python = None
    scans: dict[str, tuple[tuple[str, ...], Path | None]] = {}
    if given.mos2 is not None:
        scans["mos2_sim.h5"] = ((f"data.path={given.mos2.resolve()}",), given.mos2.resolve())
    scans |= {name: ((_SIMULATE, *SIMULATED[name]), None) for name in given.scans}
    shares: dict[str, list[float]] = {"the plain loop": [], "PtyRAD": []}
    for name, (sets, file) in scans.items():
        peer = Peer(python, file)
        ours, plain = measured(sets, given.epochs, peer)
        seconds, r, error = ours.rows[-1]
        print(f"{name}: ours, {given.epochs} epochs: {seconds:.2f} s, r {r:.4f}, {error:.4f} Å; ", end="")
        print(f"r = {GOOD} after {ours.seconds_until(GOOD):.2f} s")
        ends = {"the plain loop": plain.rows[-1]} | ({"PtyRAD": (peer.seconds, peer.r, peer.error)} if python else {})
        for other, (seconds, r, error) in ends.items():
            reached = ours.seconds_until(r, error)
            shares[other].append(reached / seconds)
            print(f"    {other}, {PLAIN_EPOCHS} epochs: {seconds:.2f} s, r {r:.4f}, {error:.4f} Å; ", end="")
            print(f"ours is as good after {reached:.2f} s = 1/{seconds / reached:.1f}", flush=True)
    medians = {other: statistics.median(found) for other, found in shares.items() if found}
    for other, median in medians.items():
        print(f"in the median, 1/{1 / median:.1f} of the time of {other}; aim: 1/{1 / AIM:.0f}")
    sys.exit(int(max(medians.values()) > AIM))


if __name__ == "__main__":
    main()
