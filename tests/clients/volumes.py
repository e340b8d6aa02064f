"""Made-up volumes in memory, as a segmentation network is given them: for tests of what needs no files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainkit import Context, component, random_seed
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.data.kind_live import LiveSegmentation

SPACING_MM = (1.0, 1.5, 2.0)
CASES = {"train": ("train_0", "train_1"), "val": ("val_0", "val_1")}


def labels(case: str, size: int, exclusive: bool) -> Tensor:
    """Return a ball in a shell, elsewhere in each case: (1, X, Y, Z) of 0, 1, 2, or whole and ball as (2, X, Y, Z)."""
    generator = torch.Generator().manual_seed(random_seed(*case.encode()))
    centre = size * (0.4 + 0.2 * torch.rand(3, generator=generator))
    grid_XYZ3 = torch.stack(torch.meshgrid(*[torch.arange(size)] * 3, indexing="ij"), dim=-1)
    distance = (grid_XYZ3 - centre).square().sum(-1).sqrt() / size
    whole, ball = distance < 0.32, distance < 0.18
    return (whole.long() + ball.long())[None] if exclusive else torch.stack([whole, ball]).float()


class LiveVolumes(LiveSegmentation):
    """Two cases to train on and two held out; the network's grid is twice as fine as the files' own."""

    num_channels = 1
    classes = ("shell", "ball of fat")

    def __init__(self, patch_size: tuple[int, int, int], exclusive: bool, size: int, seed: int) -> None:
        self.patch_size, self.exclusive, self.batches_per_epoch = patch_size, exclusive, 3
        self._size, self._seed, self._division = size, seed, CASES

    def facts(self) -> dict[str, Any]:
        return SegmentationFacts(
            channels=("noisy labels",),
            classes=self.classes,
            exclusive=self.exclusive,
            label_values={0: (), 1: self.classes[:1], 2: self.classes[1:] if self.exclusive else self.classes},
            patch_size=self.patch_size,
            preprocessing={},
            num_training_cases=len(CASES["train"]),
            training_digest=f"size {self._size}",
        ).to_json()

    def fingerprint(self) -> dict[str, str]:
        return {"the cases": f"size {self._size}"}

    def _fine(self, case: str) -> tuple[Tensor, Tensor]:
        label = self.truth(case).float()
        label = label.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
        noise = torch.randn(label.shape[1:], generator=torch.Generator().manual_seed(random_seed(*case.encode(), 1)))
        return label.sum(0)[None] + 0.2 * noise, label.long() if self.exclusive else label

    def train(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        for step in range(start, self.batches_per_epoch):
            generator = torch.Generator().manual_seed(random_seed(self._seed, epoch, step))
            image, label = self._fine(CASES["train"][step % 2])
            begin = [int(torch.randint(2 * self._size - edge + 1, (), generator=generator)) for edge in self.patch_size]
            x, y, z = (slice(first, first + edge) for first, edge in zip(begin, self.patch_size, strict=True))
            yield {"index": torch.tensor([step]), "image": image[None, :, x, y, z], "label": label[None, :, x, y, z]}

    def evaluate(self, split: str) -> Iterator[dict[str, Any]]:
        for index, case in enumerate(CASES[split]):
            image, label = self._fine(case)
            yield {"index": torch.tensor([index]), "image": image[None], "label": label[None], "case": case}

    def to_original(self, scores_KXYZ: Tensor, case: str) -> Tensor:
        return interpolate(scores_KXYZ[None], size=(self._size,) * 3, mode="trilinear")[0]

    def plane_to_original(self, image_XYZ: Tensor, case: str, axis: int, index: int) -> Tensor:
        return self.to_original(image_XYZ[None], case)[0].select(axis, index)

    def truth(self, case: str) -> Tensor:
        return labels(case, self._size, self.exclusive)

    def spacing_mm(self, case: str) -> tuple[float, float, float]:
        return SPACING_MM

    def has_form(self, case: str) -> bool:
        return True

    def has_spacing(self, case: str) -> bool:
        return True

    def affine(self, case: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.diag([*SPACING_MM, 1.0])


@component
class Volumes(SegmentationData):
    """Made-up volumes.

    Attributes:
        exclusive: Whether classes exclude each other.
        size: Voxels of a case's own grid along each axis.
    """

    patch_size: tuple[int, int, int] = (16, 16, 16)
    exclusive: bool = True
    size: int = 12

    def find(self) -> Any:
        raise NotImplementedError

    def build(self, context: Context) -> LiveVolumes:
        return LiveVolumes(self.patch_size, self.exclusive, self.size, context.seed)
