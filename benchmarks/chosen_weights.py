"""Compares the weight of total variation that held-out patterns choose with the one that the truth calls best.

A multislice simulation of a MoS2 monolayer (`mos2_sim.h5`) is drawn anew with Poisson noise at each dose. The recipe is
recipes/ptycho_mos2.toml with a tenth of the patterns held out. It runs once with each weight of a grid, and with
weight = "auto", which never sees the truth. Then r, the correlation with the true phase, tells which weight is best
among those of the grid and those of the branches.

Every finished run is a line in FOLDER/runs.jsonl; if the script is started again, it does only what is missing. The
findings are in docs/chosen_weights.md.

    python benchmarks/chosen_weights.py --mos2 mos2_sim.h5 --out FOLDER [--doses 1e5 1e4 2e3] [--seeds 0 1 2]

A seed is that of the noise, and of the run: start, held-out patterns and their order.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np

from trainkit import DivergedError
from trainkit.console import Console
from trainkit.engine.every_run import metrics_file
from trainkit.engine.queue import run_all
from trainkit.engine.start import no_report, start
from trainkit.recipe.resolve import Resolved, resolve

RECIPE = Path(__file__).parent.parent / "recipes/ptycho_mos2.toml"
GRID = (0.0, 100.0, 30.0, 300.0, 10.0, 1000.0, 3.0)
R, HELD_OUT = "truth/phase_pearson", "val/data"


def write_scan(mos2: Path, dose: float, seed: int, path: Path) -> None:
    """Draw the counts of a dose in e/Å², and write them as a file that the recipe reads."""
    with h5py.File(mos2) as old, h5py.File(path, "w") as new:
        expected = old["intensity_noiseless"][()].astype(np.float64) / float(old.attrs["electrons_per_pattern"])
        counts = np.random.default_rng(seed).poisson(expected * dose * float(old.attrs["scan_step_A"]) ** 2)
        new["intensity"] = counts.astype(np.float32)
        for name in ("positions_nominal_A", "positions_true_A", "gt/phase_rad"):
            new[name] = old[name][()]


def recipe(scan: Path, out: Path, name: str, weight: float | str, seed: int) -> Resolved:
    """Return the recipe of a run."""
    return resolve(
        RECIPE,
        [
            f"data.path={scan}",
            "data.validation_fraction=0.1",
            *("run.device=cpu", "run.threads=1", f"run.dir={out / 'runs'}", f"run.name={name}"),
            *((f"run.seed={seed}",) if seed else ()),
            *("hooks.truth.every_epochs=1", "pictures.every_epochs=0", 'drop=["loggers"]'),
            *("losses.tv.use=tv", f"losses.tv.weight={weight}"),
        ],
    )


def result(folder: Path) -> dict[str, float]:
    """Return r and the held-out loss at the end of a run."""
    last = [line for line in metrics_file.read(folder) if R in line][-1]
    return {"r": last[R], "held_out": last[HELD_OUT]}


def run_weight(scan: Path, out: Path, dose: float, seed: int, weight: float) -> dict[str, Any]:
    """Run with a weight."""
    began = time.process_time()
    reached = {"r": 0.0, "held_out": math.inf}
    try:
        outcome = start(recipe(scan, out, named("dose", dose, seed), weight, seed), Console(quiet=True))
        reached = result(outcome.run.state.folder)
    except DivergedError as error:  # too strong a weight: the object is lost, and positions run away
        print(f"{dose:.0e} e/Å², weight {weight:g}: {error}", flush=True)
    return {"dose": dose, "seed": seed, "weight": weight, "cpu_s": time.process_time() - began, **reached}


def run_auto(scan: Path, out: Path, dose: float, seed: int) -> dict[str, Any]:
    """Run with the weight that held-out patterns choose."""
    began = time.process_time()
    name = named("auto", dose, seed)
    searching = recipe(scan, out, name, "auto", seed)
    run_all([searching], Console(quiet=True), continue_unfinished=True, report=no_report)
    folder = max((out / "runs" / name).glob("*/weight_search.json")).parent
    found = json.loads((folder / "weight_search.json").read_text())["weights"]["tv"]
    row = {"dose": dose, "seed": seed, "weight": "auto", "cpu_s": time.process_time() - began, "found": found}
    branches = {each["weight"]: result(Path(each["run"]))["r"] for each in found["tried"] if each["run"] is not None}
    return row | {"branches": sorted(branches.items())} | result(folder)


def named(what: str, dose: float, seed: int) -> str:
    """Return the name of files and runs."""
    return f"{what}_{dose:.0e}" + (f"_seed_{seed}" if seed else "")


def table(rows: list[dict[str, Any]], doses: list[float], seeds: list[int]) -> list[str]:
    """Return the lines of the table in the docs."""
    lines = [
        "| e/Å² | seed | r without TV | best full run by the truth | best branch by the truth "
        "| chosen by held-out patterns | below the best | equal within the scatter | CPU time, in runs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for dose, seed in product(doses, seeds):
        of_both = [row for row in rows if (row["dose"], row["seed"]) == (dose, seed)]
        grid = {row["weight"]: row for row in of_both if row["weight"] != "auto"}
        auto = next((row for row in of_both if row["weight"] == "auto"), None)
        if not grid or auto is None:
            continue
        best = max(grid.values(), key=lambda row: row["r"])
        weight, r = max(auto["branches"], key=lambda each: each[1])
        low, high = auto["found"]["equal_within_scatter"]
        ratio = auto["cpu_s"] / (sum(row["cpu_s"] for row in grid.values()) / len(grid))
        lines.append(
            f"| {dose:.0e} | {seed} | {grid[0.0]['r']:.4f} | {best['r']:.4f} ({best['weight']:g}) "
            f"| {r:.4f} ({weight:g}) | {auto['r']:.4f} ({auto['found']['chosen']:g}) "
            f"| {max(best['r'], r) - auto['r']:.4f} | {low:g} to {high:g} | {ratio:.1f} |"
        )
    return lines


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mos2", type=Path, required=True, help="the simulated scan, mos2_sim.h5")
    parser.add_argument("--out", type=Path, required=True, help="the folder of scans, runs and results")
    parser.add_argument("--doses", type=float, nargs="+", default=[1e5, 1e4, 2e3], help="in e/Å²")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of noise and run")
    parser.add_argument("--grid", type=float, nargs="*", default=GRID, help="weights that the truth compares")
    parser.add_argument("--no-auto", action="store_true", help="only the grid")
    given = parser.parse_args()
    out: Path = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    record = out / "runs.jsonl"
    rows = [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []
    for dose, seed in product(given.doses, given.seeds):
        scan = out / f"{named('scan', dose, seed)}.h5"
        if not scan.is_file():
            write_scan(given.mos2, dose, seed, scan)
        for weight in (*given.grid, *(() if given.no_auto else ("auto",))):
            if any((row["dose"], row["seed"], row["weight"]) == (dose, seed, weight) for row in rows):
                continue
            row = run_auto(scan, out, dose, seed) if weight == "auto" else run_weight(scan, out, dose, seed, weight)
            rows.append(row)
            with record.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    print("\n".join(table(rows, given.doses, given.seeds)))


if __name__ == "__main__":
    main()
