"""How often ``trainkit init --calibrate`` finds the geometry of a scan, over twenty simulated ones.

Each scan lies against the detector in one of eight ways, turned by up to 45°, with a defocus between -100 and 100 Å
and a step that is up to 10 % off what the recipe is told; 18² points 0.3 to 0.6 Å apart, 60 to 200 kV, 18 to 30 mrad,
1e5 to 1e6 e/Å². Specimens, patterns and noise are made as in thin_specimens.py, which shares nothing with the code that
is measured. The truth is the defocus in the middle of the specimen. A line is printed for each scan, and kept in
FOLDER/found.jsonl; if the script is started again, it goes on with the scans that are missing. At the end come the
figures that count.

    OMP_NUM_THREADS=1 python benchmarks/geometry_calibration.py --work FOLDER [--seeds 0 1 2 …] [--dose 1e4]

What it says of its own uncertainty is held against the truth: a defocus that is more than 5 Å off has to have an
uncertainty of more than 5 Å.

With --dose, all scans have that many electrons per Å² instead. What is written of another class, or with a defocus
more than 15 Å off, has to be doubted (exit code 3, "Cannot tell"): "confident and wrong" counts where it was not.

Shapes: N = scan points, K, L = rows and columns of the specimen.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from math import cos, radians, sin
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import tomli
from numpy.typing import NDArray
from thin_specimens import ARRANGEMENTS, DETECTOR, MARGIN, MATERIALS, Settings, atoms, patterns, phase_shifts

POINTS = 18  # along each side of the scan
MOST_DEFOCUS, MOST_ROTATION, MOST_STEP = 100.0, 45.0, 0.1


class Lie(NamedTuple):
    """How a scan lies against the detector.

    Attributes:
        swapped: Whether rows and columns of the scan are exchanged, before all else.
        flip_rows: Whether rows then run the other way.
        flip_columns: Whether columns do.
        rotation_deg: How far the scan is then turned, from the column axis (right) towards the row axis (down).
        step_factor: The true step over the one that is told.
    """

    swapped: bool
    flip_rows: bool
    flip_columns: bool
    rotation_deg: float
    step_factor: float

    def matrix(self) -> NDArray:
        """Return the matrix that maps (row, column) of the scan onto those of the detector."""
        angle = radians(self.rotation_deg)
        turn = np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]])
        signs = np.diag([-1.0 if self.flip_rows else 1.0, -1.0 if self.flip_columns else 1.0])
        return turn @ signs @ np.eye(2)[:: -1 if self.swapped else 1]


def draw(seed: int) -> tuple[Settings, Lie]:
    """Return a specimen with its microscope, and how the scan lies."""
    generator = np.random.default_rng([seed, 0x6E0])
    semiangle = generator.uniform(18, 30)
    settings = Settings(
        material=list(MATERIALS)[generator.integers(len(MATERIALS))],
        turned_deg=generator.uniform(0, 90),
        vacancies=generator.uniform(0.01, 0.05),
        vibration_angstrom=generator.uniform(0.05, 0.09),
        energy_kev=float(generator.choice([60.0, 80.0, 120.0, 200.0])),
        semiangle_mrad=semiangle,
        detector_mrad=semiangle * generator.uniform(1.7, 2.3),
        defocus_angstrom=generator.uniform(-MOST_DEFOCUS, MOST_DEFOCUS),
        told_defocus_angstrom=np.nan,
        step_angstrom=generator.uniform(0.3, 0.6),
        position_error_angstrom=generator.uniform(0.02, 0.08),
        dose_per_square_angstrom=10 ** generator.uniform(5, 6),
        seed=seed,
    )
    flips = generator.integers(0, 2, 3).astype(bool)
    rotation = generator.uniform(-MOST_ROTATION, MOST_ROTATION)
    return settings, Lie(*(bool(each) for each in flips), rotation, generator.uniform(1 - MOST_STEP, 1 + MOST_STEP))


def simulate(settings: Settings, lie: Lie, path: Path) -> None:
    """Write a scan whose file says nothing about defocus and orientation; the truth is in attributes of its own."""
    generator = np.random.default_rng([settings.seed, 2])
    pixel, size = settings.pixel_angstrom, DETECTOR
    raster_N2 = np.stack(np.meshgrid(*[np.arange(POINTS) - (POINTS - 1) / 2] * 2, indexing="ij"), -1).reshape(-1, 2)
    places_N2 = settings.step_angstrom / pixel * raster_N2 @ lie.matrix().T
    places_N2 += generator.normal(0, settings.position_error_angstrom / pixel, places_N2.shape)
    places_N2 -= places_N2.min(0) - (size // 2 + MARGIN)
    side = int(np.ceil(places_N2.max())) + size // 2 + MARGIN
    elements, places_A3 = atoms(settings, side * pixel, generator)
    expected_NYX = np.zeros((len(places_N2), size, size))
    for _ in range(ARRANGEMENTS):
        moved_A3 = places_A3 + generator.normal(0, settings.vibration_angstrom, places_A3.shape)
        slices_SKL = phase_shifts(settings, elements, moved_A3, 2 * side)
        expected_NYX += patterns(settings, slices_SKL, places_N2) / ARRANGEMENTS
    counts = settings.dose_per_square_angstrom * settings.step_angstrom**2
    with h5py.File(path, "w") as file:
        frames_NYX = generator.poisson(counts * expected_NYX).astype(np.float32)
        file["intensity"] = frames_NYX.reshape(POINTS, POINTS, size, size)
        file.attrs["energy_kev"] = settings.energy_kev
        file.attrs["semiangle_mrad"] = settings.semiangle_mrad
        file.attrs["dk_per_angstrom"] = 1 / (size * pixel)
        file.attrs["scan_step_angstrom"] = settings.step_angstrom / lie.step_factor
        file.attrs["hidden"] = json.dumps({**settings._asdict(), **lie._asdict()})


def middle_of(settings: Settings) -> float:
    """Return by how much the beam has less underfocus in the middle of a specimen than at its first atoms, in Å."""
    _, cell = MATERIALS[settings.material]
    slices = {round(z / 2.0) for *_, z in cell}
    return float(len(slices) - 1)  # slices are 2 Å apart


def calibrate(scan: Path, recipe: Path) -> tuple[dict[str, Any], dict[str, Any], float, int]:
    """Run the command, and return the recipe's [data], the figures, the CPU seconds and the exit code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "trainkit", "init", str(scan), "--calibrate", "--json", "--out", str(recipe)]
    for old in (recipe, recipe.with_suffix(".png")):
        old.unlink(missing_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 3):
        raise RuntimeError(done.stderr)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures = json.loads(done.stdout)["figures"]
    return tomli.loads(recipe.read_text())["data"], figures, seconds, done.returncode


