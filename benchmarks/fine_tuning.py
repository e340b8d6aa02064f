"""Compares ways to fine-tune a segmentation network on four cases: all at once, frozen and then thawed, the head alone.

The network is trained on 32 cases of the hippocampus with one class. Then, on four other cases, it learns to tell the
front from the back: on images like those it knows, and on the same with grey values upside down, as T2 is to T1. Each
way has the same number of steps and the same trials: three learning rates on a draw of four cases. The one with the
highest Dice on sixteen other cases is run on six new draws, which have no case in common, and measured on sixteen
cases that nothing else has seen. The findings are in docs/fine_tuning.md.

Every finished run is a line in FOLDER/runs.jsonl; if the script is started again, it does only the missing runs.

    python benchmarks/fine_tuning.py --data Task04_Hippocampus --out FOLDER [--targets "as before"] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import mean, stdev
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import t

from trainkit import State
from trainkit.engine.build import build
from trainkit.engine.loop import train
from trainkit.engine.run_folder import created
from trainkit.recipe.resolve import resolve_text

RECIPE = """
trainkit = 1
pictures.every_epochs = 0
monitor = { metric = "val/dice", mode = "max" }
inference.use = "sliding_window"
losses.overlap.use = "dice_ce"
metrics.dice.use = "dice"
optimizer.use = "adam"
scheduler.use = "cosine"

[run]
device = "cpu"
threads = 1

[data]
use = "msd"
batch_size = 2
patch_size = [40, 48, 32]
preprocessing.normalization = "zscore"

[data.augmentation]
flip = { axes = [0] }
affine = { rotation_degrees = [10.0, 10.0, 10.0], scale = [0.9, 1.1] }
noise = {}
brightness = {}

