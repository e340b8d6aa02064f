"""A loss of one head, applied to all heads that a network has.

Shapes: B = patches of a batch, H = heads, K = scores, L = 1 or classes, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from trainkit import Batch, Outputs, RecipeError


class HeadSums(NamedTuple):
    """A loss of one head that is a function of sums over patches.

    Attributes:
        sums: (logits, label) -> what adds up over patches, a tensor of any one shape.
        value: The sums of all patches -> the loss, a scalar.
    """

    sums: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor], Tensor]


class SupervisedLoss:
    """The weighted mean of a loss over ``logits``, ``logits_1``, …; labels are taken at each head's own size.

    Args:
        of_one_head: (logits, label) -> scalar.
        weights: One for each head; None: each is half of the one before.

    Source:
        Isensee et al., Nature Methods 18 (2021) 203, supplement: weights halved at each coarser level, summing up to 1.
    """

    def __init__(self, of_one_head: Callable[[Tensor, Tensor], Tensor], weights: tuple[float, ...] | None) -> None:
        self._of_one_head = of_one_head
        self._weights = weights

    def __call__(self, outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
        """Return the loss of a batch, a scalar."""
        return self._mean([self._of_one_head(logits, label) for logits, label in _heads(outputs, batch["label"])])

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
    """

    def __init__(
        self,
        of_one_head: Callable[[Tensor, Tensor], Tensor],
        head_sums: HeadSums,
        weights: tuple[float, ...] | None,
    ) -> None:
        super().__init__(of_one_head, weights)
        self._head_sums = head_sums

    def sums(self, outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
        """Return the sums of each head, (H, …)."""
        return torch.stack([self._head_sums.sums(logits, label) for logits, label in _heads(outputs, batch["label"])])

    def value(self, sums: Tensor) -> Tensor:
        """Return the loss, a scalar, of sums (H, …) that were added up over batches."""
        return self._mean([self._head_sums.value(each) for each in sums])


def _heads(outputs: Outputs, label_BLXYZ: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the scores of each head, with the label at their size."""
    names = ["logits", *takewhile(outputs.__contains__, (f"logits_{i}" for i in range(1, len(outputs))))]
    return [(outputs[name], _at_size(label_BLXYZ, outputs[name])) for name in names]


def _at_size(label_BLXYZ: Tensor, logits_BKXYZ: Tensor) -> Tensor:
    size = logits_BKXYZ.shape[2:]
    if label_BLXYZ.shape[2:] == size:
        return label_BLXYZ
    # The nearest voxel: classes have no mean. (Interpolation knows no integers; small ones are exact in float32.)
    return interpolate(label_BLXYZ.float(), size=size, mode="nearest-exact").to(label_BLXYZ.dtype)
