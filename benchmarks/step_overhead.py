"""Measures the overhead of the loop: CPU microseconds per step in addition to the same training in a hand-written loop.

All variants train the same tiny module on the same batches, in one process and one thread. They take turns: after every
hundred steps of ours, a loop written by hand makes as many, and so does one that also reads its loss. Whatever else the
machine does slows all of them, and each hundred is held against its neighbour. Reported are medians, for a machine as
quiet as during its quickest hundred steps by hand; a second loop by hand shows the noise. In the last variant, model,
loss and hooks say that their steps can be recorded, so these are repeated without Python; the aim is for parts that say
nothing. What an epoch takes besides its steps (a checkpoint, records, a line) is measured by itself, and divided by its
steps.

    python benchmarks/step_overhead.py [--rounds 3] [--steps 3000]
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
TOGETHER = 100  # steps in a turn
FIRST = 25  # first step of a turn: loggers write after each fiftieth, and a thread of theirs a moment later
BATCHES: list[dict[str, Tensor]] = [
    {"index": torch.arange(16), "x": torch.randn(16, 8), "y": torch.randn(16, 1)} for _ in range(8)
]


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


@component
class RepeatedPerceptron(Perceptron):
    steps_can_be_recorded = True


@component
class RepeatedSquares(Squares):
    steps_can_be_recorded = True


@component
class RepeatedCounting(Counting):
    steps_can_be_recorded = True


class ByHand:
    """A training that is written by hand.

    Args:
        reads: Whether it reads the loss of each step.
    """

    def __init__(self, *, reads: bool = False) -> None:
        self._network, self._reads, self._total = Network(), reads, 0.0
        self._optimizer = torch.optim.Adam(self._network.parameters(), 1e-3, fused=True)  # as ours

    def seconds(self) -> float:
        """Make a hundred steps, and return the CPU seconds that they took."""
        network, optimizer = self._network, self._optimizer
        began = time.process_time()
        for step in range(TOGETHER):
            batch = BATCHES[step & 7]
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(network(batch)["y"], batch["y"])
            loss.backward()
            optimizer.step()
            if self._reads:
                self._total += loss.item()
        return time.process_time() - began


class LiveBatches:
    """Batches; after every hundred, the loops by hand make as many steps.

    Attributes:
        seconds: Variant -> CPU seconds of each hundred steps.
        steps_ended: When the last step ended.
        end: CPU seconds of the end of the epoch.
    """

    def __init__(self, steps: int) -> None:
        self.batches_per_epoch = steps
        self.seconds: dict[str, list[float]] = {name: [] for name in ("ours", "by hand", "again", "reading")}
        self.steps_ended = self.end = 0.0

    def train(self, epoch: int, start: int) -> Iterator[Batch]:
        others = {"by hand": ByHand(), "again": ByHand(), "reading": ByHand(reads=True)}
        for other in others.values():
            other.seconds()
        began = 0.0
        for step in range(start, self.batches_per_epoch):
            if step % TOGETHER == FIRST:
                if step > TOGETHER:  # the first hundred warm up
                    self.seconds["ours"].append(time.process_time() - began)
                    for name, other in others.items():
                        self.seconds[name].append(other.seconds())
                began = time.process_time()
            yield BATCHES[step & 7]
        self.steps_ended = time.process_time()

    def evaluate(self, split: str) -> Iterator[Batch]:
        raise NotImplementedError


class EndOfEpoch:
    """Ends the run after its first epoch, and takes the time of its end; called after all other parts."""

    def on_checkpoint(self, state: State) -> None:
        assert isinstance(state.data, LiveBatches)
        state.data.end = time.process_time() - state.data.steps_ended
        state.stop("timed")


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
use = "{module}:{repeated}Perceptron"
[losses.data]
use = "{module}:{repeated}Squares"
[optimizer]
use = "adam"
"""
BARE = "[checkpoint]\nevery_epochs = 1000\n"
FULL = '[checkpoint]\nevery_epochs = 1\n[loggers.tensorboard]\nuse = "tensorboard"\n' + "".join(
    f'[hooks.{name}]\nuse = "{{module}}:{{repeated}}Counting"\n' for name in ("one", "two", "three", "four")
)


JUDGED = "trainkit, all on"
VARIANTS: dict[str, tuple[str, str]] = {
    "trainkit, bare": (BARE, ""),
    JUDGED: (FULL, ""),
    "trainkit, all on, repeated": (FULL, "Repeated"),
}
"""Name -> what the recipe has besides, and the first word of its parts."""


def trained(extra: str, repeated: str, *, steps: int) -> LiveBatches:
    """Train an epoch, with the loops by hand in between, and return what was measured."""
    from trainkit.console import Console
    from trainkit.engine.build import build
    from trainkit.engine.every_run.progress import Progress
    from trainkit.engine.every_run.time_left import Estimator
    from trainkit.engine.loop import train
    from trainkit.engine.run_folder import LOG, created
    from trainkit.engine.stages import Stages
    from trainkit.recipe.resolve import resolve_text

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        text = (RECIPE + extra).format(folder=folder, module=__name__, steps=steps, repeated=repeated)
        resolved, quiet = resolve_text(text, Path(folder)), extra == BARE
        console = Console(quiet)
        run_folder = stack.enter_context(created(resolved))
        console.log_to(run_folder / LOG)
        run = build(resolved, run_folder)
        if not quiet:
            stages = Stages(run.recipe, run.state.groups, run.groups.plans, run.state.epochs)
            run.add("progress", Progress(console, run, None, Estimator(run.recipe, stages)))
        run.add("end_of_epoch", EndOfEpoch())
        train(run)
        run.emit("run_end")
        assert isinstance(run.state.data, LiveBatches)
        return run.state.data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # a move to another core empties the caches

    rounds: dict[str, list[LiveBatches]] = {name: [] for name in VARIANTS}
    for turn in range(given.rounds):
        for name in list(VARIANTS)[:: 1 if turn % 2 == 0 else -1]:
            gc.collect()
            rounds[name].append(trained(*VARIANTS[name], steps=given.steps))
    everything = [each for some in rounds.values() for each in some]

    def steps(some: list[LiveBatches], variant: str) -> list[float]:
        return [1e6 * seconds / TOGETHER for each in some for seconds in each.seconds[variant]]

    quickest = min(steps(everything, "by hand"))

    def over(some: list[LiveBatches], variant: str) -> float:
        ratios = (mine / base for mine, base in zip(steps(some, variant), steps(some, "by hand"), strict=True))
        return quickest * (statistics.median(ratios) - 1)

    print(f"CPU microseconds a step, medians of {given.steps} × {given.rounds} steps in turn, one thread, Adam")
    print(f"{'by hand, at its quickest':26s}{quickest:7.1f}")
    print(f"{'by hand, again':26s}{over(everything, 'again'):7.1f} over by hand: the noise of what follows")
    print(f"{'by hand, reading its loss':26s}{over(everything, 'reading'):7.1f} over by hand")
    judged = 0.0
    for name, some in rounds.items():
        of_step, at_end = over(some, "ours"), 1e6 * min(each.end for each in some) / given.steps
        total = of_step + at_end
        judged = total if name == JUDGED else judged
        print(f"{name:26s}{total:7.1f} over by hand: {of_step:.1f} a step, and {at_end:.1f} for the end of an epoch")
    print(f"aim: at most {AIM_MICROSECONDS:.0f} over by hand with all on")
    sys.exit(judged > AIM_MICROSECONDS)


if __name__ == "__main__":
    main()
