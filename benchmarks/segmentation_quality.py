"""Measures how good a trained segmentation is for its CPU time: the shipped recipe beside nnU-Net, over seeds.

Each tool trains on the same 64 of the 80 hippocampi and predicts the other 16; Dice is computed here, with nibabel, on
the files that it wrote. Each run is a process with one thread. Its CPU time is all of it, with that of its children:
start, preprocessing, training, validation and prediction. Memory is the largest resident set of one of its processes.

--minutes     `recipes/msd_hippocampus_unet.toml` with as many epochs as fit into these CPU minutes, and nnU-Net as it
              plans itself for --peer-steps steps. nnU-Net's plan is meant for 250,000 steps.
--equal-work  Both train the same network (features 16 to 128) on batches of three patches of 40×56×40, for as many
              steps, with AdamW and a polynomial decay: Dice, CPU seconds per step and memory, as ratios.
              nnU-Net's network has biases before its normalisations, which take them away again, and a third head of
              weight 0: a thousand of its 1.4 million parameters.

Runs of the two tools alternate. Each one is kept as a line of results.jsonl in --out, and not done again. nnU-Net is
left out where the Python of --peer does not have it (see `nnunet_peer.py`).

    python benchmarks/segmentation_quality.py --data Task04_Hippocampus --out FOLDER [--minutes 3 10] [--equal-work]
        [--seeds 0 1 2] [--peer PYTHON]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import nibabel
import numpy as np

from trainkit import Context, Hook, State, component

HERE = Path(__file__).resolve()
RECIPES = HERE.parents[1] / "recipes"
RECIPE = "msd_hippocampus_unet"
EPOCHS_PER_MINUTE = 3.9
AIMS = {3: 0.865, 10: 0.885}
LEAST_DICE, LOWER_DICE, MOST_STEP, MOST_MEMORY = 0.8, 0.01, 1.05, 0.8  # of equal work
FEATURES, LR = (16, 32, 64, 128), 2e-3
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "BLOSC_NTHREADS")


class Used(NamedTuple):
    """What a process and its children used.

    Attributes:
        seconds: CPU time.
        megabytes: The largest resident set of one of them.
        output: What it printed.
    """

    seconds: float
    megabytes: float
    output: str


def measure(command: Sequence[str | Path], log: Path) -> Used:
    """Run a program with one thread; end if it fails."""
    with log.open("w") as output:
        started = subprocess.Popen(
            [*map(str, command)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ
            | dict.fromkeys(THREADS, "1")
            | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])},
        )
        _, status, usage = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        sys.exit(f"{command[0]} ended with exit code {started.returncode}; its output is in {log}")
    return Used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, log.read_text())


@component
class Stopwatch(Hook):
    """Prints the median of the CPU seconds from the end of a step to the end of the next one in its epoch."""

    def build(self, context: Context) -> object:
        return _Stopwatch()


@attrs.define
class _Stopwatch:
    seconds: list[float] = attrs.Factory(list)
    last: float = 0.0

    def on_epoch_start(self, state: State) -> None:
        self.last = time.process_time()

    def on_step_end(self, state: State) -> None:
        before, self.last = self.last, time.process_time()
        self.seconds.append(self.last - before)

    def on_run_end(self, state: State) -> None:
        parameters = sum(each.numel() for each in state.model.parameters())
        print("JSON " + json.dumps({"seconds_per_step": statistics.median(self.seconds), "parameters": parameters}))


def measured(output: str) -> dict[str, Any]:
    """Return what a run printed as JSON."""
    found = [line for line in output.splitlines() if line.startswith("JSON ")]
    values: dict[str, Any] = json.loads(found[-1].removeprefix("JSON ")) if found else {}
    return values


def dice(predictions: Path, truth: Path, cases: Iterable[str], labels: Iterable[int]) -> list[float]:
    """Return the mean over the cases for each label value."""
    scores = []
    for case in cases:
        found, true = (
            np.rint(np.asanyarray(nibabel.load(folder / f"{case}.nii.gz").dataobj)) for folder in (predictions, truth)
        )
        sizes = [((found == k).sum(), (true == k).sum(), ((found == k) & (true == k)).sum()) for k in labels]
        scores.append([2 * both / (one + other) if one + other else 1.0 for one, other, both in sizes])
    return [float(each) for each in np.mean(scores, axis=0)]


class Study:
    """The runs that were made, and those that are made.

    Args:
        data: The folder of the Decathlon.
        out: The folder that everything is written to.
        peer: A Python that has nnU-Net; None: nnU-Net is left out.
    """

    def __init__(self, data: Path, out: Path, peer: Path | None) -> None:
        self.data, self.out, self.peer = data.resolve(), out.resolve(), peer
        self.out.mkdir(parents=True, exist_ok=True)
        self.file = self.out / "results.jsonl"
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.done = {(each["tool"], each["work"], each["seed"]): each for each in map(json.loads, lines)}
        described = json.loads((self.data / "dataset.json").read_text())
        self.labels = sorted(int(value) for value in described["labels"] if int(value))

    def ours(self, work: str, recipe: str, seed: int, sets: Sequence[str]) -> None:
        """Train with trainkit and predict the held-out cases, unless that was done."""
        if ("trainkit", work, seed) in self.done:
            return
        name = f"trainkit-{work.replace(' ', '-')}-{seed}"
        shutil.rmtree(self.out / name, ignore_errors=True)
        (self.out / name).mkdir()
        trainkit = (sys.executable, "-m", "trainkit")
        fixed = (f"data.path={self.data}", f"run.seed={seed}", f"run.dir={self.out / name}", f"run.name={name}")
        sets = (*fixed, f"data.cache.folder={self.out / name / 'cache'}", "run.device=cpu", "run.threads=1", *sets)
        given = [part for each in sets for part in ("--set", each)]
        trained = measure((*trainkit, "run", RECIPES / f"{recipe}.toml", *given), self.out / name / "run.txt")
        (run,) = (self.out / name / name).iterdir()
        cases = json.loads((run / "splits.json").read_text())[0]["val"]
        images = [self.data / "imagesTr" / f"{case}.nii.gz" for case in cases]
        predictions = self.out / name / "predictions"
        command = (*trainkit, "predict", run, *images, "--out", predictions)
        predicted = measure(command, self.out / name / "predict.txt")
        shutil.copy(run / "splits.json", self.out / "splits.json")
        extra = measured(trained.output)
        self._keep("trainkit", work, seed, [trained, predicted], predictions, cases, extra)

    def peers(self, work: str, seed: int, options: Sequence[str]) -> None:
        """Train with nnU-Net on the split of trainkit's runs, unless that was done."""
        if self.peer is None or ("nnU-Net", work, seed) in self.done:
            return
        folder = self.out / f"nnunet-{work.replace(' ', '-')}-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        split = self.out / "splits.json"
        command = (self.peer, HERE.with_name("nnunet_peer.py"), "--data", self.data, "--out", folder / "folders")
        used = measure((*command, "--split", split, "--seed", str(seed), *options), folder / "run.txt")
        extra = measured(used.output)
        cases = json.loads(split.read_text())[0]["val"]
        self._keep("nnU-Net", work, seed, [used], Path(extra.pop("predictions")), cases, extra)

    def _keep(
        self,
        tool: str,
        work: str,
        seed: int,
        used: Sequence[Used],
        predictions: Path,
        cases: Sequence[str],
        extra: Mapping[str, Any],
    ) -> None:
        scores = dice(predictions, self.data / "labelsTr", cases, self.labels)
        result = {
            "tool": tool,
            "work": work,
            "seed": seed,
            "dice": float(np.mean(scores)),
            "dice_of_labels": scores,
            "cpu_minutes": sum(each.seconds for each in used) / 60,
            "megabytes": used[0].megabytes,
            "cases": len(cases),
            **extra,
        }
        self.done[tool, work, seed] = result
        with self.file.open("a") as lines:
            lines.write(json.dumps(result) + "\n")
        print(f"{tool}, {work}, seed {seed}: Dice {result['dice']:.4f}, {result['cpu_minutes']:.2f} CPU minutes")

    def rows(self, work: str, seeds: Iterable[int]) -> dict[str, list[dict[str, Any]]]:
        """Return the results of each tool for some work."""
        tools = ("trainkit", "nnU-Net")
        found = {tool: [self.done[tool, work, s] for s in seeds if (tool, work, s) in self.done] for tool in tools}
        return {tool: results for tool, results in found.items() if results}


