"""The network as the loop uses it: from a batch to named scores.

Shapes: B = patches of a batch, C = channels of the image, K = scores (classes, and the background where they exclude
each other), H = heads, X, Y, Z = voxels.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from trainkit import Batch, RecipeError, shape_in_words
from trainkit_segmentation.sizes import Size


class SegmentationNetwork(nn.Module):
    """A network for patches.

    Args:
        network: (B, C, X, Y, Z) -> scores (B, K, X, Y, Z), or several of these.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``logits`` (B, K, X, Y, Z); in training, networks with several heads return ``logits_1``, … too."""
        heads = _heads(self.network(batch["image"]))
        if not self.training:
            return {"logits": heads[0]}
        return {f"logits_{i}" if i else "logits": head_BKXYZ for i, head_BKXYZ in enumerate(heads)}


def _heads(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return list(found.unbind(1)) if found.ndim == 6 else [found]  # DynUNet stacks its heads: (B, H, K, X, Y, Z)
    return list(found)


def check_patch(network: nn.Module, in_channels: int, out_channels: int, patch_size: Size) -> None:
    """Check that a network takes patches of a size and gives scores of that size, by shapes alone, without computing.

    Raises:
        RecipeError: The network does not.
    """
    # A copy without any values. (torch.func.functional_call does not put shared modules back as they were.)
    without_values: dict[int, Any] = {
        id(tensor): torch.empty_like(tensor, device="meta") for tensor in chain(network.parameters(), network.buffers())
    }
    shape_of = copy.deepcopy(network, without_values)
    image_BCXYZ = torch.empty((2, in_channels, *patch_size), device="meta")
    try:
        heads = _heads(shape_of(image_BCXYZ))
    except NotImplementedError:
        return  # an operation depends on values: the first step will show it
    except Exception as error:  # whatever a layer raises about a shape
        raise RecipeError(
            f"the network cannot take a patch of {shape_in_words(patch_size)}: {type(error).__name__}: {error}; "
            "set another data.patch_size"
        ) from error
    expected = (2, out_channels, *patch_size)
    for head in heads:
        if not isinstance(head, Tensor) or head.ndim != 5 or head.shape[1] != out_channels:
            shape = tuple(head.shape) if isinstance(head, Tensor) else type(head).__name__
            raise RecipeError(
                f"for patches of {shape_in_words(patch_size)} the network gives {shape}, but {expected} is expected: "
                "it is not a network for segmentation, or has other classes"
            )
    if heads[0].shape != expected:
        raise RecipeError(
            f"for patches of {shape_in_words(patch_size)} the network gives scores of "
            f"{shape_in_words(heads[0].shape[2:])}; set another data.patch_size, or other strides"
        )
