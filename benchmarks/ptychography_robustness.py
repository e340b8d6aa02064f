"""Tries one set of settings on many specimens: prints a table of what ten epochs of a shipped recipe reach on each.

Beside it stands the best of several runs of 200 epochs, with settings searched for that scan: Adam with three learning
rates for the object, and the recipe itself with 200 epochs. All of them train the defocus. "Best" is the highest
correlation with the true phase, which a user does not know, so the reference is at an advantage. The aim: r no more
than 0.005 lower, and a gain (the strength of the phase, 1 is right) no more than 0.03 farther from 1.

    python benchmarks/ptychography_robustness.py --out FOLDER [--mos2 mos2_sim.h5] [--seeds 20 21 22 23 24 25]
                                                 [--epochs 10]

The scans are made by thin_specimens.py. Every finished run is a line in FOLDER/runs.jsonl; if the script is started
again, it does only the missing runs.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np
from thin_specimens import draw, simulate

from trainkit import DivergedError
from trainkit.engine.build import build
from trainkit.engine.loop import train
from trainkit.engine.run_folder import created
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.hooks.truth_live import compare

RECIPE = Path(__file__).parents[1] / "recipes" / "ptycho_mos2.toml"
ADAM = (
    *('drop=["groups"]', "optimizer.use=adam", "groups.probe={ lr = 1e-3, start_epoch = 0 }"),
    *("groups.dr={ lr = 1e-2, start_epoch = 4 }", "groups.aberrations={ lr = 5e-2, start_epoch = 0 }"),
    "run.epochs=200",
)
SEARCHED = (
    *((*ADAM, f"groups.object.lr={lr}") for lr in (1e-3, 3e-3, 1e-2)),
    ("run.epochs=200", "groups.object.then.finish.start_epoch=130"),
)
R_AIM, GAIN_AIM = 0.005, 0.03


class Found(NamedTuple):
    """What a run reached.

    Attributes:
        r: Correlation of the phase with the true one.
        gain: Strength of the phase: its slope over the true one.
        position_error_angstrom: Root mean square error of a coordinate.
        cpu_seconds: Time of the training.
    """

    r: float
    gain: float
    position_error_angstrom: float
    cpu_seconds: float


def told(path: Path, mos2: bool) -> tuple[str, ...]:
    """Return the settings of the data, as somebody would give them who has only what the microscope says."""
    if mos2:
        return (f"data.path={path}",)
    with h5py.File(path) as file:
        known = dict(file.attrs)
    return (
        *(f"data.path={path}", "data.positions=positions"),
        *("data.truth_phase=phase", "data.truth_positions=positions_true"),
        *(f"data.{name}={float(known[name])}" for name in ("energy_kev", "dk_per_angstrom", "semiangle_mrad")),
        f"data.defocus_angstrom={float(known['told_defocus_angstrom'])}",
    )


def reconstruct(sets: Sequence[str]) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        fixed = (f"run.dir={folder}", "run.device=cpu", "run.threads=1", "checkpoint.every_epochs=1000")
        quiet = ("pictures.every_epochs=0", "validation.every_epochs=0", "hooks.truth.every_epochs=1000")
        own = Path(folder) / "recipe.toml"
        dropped = [each.removeprefix("drop=") for each in sets if each.startswith("drop=")]
        own.write_text(f'extends = ["{RECIPE}"]\n' + "".join(f"drop = {each}\n" for each in dropped), encoding="utf-8")
        resolved = resolve(own, (*fixed, *quiet, *(each for each in sets if not each.startswith("drop="))))
        with created(resolved) as run_folder:
            run = build(resolved, run_folder)
            began = time.process_time()
            train(run)
            seconds = time.process_time() - began
        data: Any = run.state.data
        model: Any = run.state.model
        r, position_error, _ = compare(data, model)
        return Found(r, gain(data, model), position_error, seconds)


def gain(data: Any, model: Any) -> float:
    """Return the slope of the phase over the true one, at the whole-pixel shift at which they agree best."""
    found, truth_KL = model.reconstruction(), data.scan.truth.phase_KL
    low_2, high_2 = data.scan.positions_N2.min(0) + 2, data.scan.positions_N2.max(0) - 2
    limits = zip(low_2, high_2, found.origin_2, strict=True)
    places = [np.arange(int(np.ceil(a - o)), int(b - o) + 1) for a, b, o in limits]
    part = found.projected_phase()[np.ix_(*places)]
    part = part - part.mean()
    spectrum_KL, best = np.fft.fft2(truth_KL), (-1.0, 0.0)
    around, step = np.zeros(2), 0.5
    for _ in range(4):
        tried = []
        for shift_2 in np.stack(np.meshgrid(*[step * np.arange(-4, 5)] * 2), -1).reshape(-1, 2) + around:
            waves = [
                np.exp(2j * np.pi * np.outer(p + o + s, np.fft.fftfreq(size))) / size
                for p, o, s, size in zip(places, found.origin_2, shift_2, truth_KL.shape, strict=True)
            ]
            true = (waves[0] @ spectrum_KL @ waves[1].T).real
            true = true - true.mean()
            r = (part * true).sum() / np.sqrt((part**2).sum() * (true**2).sum())
            tried.append((float(r), float((part * true).sum() / (true**2).sum()), tuple(shift_2)))
        top = max(tried)
        best, around, step = top[:2], np.array(top[2]), step / 4
    return best[1]


def runs_of(name: str, sets: Sequence[str], settings: Sequence[Sequence[str]], log: Path) -> list[Found]:
    """Return what runs reached, after doing those that are not in the log."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    done = {(each["scan"], tuple(each["settings"])): Found(*each["found"]) for each in map(json.loads, lines)}
    for each in settings:
        if (name, tuple(each)) not in done:
            try:
                found = reconstruct((*sets, *each))
            except DivergedError as error:  # a position ran away
                print(f"{name}: {' '.join(each)}: {error}", flush=True)
                found = Found(0.0, 0.0, float("nan"), float("nan"))
            done[name, tuple(each)] = found
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"scan": name, "settings": list(each), "found": list(found)}) + "\n")
    return [done[name, tuple(each)] for each in settings]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of scans and runs.jsonl")
    parser.add_argument("--mos2", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(20, 26)))
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    scans = {"mos2_sim.h5 (abTEM)": arguments.mos2.resolve()} if arguments.mos2 else {}
    for seed in arguments.seeds:
        path = arguments.out / f"specimen_{seed}.h5"
        if not path.is_file():
            simulate(draw(seed), path)
        scans[f"{seed}: {draw(seed)}"] = path.resolve()
    print("| scan | r | gain | positions, Å | CPU s | searched: r | gain | positions, Å | CPU s | within the aim |")
    print("|---" * 10 + "|")
    for name, path in scans.items():
        sets = told(path, mos2=path == arguments.mos2 or name.startswith("mos2"))
        (ours,) = runs_of(name, sets, ((f"run.epochs={arguments.epochs}",),), arguments.out / "runs.jsonl")
        best = max(runs_of(name, sets, SEARCHED, arguments.out / "runs.jsonl"))
        kept = ours.r >= best.r - R_AIM and abs(ours.gain - 1) <= abs(best.gain - 1) + GAIN_AIM
        cells = [
            f"{x.r:.4f} | {x.gain:.3f} | {x.position_error_angstrom:.3f} | {x.cpu_seconds:.0f}" for x in (ours, best)
        ]
        print(f"| {name} | {' | '.join(cells)} | {'yes' if kept else 'no'} |", flush=True)


if __name__ == "__main__":
    main()
