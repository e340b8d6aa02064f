"""Opens preprocessed cases of the cache."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from trainkit import DataError, some_of
from trainkit_segmentation.cases.labels import not_counted, target
from trainkit_segmentation.preparing.cache_live import read_entry
from trainkit_segmentation.preparing.grid import Grid

_MOST = 256  # entries that stay open: each is one of the 1024 files that a process may have open


def rounded_in_words(cases: Mapping[str, OpenCase]) -> str | None:
    """Return a sentence on the cases whose label values were nearly whole numbers; None if there are none."""
    off = {name: case.label_off for name, case in cases.items() if case.label_off}
    if not off:
        return None
    return (
        f"label values of {len(off)} of {len(cases)} cases are up to {max(off.values()):.2g} off whole numbers, and "
        f"were rounded: {some_of(sorted(off))}"
    )


class OpenCase(NamedTuple):
    """A case of the cache, mapped into memory.

    Attributes:
        tensors: The arrays of `preprocessing_live.Prepared`, by name.
        grid: Position of the preprocessed grid in the case's own grid.
        own_voxels: For each class, its number of voxels on the case's own grid.
        own_ignored: Number of ignored voxels on the case's own grid.
        ranges: Lowest and highest intensity of each channel, as read from the files.
        label_off: How far a label value was off a whole number at most, before it was rounded.
        has_form: Whether the image's header says how its axes lie in space.
        has_spacing: Whether the image's header, or the recipe, says how large a voxel is.
    """

    tensors: Mapping[str, Tensor]
    grid: Grid
    own_voxels: tuple[int, ...]
    own_ignored: int
    ranges: tuple[tuple[float, float], ...]
    label_off: float
    has_form: bool
    has_spacing: bool

    def label(self, label_codes_XYZ: Tensor) -> Tensor:
        """Return the `target` of label codes of this case, or of a part of it."""
        return target(label_codes_XYZ, self.tensors.get("class_table"), len(self.own_voxels))

    def ignored(self, label_codes: Tensor) -> Tensor:
        """Return where label codes of this case, of any shape, say that a voxel does not count."""
        return not_counted(label_codes, self.tensors.get("class_table"), len(self.own_voxels))


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
        ranges = tuple((low, high) for low, high in about["ranges"])
        own_voxels, own_ignored = tuple(about["own_voxels"]), int(about["own_ignored"])
        has_form, has_spacing = bool(about["has_form"]), bool(about["has_spacing"])
        off = float(about["label_off"])
        return OpenCase(tensors, grid, own_voxels, own_ignored, ranges, off, has_form, has_spacing)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: this entry of the cache is damaged ({error}); delete it and start again") from error