def judged(data: dict[str, Any], figures: dict[str, Any], settings: Settings, lie: Lie) -> dict[str, Any]:
    """Return how far what was found is from the truth; up to the pair that no loss tells apart."""
    found = {"written": isinstance(data["defocus_angstrom"], float)}
    if not found["written"]:
        return found
    flips = data["positions_flip"]
    angle, swapped = data["positions_rotation_deg"], data["positions_order"] == "column_row"
    matrix = Lie(swapped, "rows" in flips, "columns" in flips, angle, 1.0).matrix()
    turn = matrix @ lie.matrix().T  # of the two, a rotation if both are mirrored, or neither is
    sense = 1.0 if np.linalg.det(turn) > 0 else 0.0
    off_deg = float(np.degrees(np.arctan2(turn[0, 1], turn[0, 0])))
    true = settings.defocus_angstrom - middle_of(settings)
    right = abs(off_deg) < 90
    defocus = data["defocus_angstrom"] * (1 if right else -1)
    told = settings.step_angstrom / lie.step_factor
    return found | {
        "class": bool(sense and min(abs(off_deg), 180 - abs(off_deg)) < 15 and abs(defocus - true) < 30),
        "member": right,
        "rotation_off_deg": off_deg if right else off_deg - np.copysign(180, off_deg),
        "defocus_off_angstrom": defocus - true,
        "defocus_error_angstrom": figures["defocus_error_angstrom"],
        "fitted_step_off_percent": 100 * ((figures["fitted_step_factor"] or np.nan) / lie.step_factor - 1),
        "step_off_percent": 100 * (data["raster"]["step"] / told / lie.step_factor - 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    parser.add_argument("--dose", type=float, help="electrons per Å² of each scan")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    dose = "" if arguments.dose is None else f"_{arguments.dose:g}"
    kept = arguments.work / f"found{dose}.jsonl"
    known = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for seed in arguments.seeds:
        if any(each["seed"] == seed for each in known):
            continue
        settings, lie = draw(seed)
        if arguments.dose is not None:
            settings = settings._replace(dose_per_square_angstrom=arguments.dose)
        scan = arguments.work / f"scan_{seed}{dose}.h5"
        if not scan.exists():
            simulate(settings, lie, scan)
        data, figures, seconds, code = calibrate(scan, scan.with_suffix(".toml"))
        line = {"seed": seed, "what": str(settings), **lie._asdict(), "cpu_seconds": seconds, "exit_code": code}
        line |= judged(data, figures, settings, lie)
        known.append(line)
        with kept.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line, ensure_ascii=False), flush=True)
    wanted = [each for each in known if each["seed"] in arguments.seeds]
    written = [each for each in wanted if each["written"]]
    right = [each for each in written if each["class"]]
    if not right:
        return
    defoci = np.abs([each["defocus_off_angstrom"] for each in right])
    print(f"{len(wanted)} scans, {len(written)} recipes with a geometry, {len(right)} of the right class")
    print(f"of these the right member of the pair: {sum(each['member'] for each in right)}")
    print(f"defocus within 5 Å: {(defoci <= 5).sum()}; the furthest off {defoci.max():.1f} Å")
    errors = np.array([each["defocus_error_angstrom"] for each in right])
    print(
        f"further off than 5 Å: {(defoci > 5).sum()}, of these saying so: {((defoci > 5) & (errors > 5)).sum()}; ",
        end="",
    )
    print(f"saying so in all: {(errors > 5).sum()}; within what it says: {(defoci <= errors).sum()}")
    for name in ("rotation_off_deg", "step_off_percent", "fitted_step_off_percent"):
        values = np.abs([each[name] for each in right])
        print(f"{name}: median {np.nanmedian(values):.2f}, largest {np.nanmax(values):.2f}")
    print(f"CPU seconds: median {np.median([each['cpu_seconds'] for each in wanted]):.0f}, ", end="")
    print(f"largest {max(each['cpu_seconds'] for each in wanted):.0f}")


if __name__ == "__main__":
    main()
