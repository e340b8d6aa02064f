"""Compares schedules of the learning rate on real cases: none, plateau, cosine, one_cycle and polynomial.

The findings are in docs/learning_rates.md. The study has three stages.

Tuning: each schedule gets the same number of trials. Three learning rates half a decade apart come first; each further
trial lies beyond the best one if that is the highest or lowest so far, else half way (in the logarithm) to the better
of its neighbours. Plateau spends one of these trials on its patience instead. The Dice of the last network, over cases
that are held out for tuning, chooses. No final run is scored on these cases.

Final: all schedules run with the same seeds. Runs of the same seed hold out the same cases, begin with the same weights
and draw the same batches, so schedules are compared seed by seed.

Extended: runs of half the length are continued to the whole length, with each ``--on-extend``.

Each run is a folder of trainkit below FOLDER/runs, and a line in FOLDER/runs.jsonl. If the script is started again, it
skips finished runs and resumes an interrupted one. It ends with exit code 75 if a signal stops it, or the CPU time of
``--hours`` is spent; figures of what is done are written all the same.

    python benchmarks/learning_rate_study.py --data Task04_Hippocampus --out FOLDER [--hours 3] [--seeds 10] [--quick]

With --quick it makes up a few cases, and does too little to tell anything.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from trainkit.console import Console
from trainkit.engine import run_folder
from trainkit.engine.build import build
from trainkit.engine.every_run import metrics_file
from trainkit.engine.queue import run_all
from trainkit.engine.resume import resume
from trainkit.engine.run_folder import earlier_run
from trainkit.engine.signals import StoppedEarly
from trainkit.engine.start import ExitCode, RunOutcome, no_report
from trainkit.errors import NonFiniteError
from trainkit.groups.resuming import CHOICES, Choice
from trainkit.recipe.resolve import Resolved, resolve_text

SCHEDULES: Mapping[str, str] = {
    "none": '{{ use = "none" }}',
    "plateau": '{{ use = "reduce_on_plateau", factor = 0.5, patience = {patience} }}',
    "cosine": '{{ use = "cosine", by = "step" }}',
    "one_cycle": '{{ use = "one_cycle", by = "step", peak_factor = 1.0 }}',  # so that lr is the peak
    "polynomial": '{{ use = "polynomial", by = "step" }}',
}
WITH_A_HORIZON = ("cosine", "one_cycle", "polynomial")  # for the others, a longer run needs no choice
HALF_A_DECADE = math.sqrt(10)
FIRST_LRS = (1e-3, 3.16e-3, 1e-2)
PATIENCE, OTHER_PATIENCE = 1, 0  # of plateau, in epochs; with 2, it never acted before the end of a trial
NOT_COMPLETE = 75
LEVEL = 0.95

COLOURS = {
    "none": "#000000",
    "plateau": "#E69F00",
    "cosine": "#0072B2",
    "one_cycle": "#D55E00",
    "polynomial": "#009E73",
}
MARKS: Mapping[str, str] = {"stretch": "o", "hold": "s", "restart": "^"}
LINES: Mapping[str, str] = {"stretch": "-", "hold": "--", "restart": ":"}

RECIPE = """
trainkit = 1
monitor = {{ metric = "val/dice", mode = "max" }}
checkpoint = {{ keep_last = 1, best = 0 }}
pictures.every_epochs = 0
losses.overlap.use = "dice_ce"
metrics.dice.use = "dice"
inference = {{ use = "sliding_window", overlap = 0.25 }}
optimizer = {{ use = "adamw", lr = {lr} }}
scheduler = {scheduler}
model = {{ use = "unet", channels = {channels} }}

[run]
name = "{name}"
dir = "{out}/runs"
seed = {seed}
epochs = {epochs}
device = "cpu"
threads = 1
channels_last = true
precision = "{precision}"

