"""How much of the time a GPU would compute in ``recipes/brats_unet.toml``: what feeds it measured, its step on paper.

    python benchmarks/gpu_feeding.py PATH_TO_BRATS_CASES

Measured, in CPU milliseconds of one thread: a batch of the recipe as a worker makes it, with the recipe's augmentation
made by workers or left to the GPU; and what the process that trains takes to receive it. On paper, by the model of
`several_processes_model`: the step, the copy to the GPU, and the augmentation there. Workers, reader and GPU work at
the same time, and the slowest of them decides.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

os.environ["OMP_NUM_THREADS"] = "1"

import attrs
import torch
from several_processes_model import GPU, RECIPE, Traffic, counted
from torch import Tensor

from trainkit import Context
from trainkit.freed_memory import keep_freed_memory
from trainkit.recipe.resolve import resolve
from trainkit_segmentation.patches.augmentation import Augmentation
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.splits.same_cases import SameCases

ROUNDS, WORKERS = 12, (4, 8, 16)
TO_GPU = 50e9  # bytes that are copied to a GPU in a second, by PCIe 5


class Feeding(NamedTuple):
    """What a batch takes until a GPU can use it.

    Attributes:
        worker: CPU seconds of a worker.
        reader: CPU seconds of the process that trains.
        num_bytes: Bytes that are copied to the GPU.
        on_gpu_bytes: Bytes that the GPU reads and writes to change the patches.
    """

    worker: float
    reader: float
    num_bytes: int
    on_gpu_bytes: int


def fed(path: Path, augmentation: Augmentation, folder: Path) -> Feeding:
    """Measure a batch."""
    settings = cast(Any, resolve(RECIPE, (f"data.path={path}",)).recipe).data
    changes = {"split": SameCases(), "augmentation": augmentation, "cache": Cache(folder=folder / "cache")}
    context = Context(0, torch.device("cpu"), folder)
    live = attrs.evolve(settings, workers=0, **changes).build(context)
    places = itertools.count()
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        batch = live._batches[0, next(places), 0]
        times.append(time.process_time() - began)
    with Traffic() as on_gpu:
        live._batches.finished(batch, torch.device("cpu"))
    sent = attrs.evolve(settings, workers=1, **changes).build(context)
    sent._batches.finished = lambda batch, device: batch  # a GPU would do that
    received = sent.train(0, 0)
    for _ in range(4):  # pieces of memory are kept from then on
        batch = next(received)
    began = time.process_time()
    for _ in range(ROUNDS):
        batch = next(received)
    reader = (time.process_time() - began) / ROUNDS
    sent._workers.end()
    num_bytes = sum(each.nbytes for each in _tensors(batch))
    median = sorted(times)[len(times) // 2]  # patches are changed with some probability
    return Feeding(median, reader, num_bytes, on_gpu.num_bytes)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif attrs.has(type(value)):
        yield from _tensors([getattr(value, each.name) for each in attrs.fields(type(value))])
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as workers do; and memory that is page-locked is kept as well
    recipe = cast(Any, resolve(RECIPE, (f"data.path={given.path}",)).recipe)
    gpu = GPU()
    step, _ = counted(recipe.data.batch_size)[0].seconds(gpu)
    with tempfile.TemporaryDirectory() as folder:
        asked = recipe.data.augmentation
        ways = {
            "by workers": fed(given.path, asked, Path(folder, "workers")),
            'on = "device"': fed(given.path, attrs.evolve(asked, on="device"), Path(folder, "device")),
            "none": fed(given.path, Augmentation(), Path(folder, "none")),
        }
    shares = " | ".join(f"{each} workers" for each in WORKERS)
    print(f"| augmentation | worker, ms | reader, ms | MB to the GPU | GPU, ms | {shares} |")
    print(f"|{'---|' * (5 + len(WORKERS))}")
    for name, way in ways.items():
        on_gpu = step + way.num_bytes / TO_GPU + way.on_gpu_bytes / gpu.memory_bytes
        used = [step / max(on_gpu, way.reader, way.worker / each) for each in WORKERS]
        print(
            f"| {name} | {way.worker * 1e3:.0f} | {way.reader * 1e3:.1f} | {way.num_bytes / 1e6:.0f} | "
            f"{on_gpu * 1e3:.1f} | {' | '.join(f'{share * 100:.0f} %' for share in used)} |"
        )


if __name__ == "__main__":
    main()
