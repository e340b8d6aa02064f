"""Keeps of nnU-Net's decoders, which give scores of all their levels, the scores of the finest ones."""

from __future__ import annotations

from torch import Tensor, nn


def remove_coarse_layers(layers_that_score: nn.ModuleList, heads: int) -> None:
    """Remove the layers that give scores of coarser levels: a layer that nothing trains is none.

    Args:
        layers_that_score: One for each level, the coarsest first.
        heads: Number of levels that keep theirs.
    """
    for place in range(len(layers_that_score) - heads):
        layers_that_score[place] = nn.Identity()


def finest(scores: Tensor | list[Tensor], heads: int) -> Tensor | list[Tensor]:
    """Return the scores of the finest levels; a tensor is that of the finest one.

    Args:
        scores: What the network of the library returns, the finest level first.
        heads: Number of levels.
    """
    return scores if isinstance(scores, Tensor) else scores[:heads]
