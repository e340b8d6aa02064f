"""Opens preprocessed cases of the cache."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from trainkit_segmentation.cases.labels import target
from trainkit_segmentation.preparing.cache_live import read_entry
from trainkit_segmentation.preparing.grid import Grid

_MOST = 256  # entries that stay open: each is one of the 1024 files that a process may have open


class OpenCase(NamedTuple):
    """A case of the cache, mapped into memory.

    Attributes:
        tensors: The arrays of `preprocessing_live.Prepared`, by name.
        grid: Position of the preprocessed grid in the case's own grid.
    """

    tensors: Mapping[str, Tensor]
    grid: Grid

    def label(self, label_codes_XYZ: Tensor) -> Tensor:
        """Return the `target` of label codes of this case, or of a part of it."""
        return target(label_codes_XYZ, self.tensors.get("class_table"))


@lru_cache(maxsize=_MOST)
def open_case(path: Path) -> OpenCase:
    """Open an entry of the cache. Recently opened entries stay open, since entries never change.

    Raises:
        DataError: The entry is damaged.
    """
    entry = read_entry(path)
    return OpenCase(entry.tensors, Grid.from_json(entry.about))
