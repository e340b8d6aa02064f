"""Measures a segmentation step: trainkit against a loop written by hand, on the same cases and the same network.

Both read a Decathlon folder, normalise, cut patches, mirror them half of the time, train MONAI's UNet (16-32-64-128)
with Dice + cross-entropy and Adam, write each loss to TensorBoard, validate, lower the learning rate on a plateau and
save a checkpoint each epoch. The loop by hand does as little as possible: it keeps the cases in memory and validates
them cropped to the patch. trainkit preprocesses them into its cache and validates whole volumes by sliding window. A
step is timed from the end of one optimizer step to the end of the next, including its batch and its log. With --tiny
the network is one 1³ convolution of 8³ patches, so that only the loop is measured.

Each round of each variant is a process of its own with one thread; rounds are interleaved and their order rotates. All
times are CPU times, which other jobs disturb least, including the time from the start of Python to the end of the first
step. The result is the minimum over rounds of the median step, because other jobs can only add to it. Without --data,
the cases are noise of the size of hippocampi.

    python benchmarks/segmentation_step.py [--data Task04_Hippocampus] [--rounds 3] [--tiny]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trainkit import Context, Hook, State, component
from trainkit_segmentation.models.kind import SegmentationModel, Size

NUM_TRAIN, NUM_HELD_OUT, EPOCHS = 24, 4, 4
AIM_STEP, AIM_FIRST = 1.05, 1.05  # times those by hand
AIM_MS_OVER = 2.0  # of a step that is nothing but its batch, its loss and the loop
WARM_UP = 2  # steps of each epoch that are not counted
CLASSES = 3  # background, and the two parts of a hippocampus


def laps(tiny: bool) -> int:
    """Return how many times an epoch goes through the cases: many steps are needed to measure microseconds."""
    return 20 if tiny else 1


class Stopwatch:
    """Records the CPU seconds of each step, and those from the start of the process to the end of the first step."""

    def __init__(self) -> None:
        self.epochs: list[list[float]] = []
        self.first: float | None = None

    def epoch(self) -> None:
        self.epochs.append([])
        self._last = time.process_time()

    def mark(self) -> None:
        if self.first is None:
            used = resource.getrusage(resource.RUSAGE_SELF)
            self.first = used.ru_utime + used.ru_stime
        now = time.process_time()
        self.epochs[-1].append(now - self._last)
        self._last = now

    def report(self) -> None:
        steps = [seconds for epoch in self.epochs for seconds in epoch[WARM_UP:]]
        measured = {
            "step": statistics.median(steps),
            "first": self.first,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        print("MEASURED " + json.dumps(measured))


# ---- by hand --------------------------------------------------------------------------------------------------------


def by_hand(folder: Path, out: Path, tiny: bool) -> Stopwatch:
    import nibabel
    import numpy as np
    import torch
    from monai.losses import DiceCELoss
    from monai.metrics import DiceMetric
    from monai.networks.nets import UNet
    from monai.networks.utils import one_hot
    from torch.utils.data import DataLoader, Dataset
    from torch.utils.tensorboard import SummaryWriter

    torch.manual_seed(0)
    torch.set_num_threads(1)
    size = 8 if tiny else 48
    cases = []
    for entry in json.loads((folder / "dataset.json").read_text())["training"]:
        image, label = (
            np.asarray(nibabel.load(folder / entry[key]).dataobj, dtype=dtype)
            for key, dtype in (("image", "float32"), ("label", "uint8"))
        )
        image = (image - image.mean()) / (image.std() + 1e-6)
        cut = tuple(slice(max(0, (n - size) // 2), max(0, (n - size) // 2) + size) for n in image.shape)
        pad = [(0, size - n) for n in image[cut].shape]
        cases.append((np.pad(image[cut], pad)[None], np.pad(label[cut], pad)[None]))

    class Cases(Dataset[Any]):
        def __init__(self, items: list[Any], mirror: bool) -> None:
            self.items, self.mirror = items, mirror

        def __len__(self) -> int:
            return len(self.items)

        def __getitem__(self, index: int) -> Any:
            image, label = (torch.from_numpy(each).float() for each in self.items[index])
            if self.mirror and torch.rand(()) < 0.5:
                image, label = torch.flip(image, (1,)), torch.flip(label, (1,))
            return {"image": image, "label": label}

    network = (
        torch.nn.Conv3d(1, CLASSES, 1) if tiny else UNet(3, 1, CLASSES, (16, 32, 64, 128), (2, 2, 2), num_res_units=2)
    )
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=True)  # as ours
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=10)
    batches = DataLoader(Cases(cases[:NUM_TRAIN] * laps(tiny), True), batch_size=2, shuffle=True)
    held_out = DataLoader(Cases(cases[NUM_TRAIN:], False), batch_size=1)
    board, metric, step = SummaryWriter(str(out)), DiceMetric(include_background=False), 0
    stopwatch = Stopwatch()
    for epoch in range(EPOCHS):
        network.train()
        stopwatch.epoch()
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(network(batch["image"]), batch["label"])
            loss.backward()
            optimizer.step()
            board.add_scalar("train/loss", loss.item(), step)
            step += 1
            stopwatch.mark()
        network.eval()
        with torch.no_grad():
            for batch in held_out:
                found = network(batch["image"]).argmax(1, keepdim=True)
                metric(one_hot(found, CLASSES), one_hot(batch["label"], CLASSES))
        dice = metric.aggregate().item()
        metric.reset()
        plateau.step(dice)
        board.add_scalar("val/dice", dice, epoch)
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "plateau": plateau.state_dict()}
        torch.save(state, out / f"epoch{epoch}.pt")
    board.close()
    return stopwatch


# ---- by trainkit ----------------------------------------------------------------------------------------------------

RECIPE = """
trainkit = 1
[run]
name = "timed"
epochs = {epochs}
device = "cpu"
threads = 1
dir = "{out}"
[monitor]
metric = "val/dice"
mode = "max"
[pictures]
every_epochs = 0
[data]
use = "msd"
path = "{folder}"
steps_per_epoch = {steps}
patch_size = [{size}, {size}, {size}]
foreground_probability = 0.0
split = {{ use = "fraction", validation_fraction = {fraction} }}
cache = {{ folder = "{cache}" }}
augmentation = {{ flip = {{ axes = [0] }} }}
[model]
use = "{model}"
[losses.overlap]
use = "dice_ce"
include_background = true
[metrics.dice]
use = "dice"
[inference]
use = "sliding_window"
[optimizer]
use = "adam"
[scheduler]
use = "reduce_on_plateau"
[hooks.clock]
use = "{module}:Clock"
[loggers.tensorboard]
use = "tensorboard"
every_steps = 1
"""


@component
class Pointwise(SegmentationModel):
    """One 1³ convolution."""

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> Any:
        import torch

        return torch.nn.Conv3d(in_channels, out_channels, 1)

    def groups(self) -> dict[str, bool]:
        return {"other": True}

    def group_of(self, name: str) -> str:
        return "other"


class LiveClock(Stopwatch):
    def on_epoch_start(self, state: State) -> None:
        self.epoch()

    def on_step_end(self, state: State) -> None:
        self.mark()

    def on_run_end(self, state: State) -> None:
        self.report()


@component
class Clock(Hook):
    """Times the steps; called after all other hooks and loggers."""

    phase = "persist"

    def build(self, context: Context) -> object:
        return LiveClock()


def by_trainkit(folder: Path, out: Path, tiny: bool) -> None:
    from trainkit.console import Console
    from trainkit.engine.start import start
    from trainkit.recipe.resolve import resolve_text

    text = RECIPE.format(
        epochs=EPOCHS,
        out=out,
        folder=folder,
        cache=folder / "cache",
        steps=NUM_TRAIN // 2 * laps(tiny),
        size=8 if tiny else 48,
        fraction=NUM_HELD_OUT / (NUM_TRAIN + NUM_HELD_OUT),
        model=f"{__name__}:Pointwise" if tiny else "unet",
        module=__name__,
    )
    start(resolve_text(text, out), Console(quiet=True))


# ---- side by side ---------------------------------------------------------------------------------------------------


def make_cases(folder: Path, data: Path | None) -> None:
    """Fill a Decathlon folder: with links to the first cases of another, or with noise."""
    import nibabel
    import numpy as np

    number = NUM_TRAIN + NUM_HELD_OUT
    if data is not None:
        described = json.loads((data / "dataset.json").read_text())
        for name in ("imagesTr", "labelsTr"):
            (folder / name).symlink_to(data.resolve() / name)
        described |= {"training": described["training"][:number], "numTraining": number, "test": [], "numTest": 0}
    else:
        rng = np.random.default_rng(0)
        training = []
        for index in range(number):
            entry = {"image": f"imagesTr/case_{index:03d}.nii.gz", "label": f"labelsTr/case_{index:03d}.nii.gz"}
            for key, highest in (("image", 250), ("label", CLASSES)):
                (folder / entry[key]).parent.mkdir(exist_ok=True)
                voxels = rng.integers(0, highest, (36, 50, 36)).astype(np.uint8)
                nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / entry[key])
            training.append(entry)
        labels = {"0": "background", "1": "front", "2": "back"}
        described = {"modality": {"0": "MRI"}, "labels": labels, "training": training}
    (folder / "dataset.json").write_text(json.dumps(described))


def measured(variant: str, folder: Path, tiny: bool) -> dict[str, float]:
    """Run a variant in a process of its own."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, "--variant", variant, "--data", str(folder), "--out", out]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command + ["--tiny"] * tiny, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("MEASURED ")]
    if not lines:
        sys.exit(f"{variant} failed: {done.stdout[-500:]}\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(lines[-1].removeprefix("MEASURED "))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--variant", choices=["by hand", "trainkit"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.variant == "by hand":
        by_hand(given.data, given.out, given.tiny).report()
        return
    if given.variant == "trainkit":
        by_trainkit(given.data, given.out, given.tiny)
        return

    rounds: dict[str, list[dict[str, float]]] = {"by hand": [], "trainkit, empty cache": [], "trainkit": []}
    with tempfile.TemporaryDirectory() as folder:
        make_cases(Path(folder), given.data)
        names = list(rounds)
        for turn in range(given.rounds):
            for name in names if turn % 2 == 0 else names[::-1]:
                if name == "trainkit, empty cache":
                    subprocess.run(["rm", "-rf", str(Path(folder, "cache"))], check=True)
                rounds[name].append(measured(name.partition(",")[0], Path(folder), given.tiny))

    def least(name: str, what: str) -> float:
        return min(each[what] for each in rounds[name])

    print(f"minimum of {given.rounds} rounds of {EPOCHS * NUM_TRAIN // 2 * laps(given.tiny)} steps, one thread")
    print(f"{'':24s}{'CPU ms a step':>22s}{'first step s':>20s}{'memory MiB':>20s}")
    for name in rounds:
        columns: list[tuple[str, float, str]] = [("step", 1e3, "9.2f"), ("first", 1, "7.2f"), ("memory", 1, "7.0f")]
        shown = [
            f"{scale * least(name, what):{form}} ({least(name, what) / least('by hand', what):5.3f} ×)"
            for what, scale, form in columns
        ]
        print(f"{name:24s}" + "".join(f"{each:>20s}" for each in shown))
    over = 1e3 * (least("trainkit", "step") - least("by hand", "step"))
    ratios = {what: least("trainkit", what) / least("by hand", what) for what in ("step", "first")}
    print(f"trainkit over the loop by hand: {over:.3f} ms of CPU a step")
    missed = [f"a first step in at most {AIM_FIRST} times that by hand"] * (ratios["first"] > AIM_FIRST)
    if given.tiny:
        missed += [f"a step in at most {AIM_MS_OVER} ms more than by hand"] * (over > AIM_MS_OVER)
    else:
        missed += [f"a step in at most {AIM_STEP} times that by hand"] * (ratios["step"] > AIM_STEP)
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
