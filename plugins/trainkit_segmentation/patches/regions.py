"""What a network learns of a patch whose classes overlap, by comparing label codes instead of looking them up.

On a CPU, a comparison of 96³ codes takes 0.1 ms, and a look-up of each class 0.5. It is done where the codes of each
class are one or two ranges, as those of BraTS are.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from trainkit_segmentation.cases.labels import target

_MOST = 2  # ranges of a class


def overlapping_target(codes_XYZ: Tensor, class_table: Tensor | None, out_KXYZ: Tensor) -> Tensor:
    """Write what `target` returns for a case with a class table, to the same bits.

    Args:
        codes_XYZ: Label codes of a patch.
        class_table: (codes, K or more), uint8, which a case with overlapping classes has.
        out_KXYZ: Where to write it, float32.
    """
    num_classes = len(out_KXYZ)
    if class_table is not None and codes_XYZ.dtype == torch.uint8 and codes_XYZ.device.type == "cpu":
        ranges = _ranges(class_table.numpy().tobytes(), class_table.shape[1], num_classes)
        if ranges is not None and int(codes_XYZ.max()) < len(class_table):
            for of_class, label_XYZ in zip(ranges, out_KXYZ, strict=True):
                for number, (low, high) in enumerate(of_class):
                    # Below the range, the difference of bytes wraps around to a large one. A result of float32 is
                    # written six times as fast as one of bool.
                    into_XYZ = torch.empty_like(label_XYZ) if number else label_XYZ
                    torch.le(codes_XYZ - low, high - low, out=into_XYZ)
                    if number:
                        label_XYZ += into_XYZ
            return out_KXYZ
    return target(codes_XYZ, class_table, num_classes, out_KXYZ)


@lru_cache(maxsize=64)
def _ranges(table: bytes, columns: int, num_classes: int) -> tuple[tuple[tuple[int, int], ...], ...] | None:
    """Return the ranges of codes, first and last, of each class; None: a class has none, or too many."""
    rows = [table[start : start + columns] for start in range(0, len(table), columns)]
    found = []
    for k in range(num_classes):
        members = [code for code, row in enumerate(rows) if row[k]]
        starts = [code for code in members if code - 1 not in members]
        ends = [code for code in members if code + 1 not in members]
        if not 0 < len(starts) <= _MOST:
            return None
        found.append(tuple(zip(starts, ends, strict=True)))
    return tuple(found)
