"""Measures how long it takes to fetch a patch from a cached case, compared with MONAI's caches.

    python benchmarks/patch_fetch.py PATH_TO_BRATS_CASES [patch size]

All variants cut patches of 96³ voxels and four channels from the same preprocessed case. They are interleaved and use
one thread. The result is the minimum of many measurements, in CPU milliseconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from trainkit import Context
from trainkit_segmentation.data.brats import BraTS
from trainkit_segmentation.patches.augmentation import Affine, Augmentation, Elastic, Flip
from trainkit_segmentation.patches.cutting import choose_start, cut
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.cached_cases import open_case
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.splits.same_cases import SameCases

ROUNDS = 15


def main(path: Path, size: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ways = ours(path, size, Path(folder)) | monais(path, size, Path(folder))
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(ROUNDS):
            for name, fetch in ways.items():
                began = time.process_time()
                fetch()
                best[name] = min(best[name], time.process_time() - began)
    for name, seconds in best.items():
        print(f"{name:58} {seconds * 1e3:8.2f} ms")


def ours(path, size, folder):
    def data(**settings):
        return BraTS(
            path=path,
            patch_size=(size,) * 3,
            batch_size=1,
            steps_per_epoch=10**6,
            split=SameCases(),
            preprocessing=Preprocessing(normalization="zscore_nonzero"),
            cache=Cache(folder=folder / "cache"),
            **settings,
        ).build(Context(0, torch.device("cpu"), 0, 1, folder))

    data()
    (entry,) = (folder / "cache" / "entries").glob("*/*")
    tensors = open_case(entry).tensors
    rng = np.random.default_rng(0)
    out = torch.empty(4, size, size, size)

    half = out.half()

    def fetch(out=out):
        cut(tensors["image"], choose_start(tensors, (size,) * 3, 0.33, rng), out)

    plain, augmented = data(), data(augmentation=Augmentation(flip=Flip()))
    deformed = data(augmentation=Augmentation(affine=Affine(probability=1.0), elastic=Elastic(probability=1.0)))
    return {
        "trainkit: fetch and crop the image, as it is stored": lambda: fetch(half),
        "trainkit: fetch and crop the image, as float32": fetch,
        "trainkit: a whole batch of 1 (regions, index)": make(plain),
        "trainkit: the same, mirrored": make(augmented),
        "trainkit: the same, affine and elastic": make(deformed),
    }


def make(live):
    batches = live.train(0, 0)
    next(batches)
    return lambda: next(batches)


def monais(path, size, folder):
    from monai import transforms
    from monai.data import CacheDataset, PersistentDataset

    case = next(each for each in sorted(path.iterdir()) if each.is_dir())
    files = [str(next(case.glob(f"*{end}.nii.gz"))) for end in ("_t1", "_t1ce", "_t2", "_flair", "_seg")]
    item, keys, roi = {"image": files[:4], "label": files[4]}, ["image", "label"], (size,) * 3
    chain = [
        transforms.LoadImaged(keys),
        transforms.EnsureChannelFirstd(keys),
        transforms.Orientationd(keys, axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
        transforms.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        transforms.RandCropByPosNegLabeld(keys, "label", roi, pos=1, neg=1, num_samples=1),
    ]
    both = ("bilinear", "nearest")
    affine = transforms.RandAffined(keys, prob=1.0, rotate_range=(0.26,) * 3, scale_range=(0.15,) * 3, mode=both)
    elastic = transforms.Rand3DElasticd(keys, (5, 7), (50, 100), prob=1.0, mode=both, rotate_range=(0.26,) * 3)
    cached = CacheDataset([item], transforms.Compose(chain), progress=False)
    stored = PersistentDataset([item], transforms.Compose(chain), folder / "persistent")
    patch = cached[0][0]
    stored[0]
    return {
        "MONAI: CacheDataset": lambda: cached[0],
        "MONAI: PersistentDataset": lambda: stored[0],
        "MONAI: RandAffined on a patch that is there": lambda: affine(dict(patch)),
        "MONAI: Rand3DElasticd on a patch that is there": lambda: elastic(dict(patch)),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 96)
