"""Measures what it costs to divide a run among processes, and what it gains.

- The overhead of the reduction of gradients, without and with shards, over a hand-written loop with torch's
  DistributedDataParallel, which is wrapped once: two processes train a 3-D U-Net of 1.2e6, and of 1.9e7 parameters, on
  patches of 32^3, in batches of several sizes, so that a shard has one patch or more.
- Steps per second of one and of two processes, for these and for shipped recipes.
- The cost of shards in one process.

Two processes with one thread each, over gloo. All variants of a network or recipe are built in the same two processes,
each in a thread of its own, and take turns: a block of a few steps, then the next one, in an order that rotates. Each
block is timed by the clock, between two barriers, and by the CPU time of both processes together, in which waiting does
not count, nor what other jobs of the machine do. While a variant of one process has its turn, the other process waits.
Other jobs still disturb single blocks, so the results are medians of the ratios to the first variant in the same round,
and least times.

    python benchmarks/several_processes.py [--rounds 15] [--block 2] [--only "small unet" ...] [--batches 4 8]
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainkit import Batch, Context, Data, Exchange, Loss, Model, State, component, part_of
from trainkit.processes.place import ALONE, Place

AIM = 1.3  # times the time of DDP, with shards
WORLD = 2
NETWORKS = {  # channels, and rows of a patch
    "small unet": ((16, 32, 64, 128), 32),
    "large unet": ((32, 64, 128, 256, 512), 32),
    "large unet, 64^3": ((32, 64, 128, 256, 512), 64),
}
SHIPPED = {  # the recipe -> settings that differ from it
    "segmentation_synthetic": ("data.batch_size=4", "data.steps_per_epoch=100000"),
    "msd_hippocampus_unet": ("data.batch_size=4", "data.steps_per_epoch=100000", "run.precision=fp32"),
    "ptycho_staged": ("groups.probe.start_epoch=0", "groups.dr.start_epoch=0", "run.epochs=1000"),
}
RECIPE = """
trainkit = 1
[run]
epochs = 1
device = "cpu"
[monitor]
metric = "train/loss"
[data]
use = "{module}:Volumes"
size = {size}
batch_size = {batch}
[model]
use = "{module}:Network"
channels = {channels}
[losses.data]
use = "{module}:CrossEntropy"
[optimizer]
use = "adam"
"""
QUIET = "[pictures]\nevery_epochs = 0\n[validation]\nevery_epochs = 0\n[checkpoint]\nevery_epochs = 0\n"


# ---- a network on random volumes ------------------------------------------------------------------------------------


class LiveVolumes:
    batches_per_epoch = 1_000_000

    def __init__(self, size: int, batch_size: int, exchange: Exchange) -> None:
        shape, generator = (batch_size, 1, size, size, size), torch.Generator().manual_seed(0)
        image, label = torch.randn(shape, generator=generator), torch.randint(0, 3, shape, generator=generator)
        whole = {"index": torch.arange(batch_size), "image": image, "label": label[:, 0]}
        self.parts = [
            {name: part_of(each, part, exchange.num_parts).contiguous() for name, each in whole.items()}
            for part in exchange.parts
        ]

    def train(self, epoch: int, start: int) -> Iterator[Batch]:
        for _ in range(start, self.batches_per_epoch):
            yield from self.parts

    def evaluate(self, split: str) -> Iterator[Batch]:
        raise NotImplementedError


@component
class Volumes(Data):
    divides_batches = True
    size: int
    batch_size: int

    def build(self, context: Context) -> LiveVolumes:
        return LiveVolumes(self.size, self.batch_size, context.exchange)


class LiveNetwork(nn.Module):
    def __init__(self, channels: tuple[int, ...]) -> None:
        from monai.networks.nets.unet import UNet

        super().__init__()
        torch.manual_seed(0)
        self.network = UNet(3, 1, 3, channels, strides=(2,) * (len(channels) - 1), num_res_units=2)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"logits": self.network(batch["image"])}


@component
class Network(Model):
    channels: tuple[int, ...]

    def build(self, data: Any) -> nn.Module:
        return LiveNetwork(self.channels)


@component
class CrossEntropy(Loss):
    def build(self, data: Any) -> Callable[..., Tensor]:
        return lambda outputs, batch, model: nn.functional.cross_entropy(outputs["logits"], batch["label"])


# ---- variants that take turns ---------------------------------------------------------------------------------------


class Variant:
    """A training in a thread of its own, which waits for its next turn after each block of steps.

    Args:
        train: Trains for ever, and calls what it is given after each step.
        block: Steps of a turn.
    """

    def __init__(self, train: Callable[[Callable[[], None]], None], block: int) -> None:
        self._train, self._block, self._steps = train, block, 0
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def turn(self) -> None:
        """Let it make a block of steps."""
        self._go.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._train(self._after_step)
        except BaseException as error:
            self._error = error
            self._done.release()

    def _after_step(self) -> None:
        self._steps += 1
        if self._steps % self._block == 0:
            self._done.release()
            self._go.acquire()


class Pausing:
    """Part of a run that is called after each step, after all others."""

    def __init__(self, after_step: Callable[[], None]) -> None:
        self._after_step = after_step

    def on_step_end(self, state: State) -> None:
        self._after_step()


def ours(path: Path, place: Place, changes: tuple[str, ...]) -> Callable[[Callable[[], None]], None]:
    """Return the training of a recipe by trainkit."""

    def training(after_step: Callable[[], None]) -> None:
        from trainkit.engine.build import build
        from trainkit.engine.loop import train
        from trainkit.engine.run_folder import created
        from trainkit.recipe.resolve import resolve

        with tempfile.TemporaryDirectory() as folder:
            resolved = resolve(path, [f"run.dir={folder}", "run.device=cpu", "run.threads=1", *changes])
            with created(resolved) as run_folder:
                run = build(resolved, run_folder, place=place)
                run.add("pausing", Pausing(after_step))
                train(run)
        raise RuntimeError("the run is over before all turns are")

    return training


def ddp(channels: tuple[int, ...], size: int, batch: int, place: Place) -> Callable[[Callable[[], None]], None]:
    """Return a hand-written loop with DistributedDataParallel."""

    def training(after_step: Callable[[], None]) -> None:
        data = LiveVolumes(size, batch, Exchange(place))
        network = DistributedDataParallel(LiveNetwork(channels))
        optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=True)  # as ours
        for each in data.train(0, 0):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(each)["logits"], each["label"])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            after_step()

    return training


def variants_of(name: str, batch: int, place: Place, block: int, folder: Path, data: str) -> dict[str, Variant | None]:
    """Return the variants to compare; None: this process only waits."""
    found: dict[str, Variant | None] = {}
    if name in NETWORKS:
        channels, size = NETWORKS[name]
        path = folder / f"{place.rank}.toml"
        path.write_text(RECIPE.format(module=__name__, size=size, batch=batch, channels=list(channels)) + QUIET)
        found["DDP, 2 processes"] = Variant(ddp(channels, size, batch, place), block)
        changes: tuple[str, ...] = ()
    else:
        path, changes = Path(__file__).parents[1] / "recipes" / f"{name}.toml", SHIPPED[name]
        changes += (f"data.path={data}",) if name == "msd_hippocampus_unet" else ()
        changes += (
            "validation.every_epochs=1000",
            "pictures.every_epochs=0",
            "checkpoint.every_epochs=0",
            "drop=['loggers.tensorboard']",
        )
    for title, where, shards in (
        ("1 process", ALONE, 0),
        ("1 process, shards = 4", ALONE, 4),
        ("2 processes", place, 0),
        ("2 processes, shards = 2", place, 2),
        ("2 processes, shards = 4", place, 4),
    ):
        takes_part = where is place or place.is_first
        train = ours(path, where, (*changes, f"run.shards={shards}"))
        found[title] = Variant(train, block) if takes_part else None
    return found


class Times(NamedTuple):
    """How long a step took, in seconds.

    Attributes:
        clock: By the clock.
        cpu: CPU time of both processes together.
    """

    clock: float
    cpu: float


def measured(variants: Mapping[str, Variant | None], rounds: int, block: int) -> dict[str, list[Times]]:
    """Return the times of a step of each variant in each round."""
    found: dict[str, list[Times]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(-1, rounds):  # the first round is not counted
        for title in names[turn % len(names) :] + names[: turn % len(names)]:
            dist.barrier()
            began, worked = time.perf_counter(), time.process_time()
            if (variant := variants[title]) is not None:
                variant.turn()
            cpu = torch.tensor(time.process_time() - worked, dtype=torch.float64)
            dist.barrier()
            clock = time.perf_counter() - began
            dist.all_reduce(cpu)
            if turn >= 0:
                found[title].append(Times(clock / block, cpu.item() / block))
    return found


def work(rank: int, given: argparse.Namespace) -> None:
    """Be one of the two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    missed = False
    place = Place(rank, WORLD, rank, "benchmark")
    for name in given.only:
        for batch in given.batches if name in NETWORKS else [0]:
            with tempfile.TemporaryDirectory() as folder:
                variants = variants_of(name, batch, place, given.block, Path(folder), given.hippocampus)
                found = measured(variants, given.rounds, given.block)
            if rank == 0:
                missed |= report(f"{name}, batches of {batch}" if batch else name, found)
    sys.stdout.flush()
    os._exit(missed)  # threads wait for turns that do not come