[model]
use = "unet"
channels = [8, 16, 32, 64]
"""

CLASSES = {"source": ("Hippocampus",), "as before": ("Anterior", "Posterior"), "upside down": ("Anterior", "Posterior")}
TARGETS = ("as before", "upside down")
TENTH = "groups.encoder.lr_factor=0.1"


class Effort(NamedTuple):
    """How many runs the study has, and how long they are.

    Attributes:
        rates: Learning rates from which each way chooses.
        few: Cases of a draw.
        draws: Number of draws.
        tuning: Number of draws for the choice, from the first one.
        final: Number of draws for the result, up to the last one.
        test: Cases on which the result is measured.
        choosing: Cases on which the choice is made; they are among those of the final draws.
        steps: Steps of an epoch.
        epochs: Epochs of a run.
        source: Epochs of the training before.
    """

    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    few: int = 4
    draws: int = 8
    tuning: int = 1
    final: int = 6
    test: int = 16
    choosing: int = 16
    steps: int = 20
    epochs: int = 8
    source: int = 30


QUICK = Effort(rates=(1e-3, 1e-2), few=1, draws=3, tuning=1, final=2, test=2, choosing=2, steps=2, epochs=4, source=1)


def ways(epochs: int) -> dict[str, tuple[str, ...] | None]:
    """Return what each way sets. None: it starts without weights."""
    return {
        "from scratch": None,
        "all at once": (),
        "all at once, encoder at a tenth": (TENTH,),
        "encoder frozen for a quarter, then at a tenth": (TENTH, f"groups.encoder.start_epoch={epochs // 4}"),
        "head alone": ("groups.encoder.stop_epoch=0", "groups.decoder.stop_epoch=0"),
    }


# ---- data -----------------------------------------------------------------------------------------------------------


class Division(NamedTuple):
    """What each case is for.

    Attributes:
        source: Cases of the training before.
        tuning: The draws of few cases for the choice.
        final: The draws for the result.
        choosing: Cases on which the choice is made.
        test: Cases on which the result is measured.
    """

    source: list[str]
    tuning: list[list[str]]
    final: list[list[str]]
    choosing: list[str]
    test: list[str]

    @classmethod
    def of(cls, cases: Iterable[str], effort: Effort) -> Division:
        """Divide the cases by a fixed shuffle; nothing is for two things but ``choosing``."""
        order = sorted(cases)
        Random(0).shuffle(order)
        test, rest = order[: effort.test], order[effort.test :]
        draws = [rest[effort.few * number :][: effort.few] for number in range(effort.draws)]
        tuning, final = draws[: effort.tuning], draws[-effort.final :]
        after = [case for draw in final for case in draw]
        source = rest[effort.few * effort.draws :]
        return cls(source, tuning, final, after[: effort.choosing], test)


def write_data(folder: Path, data: Path) -> list[str]:
    """Write the three data sets if they are not there, and return the names of the cases.

    Args:
        folder: Gets a folder for each data set.
        data: Task04_Hippocampus.
    """
    about = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    pairs = [(data / each["image"], data / each["label"]) for each in about["training"]]
    for name, classes in CLASSES.items():
        made = folder / name
        if (made / "dataset.json").is_file():
            continue
        for kind in ("imagesTr", "labelsTr"):
            (made / kind).mkdir(parents=True, exist_ok=True)
        for image_file, label_file in pairs:
            image, label = nibabel.load(image_file), nibabel.load(label_file)
            grey, values = image.get_fdata(dtype=np.float32), np.asarray(label.dataobj)
            grey = grey.max() + grey.min() - grey if name == "upside down" else grey
            values = (values > 0).astype(np.uint8) if name == "source" else values
            nibabel.save(nibabel.Nifti1Image(grey, image.affine), made / "imagesTr" / image_file.name)
            nibabel.save(nibabel.Nifti1Image(values, label.affine), made / "labelsTr" / label_file.name)
        labels = {"0": "background"} | {str(value): each for value, each in enumerate(classes, 1)}
        training = [{"image": f"imagesTr/{i.name}", "label": f"labelsTr/{j.name}"} for i, j in pairs]
        described = {"modality": about["modality"], "labels": labels, "training": training}
        (made / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return [image.name.removesuffix(".nii.gz") for image, _ in pairs]


# ---- runs -----------------------------------------------------------------------------------------------------------


class Watch:
    """Keeps the values of each epoch in which the held-out cases were evaluated."""

    def __init__(self) -> None:
        self.curve: list[dict[str, float]] = []

    def on_epoch_end(self, state: State) -> None:
        """Look."""
        dice = {name.removeprefix("val/"): value for name, value in state.metrics.items() if "/dice" in name}
        if dice:
            self.curve.append({"step": state.step, **{name: round(value, 4) for name, value in dice.items()}})


def run(out: Path, dataset: str, cases: Mapping[str, Sequence[str]], sets: Iterable[str]) -> list[dict[str, float]]:
    """Do a run, and return its values.

    Args:
        out: Folder of the study.
        dataset: The data set.
        cases: "train" and "val" -> names of cases.
        sets: What the recipe does not say.
    """
    (out / "split.json").write_text(json.dumps(cases), encoding="utf-8")
    split = f'data.split={{ use = "file", path = "{out / "split.json"}" }}'
    folders = (f"data.path={out / dataset}", f"data.cache.folder={out / 'cache'}", f"run.dir={out / 'runs'}")
    resolved = resolve_text(RECIPE, out, [*folders, split, *sets])
    watch = Watch()
    with created(resolved) as folder:
        live = build(resolved, folder)
        live.add("watch", watch)
        train(live)
    return watch.curve


def train_source(out: Path, division: Division, effort: Effort) -> list[dict[str, float]]:
    """Train on the source, unless that is done; return how well it went, on the test cases with one class."""
    said = out / "source.json"
    if not said.is_file():
        cases = {"train": division.source, "val": division.test}
        length = (f"run.epochs={effort.source}", f"data.steps_per_epoch={effort.steps}", "validation.every_epochs=0")
        curve = run(out, "source", cases, ["run.name=source", "optimizer.lr=3e-3", *length, "checkpoint.keep_last=1"])
        said.write_text(json.dumps(curve), encoding="utf-8")
    found: list[dict[str, float]] = json.loads(said.read_text(encoding="utf-8"))
    return found


JOB = ("stage", "target", "way", "draw", "lr")


class Study:
    """The runs that are done, in a file of a line each, and the means to do others.

    Args:
        out: Folder of the study. A last line of its ``runs.jsonl`` that was not wholly written is taken out.
        division: What each case is for.
        effort: How many runs there are.
    """

    def __init__(self, out: Path, division: Division, effort: Effort) -> None:
        self._out, self._division, self._effort = out, division, effort
        self._file = out / "runs.jsonl"
        lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True) if self._file.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        self._file.write_text("".join(whole), encoding="utf-8")
        self._done = {tuple(record[key] for key in JOB): record for record in map(json.loads, whole)}

    def job(self, stage: str, target: str, way: str, draw: int, lr: float) -> dict[str, Any]:
        """Return the record of a run, after doing it if it is not done."""
        job = (stage, target, way, draw, lr)
        if job not in self._done:
            effort, division, sets = self._effort, self._division, ways(self._effort.epochs)[way]
            tuning = stage == "tuning"
            draws, held_out = (division.tuning, division.choosing) if tuning else (division.final, division.test)
            given = () if sets is None else (f"initial_weights.path={self._out / 'runs' / 'source'}", *sets)
            length = (f"run.epochs={effort.epochs}", f"data.steps_per_epoch={effort.steps}", f"optimizer.lr={lr}")
            seldom = f"validation.every_epochs={0 if tuning else effort.epochs // 4}"
            begun = time.process_time()
            curve = run(
                self._out,
                target,
                {"train": draws[draw], "val": held_out},
                ("run.name=target", f"run.seed={draw + 1}", *length, seldom, "checkpoint.every_epochs=0", *given),
            )
            record = dict(zip(JOB, job, strict=True)) | {"cpu_seconds": round(time.process_time() - begun, 1)}
            self._done[job] = record | {"curve": curve}
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self._done[job]) + "\n")
            print(*job, f"dice {curve[-1]['dice']:.4f}", f"{record['cpu_seconds']} s", flush=True)
        return self._done[job]

    def rows(self, targets: Iterable[str], draws: int) -> list[dict[str, Any]]:
        """Return for each target and way the rate that was chosen, and its figures for so many of the final draws."""
        effort, every = self._effort, [(target, way) for target in targets for way in ways(self._effort.epochs)]
        tried = {
            each: {
                lr: mean(dice(self.job("tuning", *each, draw, lr)) for draw in range(effort.tuning))
                for lr in effort.rates
            }
            for each in every
        }
        chosen = {each: max(of_rate, key=lambda lr: of_rate[lr]) for each, of_rate in tried.items()}
        final: dict[tuple[str, str], list[dict[str, Any]]] = {each: [] for each in every}
        for draw in range(min(effort.final, draws)):
            for each in every:
                final[each].append(self.job("final", *each, draw, chosen[each]))
        return [self._row(*each, chosen[each], tried[each], final[each]) for each in every]

    def _row(
        self, target: str, way: str, lr: float, tried: Mapping[float, float], final: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        return {
            "target": target,
            "way": way,
            "lr": lr,
            "dice_of_rates": {f"{rate:g}": round(value, 4) for rate, value in tried.items()},
            "dice": [dice(record) for record in final],
            "steps": [each["step"] for each in final[0]["curve"]],
            "curves": [[each["dice"] for each in record["curve"]] for record in final],
            "dice_Anterior": [record["curve"][-1]["dice_Anterior"] for record in final],
            "dice_Posterior": [record["curve"][-1]["dice_Posterior"] for record in final],
            "cpu_seconds": round(mean(record["cpu_seconds"] for record in final), 1),
        }


def dice(record: Mapping[str, Any]) -> float:
    """Return the mean Dice of a run at its end."""
    value: float = record["curve"][-1]["dice"]
    return value


# ---- what it comes to -----------------------------------------------------------------------------------------------


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and half of its 95 % interval by Student's t.

    Example:
        >>> centre, half = interval([1.0, 2.0, 3.0])
        >>> print(f"{centre:.3f} {half:.3f}")
        2.000 2.484
    """
    return mean(values), float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5