def mean(results: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.mean(each[key] for each in results)


def equal_work(epochs: int, steps: int) -> list[str]:
    """Return what makes the recipe `nnunet_like` the work that nnU-Net is given."""
    return [
        f"run.epochs={epochs}",
        f"data.steps_per_epoch={steps}",
        f"validation.every_epochs={epochs}",
        "data.batch_size=3",
        "data.workers=0",
        'data.split={ use = "fraction", validation_fraction = 0.2 }',
        f"model.channels={list(FEATURES)}",
        f'optimizer={{ use = "adamw", lr = {LR}, weight_decay = 0.01 }}',  # as torch has it
        'hooks.stopwatch.use="segmentation_quality:Stopwatch"',
    ]


def row(work: str, tool: str, results: Sequence[Mapping[str, Any]]) -> str:
    scores = [each["dice"] for each in results]
    spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    step = f"{mean(results, 'seconds_per_step'):.3f}" if "seconds_per_step" in results[0] else "–"
    minutes, memory = f"{mean(results, 'cpu_minutes'):.2f}", f"{mean(results, 'megabytes'):.0f}"
    score = f"{statistics.mean(scores):.4f}{spread}"
    return f"| {' | '.join((work, tool, str(len(scores)), score, minutes, step, memory))} |"


def has_nnunet(python: Path) -> bool:
    try:
        return not subprocess.run([python, "-c", "import nnunetv2"], capture_output=True, check=False).returncode
    except OSError:
        return False


def short_of_time(study: Study, minutes: int, seeds: Iterable[int]) -> Iterator[str]:
    """Yield which aims the runs of so many minutes miss."""
    results = study.rows(f"{minutes} min", seeds)["trainkit"]
    if (used := mean(results, "cpu_minutes")) > minutes:
        yield f"{minutes} min: {used:.2f} CPU minutes were used"
    if (score := mean(results, "dice")) < AIMS.get(minutes, 0.0):
        yield f"{minutes} min: Dice {score:.4f} is below {AIMS[minutes]}"


def short_of_peer(study: Study, work: str, seeds: Iterable[int]) -> Iterator[str]:
    """Yield which aims at equal work are missed; print the ratios."""
    results = study.rows(work, seeds)
    if len(results) < 2:
        return
    ours, peer = results["trainkit"], results["nnU-Net"]
    if abs(ours[0]["parameters"] / peer[0]["parameters"] - 1) > 0.001:
        yield f"the networks differ: {ours[0]['parameters']} and {peer[0]['parameters']} parameters"
    lower = mean(peer, "dice") - mean(ours, "dice")
    step, memory = (mean(ours, key) / mean(peer, key) for key in ("seconds_per_step", "megabytes"))
    print(f"{work}: Dice {-lower:+.4f}, a step {step:.2f}×, memory {memory:.2f}× of nnU-Net's")
    if min(mean(ours, "dice"), mean(peer, "dice")) < LEAST_DICE:
        yield f"{work}: they are too short to be compared, below Dice {LEAST_DICE}"
    if lower > LOWER_DICE or step > MOST_STEP or memory > MOST_MEMORY:
        yield f"{work}: Dice may be {LOWER_DICE} lower, a step take {MOST_STEP}×, memory {MOST_MEMORY}×"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=int, nargs="*", default=[3, 10], help="CPU minutes all in")
    parser.add_argument("--equal-work", action="store_true")
    parser.add_argument("--epochs", type=int, default=6, help="of --equal-work")
    parser.add_argument("--steps", type=int, default=40, help="in an epoch of --equal-work")
    parser.add_argument("--peer", type=Path, default=Path(sys.executable), help="a Python that has nnU-Net")
    parser.add_argument("--peer-steps", type=int, default=90, help="of nnU-Net as planned; 0: it is left out")
    options = parser.parse_args()

    peer: Path | None = options.peer
    if not has_nnunet(options.peer):
        print(f"nnU-Net is left out: {peer} cannot import nnunetv2 (see {HERE.with_name('nnunet_peer.py').name})")
        peer = None
    study = Study(options.data, options.out, peer)
    equal = f"equal work of {options.epochs * options.steps} steps"
    for seed in options.seeds:
        for minutes in options.minutes:
            study.ours(f"{minutes} min", RECIPE, seed, [f"run.epochs={int(minutes * EPOCHS_PER_MINUTE)}"])
        if options.minutes and options.peer_steps:
            study.peers("as planned", seed, ["--epochs", "3", "--steps-per-epoch", str(options.peer_steps // 3)])
        if options.equal_work:
            study.ours(equal, "nnunet_like", seed, equal_work(options.epochs, options.steps))
            lengths = ["--epochs", str(options.epochs), "--steps-per-epoch", str(options.steps)]
            study.peers(equal, seed, [*lengths, "--features", *map(str, FEATURES), "--adamw", str(LR)])

    print("\n| work | tool | seeds | Dice | CPU minutes | CPU s per step | memory, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    works = [f"{minutes} min" for minutes in options.minutes] + ["as planned"] + [equal] * options.equal_work
    for work in works:
        for tool, results in study.rows(work, options.seeds).items():
            print(row(work, tool, results))
    missed = [line for minutes in options.minutes for line in short_of_time(study, minutes, options.seeds)]
    missed += short_of_peer(study, equal, options.seeds) if options.equal_work else []
    print("\n".join(missed) or "all aims are reached")
    found = list(study.done.values())
    (study.out / "segmentation_quality.json").write_text(json.dumps({"runs": found, "missed": missed}, indent=1) + "\n")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