def report(name: str, found: Mapping[str, list[Times]]) -> bool:
    """Print the times; return whether the aim is missed, by CPU time."""
    missed = False
    base, *_ = found
    print(f"{name}: milliseconds a step, and ratio to {base} in the same round")
    print(f"{'':28s}{'CPU time of both processes':>40s}{'by the clock':>40s}")
    head = f"{'least':>8s}{'median':>8s}{'ratio':>8s}{'middle half':>16s}"
    print(f"{'':28s}{head}{head}")
    for title, times in found.items():
        line = f"  {title:26s}"
        for kind in ("cpu", "clock"):
            each = [getattr(time, kind) for time in times]
            ratios = sorted(mine / getattr(its, kind) for mine, its in zip(each, found[base], strict=True))
            low, high = ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]
            line += f"{1e3 * min(each):8.0f}{1e3 * statistics.median(each):8.0f}{statistics.median(ratios):8.2f}"
            line += f"{f'{low:.2f} ... {high:.2f}':>16s}"
            if kind == "cpu" and "DDP" in base and title.startswith("2 processes, shards"):
                missed |= statistics.median(ratios) > AIM
        print(line, flush=True)
    if "DDP" in base:
        print(f"  aim: shards at most {AIM} times DDP in CPU time: {'MISSED' if missed else 'kept'}", flush=True)
    return missed


def main() -> None:
    """Start the two processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--block", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=[*NETWORKS, *SHIPPED], default=[*NETWORKS, *SHIPPED])
    parser.add_argument("--batches", nargs="+", type=int, default=[4, 8], help="patches of a step of the U-Nets")
    parser.add_argument("--hippocampus", metavar="DIR", help="folder of Task04_Hippocampus; without it, left out")
    given = parser.parse_args()
    if given.hippocampus is None:
        given.only = [name for name in given.only if name != "msd_hippocampus_unet"]
    if "RANK" in os.environ:
        work(int(os.environ["RANK"]), given)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(WORLD)}
    started = [
        subprocess.Popen([sys.executable, *sys.argv], env=os.environ | meeting | {"RANK": str(rank)})
        for rank in range(WORLD)
    ]
    try:
        codes = [each.wait() for each in started]
    finally:
        for each in started:
            each.kill()
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
