"""Measures the table of docs/resolution.md, and draws its picture, with today's code.

python docs/make_resolution.py mos2_sim.h5 FOLDER

FOLDER receives the scans of lower doses and all runs, and can be given again: what is finished is not repeated. This
takes about six CPU minutes. The figures are written to FOLDER/resolution.json, the table is printed, and the picture
is docs/resolution.png, as `trainkit resolution` draws it.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

DOCS = Path(__file__).parent
RECIPE = DOCS.parent / "recipes" / "ptycho_mos2.toml"
SHARES = {"1e5": 1.0, "1e4": 0.1, "2e3": 0.02}  # e/Å² -> of the counts of the file
HALVES = {
    "scan points": ("of=points", "begin=nothing"),
    "scan points, probe and positions of the run": ("of=points", "begin=finished"),
    "counts": ("of=counts", "begin=nothing"),
}
PICTURE = ("1e4", "scan points")
TRUE = np.sqrt(0.5)  # the correlation with the truth of what holds one bit in a Fourier pixel


def trainkit(folder: Path, *arguments: str) -> None:
    """Run a command; a doubtful result (exit code 3) is a result, too."""
    code = subprocess.run([sys.executable, "-m", "trainkit", *arguments], cwd=folder, check=False).returncode
    if code not in (0, 3):
        sys.exit(f"trainkit {' '.join(arguments)}: exit code {code}")


def thinned(scan: Path, share: float, path: Path) -> None:
    """Write a scan of which each count is kept with a probability."""
    if path.is_file():
        return
    shutil.copyfile(scan, path)
    with h5py.File(path, "r+") as file:
        counts = file["intensity"][()]
        drawn = np.random.default_rng(round(1e6 * share)).binomial(np.rint(counts).astype(np.int64), share)
        del file["intensity"]
        file["intensity"] = drawn.astype(counts.dtype)


def in_words(period_angstrom: float | None, is_finer: bool) -> str:
    """Return a resolution; without a figure, whether it is finer than the pixels or there is none."""
    if period_angstrom is None:
        return "finer" if is_finer else "none"
    return f"{period_angstrom:.2f} Å"


def figures(folder: Path, of: str) -> dict[str, Any]:
    """Return what a comparison of halves left."""
    found: dict[str, Any] = json.loads((folder / f"{of}.json").read_text())
    with (folder / f"{of}.csv").open() as file:
        rows = list(csv.DictReader(file))
    true, expected = (np.array([float(row[name]) for row in rows]) for name in ("with_truth", "with_truth_expected"))
    frequency = np.array([float(row["frequency_per_angstrom"]) for row in rows])
    below = np.flatnonzero(true < TRUE)
    below = below[below > int((true >= TRUE).argmax())]
    period = None
    if len(below):
        ring = int(below[0])
        part = (true[ring - 1] - TRUE) / (true[ring - 1] - true[ring])
        period = 1 / (frequency[ring - 1] + part * (frequency[ring] - frequency[ring - 1]))
    return {
        "one_bit": in_words(found["resolution_1_bit"], found["above_1_bit_up_to_the_pixels"]),
        "half_bit": in_words(found["resolution_half_bit"], found["above_half_bit_up_to_the_pixels"]),
        "true": in_words(period, bool(true[-1] >= TRUE)),
        "error_over_promised": float(np.median((1 - true**2) / np.maximum(1 - expected**2, 1e-9))),
        "misfit_over_noise": found["misfit_over_noise"],
        "doubts": found["doubts"],
    }


def main(scan: Path, folder: Path) -> None:
    """Measure, print and draw."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for dose, share in SHARES.items():
        path = folder / f"mos2_{dose}.h5"
        thinned(scan, share, path)
        sets = ("--set", f"data.path={path.name}", "--set", f"run.name=mos2_{dose}")
        trainkit(folder, "run", str(RECIPE), *sets, "--continue", "--quiet")
        (run,) = (folder / "runs" / f"mos2_{dose}").iterdir()
        for halves, settings in HALVES.items():
            trainkit(folder, "resolution", str(run), "-q", *(f"--set=resolution.{each}" for each in settings))
            of = settings[0].removeprefix("of=")
            found.setdefault(dose, {})[halves] = figures(run / "resolution", of)
            if (dose, halves) == PICTURE:
                shutil.copyfile(run / "resolution" / f"{of}.png", DOCS / "resolution.png")
    (folder / "resolution.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for dose, of_dose in found.items():
        for place, (halves, values) in enumerate(of_dose.items()):
            shown = [values[name] for name in ("one_bit", "half_bit", "true")]
            first = "" if place else f"{dose} e/Å²"
            shown.append(f"{values['error_over_promised']:.1f}")
            sys.stdout.write(f"| {first} | {halves} | {' | '.join(shown)} |\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
