"""Compares pixels and a hash encoding for the object, with and without total variation, at several doses.

The study has two stages; its findings are in docs/hash_or_pixels.md. Tuning: for each condition (a dose, and all scan
points or a quarter of them), each method gets the same number of trials, first spread over all settings, then near the
best. The lowest loss over held-out patterns chooses the settings, and the epoch inside each run. Final: the chosen
settings run again on new noise with other held-out patterns, and the error against the truth is the result. The probe
is known and fixed.

Every finished run is a line in FOLDER/runs.jsonl; if the script is started again, it does only the missing runs.

    python benchmarks/hash_or_pixels.py --out FOLDER [--mos2 mos2_sim.h5] [--workers 2] [--quick]

Without --mos2 the scan is simulated by the plugin, with the very model that reconstructs it; with it, by multislice.

Shapes: N = scan points, R, C = rows and columns of the scan, Y, X = those of a pattern, K, L = those of the true phase,
H, W = those of the reconstructed one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import mean, median, stdev
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trainkit import DataError, State
from trainkit.engine.build import build
from trainkit.engine.loop import train
from trainkit.engine.run_folder import created
from trainkit.errors import NonFiniteError
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.physics.geometry import place
from trainkit_ptychography.physics.optics import aperture_probe, electron_wavelength
from trainkit_ptychography.physics.quality import phase_agreement, position_rmse
from trainkit_ptychography.scans.simulated import SimulatedDiffraction
from trainkit_ptychography.scans.simulated_live import patterns, simulate

BASE_RESOLUTION = 16
OBJECT_MARGIN = 4
EDGE = 2.0  # pixels at the edge of the scan that are not compared: few patterns see them
NOISE_FREE_DOSE = 1e5  # e/Å²: the unit of patterns without noise, so that weights mean the same there
SHOWN_ANGSTROM = 11.0  # side of the part that the picture shows

RECIPE = """
trainkit = 1
run = {{ name = "run", dir = "runs", device = "cpu", threads = 1, seed = {seed}, epochs = {epochs} }}
checkpoint.every_epochs = 1000
pictures.every_epochs = 0
optimizer.use = "adam"
scheduler.use = "cosine"

[data]
use = "diffraction_hdf5"
path = "scan.h5"
patterns = "intensities"
positions = "positions"
positions_unit = "angstrom"
energy_kev = {energy_kev}
dk_per_angstrom = {dk_per_angstrom}
semiangle_mrad = {semiangle_mrad}
defocus_angstrom = {defocus_angstrom}
batch_size = {batch_size}
validation_fraction = 0.1
truth_phase = "truth/phase"
truth_positions = "truth/positions"

[model]
use = "ptychography"
object = {object}
object_margin = {object_margin}
probe = {{ use = "aperture" }}

[losses]
{losses}

