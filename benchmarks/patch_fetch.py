"""Measures how long it takes to make a batch of one patch from a cached case, compared with MONAI.

    python benchmarks/patch_fetch.py [PATH_TO_BRATS_CASES] [--size 96]

All variants cut patches of 96³ voxels from the same preprocessed case, with one thread. What is compared is the same: a
patch centred on foreground half of the time; four channels as float32 and three regions as float32, copied into tensors
of their own with an axis for the batch. MONAI is set up for speed: the indices of the foreground are cached, and the
cached case is not copied (`copy_cache=False`). The variants are interleaved. The result is the minimum of many
measurements, in CPU milliseconds. Without a path, the case is made up, in the shape of one of BraTS.

Before that, the case is prepared: read, turned, normalised, with its regions and the places of its classes. Ours is
also written to the disk. After it, the same batch comes from one worker process, by trainkit and by torch's loader over
MONAI's cache, and is read once, as a loss does: CPU of the worker, and of the process that takes the batches. The
benchmark fails if a batch takes more than 2 ms, or the preparation or the worker longer than MONAI's.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from trainkit import Context
from trainkit.freed_memory import keep_freed_memory, keep_large_arrays
from trainkit_segmentation.data.brats import BraTS
from trainkit_segmentation.patches.augmentation import Affine, Augmentation, Elastic, Flip
from trainkit_segmentation.patches.cutting import choose_start, cut
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.cached_cases import open_case
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.splits.same_cases import SameCases

ROUNDS, PREPARATIONS = 15, 3
AIM_MS = 2.0  # of the batch
AIM_PREPARING = 1.0  # times MONAI's
BATCH = "{}: a batch of image and regions"
WARM_UP, BATCHES = 6, 30  # of a worker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--size", type=int, default=96)
    given = parser.parse_args()
    size = given.size
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = given.path or made_up(Path(folder, "cases"))
        prepared = preparing(path, size, Path(folder))
        ways = ours(path, size, Path(folder)) | monais(path, size, Path(folder))
        keep_freed_memory()  # as in a run, for MONAI too
        keep_large_arrays(True)
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(ROUNDS):
            for name, fetch in ways.items():
                began = time.process_time()
                fetch()
                best[name] = min(best[name], time.process_time() - began)
        of_workers = by_workers(path, size, Path(folder))
    for name, seconds in best.items():
        print(f"{name:72} {seconds * 1e3:8.2f} ms")
    for name, seconds in prepared.items():
        print(f"{f'{name}: a case prepared':72} {seconds * 1e3:8.0f} ms")
    for name, (taking, working) in of_workers.items():
        print(f"{f'{name}: from a worker, CPU of the worker':72} {working:8.2f} ms")
        print(f"{f'{name}: from a worker, CPU where it is read':72} {taking:8.2f} ms")
    batch, ratio = best[BATCH.format("trainkit")] * 1e3, prepared["trainkit"] / prepared["MONAI"]
    missed = [f"a batch in {AIM_MS} ms"] * (size == 96 and batch > AIM_MS)
    missed += [f"a case prepared in {AIM_PREPARING} times what MONAI takes (it is {ratio:.2f})"] * (
        ratio > AIM_PREPARING
    )
    if of_workers and of_workers["trainkit"][1] > of_workers["MONAI"][1]:
        missed.append("a worker's CPU of what MONAI takes")
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


def preparing(path, size, folder):
    """Return the least CPU seconds in which trainkit and MONAI prepare the case, in turns."""
    from monai import transforms

    item, each_once = source(path)
    chain = transforms.Compose(each_once)
    best = dict.fromkeys(("trainkit", "MONAI"), float("inf"))
    for number in range(PREPARATIONS):
        for name, prepare in (
            ("trainkit", lambda number=number: opened(path, size, folder / f"preparing-{number}")),
            ("MONAI", lambda: chain(dict(item))),
        ):
            began = time.process_time()
            prepare()
            best[name] = min(best[name], time.process_time() - began)
    return best


def opened(path, size, folder, **settings):
    return BraTS(
        path=path,
        patch_size=(size,) * 3,
        batch_size=1,
        steps_per_epoch=10**6,
        foreground_probability=0.5,
        split=SameCases(),
        preprocessing=Preprocessing(normalization="zscore_nonzero"),
        cache=Cache(folder=folder / "cache"),
        **settings,
    ).build(Context(0, torch.device("cpu"), folder))


def ours(path, size, folder):
    def data(**settings):
        return opened(path, size, folder, **settings)

    data()
    (entry,) = (folder / "cache" / "entries").glob("*/*")
    tensors = open_case(entry).tensors
    rng = np.random.default_rng(0)
    whole, half = torch.empty(4, size, size, size), torch.empty(4, size, size, size, dtype=torch.float16)
    everywhere = {"affine": Affine(probability=1.0), "elastic": Elastic(probability=1.0)}

    def fetch(out):
        cut(tensors["image"], choose_start(tensors, (size,) * 3, 0.5, rng), out)

    return {
        "trainkit: the image alone, as it is stored (float16)": lambda: fetch(half),
        "trainkit: the image alone, as float32": lambda: fetch(whole),
        BATCH.format("trainkit"): make(data()),
        "trainkit: the same, without targets, as a worker sends it": only_cut(data()),
        'trainkit: the same, only cut, for on = "device"': only_cut(data(augmentation=Augmentation(on="device"))),
        "trainkit: the same, mirrored": make(data(augmentation=Augmentation(flip=Flip()))),
        "trainkit: the same, affine and elastic": make(data(augmentation=Augmentation(**everywhere))),
    }


def only_cut(live):
    batches, places = live._batches, itertools.count()
    return lambda: batches[0, next(places), 0]


def by_workers(path, size, folder):
    """Return the CPU ms of a batch from a worker: where it is read, and in the worker. Empty where Linux is not."""
    from torch.utils.data import DataLoader

    if not Path("/proc/self/schedstat").exists():
        return {}
    live = opened(path, size, folder, workers=1)
    ours = live.train(0, 0)
    first = next(ours)
    del first
    (worker,) = live._workers._loader._iterator._workers
    found = {"trainkit": measured(ours, worker.pid)}
    live._workers.end()
    theirs = iter(DataLoader(cached_by_monai(path, size), sampler=[0] * 10**4, num_workers=1))
    found["MONAI"] = measured(theirs, theirs._workers[0].pid)
    theirs._shutdown_workers()
    return found


def measured(batches, worker):
    """Return the CPU ms of a batch here and in a worker."""

    def read():
        batch = next(batches)
        batch = batch[0] if isinstance(batch, list) else batch  # of MONAI, whose crop gives a list of patches
        return [float(batch[key].sum()) for key in ("image", "label")]

    def used():
        return [
            sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e6
            for pid in (os.getpid(), worker)
        ]

    for _ in range(WARM_UP):
        read()
    before = used()
    for _ in range(BATCHES):
        read()
    return [(end - begin) / BATCHES for begin, end in zip(before, used(), strict=True)]


def made_up(folder):
    """Return a folder with one made-up case, in the shape and the names of BraTS."""
    import nibabel

    shape, case = (240, 240, 155), folder / "BraTS2021_00000"
    case.mkdir(parents=True)
    axes = [np.linspace(-1, 1, n) for n in shape]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True)))
    for number, name in enumerate(("t1", "t1ce", "t2", "flair")):
        image = np.where(radius < 0.75, 200 + 300 * np.cos((5 + number) * radius), 0).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), case / f"{case.name}_{name}.nii.gz")
    label = np.select([radius < 0.1, radius < 0.15, radius < 0.2], [1, 4, 2], 0).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), case / f"{case.name}_seg.nii.gz")
    return folder


def make(live):
    batches = live.train(0, 0)
    next(batches)
    return lambda: next(batches)


def source(path):
    """Return the files of the case for MONAI, and the transforms that are applied to it once."""
    from monai import transforms

    case = next(each for each in sorted(path.iterdir()) if each.is_dir())
    files = [str(next(case.glob(f"*{end}.nii.gz"))) for end in ("_t1", "_t1ce", "_t2", "_flair", "_seg")]
    keys = ["image", "label"]
    each_once = [
        transforms.LoadImaged(keys),
        transforms.EnsureChannelFirstd(keys),
        transforms.Orientationd(keys, axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
        transforms.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        transforms.ConvertToMultiChannelBasedOnBratsClassesd("label"),
        transforms.EnsureTyped(keys, dtype=torch.float32, track_meta=False),
        transforms.FgBgToIndicesd("label"),
    ]
    return {"image": files[:4], "label": files[4]}, each_once


def cropped_by_monai(path, size):
    """Return the files of the case for MONAI, and all transforms up to a patch."""
    from monai import transforms

    (item, each_once), keys = source(path), ["image", "label"]
    where = {"fg_indices_key": "label_fg_indices", "bg_indices_key": "label_bg_indices"}
    crop = transforms.RandCropByPosNegLabeld(keys, "label", (size,) * 3, pos=1, neg=1, num_samples=1, **where)
    return item, [*each_once, crop]


def cached_by_monai(path, size):
    """Return MONAI's fastest data set, without what a batch does not need."""
    from monai import transforms
    from monai.data import CacheDataset

    item, chain = cropped_by_monai(path, size)
    chain = [*chain, transforms.SelectItemsd(["image", "label"])]
    return CacheDataset([item], transforms.Compose(chain), progress=False, copy_cache=False)


