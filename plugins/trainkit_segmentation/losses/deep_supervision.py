"""A loss of one head, applied to all that a network has.

Shapes: B = patches of a batch, K = scores, L = 1 or classes, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile

from torch import Tensor, nn
from torch.nn.functional import interpolate

from trainkit import Batch, Outputs, RecipeError


def supervised(
    of_one_head: Callable[[Tensor, Tensor], Tensor], weights: tuple[float, ...] | None
) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
    """Return the weighted mean of a loss over ``logits``, ``logits_1``, …; labels are taken at each head's own size.

    Args:
        of_one_head: (logits, label) -> scalar.
        weights: One a head; None: each half of the one before.

    Source:
        Isensee et al., Nature Methods 18 (2021) 203, supplement: weights halved at each coarser level, summing up to 1.
    """

    def loss(outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
        label_BLXYZ: Tensor = batch["label"]
        if "logits_1" not in outputs:
            return of_one_head(outputs["logits"], label_BLXYZ)
        names = ["logits", *takewhile(outputs.__contains__, (f"logits_{i}" for i in range(1, len(outputs))))]
        each = weights or [0.5**i for i in range(len(names))]
        if len(each) != len(names):
            raise RecipeError(f"the network gives {len(names)} scores, but deep_supervision_weights has {len(each)}")
        total = label_BLXYZ.new_zeros((), dtype=outputs["logits"].dtype)
        for name, weight in zip(names, each, strict=True):
            total = total + weight / sum(each) * of_one_head(outputs[name], _at(label_BLXYZ, outputs[name]))
        return total

    return loss


def _at(label_BLXYZ: Tensor, logits_BKXYZ: Tensor) -> Tensor:
    size = logits_BKXYZ.shape[2:]
    if label_BLXYZ.shape[2:] == size:
        return label_BLXYZ
    # The nearest voxel: classes have no mean. (Interpolation knows no integers; small ones are exact in float32.)
    return interpolate(label_BLXYZ.float(), size=size, mode="nearest-exact").to(label_BLXYZ.dtype)
