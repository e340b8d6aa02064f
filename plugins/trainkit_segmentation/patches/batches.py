"""Batches of training patches, each a function of (seed, epoch, step, part).

Shapes: B = patches of a batch, C = channels, K = classes, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainkit import part_of, random_seed
from trainkit_segmentation.cases.labels import not_counted, target
from trainkit_segmentation.patches.augmentation_live import CutPatches, Source, augment, cut_patches
from trainkit_segmentation.patches.cutting import choose_start
from trainkit_segmentation.preparing.cached_cases import OpenCase, open_case

if TYPE_CHECKING:
    from trainkit import Context
    from trainkit_segmentation.data.kind import SegmentationData

_ORDER, _PATCH = 0x0DE5, 0x9A7C  # separate the random order of cases from the random numbers of patches

_CUT, _CHANGED = "cut", "changed"  # in a batch that is not finished: its patches as they were cut, or as they are shown


class _Changed(NamedTuple):
    """Patches of a batch without targets.

    Attributes:
        image_BCXYZ: The images.
        codes_BXYZ: The label codes.
        class_tables: The class table of each patch's case; None where classes exclude each other.
    """

    image_BCXYZ: Tensor
    codes_BXYZ: Tensor
    class_tables: tuple[Tensor | None, ...]


class PatchBatches:
    """Makes the batch, or part of a batch, of any place (epoch, step, part) in a run; can be sent to another process.

    Args:
        settings: How patches are cut and changed.
        context: Seed, and number of parts.
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
        self._seed, self._num_parts = context.seed, context.exchange.num_parts
        self._entries, self._annotated, self._may_ignore = entries, annotated, may_ignore
        self._batch_size, self._size = settings.batch_size, settings.patch_size
        self._foreground_probability, self._augmentation = settings.foreground_probability, settings.augmentation
        self._is_share = settings.foreground_sampling == "share"
        self._num_classes = len(open_case(entries[0][1]).own_voxels)
        self._epoch_order: tuple[int, int, list[int]] = (-1, -1, [])

    def __getitem__(self, place: tuple[int, int, int]) -> dict[str, Any]:
        """Return the part of the batch of (epoch, step of the epoch, part), which `finished` still has to see."""
        epoch, step, part = place
        first = step * self._batch_size
        in_batch = part_of(range(self._batch_size), part, self._num_parts)
        chosen = [self._case(epoch, first + b) for b in in_batch]
        cases = [open_case(path) for _, path in chosen]
        batch: dict[str, Any] = {"index": torch.tensor([number for number, _ in chosen])}
        if self._annotated is not None:
            batch["annotated"] = torch.cat([self._annotated[number] for number, _ in chosen])
        sources = [self._source(case, b, epoch, first + b) for b, case in zip(in_batch, cases, strict=True)]
        patches = cut_patches(sources, self._size, self._augmentation)
        if self._augmentation.on == "workers":
            with _one_thread():
                batch[_CHANGED] = self._changed(patches)
        else:
            batch[_CUT] = patches
        return batch

    def finished(self, batch: dict[str, Any], device: torch.device) -> dict[str, Tensor]:
        """Return the batch of a training step: its patches changed if they were not, and with what a network learns.

        Targets are made here, from label codes and on the device of the run. For each voxel and class they have four
        bytes, and each voxel has one as a code: what workers send is smaller, and so is what is copied to a device.
        """
        if _CUT in batch:
            batch[_CHANGED] = self._changed(batch.pop(_CUT).to(device))
        changed: _Changed = batch.pop(_CHANGED)
        batch["image"] = changed.image_BCXYZ
        self._add_targets(batch, changed.codes_BXYZ.to(device, non_blocking=True), changed.class_tables)
        return batch

    def _source(self, case: OpenCase, b: int, epoch: int, number: int) -> Source:
        """Return where patch b of the batch comes from, which is a sample of the epoch."""
        rng = np.random.Generator(np.random.PCG64(random_seed(self._seed, _PATCH, epoch, number)))
        start = choose_start(case.tensors, self._size, self._probability_of_foreground(b), rng)
        image_CXYZ, codes_XYZ = case.tensors["image"], case.tensors["label_codes"]
        return Source(image_CXYZ, codes_XYZ, start, case.grid.spacing_mm, rng, case.tensors.get("class_table"))

    def _changed(self, patches: CutPatches) -> _Changed:
        return _Changed(*augment(patches, self._augmentation), patches.class_tables)

    def _add_targets(self, batch: dict[str, Any], codes_BXYZ: Tensor, class_tables: Sequence[Tensor | None]) -> None:
        tables = [None if each is None else each.to(codes_BXYZ.device, non_blocking=True) for each in class_tables]
        of_each = list(zip(codes_BXYZ, tables, strict=True))
        if tables[0] is None:  # as of all cases
            batch["label"] = target(codes_BXYZ, None, self._num_classes)[0][:, None]
        else:
            shape = (len(codes_BXYZ), self._num_classes, *self._size)
            batch["label"] = torch.empty(shape, dtype=torch.float32, device=codes_BXYZ.device)
            for (codes_XYZ, table), label_KXYZ in zip(of_each, batch["label"], strict=True):
                target(codes_XYZ, table, self._num_classes, label_KXYZ)
        if self._may_ignore:
            ignored = [not_counted(codes_XYZ, table, self._num_classes) for codes_XYZ, table in of_each]
            batch["ignored"] = torch.stack(ignored)[:, None]

    def _probability_of_foreground(self, b: int) -> float:
        """Return the probability that a patch of the batch is centred on a class; 0 or 1 where a share is guaranteed.

        As in nnU-Net, the last patches of a whole batch are centred.
        """
        if not self._is_share:
            return self._foreground_probability
        return float(b >= round(self._batch_size * (1 - self._foreground_probability)))

    def _case(self, epoch: int, number: int) -> tuple[int, Path]:
        """Return the case of a sample of an epoch. Each pass over all cases has its own random order."""
        lap, place = divmod(number, len(self._entries))
        if self._epoch_order[:2] != (epoch, lap):
            rng = np.random.Generator(np.random.PCG64(random_seed(self._seed, _ORDER, epoch, lap)))
            self._epoch_order = (epoch, lap, rng.permutation(len(self._entries)).tolist())
        return self._entries[self._epoch_order[2][place]]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread, as in a worker: powers are rounded otherwise where two threads meet."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