[data]
{data}
batch_size = 2
patch_size = {patch}
steps_per_epoch = {steps}
split = {{ use = "file", path = "{out}/splits.json", fold = {fold} }}
cache.folder = "{out}/cache"
"""

MADE_UP = """
use = "segmentation_synthetic"
num_cases = 7
size = [16, 16, 16]
"""

REAL = """
use = "msd"
path = "{path}"
preprocessing.normalization = "zscore"
augmentation.flip.axes = [0]
augmentation.affine = {{ rotation_degrees = [10.0, 10.0, 10.0], scale = [0.9, 1.1] }}
augmentation.noise = {{}}
augmentation.brightness = {{}}
"""


class Effort(NamedTuple):
    """How many runs the study has, and how long they are.

    Attributes:
        schedules: The schedules; the others are compared with the first.
        trials: Trials for each schedule, at least three.
        seeds: Number of final runs for each schedule.
        extended: Number of these seeds for which runs of half the length are continued.
        epochs: Length of a run.
        steps: Steps in an epoch.
        tuning_cases: Cases that are held out for tuning.
        folds: Each final run holds out one of so many folds of the other cases.
        network: Settings of the recipe that set the size of a step.
    """

    schedules: Sequence[str] = tuple(SCHEDULES)
    trials: int = 4
    seeds: int = 8
    extended: int = 5
    epochs: int = 16
    steps: int = 12
    tuning_cases: int = 20
    folds: int = 5
    network: Mapping[str, Any] = {"channels": [16, 32, 64, 128], "patch": [40, 56, 40], "precision": "bf16"}


QUICK = Effort(
    schedules=("plateau", "cosine"),
    trials=4,
    seeds=2,
    extended=2,
    epochs=2,
    steps=2,
    tuning_cases=2,
    folds=2,
    network={"channels": [4, 8], "patch": [16, 16, 16], "precision": "fp32"},
)


class Job(NamedTuple):
    """A run.

    Attributes:
        stage: "tuning", "final", "half" or "extended".
        schedule: The schedule.
        lr: Learning rate; of one_cycle, the peak.
        patience: Patience of plateau, in epochs; None: it is another schedule.
        seed: Seed of the weights and batches.
        fold: Which cases are held out; 0: those for tuning.
        choice: How an extended run continues; else "".
    """

    stage: str
    schedule: str
    lr: float
    patience: int | None
    seed: int
    fold: int
    choice: Choice | Literal[""] = ""

    @property
    def name(self) -> str:
        """The name of its run."""
        patience = "" if self.patience is None else f"patience{self.patience}"
        tried = (f"{self.lr:g}", patience) if self.stage == "tuning" else (str(self.seed),)
        return "-".join(part for part in (self.stage, self.schedule, self.choice, *tried) if part)


# ---- the runs -------------------------------------------------------------------------------------------------------


class NotDoneError(Exception):
    """Not all runs are done, because the CPU time is spent, or a signal arrived."""


class Runs:
    """Does runs, unless they are done, and keeps what they came to in a file of a line each.

    A line of a run that was interrupted has nothing but the CPU time that it took.

    Args:
        out: Folder of the study.
        data: The recipe's settings of the data.
        effort: Length of the runs.
        cpu_seconds: What all runs together may take.
    """

    def __init__(self, out: Path, data: str, effort: Effort, cpu_seconds: float) -> None:
        self._out, self._data, self._effort, self._allowed = out, data, effort, cpu_seconds
        self._path = out / "runs.jsonl"
        _refuse_others(out / "settings.json", {"data": data, **effort._asdict()})
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True) if self._path.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        self._path.write_text("".join(whole), encoding="utf-8")  # without a line that was not wholly written
        self._lines: list[dict[str, Any]] = [json.loads(line) for line in whole]
        self._prepare()

    @property
    def spent(self) -> float:
        """The CPU seconds of all that was done, in earlier starts too."""
        return float(sum(line["cpu_seconds"] for line in self._lines))

    def do(self, job: Job) -> dict[str, Any]:
        """Return the record of a run, after doing what is missing of it.

        Raises:
            NotDoneError: It would probably take more CPU time than there is, or a signal stopped it.
        """
        earlier = [line for line in self._lines if line.get("job") == job._asdict()]
        for line in earlier:
            if "dice" in line or "failed" in line:
                return line
        if self.spent + self._longest(job.stage) > self._allowed:
            raise NotDoneError("the CPU time of --hours is spent")
        began = time.process_time()
        outcome: dict[str, Any] = {}
        try:
            outcome = measured(self._extend(job) if job.choice else self._train(job))
        except NonFiniteError as error:
            outcome = {"failed": str(error).splitlines()[0]}
        except StoppedEarly as error:
            raise NotDoneError("stopped by a signal") from error
        finally:  # also if it was interrupted
            seconds = time.process_time() - began
            before = sum(line["cpu_seconds"] for line in earlier) if outcome else 0.0
            record = {"job": job._asdict(), **outcome, "cpu_seconds": round(seconds, 2)}
            self._keep(record if not before else {**record, "earlier_cpu_seconds": round(before, 2)})
        reached = f"Dice {outcome['dice'][-1]:.4f}" if "dice" in outcome else outcome["failed"]
        print(
            f"{job.name:40} lr {job.lr:<8g} {reached}  {seconds:5.1f} s, {self.spent / 60:5.1f} min in all", flush=True
        )
        return record

    def recipe(self, job: Job) -> Resolved:
        """Return the recipe of a run; that of an extended one is the recipe before it is extended."""
        epochs = self._effort.epochs
        text = RECIPE.format(
            name=job.name,
            out=self._out,
            data=self._data,
            seed=job.seed,
            fold=job.fold,
            lr=job.lr,
            scheduler=SCHEDULES[job.schedule].format(patience=job.patience),
            epochs=epochs // 2 if job.stage == "half" else epochs,
            steps=self._effort.steps,
            **self._effort.network,
        )
        return resolve_text(text, self._out)

    def _train(self, job: Job) -> Path:
        resolved = self.recipe(job)
        code = run_all([resolved], Console(quiet=True), continue_unfinished=True, report=no_report)
        if code is ExitCode.STOPPED:
            raise NotDoneError("stopped by a signal")
        folder = earlier_run(resolved)
        assert folder is not None
        return folder

    def _extend(self, job: Job) -> Path:
        """Continue a copy of the run of half the length."""
        half = self._train(job._replace(stage="half", choice=""))
        copy = self._out / "runs" / job.name / half.name
        if not copy.exists():
            partial = copy.with_name("partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(half, partial)
            partial.rename(copy)
        length = f"run.epochs={self._effort.epochs}"
        ended = resume(copy, Console(quiet=True), sets=[length], on_extend=job.choice or None)
        if (ended.code if isinstance(ended, RunOutcome) else ended) is ExitCode.STOPPED:
            raise NotDoneError("stopped by a signal")
        return copy

    def _prepare(self) -> None:
        """Divide the cases, import everything, and fill the cache, so that no run has to."""
        began = time.process_time()
        job = Job("set-up", "none", 1e-3, None, 0, 0)
        resolved = self.recipe(job)
        data: Any = resolved.recipe.data
        names = sorted(case.name for case in data.cases().cases)
        folds = divided(names, self._effort.tuning_cases, self._effort.folds)
        (self._out / "splits.json").write_text(json.dumps(folds, indent=1) + "\n", encoding="utf-8")
        with run_folder.created(resolved) as folder:
            build(resolved, folder)
        shutil.rmtree(folder)
        self._keep({"stage": "set-up", "cpu_seconds": round(time.process_time() - began, 2)})

    def _longest(self, stage: str) -> float:
        of_stage = [line["cpu_seconds"] for line in self._lines if line.get("job", {}).get("stage") == stage]
        return float(max(of_stage, default=0.0))

    def _keep(self, line: dict[str, Any]) -> None:
        self._lines.append(line)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _refuse_others(path: Path, settings: dict[str, Any]) -> None:
    """End the program if the runs in the folder have other settings; their number may differ."""
    text = json.dumps({name: settings[name] for name in settings if name not in ("seeds", "extended")}, indent=1) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        sys.exit(f"{path} says that the runs there have other data or another length: give another --out")
    path.write_text(text, encoding="utf-8")


def divided(names: Sequence[str], tuning: int, folds: int) -> list[dict[str, list[str]]]:
    """Return the splits: first that of tuning, then one for each fold of the other cases.

    A final run trains on all cases but those of its fold, so also on those that were held out for tuning.
    """
    shuffled = list(names)
    Random(0).shuffle(shuffled)
    others = shuffled[tuning:]
    held_out = [shuffled[:tuning], *(others[fold::folds] for fold in range(folds))]
    return [{"train": sorted(set(names) - set(each)), "val": sorted(each)} for each in held_out]


def measured(folder: Path) -> dict[str, Any]:
    """Return what a run came to: curves over its epochs, and the Dice of each held-out case by the last network."""
    lines = [line for line in metrics_file.read(folder) if "seconds" in line]
    rate = next(name for name in lines[0] if name.startswith("lr/"))
    with (folder / "cases.csv").open(encoding="utf-8") as file:
        scores: dict[str, list[float]] = {}
        for row in csv.DictReader(file):
            scores.setdefault(row["case"], []).append(float(row["dice"]))
    curves = {"dice": "val/dice", "val_loss": "val/loss", "train_loss": "train/loss"}
    return {
        **{name: [round(line[full], 5) for line in lines] for name, full in curves.items()},
        "lr": [float(f"{line[rate]:.4g}") for line in lines],
        "cases": {case: round(mean(each), 5) for case, each in scores.items()},
        "doubts": run_folder.doubts(folder),
    }


# ---- the study ------------------------------------------------------------------------------------------------------


def tune(runs: Runs, schedule: str, trials: int) -> list[dict[str, Any]]:
    """Return the trials of a schedule, each chosen after those before it."""
    patience = PATIENCE if schedule == "plateau" else None
    done = [runs.do(Job("tuning", schedule, lr, patience, 0, 0)) for lr in FIRST_LRS]
    for number in range(len(FIRST_LRS), trials):
        best = Job(**best_trial(done)["job"])
        if schedule == "plateau" and number == len(FIRST_LRS):
            trial = best._replace(patience=OTHER_PATIENCE)
        else:
            trial = best._replace(lr=next_lr({each["job"]["lr"]: last_dice(each) for each in done}))
        done.append(runs.do(trial))
    return done


def next_lr(tried: Mapping[float, float]) -> float:
    """Return the learning rate to try next.

    Args:
        tried: Learning rate -> score, at least three of them.

    Example:
        >>> next_lr({1e-3: 0.7, 3.16e-3: 0.75, 1e-2: 0.8}), next_lr({1e-3: 0.7, 3.16e-3: 0.8, 1e-2: 0.75})
        (0.0316, 0.00562)
    """
    rates = sorted(tried)
    best = max(tried, key=lambda lr: tried[lr])
    place = rates.index(best)
    if place == 0:
        found = best / HALF_A_DECADE
    elif place == len(rates) - 1:
        found = best * HALF_A_DECADE
    else:
        found = math.sqrt(best * max(rates[place - 1], rates[place + 1], key=lambda lr: tried[lr]))
    return float(f"{found:.3g}")


def last_dice(record: Mapping[str, Any]) -> float:
    """Return the Dice of the last network; of a run that failed, 0."""
    return float(record["dice"][-1]) if "dice" in record else 0.0


def best_trial(trials: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the trial with the highest Dice."""
    return max(trials, key=last_dice)


