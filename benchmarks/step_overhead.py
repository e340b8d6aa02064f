"""Measures the overhead of the loop: CPU microseconds per step in addition to the same training in a hand-written loop.

All variants train the same tiny module on the same batches, in one process and one thread, in interleaved rounds whose
order rotates. A round is timed from the first step to the end of the epoch, including its checkpoint; the setup of a
run is not counted. CPU time is measured, because other jobs on the machine disturb it least.

    python benchmarks/step_overhead.py [--rounds 9] [--steps 2000]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor, nn

from trainkit import Batch, Context, Data, Hook, Loss, Model, State, component

AIM_MICROSECONDS = 15.0
BATCHES: list[dict[str, Tensor]] = [
    {"index": torch.arange(16), "x": torch.randn(16, 8), "y": torch.randn(16, 1)} for _ in range(8)
]


class LiveBatches:
    def __init__(self, steps: int) -> None:
        self.batches_per_epoch = steps

    def train(self, epoch: int, start: int) -> Iterator[Batch]:
        for step in range(start, self.batches_per_epoch):
            yield BATCHES[step & 7]

    def evaluate(self, split: str) -> Iterator[Batch]:
        raise NotImplementedError


@component
class Batches(Data):
    steps: int

    def build(self, context: Context) -> LiveBatches:
        return LiveBatches(self.steps)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"y": self.layers(batch["x"])}


@component
class Perceptron(Model):
    def build(self, data: Any) -> nn.Module:
        return Network()


@component
class Squares(Loss):
    def build(self, data: Any) -> Callable[..., Tensor]:
        return lambda outputs, batch, model: nn.functional.mse_loss(outputs["y"], batch["y"])


class LiveCounting:
    """As a user writes a hook: it looks at each step."""

    number = 0

    def on_step_end(self, state: State) -> None:
        self.number += 1


@component
class Counting(Hook):
    def build(self, context: Context) -> LiveCounting:
        return LiveCounting()


class Stopwatch:
    """Times one epoch, then stops the run; called after all other parts."""

    seconds = 0.0

    def on_epoch_start(self, state: State) -> None:
        self._began = time.process_time()

    def on_checkpoint(self, state: State) -> None:
        self.seconds = time.process_time() - self._began
        state.stop("timed")


def raw(steps: int) -> float:
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=True)  # as ours
    began = time.process_time()
    for batch in LiveBatches(steps).train(0, 0):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(network(batch)["y"], batch["y"])
        loss.backward()
        optimizer.step()
    return time.process_time() - began


def raw_that_reads_its_loss(steps: int) -> float:
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=True)  # as ours
    total = 0.0
    began = time.process_time()
    for batch in LiveBatches(steps).train(0, 0):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(network(batch)["y"], batch["y"])
        loss.backward()
        optimizer.step()
        total += loss.item()
    return time.process_time() - began


RECIPE = """
trainkit = 1
[run]
name = "timed"
epochs = 2
device = "cpu"
threads = 1
dir = "{folder}"
[monitor]
metric = "train/loss"
[pictures]
every_epochs = 1000
[data]
use = "{module}:Batches"
steps = {steps}
[model]
use = "{module}:Perceptron"
[losses.data]
use = "{module}:Squares"
[optimizer]
use = "adam"
"""
BARE = "[checkpoint]\nevery_epochs = 1000\n"
FULL = '[checkpoint]\nevery_epochs = 1\n[loggers.tensorboard]\nuse = "tensorboard"\n' + "".join(
    f'[hooks.{name}]\nuse = "{__name__}:Counting"\n' for name in ("one", "two", "three", "four")
)


def ours(extra: str, *, quiet: bool) -> Callable[[int], float]:
    def timed(steps: int) -> float:
        from trainkit.console import Console
        from trainkit.engine.build import build
        from trainkit.engine.every_run.progress import Progress
        from trainkit.engine.loop import train
        from trainkit.engine.run_folder import LOG, created
        from trainkit.recipe.resolve import resolve_text

        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            text = RECIPE.format(folder=folder, module=__name__, steps=steps) + extra
            resolved = resolve_text(text, Path(folder))
            console = Console(quiet)
            run_folder = stack.enter_context(created(resolved))
            console.log_to(run_folder / LOG)
            run = build(resolved, run_folder)
            stopwatch = Stopwatch()
            if not quiet:
                run.add("progress", Progress(console, run, None))
            run.add("stopwatch", stopwatch)
            train(run)
            run.emit("run_end")
            return stopwatch.seconds

    return timed


VARIANTS: dict[str, Callable[[int], float]] = {
    "raw": raw,
    "raw, reading its loss": raw_that_reads_its_loss,
    "trainkit, bare": ours(BARE, quiet=True),
    "trainkit, all on": ours(FULL, quiet=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2000)
    given = parser.parse_args()
    torch.set_num_threads(1)

    names = list(VARIANTS)
    microseconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        VARIANTS[name](100)
    for turn in range(given.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            gc.collect()
            microseconds[name].append(VARIANTS[name](given.steps) / given.steps * 1e6)

    print(f"CPU microseconds a step, median of {given.rounds} rounds of {given.steps} steps, one thread, Adam")
    for name in names:
        over = [mine - base for mine, base in zip(microseconds[name], microseconds["raw"], strict=True)]
        ratio = statistics.median(
            mine / base for mine, base in zip(microseconds[name], microseconds["raw"], strict=True)
        )
        print(
            f"{name:24s}{statistics.median(microseconds[name]):8.1f}   over raw {statistics.median(over):7.1f} "
            f"[{min(over):.1f} … {max(over):.1f}]   {ratio:5.2f} ×"
        )
        if name.endswith("all on"):
            print(f"aim: at most {AIM_MICROSECONDS:.0f} over raw with all on")
            sys.exit(statistics.median(over) > AIM_MICROSECONDS)


if __name__ == "__main__":
    main()
