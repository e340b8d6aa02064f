"""Preprocessed cases, opened.

Shapes: K = classes, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from trainkit_segmentation.preparing.cache_live import read_entry
from trainkit_segmentation.preparing.grid import Grid

_MOST = 256  # each mapped file takes one of the 1024 that a process may have open


class OpenCase(NamedTuple):
    """A case of the cache, mapped into memory.

    Attributes:
        tensors: Those of `preprocessing_live.Prepared`, by name.
        grid: How it lies in the case's own grid.
    """

    tensors: Mapping[str, Tensor]
    grid: Grid

    def label(self, codes_XYZ: Tensor) -> Tensor:
        """Return what a network is to learn.

        Args:
            codes_XYZ: Label codes of the case, or a part of them.

        Returns:
            (1, X, Y, Z) int64 where classes exclude each other, else (K, X, Y, Z) float32.
        """
        table = self.tensors.get("table")
        if table is None:
            return codes_XYZ[None].long()
        chosen = torch.index_select(table.T.float(), 1, codes_XYZ.reshape(-1).long())  # four times as fast as indexing
        return chosen.reshape(-1, *codes_XYZ.shape)


@lru_cache(maxsize=_MOST)
def opened(path: Path) -> OpenCase:
    """Open an entry of the cache; it stays open for a while, since entries never change.

    Raises:
        DataError: It is damaged.
    """
    entry = read_entry(path)
    return OpenCase(entry.tensors, Grid.from_json(entry.about))