def study(runs: Runs, effort: Effort) -> Iterable[dict[str, Any]]:
    """Yield the records of all runs, those first without which the others tell least."""
    chosen: dict[str, Job] = {}
    for schedule in effort.schedules:
        trials = tune(runs, schedule, effort.trials)
        yield from trials
        chosen[schedule] = Job(**best_trial(trials)["job"])
    for seed in range(1, effort.seeds + 1):
        for schedule in effort.schedules:
            yield runs.do(of_seed(chosen[schedule], "final", seed, effort))
        if seed != effort.extended:
            continue
        for extended in (each for each in effort.schedules if each in WITH_A_HORIZON):
            for again in range(1, seed + 1):
                half = of_seed(chosen[extended], "half", again, effort)
                yield runs.do(half)
                for choice in CHOICES:
                    yield runs.do(half._replace(stage="extended", choice=choice))


def of_seed(job: Job, stage: str, seed: int, effort: Effort) -> Job:
    """Return the run of a stage with the settings of a trial."""
    return job._replace(stage=stage, seed=seed, fold=1 + (seed - 1) % effort.folds)


# ---- what it comes to -----------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """A mean difference between runs of the same seeds.

    Attributes:
        mean: The mean.
        half_width: Half the width of its 95 % interval, by Student's t.
        half_width_shared: The same if the variance is corrected for training cases that runs share.
        p: Probability of a mean at least as far from zero if there is no difference, by Student's t.
        seeds: The seeds.
        values: The differences.

    Source:
        The correction: Nadeau, Bengio: "Inference for the generalization error" (2003), section 4.1.
    """

    mean: float
    half_width: float
    half_width_shared: float
    p: float
    seeds: list[int]
    values: list[float]


def difference(one: Mapping[int, float], other: Mapping[int, float], held_out_per_trained: float) -> Difference:
    """Compare scores seed by seed, over the seeds that both have, at least two.

    Args:
        one: Seed -> score.
        other: The same.
        held_out_per_trained: Number of held-out cases of a run over that of its training cases.
    """
    seeds = sorted(set(one) & set(other))
    values = [one[seed] - other[seed] for seed in seeds]
    count, centre, deviation = len(values), mean(values), stdev(values)
    factor = float(stats.t.ppf((1 + LEVEL) / 2, count - 1))
    error = deviation / math.sqrt(count)
    p = 2 * float(stats.t.sf(abs(centre) / error, count - 1)) if error > 0 else float(centre == 0)
    shared = deviation * math.sqrt(1 / count + held_out_per_trained)
    return Difference(centre, factor * error, factor * shared, p, seeds, values)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, so that the chance of any false alarm is bounded.

    Source:
        Holm: "A simple sequentially rejective multiple test procedure" (1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, least = [math.nan] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda at: ps[at])):
        least = max(least, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = least
    return adjusted


def late_scatter(dice: Sequence[float]) -> float:
    """Return the standard deviation of the Dice from one epoch to the next in the last quarter of a run.

    Half the mean square of successive differences, which a slow rise hardly changes (von Neumann, 1941).
    """
    late = dice[-max(2, len(dice) // 4) :]
    return math.sqrt(mean((after - before) ** 2 for before, after in pairwise(late)) / 2)


class Results:
    """The scores of all runs that are done.

    Args:
        records: The records.
        effort: How many runs there are.
        splits: Training and held-out cases.
    """

    def __init__(
        self, records: Sequence[Mapping[str, Any]], effort: Effort, splits: Sequence[Mapping[str, Sequence[str]]]
    ) -> None:
        self.records = records
        self.schedules = [each for each in effort.schedules if len(self.of("final", each)) > 1]
        self.extended = [each for each in self.schedules if len(self.of("extended", each, CHOICES[-1])) > 1]
        self._shared = mean(len(each["val"]) / len(each["train"]) for each in splits[1:])

    def of(self, stage: str, schedule: str, choice: str = "") -> dict[int, Mapping[str, Any]]:
        """Return seed -> record of the runs of a stage that did not fail."""
        wanted = {"stage": stage, "schedule": schedule, "choice": choice}
        return {
            each["job"]["seed"]: each
            for each in self.records
            if "dice" in each and {name: each["job"][name] for name in wanted} == wanted
        }

    def scores(self, stage: str, schedule: str, choice: str = "", *, best: bool = False) -> dict[int, float]:
        """Return seed -> Dice of the last network, or of the best one."""
        found = self.of(stage, schedule, choice)
        return {seed: max(each["dice"]) if best else each["dice"][-1] for seed, each in found.items()}

    def compare(self, one: Mapping[int, float], other: Mapping[int, float]) -> dict[str, Any]:
        """Compare scores seed by seed."""
        return difference(one, other, self._shared)._asdict()

    def summary(self) -> dict[str, Any]:
        """Return all that the page shows."""
        reference = self.schedules[0]
        rows = []
        for schedule in self.schedules:
            finals = self.of("final", schedule)
            job = next(iter(finals.values()))["job"]
            tried = [each for each in self.records if _is(each, "tuning", schedule)]
            row: dict[str, Any] = {
                "schedule": schedule,
                "lr": job["lr"],
                "patience": job["patience"],
                "trials": [[each["job"]["lr"], each["job"]["patience"], round(last_dice(each), 4)] for each in tried],
                "failed": sum("failed" in each for each in self.records if _is(each, "final", schedule)),
                "dice_last": self.scores("final", schedule),
                "dice_best": self.scores("final", schedule, best=True),
                "epoch_of_best": [each["dice"].index(max(each["dice"])) + 1 for each in finals.values()],
                "scatter": [round(late_scatter(each["dice"]), 5) for each in finals.values()],
                "train_loss_last": [each["train_loss"][-1] for each in finals.values()],
                "cpu_seconds": [each["cpu_seconds"] + each.get("earlier_cpu_seconds", 0) for each in finals.values()],
            }
            if schedule != reference:
                for which in ("last", "best"):
                    of_reference = self.scores("final", reference, best=which == "best")
                    row[f"minus_{reference}_{which}"] = self.compare(row[f"dice_{which}"], of_reference)
            rows.append(row)
        for which in ("last", "best"):
            compared = [row[f"minus_{reference}_{which}"] for row in rows[1:]]
            for each, p in zip(compared, holm([each["p"] for each in compared]), strict=True):
                each["p_holm"] = p
        pairs = [
            {"one": one, "other": other, **self.compare(self._last(one), self._last(other))}
            for place, one in enumerate(self.schedules)
            for other in self.schedules[:place]
        ]
        for pair, p in zip(pairs, holm([each["p"] for each in pairs]), strict=True):
            pair["p_holm"] = p
        return {"reference": reference, "schedules": rows, "pairs": pairs, "extended": self._extended()}

    def _last(self, schedule: str) -> dict[int, float]:
        return self.scores("final", schedule)

    def _extended(self) -> list[dict[str, Any]]:
        rows = []
        for schedule in self.extended:
            whole, half = self._last(schedule), self.scores("half", schedule)
            stretched = self.scores("extended", schedule, "stretch")
            for choice in CHOICES:
                dice = self.scores("extended", schedule, choice)
                row: dict[str, Any] = {"schedule": schedule, "choice": choice, "dice_half": half, "dice_last": dice}
                row["minus_half"] = self.compare(dice, half)
                row["minus_whole"] = self.compare(dice, whole)
                if choice != "stretch":
                    row["minus_stretch"] = self.compare(dice, stretched)
                rows.append(row)
        return rows


def _is(record: Mapping[str, Any], stage: str, schedule: str) -> bool:
    return bool(record["job"]["stage"] == stage and record["job"]["schedule"] == schedule)


def tables(summary: Mapping[str, Any]) -> str:
    """Return the figures as two tables."""
    reference = summary["reference"]
    headings: Sequence[str] = (
        *("schedule", "learning rate", "Dice, last", "Dice, best", f"last − {reference}", "p (Holm)"),
        *(f"best − {reference}", "p (Holm)", "scatter", "training loss", "CPU s"),
    )
    rows = []
    for row in summary["schedules"]:
        patience = f", patience {row['patience']}" if row["patience"] is not None else ""
        failed = f" ({row['failed']} failed)" if row["failed"] else ""
        cells = [row["schedule"] + failed, f"{row['lr']:g}{patience}"]
        cells += [_mean_and_deviation(row[f"dice_{which}"].values()) for which in ("last", "best")]
        for which in ("last", "best"):
            found = row.get(f"minus_{reference}_{which}")
            cells += [_with_interval(found), f"{found['p_holm']:.3f}"] if found else ["", ""]
        cells += [f"{mean(row['scatter']):.4f}", f"{mean(row['train_loss_last']):.3f}"]
        rows.append([*cells, f"{mean(row['cpu_seconds']):.0f}"])
    text = _table(headings, rows)
    if summary["extended"]:
        headings = (
            "schedule",
            "--on-extend",
            "Dice, half the length",
            "Dice",
            "− half",
            "− whole at once",
            "− stretch",
        )
        rows = [
            [
                *(row["schedule"], row["choice"]),
                *(_mean_and_deviation(row[name].values()) for name in ("dice_half", "dice_last")),
                *(_with_interval(row.get(f"minus_{name}")) for name in ("half", "whole", "stretch")),
            ]
            for row in summary["extended"]
        ]
        text += "\n\n" + _table(headings, rows)
    return text


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def _mean_and_deviation(values: Iterable[float]) -> str:
    found = list(values)
    return f"{mean(found):.4f}" + (f" ± {stdev(found):.4f}" if len(found) > 1 else "")


def _with_interval(found: Mapping[str, Any] | None) -> str:
    return f"{found['mean']:+.4f} ± {found['half_width']:.4f}" if found else ""


def draw(path: Path, results: Results, summary: Mapping[str, Any]) -> None:
    """Draw learning rates, Dice over epochs, and differences seed by seed."""
    figure = Figure(figsize=(14, 8), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    (rates, dice, extended_dice), (differences, scatter, extended) = figure.subplots(2, 3)
    reference = summary["reference"]
    for place, row in enumerate(summary["schedules"]):
        schedule = row["schedule"]
        finals = results.of("final", schedule).values()
        style: dict[str, Any] = {"color": COLOURS[schedule], "label": schedule}
        _curve(rates, [each["lr"] for each in finals], **style)
        _curve(dice, [each["dice"] for each in finals], **style)
        scatter.plot([place] * len(row["scatter"]), row["scatter"], "o", color=COLOURS[schedule], fillstyle="none")
        for shift, which, mark in ((-0.15, "last", "o"), (0.15, "best", "D")):
            if schedule != reference:
                found = row[f"minus_{reference}_{which}"]
                _dots(differences, place + shift, found, COLOURS[schedule], mark, which if place == 1 else "")
    rates.set(yscale="log", ylim=(1e-5, 2 * max(FIRST_LRS)), title="Learning rate at the end of an epoch")
    dice.set(title="Dice of held-out cases, mean over seeds")
    differences.set(title=f"Dice minus that of {reference}, same seeds")
    scatter.set(title="Scatter of Dice in the last quarter of a run", ylim=(0, None))
    for row in summary["extended"]:
        schedule, choice = row["schedule"], row["choice"]
        place, shift = results.extended.index(schedule), 0.25 * (CHOICES.index(choice) - 1)
        _dots(extended, place + shift, row["minus_whole"], COLOURS[schedule], MARKS[choice], "" if place else choice)
        curves = [each["dice"] for each in results.of("extended", schedule, choice).values()]
        label = {"label": f"{schedule}, {choice}"} if place == 0 else {}
        _curve(extended_dice, curves, color=COLOURS[schedule], linestyle=LINES[choice], **label)
    extended.set(title="Extended from half, minus the whole at once")
    extended_dice.set(title="Extended from half the length")
    for ax in (rates, dice, extended_dice):
        ax.set_xlabel("epoch")
    middle = min(each["dice"][len(each["dice"]) // 2] for each in results.records if _drawn(each))
    for ax in (dice, extended_dice):
        ax.set_ylim(bottom=middle - 0.05)
    for ax, names in ((differences, results.schedules), (scatter, results.schedules), (extended, results.extended)):
        ax.set_xticks(range(len(names)), names)
    for ax in (differences, extended):
        ax.axhline(0.0, color="grey", linewidth=0.8)
    for ax in figure.axes:
        ax.title.set_fontsize(10)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8)
    figure.savefig(path)


def _drawn(record: Mapping[str, Any]) -> bool:
    return "dice" in record and record["job"]["stage"] == "final"


def _curve(ax: Any, runs: Iterable[Sequence[float]], **style: Any) -> None:
    means = [mean(each) for each in zip(*runs, strict=True)]
    ax.plot(range(1, len(means) + 1), means, **style)


def _dots(ax: Any, place: float, found: Mapping[str, Any], colour: str, mark: str, label: str) -> None:
    values = found["values"]
    ax.plot([place - 0.03] * len(values), values, mark, color=colour, markersize=3.5, alpha=0.5, fillstyle="none")
    ax.errorbar(place + 0.03, found["mean"], found["half_width"], color=colour, marker=mark, capsize=3, label=label)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the study; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the Decathlon's Task04_Hippocampus")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, figures and picture")
    parser.add_argument("--hours", type=float, default=3.0, help="CPU hours that all runs together may take")
    parser.add_argument("--seeds", type=int, default=Effort().seeds, help="final runs of each schedule")
    parser.add_argument("--quick", action="store_true", help="made-up cases, and too little to tell anything")
    chosen = parser.parse_args(arguments)
    if not chosen.quick and chosen.data is None:
        parser.error("--data is needed, or --quick")
    out = chosen.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    effort = QUICK if chosen.quick else Effort(seeds=chosen.seeds, extended=min(chosen.seeds, Effort().extended))
    data = MADE_UP if chosen.quick else REAL.format(path=chosen.data.absolute())
    runs = Runs(out, data, effort, chosen.hours * 3600)
    records: list[dict[str, Any]] = []
    missing = None
    try:
        for record in study(runs, effort):
            records.append(record)  # one by one: those before a stop count
    except NotDoneError as error:
        missing = f"{error}, after {runs.spent / 3600:.2f} CPU hours; the same line goes on with the study"
    results = Results(records, effort, json.loads((out / "splits.json").read_text(encoding="utf-8")))
    if list(effort.schedules) != results.schedules:
        print(f"too few runs to compare: {missing}")
        return NOT_COMPLETE
    summary = results.summary()
    summary = {"cpu_hours": round(runs.spent / 3600, 3), "effort": effort._asdict(), **summary, "runs": records}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(part)}" for name, part in summary.items())
    (out / "learning_rates.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    draw(out / "learning_rates.png", results, summary)
    print(tables(summary))
    if missing:
        print(f"\nnot all runs are done: {missing}")
    return NOT_COMPLETE if missing else 0


if __name__ == "__main__":
    sys.exit(main())
