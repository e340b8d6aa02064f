"""A loss of one head, applied to all heads that a network has.

Shapes: B = patches of a batch, H = heads, K = scores, L = 1 or classes, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from trainkit import Batch, Outputs, RecipeError
from trainkit_segmentation.losses.annotated import Part, annotated_parts


class HeadSums(NamedTuple):
    """A loss of one head that is a function of sums over patches.

    Attributes:
        sums: (logits, label) -> what adds up over patches, (2, S): a column for each class, beside any others.
        value: The sums of all patches -> the loss, a scalar.
        first: Which column is that of the first class.
    """

    sums: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor], Tensor]
    first: int = 0


class SupervisedLoss:
    """The weighted mean of a loss over ``logits``, ``logits_1``, …; labels are taken at each head's own size.

    Classes that were not annotated in a patch (``batch["annotated"]``, (B, K)) do not count there, and ignored voxels
    (``batch["ignored"]``, (B, 1, X, Y, Z)) do not count at all: a patch has the loss of its other voxels, or 0.

    Args:
        of_one_head: (logits, label) -> scalar, the mean over patches.
        weights: One for each head; None: each is half of the one before.
        exclusive: Whether classes exclude each other.

    Source:
        Isensee et al., Nature Methods 18 (2021) 203, supplement: weights halved at each coarser level, summing up to 1.
    """

    def __init__(
        self, of_one_head: Callable[[Tensor, Tensor], Tensor], weights: tuple[float, ...] | None, exclusive: bool
    ) -> None:
        self._of_one_head = of_one_head
        self._weights = weights
        self._exclusive = exclusive

    def __call__(self, outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
        """Return the loss of a batch, a scalar."""
        if _all_counts(batch):
            return self._mean([self._of_one_head(head.logits, head.label) for head in _heads(outputs, batch)])
        losses = []
        for head in _heads(outputs, batch):
            parts = list(head.parts(self._exclusive))
            nothing = [head.logits[:0].sum()] * (not parts)
            losses.append(_sum([part.share * self._of_one_head(part.logits, part.label) for part in parts] + nothing))
        return self._mean(losses)

    def _mean(self, losses: Sequence[Tensor]) -> Tensor:
        if len(losses) == 1:
            return losses[0]  # of a network that gives several scores while training only
        each = self._weights or [0.5**i for i in range(len(losses))]
        if len(each) != len(losses):
            raise RecipeError(f"the network gives {len(losses)} scores, but deep_supervision_weights has {len(each)}")
        total = torch.zeros_like(losses[0])
        for loss, weight in zip(losses, each, strict=True):
            total = total + weight / sum(each) * loss
        return total


class SummedSupervisedLoss(SupervisedLoss):
    """The same for a loss that is a function of sums over all patches of a step, in however many batches they come.

    Args:
        of_one_head: (logits, label) -> scalar, for a step of one batch.
        head_sums: The same loss by sums.
        weights: One for each head; None: each is half of the one before.
        exclusive: Whether classes exclude each other.
    """

    def __init__(
        self,
        of_one_head: Callable[[Tensor, Tensor], Tensor],
        head_sums: HeadSums,
        weights: tuple[float, ...] | None,
        exclusive: bool,
    ) -> None:
        super().__init__(of_one_head, weights, exclusive)
        self._head_sums = head_sums

    def __call__(self, outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
        """Return the loss of a step of one batch, a scalar."""
        if not _all_counts(batch):  # the loss of all patches together is not the mean of the losses of some
            return self.value(self.sums(outputs, batch, model))
        return super().__call__(outputs, batch, model)

    def sums(self, outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
        """Return the sums of each head, (H, 2, S); where something does not count (H, 3, S), see `_sums_of_counted`."""
        heads = _heads(outputs, batch)
        if _all_counts(batch):
            return torch.stack([self._head_sums.sums(head.logits, head.label) for head in heads])
        return torch.stack([self._sums_of_counted(head) for head in heads])

    def _sums_of_counted(self, head: _Head) -> Tensor:
        """Return sums with a column for every class, to which only patches add in which the class counts.

        The third row has the number of patches that added to a column.
        """
        num_classes, first = head.logits.shape[1] - self._exclusive, self._head_sums.first

        def widened(part: Part) -> Tensor:
            narrow_2S = self._head_sums.sums(part.logits, part.label)
            narrow_3S = torch.cat([narrow_2S, torch.full_like(narrow_2S[:1], len(part.logits))])
            num = len(part.classes)
            wide_3S = narrow_3S.new_zeros((3, narrow_3S.shape[1] + num_classes - num))
            at = [*range(first), *(first + k for k in part.classes)]
            at += range(first + num_classes, wide_3S.shape[1])
            return wide_3S.index_copy(1, torch.tensor(at, device=wide_3S.device), narrow_3S)

        nothing = Part(0.0, head.logits[:0], head.label[:0], tuple(range(num_classes)))
        return _sum(widened(part) for part in (nothing, *head.parts(self._exclusive)))

    def value(self, sums: Tensor) -> Tensor:
        """Return the loss, a scalar, of sums (H, …) that were added up over batches."""
        return self._mean([self._value_of_head(each) for each in sums])

    def _value_of_head(self, sums: Tensor) -> Tensor:
        if len(sums) == 2:
            return self._head_sums.value(sums)
        # Classes that were annotated in no patch have no part in the mean over classes.
        counts_S = sums[2] > 0
        return self._head_sums.value(sums[:2, counts_S]) if counts_S.any() else sums[:2].sum()


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    """Return the sum of at least one tensor."""
    return reduce(torch.add, tensors)


class _Head(NamedTuple):
    """The scores of a head, with everything else at their size."""

    logits: Tensor
    label: Tensor
    annotated: Tensor | None
    ignored: Tensor | None

    def parts(self, exclusive: bool) -> Iterator[Part]:
        return annotated_parts(self.logits, self.label, self.annotated, self.ignored, exclusive)


def _all_counts(batch: Batch) -> bool:
    return "annotated" not in batch and "ignored" not in batch


def _heads(outputs: Outputs, batch: Batch) -> list[_Head]:
    names = ["logits", *takewhile(outputs.__contains__, (f"logits_{i}" for i in range(1, len(outputs))))]
    annotated, ignored = batch.get("annotated"), batch.get("ignored")
    return [
        _Head(
            outputs[name],
            _at_size(batch["label"], outputs[name]),
            annotated,
            None if ignored is None else _at_size(ignored, outputs[name]),
        )
        for name in names
    ]


def _at_size(label_BLXYZ: Tensor, logits_BKXYZ: Tensor) -> Tensor:
    size = logits_BKXYZ.shape[2:]
    if label_BLXYZ.shape[2:] == size:
        return label_BLXYZ
    # The nearest voxel: classes have no mean. (Interpolation knows no integers; small ones are exact in float32.)
    return interpolate(label_BLXYZ.float(), size=size, mode="nearest-exact").to(label_BLXYZ.dtype)