def differences(row: Mapping[str, Any], other: Mapping[str, Any]) -> list[float]:
    """Return the differences in Dice of two ways, draw by draw."""
    return [one - two for one, two in zip(row["dice"], other["dice"], strict=True)]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures, and the differences to "all at once" with 95 % intervals."""
    lines = ["| images | way | lr | Dice | − all at once | front | back | CPU s |", "|---" * 8 + "|"]
    for row in rows:
        first = next(each for each in rows if each["target"] == row["target"] and each["way"] == "all at once")
        centre, half = interval(row["dice"])
        difference = "" if row is first else "{:+.3f} ± {:.3f}".format(*interval(differences(row, first)))
        front, back = mean(row["dice_Anterior"]), mean(row["dice_Posterior"])
        lines.append(
            f"| {row['target']} | {row['way']} | {row['lr']:g} | {centre:.3f} ± {half:.3f} | {difference} | "
            f"{front:.3f} | {back:.3f} | {row['cpu_seconds']:.0f} |"
        )
    return "\n".join(lines)


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the mean Dice over steps, and the differences to "all at once" draw by draw with their intervals."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    colours = ("#000000", "#0072B2", "#56B4E9", "#D55E00", "#009E73")  # Okabe and Ito
    figure = Figure(figsize=(9, 3.1 * len(targets)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(targets), 2, squeeze=False)
    for (left, right), target in zip(axes, targets, strict=True):
        here = [row for row in rows if row["target"] == target]
        first = next(row for row in here if row["way"] == "all at once")
        for place, (row, colour) in enumerate(zip(here, colours, strict=True)):
            left.plot(row["steps"], np.mean(row["curves"], axis=0), "o-", color=colour, label=row["way"], markersize=3)
            if row is not first:
                found = differences(row, first)
                centre, half = interval(found)
                right.plot(found, [place] * len(found), "o", color=colour, alpha=0.35, markersize=4)
                right.errorbar(centre, place, xerr=half, fmt="s", color=colour, capsize=3)
        left.set(xlabel="step", ylabel="Dice", title=f"images {target}")
        left.title.set_fontsize(9)
        right.axvline(0, color="grey", linewidth=0.8)
        right.set_yticks(range(len(here)), [row["way"] for row in here], fontsize=7)
        right.invert_yaxis()
        right.locator_params(axis="x", nbins=5)
        right.set_xlabel("Dice − that of all at once (95 % interval)")
    axes[0, 0].legend(fontsize=6)
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Task04_Hippocampus of the Decathlon")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, table and picture")
    parser.add_argument("--targets", choices=TARGETS, nargs="+", default=TARGETS)
    parser.add_argument(
        "--draws", type=int, default=Effort().final, help="do so many of the final draws; the rest later"
    )
    parser.add_argument("--quick", action="store_true", help="too little to tell anything, to see that it runs")
    chosen = parser.parse_args(arguments)
    out: Path = chosen.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    effort = QUICK if chosen.quick else Effort()
    division = Division.of(write_data(out, chosen.data.absolute()), effort)
    before = train_source(out, division, effort)
    print(f"source, one class: dice {before[-1]['dice']:.4f}", flush=True)
    study = Study(out, division, effort)
    rows = study.rows(chosen.targets, chosen.draws)
    text = ",\n".join(json.dumps(row) for row in rows)
    (out / "fine_tuning.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")
    draw(out / "fine_tuning.png", rows)
    print(table(rows))


if __name__ == "__main__":
    main()
