"""The live parts of the toy segmenter. Shapes: B batch, C channels or classes, X Y Z voxels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from trainkit import Batch, Context, Outputs, random_seed

if TYPE_CHECKING:
    from clients.segmenter import Volumes

NUM_TRAIN, NUM_HELD_OUT = 3, 2


def volume(seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Return an image (1, X, Y, Z) of a bright sphere in noise, and its labels (X, Y, Z)."""
    generator = torch.Generator().manual_seed(seed)
    centre = size * (0.3 + 0.4 * torch.rand(3, generator=generator))
    grid_XYZ3 = torch.stack(torch.meshgrid(*[torch.arange(size)] * 3, indexing="ij"), dim=-1)
    label_XYZ = ((grid_XYZ3 - centre).square().sum(-1) < (size / 4) ** 2).long()
    image_CXYZ = label_XYZ[None] + 0.5 * torch.randn(1, size, size, size, generator=generator)
    return image_CXYZ, label_XYZ


class Patches(Dataset[dict[str, Tensor]]):
    """One epoch's patches: each a function of (seed, epoch, index)."""

    def __init__(self, volumes: list[tuple[Tensor, Tensor]], patch: int, seed: int, epoch: int) -> None:
        self._volumes, self._patch, self._seed, self._epoch = volumes, patch, seed, epoch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(random_seed(self._seed, self._epoch, index))
        which = int(torch.randint(len(self._volumes), (), generator=generator))
        image_CXYZ, label_XYZ = self._volumes[which]
        room = label_XYZ.shape[0] - self._patch + 1
        x, y, z = torch.randint(room, (3,), generator=generator).tolist()
        cut = (..., slice(x, x + self._patch), slice(y, y + self._patch), slice(z, z + self._patch))
        noise = 0.1 * torch.randn(image_CXYZ[cut].shape, generator=generator)
        return {"index": torch.tensor(index), "image": image_CXYZ[cut] + noise, "label": label_XYZ[cut]}


class LiveVolumes:
    def __init__(self, settings: Volumes, context: Context) -> None:
        self.batches_per_epoch = settings.steps
        self._settings, self._context = settings, context
        seeds = [random_seed(context.seed, i) for i in range(NUM_TRAIN + NUM_HELD_OUT)]
        volumes = [volume(seed, settings.size) for seed in seeds]
        self._train, self._held_out = volumes[:NUM_TRAIN], volumes[NUM_TRAIN:]

    def train(self, epoch: int, start: int) -> Iterator[Batch]:
        settings, context = self._settings, self._context
        first, last = start * settings.batch_size, settings.steps * settings.batch_size
        loader = DataLoader(
            Patches(self._train, settings.patch, context.seed, epoch),
            batch_size=settings.batch_size,
            sampler=range(first * context.world + context.rank, last * context.world, context.world),
            num_workers=settings.num_workers,
            # A loader without a generator of its own draws from the global one whenever it is iterated over.
            generator=torch.Generator().manual_seed(0),
        )
        yield from loader

    def evaluate(self, split: str) -> Iterator[Batch]:
        for i, (image_CXYZ, label_XYZ) in enumerate(self._held_out if split == "val" else self._train):
            yield {"index": torch.tensor([i]), "image": image_CXYZ[None], "label": label_XYZ[None]}


class Network(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict(
            {
                "fine": nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Dropout(dropout)),
                "coarse": nn.Sequential(nn.Conv3d(4, 6, 3, 2, padding=1), nn.BatchNorm3d(6), nn.ReLU()),
            }
        )
        self.head = nn.ModuleDict(
            {
                "coarse": nn.Conv3d(6, 2, 1),
                "fine": nn.Sequential(nn.Dropout(dropout), nn.Conv3d(6, 2, 1)),
            }
        )

    def forward(self, batch: Batch) -> Outputs:
        fine_BCXYZ = self.encoder["fine"](batch["image"])
        coarse_BCXYZ = self.head["coarse"](self.encoder["coarse"](fine_BCXYZ))
        up_BCXYZ = nn.functional.interpolate(coarse_BCXYZ, size=fine_BCXYZ.shape[2:])
        return {"logits": self.head["fine"](torch.cat([fine_BCXYZ, up_BCXYZ], dim=1)), "logits_1": coarse_BCXYZ}


def deep_supervision(kind: str) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
    def one_head(logits_BCXYZ: Tensor, label_BXYZ: Tensor) -> Tensor:
        if kind == "cross_entropy":
            return nn.functional.cross_entropy(logits_BCXYZ, label_BXYZ)
        found_BXYZ = logits_BCXYZ.softmax(1)[:, 1]
        return 1 - 2 * (found_BXYZ * label_BXYZ).sum() / (found_BXYZ.sum() + label_BXYZ.sum() + 1e-6)

    def loss(outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
        total = one_head(outputs["logits"], batch["label"])
        if "logits_1" in outputs:  # a sliding window gives the full resolution alone
            total = total + 0.5 * one_head(outputs["logits_1"], batch["label"][:, ::2, ::2, ::2])
        return total

    return loss


class LiveDice:
    def __init__(self) -> None:
        self._sums = torch.zeros(2, dtype=torch.int64)

    def update(self, outputs: Outputs, batch: Batch) -> None:
        found, true = outputs["logits"].argmax(1), batch["label"]
        self._sums = self._sums.to(true.device) + torch.stack([2 * (found * true).sum(), found.sum() + true.sum()])

    def compute(self) -> dict[str, float]:
        both, either = self._sums.tolist()
        self._sums = torch.zeros(2, dtype=torch.int64)
        return {"dice": both / max(either, 1)}


def sliding_window(patch: int, stride: int) -> Callable[[nn.Module, Batch], Outputs]:
    def infer(model: nn.Module, batch: Batch) -> Outputs:
        image_BCXYZ = batch["image"]
        starts = [[*range(0, size - patch, stride), size - patch] for size in image_BCXYZ.shape[2:]]
        sums_BCXYZ: Tensor | None = None
        counts_XYZ = torch.zeros(image_BCXYZ.shape[2:], device=image_BCXYZ.device)
        for x, y, z in product(*starts):
            cut = (..., slice(x, x + patch), slice(y, y + patch), slice(z, z + patch))
            logits_BCXYZ = model({"image": image_BCXYZ[cut]})["logits"]
            if sums_BCXYZ is None:
                sums_BCXYZ = logits_BCXYZ.new_zeros((*logits_BCXYZ.shape[:2], *counts_XYZ.shape))
            sums_BCXYZ[cut] += logits_BCXYZ
            counts_XYZ[cut] += 1
        assert sums_BCXYZ is not None
        return {"logits": sums_BCXYZ / counts_XYZ}

    return infer
