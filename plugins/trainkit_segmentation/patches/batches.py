"""Batches of training patches, each a function of (seed, epoch, step, rank).

Shapes: B = patches of a batch, C = channels, K = classes, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trainkit import random_seed
from trainkit_segmentation.patches.augmentation_live import fill_patch
from trainkit_segmentation.patches.cutting import choose_start
from trainkit_segmentation.preparing.cached_cases import open_case

if TYPE_CHECKING:
    from trainkit import Context
    from trainkit_segmentation.data.kind import SegmentationData

_ORDER, _PATCH = 0x0DE5, 0x9A7C  # separate the random order of cases from the random numbers of patches


class PatchBatches:
    """Makes the batch of any place (epoch, step) in a run; can be sent to another process.

    Args:
        settings: How patches are cut and changed.
        context: Seed, rank and world.
        entries: Index and preprocessed file of each training case.
        annotated: Index -> whether each class was annotated (1, K); None: all were.
        may_ignore: Whether cases may have ignored voxels.
    """

    def __init__(
        self,
        settings: SegmentationData,
        context: Context,
        entries: list[tuple[int, Path]],
        annotated: Mapping[int, Tensor] | None = None,
        may_ignore: bool = False,
    ) -> None:
        self._seed, self._rank, self._world = context.seed, context.rank, context.world
        self._entries, self._annotated, self._may_ignore = entries, annotated, may_ignore
        self._batch_size, self._size = settings.batch_size, settings.patch_size
        self._foreground_probability, self._augmentation = settings.foreground_probability, settings.augmentation
        self._is_share = settings.foreground_sampling == "share"
        self._epoch_order: tuple[int, int, list[int]] = (-1, -1, [])

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Tensor]:
        """Return the batch of (epoch, step of the epoch)."""
        epoch, step = place
        first = (step * self._world + self._rank) * self._batch_size
        chosen = [self._case(epoch, number) for number in range(first, first + self._batch_size)]
        cases = [open_case(path) for _, path in chosen]
        channels = len(cases[0].tensors["image"])
        image = torch.empty((self._batch_size, channels, *self._size), dtype=torch.float32)
        codes = torch.empty((self._batch_size, 1, *self._size), dtype=torch.int64)
        for b, case in enumerate(cases):
            rng = np.random.Generator(np.random.PCG64(random_seed(self._seed, _PATCH, epoch, first + b)))
            start = choose_start(case.tensors, self._size, self._probability_of_foreground(b), rng)
            fill_patch(
                case.tensors["image"],
                case.tensors["label_codes"],
                start,
                case.grid.spacing_mm,
                self._augmentation,
                rng,
                image[b],
                codes[b, 0],
            )
        label = codes
        if "class_table" in cases[0].tensors or self._may_ignore:
            label = torch.stack([case.label(codes[b, 0]) for b, case in enumerate(cases)])
        batch = {"index": torch.tensor([number for number, _ in chosen]), "image": image, "label": label}
        if self._may_ignore:
            batch["ignored"] = torch.stack([case.ignored(codes[b]) for b, case in enumerate(cases)])
        if self._annotated is not None:
            batch["annotated"] = torch.cat([self._annotated[number] for number, _ in chosen])
        return batch

    def _probability_of_foreground(self, b: int) -> float:
        """Return the probability that a patch of the batch is centred on a class; 0 or 1 where a share is guaranteed.

        As in nnU-Net, the last patches of a batch are centred, and a batch is that of all processes together.
        """
        if not self._is_share:
            return self._foreground_probability
        whole = self._batch_size * self._world
        return float(self._rank * self._batch_size + b >= round(whole * (1 - self._foreground_probability)))

    def _case(self, epoch: int, number: int) -> tuple[int, Path]:
        """Return the case of a sample of an epoch. Each pass over all cases has its own random order."""
        lap, place = divmod(number, len(self._entries))
        if self._epoch_order[:2] != (epoch, lap):
            rng = np.random.Generator(np.random.PCG64(random_seed(self._seed, _ORDER, epoch, lap)))
            self._epoch_order = (epoch, lap, rng.permutation(len(self._entries)).tolist())
        return self._entries[self._epoch_order[2][place]]
