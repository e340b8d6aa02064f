"""Opens preprocessed cases of the cache."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from trainkit import DataError
from trainkit_segmentation.cases.labels import target
from trainkit_segmentation.preparing.cache_live import read_entry
from trainkit_segmentation.preparing.grid import Grid

_MOST = 256  # entries that stay open: each is one of the 1024 files that a process may have open


class OpenCase(NamedTuple):
    """A case of the cache, mapped into memory.

    Attributes:
        tensors: The arrays of `preprocessing_live.Prepared`, by name.
        grid: Position of the preprocessed grid in the case's own grid.
        own_voxels: For each class, its number of voxels on the case's own grid.
        ranges: Lowest and highest intensity of each channel, as read from the files.
    """

    tensors: Mapping[str, Tensor]
    grid: Grid
    own_voxels: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]

    def label(self, label_codes_XYZ: Tensor) -> Tensor:
        """Return the `target` of label codes of this case, or of a part of it."""
        return target(label_codes_XYZ, self.tensors.get("class_table"))


@lru_cache(maxsize=_MOST)
def open_case(path: Path) -> OpenCase:
    """Open an entry of the cache that was verified. Recently opened entries stay open, since entries never change.

    Raises:
        DataError: The entry is damaged.
    """
    tensors, about = read_entry(path, verify=False)
    try:
        grid = Grid.from_json(about["grid"])
        sizes = {tuple(tensors["image"].shape[1:]), tuple(tensors["label_codes"].shape), tuple(grid.shape)}
        if len(sizes) > 1 or int(tensors["place_counts"].sum()) != len(tensors["places"]):
            raise ValueError("its arrays do not fit each other")
        return OpenCase(tensors, grid, tuple(about["own_voxels"]), tuple((low, high) for low, high in about["ranges"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: this entry of the cache is damaged ({error}); delete it and start again") from error