def monais(path, size, folder):
    from monai import transforms
    from monai.data import CacheDataset, PersistentDataset
    from torch.utils.data import default_collate

    (item, chain), keys = cropped_by_monai(path, size), ["image", "label"]
    both = ("bilinear", "nearest")
    affine = transforms.RandAffined(keys, prob=1.0, rotate_range=(0.26,) * 3, scale_range=(0.15,) * 3, mode=both)
    elastic = transforms.Rand3DElasticd(keys, (5, 7), (50, 100), prob=1.0, mode=both, rotate_range=(0.26,) * 3)
    cached = CacheDataset([item], transforms.Compose(chain), progress=False, copy_cache=False)
    copied = CacheDataset([item], transforms.Compose(chain), progress=False)
    stored = PersistentDataset([item], transforms.Compose(chain), folder / "persistent")
    stored[0]

    def batch(dataset):
        (patch,) = dataset[0]
        return default_collate([{key: patch[key] for key in keys}])

    patch = {key: value[0] for key, value in batch(cached).items()}
    return {
        "MONAI: the image and regions alone, as a view of the cache": lambda: cached[0],
        BATCH.format("MONAI, CacheDataset(copy_cache=False)"): lambda: batch(cached),
        BATCH.format("MONAI, CacheDataset"): lambda: batch(copied),
        BATCH.format("MONAI, PersistentDataset"): lambda: batch(stored),
        "MONAI: RandAffined on a patch that is there": lambda: affine(dict(patch)),
        "MONAI: Rand3DElasticd on a patch that is there": lambda: elastic(dict(patch)),
    }


if __name__ == "__main__":
    main()
