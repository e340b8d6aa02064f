"""Measures what checkpoints cost: one large file against safetensors, and an epoch and a resume with many kept files.

    python benchmarks/saving.py [--megabytes 500] [--rounds 5]

Written and loaded in turn: a checkpoint, which is synced, verified by a digest and renamed; and the same tensors by the
package safetensors, synced afterwards, and loaded and copied into memory of its own, as a training needs them. Ours is
verified when it is loaded, so it is held against theirs with a digest of what was loaded. Without one it cannot be as
fast: the digest alone is a third to a half of a load from the system's cache of files. Then a folder with more and more
checkpoints of `[checkpoint] keep_every = 1`: one more save with its pruning, and finding the newest one as a resume
does.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import xxhash
from safetensors.torch import load_file, save_file

from trainkit.checkpoint.file import read, write
from trainkit.checkpoint.folder import CheckpointFolder

AIMS = {"save": ("safetensors", 1.2), "load": ("safetensors, verified", 1.0)}
NUMBERS_KEPT = (10, 100, 1000, 3000)


def seconds(do: Callable[[], Any]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def save_and_sync(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file(tensors, path)  # a new file, as a checkpoint is: to write over an old one costs no pages of memory
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def load_and_copy(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def load_and_verify(path: Path) -> str:
    digest = xxhash.xxh3_128()
    for tensor in load_and_copy(path).values():
        digest.update(tensor.numpy())
    return digest.hexdigest()


def one_large_file(folder: Path, megabytes: int, rounds: int) -> bool:
    tensors = {f"layer{i}": torch.randn(megabytes * 250_000 // 40) for i in range(40)}
    ours, theirs = folder / "epoch-0001.safetensors", folder / "theirs.safetensors"
    names = ("save", "save (safetensors)", "load", "load (safetensors)", "load (safetensors, verified)")
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for path in (ours, theirs):
            path.unlink(missing_ok=True)
        times["save"].append(seconds(lambda: write(ours, {"model": tensors})))
        times["save (safetensors)"].append(seconds(lambda: save_and_sync(tensors, theirs)))
        times["load"].append(seconds(lambda: read(ours)))
        times["load (safetensors)"].append(seconds(lambda: load_and_copy(theirs)))
        times["load (safetensors, verified)"].append(seconds(lambda: load_and_verify(theirs)))
    good = True  # the minimum is what other jobs on the machine disturb least
    for name, (other, aim) in AIMS.items():
        mine, its = (min(times[each]) for each in (name, f"{name} ({other})"))
        good = good and mine <= aim * its
        print(f"{name} {megabytes} MB: {mine:.3f} s, {other} {its:.3f} s: ratio {mine / its:.2f} (aim {aim})")
    print(f"load (safetensors, not verified): {min(times['load (safetensors)']):.3f} s")
    return good


def content(epoch: int) -> dict[str, Any]:
    weights = {f"layer{i}.weight": torch.zeros(4) for i in range(200)}  # a header of 20 kB
    return {"epoch": epoch, "step": 4 * epoch, "epoch_step": 4 * epoch, "run": {"id": "here"}, "model": weights}


def many_files(folder: Path) -> bool:
    saves: list[float] = []
    written = CheckpointFolder(folder, "here")
    for kept in range(1, max(NUMBERS_KEPT) + 1):
        if kept not in NUMBERS_KEPT:
            path = written.path / f"epoch-{kept:04d}.safetensors"
            write_quickly(path, content(kept))
            continue
        fresh = CheckpointFolder(folder, "here")
        found = min(seconds(lambda: CheckpointFolder(folder, "here").newest_good(print)) for _ in range(5))
        prepared = fresh.prepare(content(kept))
        prepared.write()
        newest = prepared.path
        fresh.prune(3, 1, [], newest)  # the first time, it looks at what earlier starts have left
        saves.append(min(seconds(partial(fresh.prune, 3, 1, [], newest)) for _ in range(5)))
        print(f"{kept} kept: prune {1e3 * saves[-1]:.3f} ms, find the newest {1e3 * found:.2f} ms")
    return saves[-1] < 3 * saves[0] + 1e-4


def write_quickly(path: Path, what: dict[str, Any]) -> None:
    before, os.fsync = os.fsync, lambda descriptor: None
    try:
        write(path, what)
    finally:
        os.fsync = before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        good = one_large_file(Path(folder), given.megabytes, given.rounds)
    with tempfile.TemporaryDirectory() as folder:
        good = many_files(Path(folder)) and good
    print("as wanted" if good else "NOT as wanted")
    sys.exit(not good)


if __name__ == "__main__":
    main()