[groups]
object = {{ lr = {object_lr} }}
{positions}
"""


class Condition(NamedTuple):
    """A way to measure.

    Attributes:
        name: Name of the condition in tables.
        dose: Electrons per Å² if all points are scanned; None: no noise.
        every: 1: all scan points; 2: every second row and column of them.
    """

    name: str
    dose: float | None
    every: int = 1


CONDITIONS = (
    Condition("noise-free", None),
    Condition("1e5", 1e5),
    Condition("1e4", 1e4),
    Condition("1e3", 1e3),
    Condition("1e5, 1/4 of the points", 1e5, 2),
    Condition("1e4, 1/4 of the points", 1e4, 2),
)
METHODS = ("pixels", "pixels + TV", "hash", "hash + TV")
FEW_ELECTRONS = ("1e4", "1e3", "1e4, 1/4 of the points")


def compared(method: str, condition: Condition) -> bool:
    """Return whether a method is tried: the dearest one, which evaluates its object three times a step, not always."""
    return method != "hash + TV" or condition.name in FEW_ELECTRONS


class Effort(NamedTuple):
    """How many runs the study has, and how long they are.

    Attributes:
        spread: Number of trials for each method under each condition, spread over all settings.
        near: Number of trials near the best of those.
        epochs: Numbers of epochs of a run from which the trials choose.
        seeds: Seeds of the final runs; tuning has seed 0.
    """

    spread: int = 12
    near: int = 8
    epochs: tuple[int, ...] = (12, 24, 48)
    seeds: tuple[int, ...] = (1, 2, 3, 4)


# ---- the scan -------------------------------------------------------------------------------------------------------


class Specimen(NamedTuple):
    """A scan without noise.

    Attributes:
        expected_RCYX: Patterns, as fractions of the electrons that a scan point gets; zero frequency at [Y//2, X//2].
        told_RC2: The positions that are given to a reconstruction, in Å.
        true_RC2: The true positions, in Å.
        phase_KL: The true phase in rad; pixel [i, j] is at (i, j) pixels.
        step_area: Å² for each scan point.
        microscope: What a recipe says of it.
    """

    expected_RCYX: NDArray[np.float64]
    told_RC2: NDArray[np.float64]
    true_RC2: NDArray[np.float64]
    phase_KL: NDArray[np.float64]
    step_area: float
    microscope: Mapping[str, float]


def from_abtem(path: Path) -> Specimen:
    """Read the multislice simulation."""
    with h5py.File(path) as file:
        about = {name: file.attrs[name] for name in file.attrs}
        shape = tuple(int(size) for size in about["scan_shape"])
        return Specimen(
            file["intensity_noiseless"][()].astype(np.float64) / float(about["electrons_per_pattern"]),
            file["positions_nominal_A"][()].reshape(*shape, 2),
            file["positions_true_A"][()].reshape(*shape, 2),
            file["gt/phase_rad"][()].astype(np.float64),
            float(about["scan_step_A"]) ** 2,
            {
                "energy_kev": float(about["energy_eV"]) / 1e3,
                "dk_per_angstrom": float(about["dk_invA"]),
                "semiangle_mrad": float(about["semiangle_rad"]) * 1e3,
                "defocus_angstrom": float(about["defocus_A"]),
            },
        )


def simulated(settings: SimulatedDiffraction) -> Specimen:
    """Simulate a scan with the plugin's own model."""
    scan = simulate(settings).scan
    assert scan.truth is not None
    size, pixel = settings.detector_size, settings.pixel_size_angstrom
    wavelength = electron_wavelength(settings.energy_kev)
    lens = {"C10": (-settings.defocus_angstrom, 0.0)}
    probe_YX = aperture_probe((size, size), pixel, wavelength, settings.semiangle_mrad, lens)
    expected_NYX = patterns(np.exp(1j * scan.truth.phase_KL), probe_YX, scan.truth.positions_N2)
    return Specimen(
        np.fft.fftshift(expected_NYX, axes=(1, 2)).reshape(*settings.scan_shape, size, size),
        (scan.positions_N2 * pixel).reshape(*settings.scan_shape, 2),
        (scan.truth.positions_N2 * pixel).reshape(*settings.scan_shape, 2),
        np.asarray(scan.truth.phase_KL, dtype=np.float64),
        settings.step_angstrom**2,
        {
            "energy_kev": settings.energy_kev,
            "dk_per_angstrom": 1 / (size * pixel),
            "semiangle_mrad": settings.semiangle_mrad,
            "defocus_angstrom": settings.defocus_angstrom,
        },
    )


def write_scan(path: Path, specimen: Specimen, condition: Condition, seed: int) -> None:
    """Measure: draw the counts of a condition, and write them as a file that the recipe reads."""
    chosen = np.s_[:: condition.every, :: condition.every]
    counts_RCYX = specimen.expected_RCYX[chosen] * (condition.dose or NOISE_FREE_DOSE) * specimen.step_area
    if condition.dose is not None:
        counts_RCYX = np.random.default_rng(seed).poisson(counts_RCYX).astype(np.float64)
    with h5py.File(path, "w") as file:
        file["intensities"] = counts_RCYX.astype(np.float32)
        file["positions"] = specimen.told_RC2[chosen].reshape(-1, 2)
        file["truth/positions"] = specimen.true_RC2[chosen].reshape(-1, 2)
        file["truth/phase"] = specimen.phase_KL


# ---- the settings that are tried ------------------------------------------------------------------------------------


AXES = (
    *("epochs", "object_lr", "epsilon_counts", "positions", "positions_lr", "tv"),
    *("finest", "levels", "neurons", "log2_hashmap_size", "coarse_to_fine"),
)
NEAR = 0.12  # standard deviation, along each axis, of trials near the best


def spread(num: int) -> list[dict[str, float]]:
    """Return places in the unit cube of settings: along each axis one in each of ``num`` equal parts, in random order.

    Source: McKay, Beckman, Conover, Technometrics 21 (1979) 239 (Latin hypercube).
    """
    columns = []
    for axis in AXES:
        random = Random(axis)
        column = [round((part + random.random()) / num, 4) for part in range(num)]
        random.shuffle(column)
        columns.append(column)
    return [dict(zip(AXES, place, strict=True)) for place in zip(*columns, strict=True)]


def near(best: Mapping[str, float], num: int) -> list[dict[str, float]]:
    """Return places near one in the unit cube; coordinates outside the cube are folded back."""
    random = Random("near")
    moved = [{axis: best[axis] + random.gauss(0.0, NEAR) for axis in AXES} for _ in range(num)]
    return [{axis: round(min(abs(at), 2 - abs(at) - 1e-4), 4) for axis, at in place.items()} for place in moved]


def settings(method: str, at: Mapping[str, float], epochs: Sequence[int]) -> dict[str, Any]:
    """Return what a place stands for; axes that a method does not have do not matter."""
    tried: dict[str, Any] = {
        "epochs": _one_of(epochs, at["epochs"]),
        "object_lr": _between(1e-3, 3e-2, at["object_lr"]),
        "epsilon_counts": _between(1e-4, 1e-2, at["epsilon_counts"]),
        "positions_lr": None if at["positions"] < 1 / 3 else _between(1e-3, 3e-2, at["positions_lr"]),
    }
    if "TV" in method:
        tried["tv"] = _between(1.0, 1e3, at["tv"])  # beside the deviance of a pattern
    if "hash" in method:
        tried["hash"] = {
            "finest": round(0.35 + 0.65 * at["finest"], 3),  # vertices a pixel
            "levels": _one_of((4, 8, 16), at["levels"]),
            "neurons": _one_of((16, 32, 64), at["neurons"]),
            "log2_hashmap_size": _one_of((11, 15), at["log2_hashmap_size"]),
            "coarse_to_fine": at["coarse_to_fine"] < 0.5,
        }
    return tried


def _between(low: float, high: float, at: float) -> float:
    value: float = low * (high / low) ** at
    return float(f"{value:.3g}")


def _one_of(values: Sequence[int], at: float) -> int:
    return values[int(at * len(values))]


def recipe(specimen: Specimen, condition: Condition, tried: Mapping[str, Any], seed: int) -> str:
    """Return the recipe of a run."""
    epochs = tried["epochs"]
    losses = [f'data = {{ use = "poisson", epsilon_counts = {tried["epsilon_counts"]} }}']
    if "tv" in tried:
        losses.append(f'tv = {{ use = "tv", weight = {tried["tv"]} }}')
    positions = ""
    if tried["positions_lr"] is not None:
        positions = f"dr = {{ lr = {tried['positions_lr']}, start_epoch = {epochs // 8} }}"
    return RECIPE.format(
        seed=seed,
        epochs=epochs,
        batch_size=32 // condition.every**2,  # as many steps an epoch, however many points
        object=_hash_object(specimen, condition, tried["hash"], epochs) if "hash" in tried else '{ use = "pixels" }',
        object_margin=OBJECT_MARGIN,
        object_lr=tried["object_lr"],
        losses="\n".join(losses),
        positions=positions,
        **specimen.microscope,
    )


def _hash_object(specimen: Specimen, condition: Condition, tried: Mapping[str, Any], epochs: int) -> str:
    size = specimen.expected_RCYX.shape[-2:]
    told_N2 = specimen.told_RC2[:: condition.every, :: condition.every].reshape(-1, 2)
    side = max(place(told_N2 / pixel_size(specimen), (size[0], size[1]), OBJECT_MARGIN).shape_HW)
    levels = tried["levels"]
    scale = max((tried["finest"] * side / BASE_RESOLUTION) ** (1 / (levels - 1)), 1.01)
    fine_from = ""
    if tried["coarse_to_fine"]:
        joined = max(epochs // 3, 2)
        fine_from = f", fine_from = {{ start_epoch = 1, stop_epoch = {joined}, coarse_levels = {levels // 2} }}"
    return (
        f'{{ use = "hash_encoding", levels = {levels}, per_level_scale = {scale:.6f}, '
        f"base_resolution = {BASE_RESOLUTION}, neurons = {tried['neurons']}, "
        f"log2_hashmap_size = {tried['log2_hashmap_size']}{fine_from} }}"
    )


def pixel_size(specimen: Specimen) -> float:
    """Return the size of an object pixel in Å."""
    size: float = 1 / (specimen.expected_RCYX.shape[-1] * specimen.microscope["dk_per_angstrom"])
    return size


# ---- a run ----------------------------------------------------------------------------------------------------------


class Watch:
    """Keeps what the epoch of the lowest held-out loss found, how good that is, and what the truth would have chosen.

    Nothing of the truth goes back into the run.

    Args:
        always: Compare with the truth after each epoch; else after the chosen and the last one.
    """

    def __init__(self, always: bool) -> None:
        self._always = always
        self._seconds = 0.0
        self._begun = time.process_time()
        self.chosen: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.by_truth: dict[str, float] = {}
        self.phase_HW: NDArray[np.floating] = np.zeros((0, 0))

    def on_epoch_end(self, state: State) -> None:
        """Look."""
        paused = time.process_time()
        lowest = not self.chosen or state.metrics["val/loss"] < self.chosen["held_out_loss"]
        if lowest or self._always or state.epoch + 1 == state.epochs:
            self.last = {"held_out_loss": state.metrics["val/loss"], "epoch": state.epoch + 1, **measured(state)}
            if lowest:
                self.chosen, self.phase_HW = self.last, shown_phase(state)
            if self._always and (not self.by_truth or self.last["r"] > self.by_truth["r"]):
                self.by_truth = self.last
        self._seconds += time.process_time() - paused

    def seconds(self) -> float:
        """Return the CPU seconds since the beginning, without those of looking."""
        return time.process_time() - self._begun - self._seconds


def measured(state: State) -> dict[str, float]:
    """Return how near object and positions are to the truth."""
    data: Any = state.data
    model: Any = state.model
    scan, trained = data.scan, data.train_index.numpy()
    box = compared_box(scan.positions_N2)
    phase_HW = model.reconstruction().projected_phase()
    r, gain = phase_agreement(phase_HW, model.motion.origin_2, scan.truth.phase_KL, box)
    return {
        "r": r,
        "gain": gain,
        "phase_error_rad": phase_error(phase_HW, model.motion.origin_2, scan.truth.phase_KL, box),
        "position_error_angstrom": scan.pixel_size_angstrom
        * position_rmse(model.positions()[trained], scan.truth.positions_N2[trained]),
    }


Box = tuple[tuple[float, float], tuple[float, float]]


def compared_box(positions_N2: NDArray[np.float64]) -> Box:
    """Return what is compared, ((first row, last row), (first column, last column)), in the data's coordinates."""
    (top, left), (bottom, right) = positions_N2.min(axis=0) + EDGE, positions_N2.max(axis=0) - EDGE
    return (top, bottom), (left, right)


def phase_error(
    phase_HW: NDArray[np.floating], origin_2: NDArray[np.floating], truth_KL: NDArray[np.floating], box: Box
) -> float:
    """Return the root mean square error of a phase over a box, in rad, without its mean and at the best shift.

    The shift is found by Gauss and Newton; the truth is moved by Fourier interpolation.

    Args:
        phase_HW: The reconstruction, in rad.
        origin_2: Position in the truth's coordinates of its pixel [0, 0].
        truth_KL: The true phase; its pixel [i, j] is at position (i, j).
        box: What to compare, in the truth's coordinates.
    """
    places = [
        np.arange(int(np.ceil(low - origin)), int(np.floor(high - origin)) + 1)
        for (low, high), origin in zip(box, origin_2, strict=True)
    ]
    found = phase_HW[np.ix_(*places)].astype(np.float64)
    spectrum_KL = np.fft.fft2(truth_KL)
    frequencies = [np.fft.fftfreq(size) for size in truth_KL.shape]

    def residual(shift_2: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        waves = [
            np.exp(2j * np.pi * np.outer(along + origin + moved, frequency)) / len(frequency)
            for along, origin, moved, frequency in zip(places, origin_2, shift_2, frequencies, strict=True)
        ]
        slopes = [wave * 2j * np.pi * frequency for wave, frequency in zip(waves, frequencies, strict=True)]
        truth, down, right = (
            (rows @ spectrum_KL @ columns.T).real.ravel()
            for rows, columns in ((waves[0], waves[1]), (slopes[0], waves[1]), (waves[0], slopes[1]))
        )
        missing = found.ravel() - truth
        gradient = np.stack((down, right), axis=1)
        return missing - missing.mean(), gradient - gradient.mean(axis=0)

    best, shift_2 = np.inf, np.zeros(2)
    for _ in range(20):
        missing, gradient = residual(shift_2)
        best = min(best, float(np.sqrt((missing**2).mean())))
        step_2 = np.linalg.lstsq(gradient, missing, rcond=None)[0].clip(-0.5, 0.5)
        shift_2 = shift_2 + step_2
        if np.abs(step_2).max() < 1e-3:
            break
    return best


def shown_phase(state: State) -> NDArray[np.float32]:
    """Return the middle of the phase, for the picture."""
    data: Any = state.data
    model: Any = state.model
    middle_2 = (data.scan.positions_N2.min(axis=0) + data.scan.positions_N2.max(axis=0)) / 2 - model.motion.origin_2
    return cut(model.reconstruction().projected_phase(), middle_2, data.scan.pixel_size_angstrom).astype(np.float32)


def cut(phase_HW: NDArray[np.floating], middle_2: NDArray[np.float64], pixel: float) -> NDArray[np.floating]:
    """Return the part of a phase around a pixel that the picture shows, without its mean."""
    half = round(SHOWN_ANGSTROM / pixel / 2)
    row, column = (round(float(place)) for place in middle_2)
    part: NDArray[np.floating] = phase_HW[max(row - half, 0) : row + half, max(column - half, 0) : column + half]
    centred: NDArray[np.floating] = part - part.mean()
    return centred


def run(specimen: Specimen, job: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Do a job: measure, reconstruct, compare.

    Args:
        specimen: What is scanned.
        job: Stage, condition, method, seed and settings.
        out: Gets the phase of the final runs, as a file that the job names.
    """
    condition = Condition(*job["condition"])
    watch = Watch(always=job["stage"] == "final")
    outcome: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        write_scan(folder / "scan.h5", specimen, condition, job["seed"])
        (folder / "recipe.toml").write_text(recipe(specimen, condition, job["settings"], job["seed"]), encoding="utf-8")
        resolved = resolve(folder / "recipe.toml", ())
        live = build(resolved, stack.enter_context(created(resolved)))
        live.add("watch", watch)
        try:
            train(live)
        except (DataError, NonFiniteError) as error:  # these settings cannot be had: a position ran away, or NaN
            outcome["failed"] = str(error)
    outcome |= {"cpu_seconds": watch.seconds(), "chosen": watch.chosen, "last": watch.last}
    if watch.by_truth:
        outcome["by_truth"] = watch.by_truth
    if job["stage"] == "final":
        np.save(out / phase_file(job), watch.phase_HW)
    return {**job, **outcome}


def phase_file(job: Mapping[str, Any]) -> str:
    """Return what the file of a final run's phase is called."""
    words = f"phase {job['condition'][0]} {job['method']} {job['seed']}".replace("/", " of ").replace("+", "and")
    return "-".join(words.replace(",", "").split()) + ".npy"


# ---- all runs -------------------------------------------------------------------------------------------------------

JOB = ("stage", "condition", "method", "data", "seed", "place", "settings")


def key(record: Mapping[str, Any]) -> str:
    """Return what tells a job from all others."""
    return json.dumps({name: record[name] for name in JOB}, sort_keys=True)


class Runs:
    """The runs that are done, in a file of a line each.

    Args:
        path: The file. A last line that was not wholly written is taken out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        path.write_text("".join(whole), encoding="utf-8")
        self._done = {key(record): record for record in map(json.loads, whole)}

    def do(
        self, specimen: Specimen, jobs: Sequence[Mapping[str, Any]], out: Path, workers: int
    ) -> list[dict[str, Any]]:
        """Return the records of jobs, in their order, after doing those that are not done."""
        missing = [job for job in jobs if key(job) not in self._done]
        for number, record in enumerate(_outcomes(specimen, missing, out, workers), 1):
            self._done[key(record)] = record
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            chosen = record["chosen"]
            print(
                f"{number:4} of {len(missing)}  {record['stage']:6} {record['condition'][0]:24}{record['method']:12}"
                f"{record['cpu_seconds']:6.1f} s  held-out {chosen.get('held_out_loss', float('nan')):9.2f} "
                f"in epoch {chosen.get('epoch', 0):3}  {record.get('failed', '')}",
                flush=True,
            )
        return [self._done[key(job)] for job in jobs]


def _outcomes(
    specimen: Specimen, jobs: Sequence[Mapping[str, Any]], out: Path, workers: int
) -> Iterator[dict[str, Any]]:
    if workers == 1:
        yield from (run(specimen, job, out) for job in jobs)
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for future in as_completed([pool.submit(run, specimen, job, out) for job in jobs]):
                yield future.result()


def study(
    specimen: Specimen,
    data: str,
    conditions: Sequence[Condition],
    methods: Sequence[str],
    effort: Effort,
    out: Path,
    workers: int,
) -> list[dict[str, Any]]:
    """Tune, choose, and run what was chosen; return all runs."""
    runs = Runs(out / "runs.jsonl")
    done: list[dict[str, Any]] = []
    for method in methods:
        here = [condition for condition in conditions if compared(method, condition)]

        def tuned(places: Mapping[Condition, Sequence[Mapping[str, float]]], method: str = method) -> list[Any]:
            jobs = [
                job("tuning", condition, method, data, 0, at, effort)
                for condition in places
                for at in places[condition]
            ]
            return runs.do(specimen, jobs, out, workers)

        tried = tuned(dict.fromkeys(here, spread(effort.spread)))
        tried += tuned({each: near(chosen_trial(tried, each)["place"], effort.near) for each in here})
        chosen = {each: chosen_trial(tried, each)["place"] for each in here}
        jobs = [
            job("final", condition, method, data, seed, chosen[condition], effort)
            for condition in here
            for seed in effort.seeds
        ]
        done += tried + runs.do(specimen, jobs, out, workers)
    return done


def job(
    stage: str, condition: Condition, method: str, data: str, seed: int, at: Mapping[str, float], effort: Effort
) -> dict[str, Any]:
    """Return what determines a run; the seed is that of the noise, and of the run."""
    return {
        "stage": stage,
        "condition": list(condition),
        "method": method,
        "data": data,
        "seed": seed,
        "place": dict(at),
        "settings": settings(method, at, effort.epochs),
    }


def chosen_trial(records: Iterable[Mapping[str, Any]], condition: Condition) -> Mapping[str, Any]:
    """Return the trial of a condition with the lowest held-out loss."""
    sound = [record for record in records if record["condition"][0] == condition.name and "failed" not in record]
    return min(sound, key=lambda record: float(record["chosen"]["held_out_loss"]))


# ---- what it comes to -----------------------------------------------------------------------------------------------

FIGURES = {"r": 4, "phase_error_rad": 4, "position_error_angstrom": 4, "held_out_loss": 2, "epoch": 0}


def summary(
    done: Sequence[Mapping[str, Any]], conditions: Sequence[Condition], methods: Sequence[str], effort: Effort
) -> list[dict[str, Any]]:
    """Return for each condition and method the settings, and figures of each seed.

    Besides those of the epoch that held-out patterns chose: those after the last epoch; the median r of the trials
    that were spread over all settings; and what only the truth can tell, r in the epoch in which it was highest, and
    the highest r at the end of a trial.
    """
    untuned = spread(effort.spread)
    rows = []
    for condition in conditions:
        for method in (each for each in methods if compared(each, condition)):
            here = [each for each in done if each["condition"][0] == condition.name and each["method"] == method]
            these = [each for each in here if each["stage"] == "final"]
            trials = [each for each in here if each["stage"] == "tuning" and "failed" not in each]
            row = {"condition": condition.name, "method": method, "settings": these[0]["settings"]}
            row |= {name: [round(each["chosen"][name], digits) for each in these] for name, digits in FIGURES.items()}
            row |= {
                "r_at_end": [round(each["last"]["r"], 4) for each in these],
                "phase_error_rad_at_end": [round(each["last"]["phase_error_rad"], 4) for each in these],
                "r_by_truth": [round(each["by_truth"]["r"], 4) for each in these],
                "epoch_by_truth": [each["by_truth"]["epoch"] for each in these],
                "r_untuned": round(median(each["chosen"]["r"] for each in trials if each["place"] in untuned), 4),
                "r_of_trial_by_truth": round(max(each["last"]["r"] for each in trials), 4),
                "seeds": [each["seed"] for each in these],
                "failed": sum("failed" in each for each in these),
                "cpu_seconds": [round(each["cpu_seconds"], 1) for each in these],
            }
            rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures: mean ± standard deviation over seeds, and of the differences seed by seed."""
    references = list(dict.fromkeys(row["method"] for row in rows))[:2]
    headings = [
        *("e/Å²", "object", "r", *(f"r − {method}" for method in references), "phase error, rad", "positions, Å"),
        *("held-out loss", "epoch", "r at the end", "r untuned", "CPU s"),
    ]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for row in rows:
        of_condition = {each["method"]: each for each in rows if each["condition"] == row["condition"]}
        first = of_condition[references[0]]
        cells = [
            row["condition"] if row is first else "",
            row["method"] + (f" ({row['failed']} failed)" if row["failed"] else ""),
            plus_minus(row["r"], 3),
            *(
                plus_minus(_differences(row, of_condition[method], "r"), 3, sign="+")
                if list(of_condition).index(row["method"]) > number
                else ""
                for number, method in enumerate(references)
            ),
            plus_minus(row["phase_error_rad"], 3),
            plus_minus(row["position_error_angstrom"], 3),
            f"{mean(row['held_out_loss']):.1f}"
            if row is first
            else plus_minus(_differences(row, first, "held_out_loss"), 1, sign="+"),
            f"{mean(row['epoch']):.0f} of {row['settings']['epochs']}",
            plus_minus(row["r_at_end"], 3),
            f"{row['r_untuned']:.3f}",
            f"{mean(row['cpu_seconds']):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _differences(row: Mapping[str, Any], first: Mapping[str, Any], name: str) -> list[float]:
    return [one - other for one, other in zip(row[name], first[name], strict=True)]


def plus_minus(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Return mean ± standard deviation."""
    around = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.{digits}f}{around}"


def draw(path: Path, specimen: Specimen, rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Draw the middle of each phase for the first seed, beside the truth, all with the same grey values."""
    conditions, methods = (list(dict.fromkeys(row[name] for row in rows)) for name in ("condition", "method"))
    pixel = pixel_size(specimen)
    low_2, high_2 = (edge(specimen.told_RC2.reshape(-1, 2), axis=0) / pixel for edge in (np.min, np.max))
    truth = cut(specimen.phase_KL, (low_2 + high_2) / 2, pixel)
    figure = Figure(figsize=(1.75 * (len(conditions) + 1), 1.95 * len(methods)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(methods), len(conditions) + 1, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    grey: dict[str, Any] = {"cmap": "gray", "vmin": truth.min() - 0.1, "vmax": truth.max()}
    axes[0, 0].imshow(truth, **grey)
    axes[0, 0].set_title(f"truth, {SHOWN_ANGSTROM:.0f} Å", fontsize=8)
    for row in rows:
        ax = axes[methods.index(row["method"]), conditions.index(row["condition"]) + 1]
        named = {"condition": [row["condition"]], "method": row["method"], "seed": row["seeds"][0]}
        ax.imshow(np.load(out / phase_file(named)), **grey)
        above = f"{row['condition']}\n" if row["method"] == methods[0] else ""
        ax.set_title(f"{above}{row['method']}: r {row['r'][0]:.3f}", fontsize=8)
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, tables and picture")
    parser.add_argument("--mos2", type=Path, help="mos2_sim.h5; left out: the plugin's own simulation")
    parser.add_argument("--workers", type=int, default=1, help="processes, of a thread each")
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS)
    parser.add_argument("--quick", action="store_true", help="too little to tell anything, to see that it runs")
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    conditions: Sequence[Condition] = CONDITIONS
    effort, simulation = Effort(), SimulatedDiffraction(detector_size=64)
    if chosen.quick:
        conditions, effort = (CONDITIONS[0], CONDITIONS[5]), Effort(2, 1, (2,), (1, 2))
        simulation = SimulatedDiffraction(scan_shape=(8, 8), detector_size=32)
    specimen = from_abtem(chosen.mos2) if chosen.mos2 else simulated(simulation)
    data = chosen.mos2.name if chosen.mos2 else repr(simulation)
    done = study(specimen, data, conditions, chosen.methods, effort, chosen.out, chosen.workers)
    rows = summary(done, conditions, chosen.methods, effort)
    (chosen.out / "hash_or_pixels.json").write_text(
        "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n", encoding="utf-8"
    )
    draw(chosen.out / "hash_or_pixels.png", specimen, rows, chosen.out)
    print(table(rows))


if __name__ == "__main__":
    main()
