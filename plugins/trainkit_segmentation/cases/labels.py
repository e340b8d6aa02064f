"""The meaning of label values, and the codes that labels are stored as.

Shapes: K = classes, X, Y, Z = voxels.

A label is stored as one small number for each voxel, its *label code*. Where classes exclude each other, the code is 0
for the background and i + 1 for class i. Where classes overlap, a code stands for a set of classes, and a *class table*
(codes, K) says which. So one array is stored, cropped and resampled, however many classes there are.

Voxels that are ignored are stored as if they were of one more class, after all others: code K + 1, or a column more in
the class table. So they stay where they are when labels are cropped, resampled and turned.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from trainkit import DataError
from trainkit_segmentation.files.header import Array
from trainkit_segmentation.files.label_values import value_counts
from trainkit_segmentation.spelling import IGNORE

_LARGE_TABLE = 1024  # values
_MOST_CHANGES = 3  # for each class, on average: with more of them, to look codes up two at a time takes less time


@attrs.frozen
class Labels:
    """Meaning of the label values of a data set.

    Attributes:
        classes: The foreground classes.
        exclusive: Whether a voxel has at most one class.
        members: Value of a label file, or number of a mask -> the classes that it belongs to, as positions in
            ``classes``. The background is 0.
        ignored: Values or numbers that say that a voxel does not count.
        masks: Number -> name of its mask, where a voxel may be in several masks, or each mask is a file. Empty: a label
            file gives one value to each voxel.
    """

    classes: tuple[str, ...]
    exclusive: bool
    members: Mapping[int, tuple[int, ...]]
    ignored: tuple[int, ...] = ()
    masks: Mapping[int, str] = attrs.field(factory=dict)

    def values_of(self, name: str) -> tuple[int, ...]:
        """Return the values, or numbers of masks, that belong to a class."""
        k = self.classes.index(name)
        return tuple(value for value, of in self.members.items() if k in of)

    def is_used(self, value: int) -> bool:
        """Return whether voxels of a value, or in a mask of this number, are of a class or ignored."""
        return bool(self.members.get(value)) or value in self.ignored

    def without_unknown(self, unknown: Sequence[int]) -> Labels:
        """Return the labels of a case in which some masks are not known: no voxel is of a class that they belong to."""
        lost = {k for value in unknown for k in self.members.get(value, ())}
        members = {value: tuple(k for k in of if k not in lost) for value, of in self.members.items()}
        return attrs.evolve(self, members=members) if lost else self

    def only(self, classes: Sequence[str]) -> Labels:
        """Return the same labels with some of the classes; voxels of the others become background."""
        place = {self.classes.index(name): k for k, name in enumerate(classes)}
        members = {value: tuple(place[k] for k in of if k in place) for value, of in self.members.items()}
        return attrs.evolve(self, classes=tuple(classes), members=members)


def one_value_each(values: Mapping[str, int]) -> Labels:
    """Return the labels of classes that exclude each other.

    Args:
        values: Name of a class -> its label value. The background need not be there. The value of "ignore" marks voxels
            that do not count.
    """
    classes = tuple(name for name, value in values.items() if value != 0 and name != IGNORE)
    ignored = tuple(value for name, value in values.items() if name == IGNORE)
    return Labels(classes, True, {0: ()} | {values[name]: (k,) for k, name in enumerate(classes)}, ignored)


def one_mask_each(names: Sequence[str], exclusive: bool) -> Labels:
    """Return the labels of masks, which are numbered from 1 on. The mask "ignore" marks voxels that do not count.

    Args:
        names: Name of each mask.
        exclusive: Whether a voxel is in at most one of them.
    """
    masks = dict(enumerate(names, start=1))
    values = [value for value, name in masks.items() if name != IGNORE]
    members = {0: (), **{value: (k,) for k, value in enumerate(values)}}
    ignored = tuple(value for value in masks if value not in values)
    return Labels(tuple(masks[value] for value in values), exclusive, members, ignored, masks)


def encode_values(values_XYZ: Array, labels: Labels) -> tuple[Array, Array | None]:
    """Return the label codes of a map of label values, and the class table if classes overlap.

    Raises:
        DataError: A value is not declared.
    """
    present = value_counts(values_XYZ)
    check_values(present, labels)
    after_all = len(labels.classes)
    members = {**labels.members, **dict.fromkeys(labels.ignored, (after_all,))}
    values = sorted(members)
    dtype = np.uint8 if len(values) < 256 else np.int32
    place_XYZ = _places(values_XYZ, sorted(present), {value: place for place, value in enumerate(values)}, dtype)
    if labels.exclusive:
        class_of = [members[value][0] + 1 if members[value] else 0 for value in values]
        return np.asarray(np.array(class_of, dtype=dtype)[place_XYZ]), None
    class_table = np.zeros((len(values), after_all + bool(labels.ignored)), dtype=np.uint8)
    for code, value in enumerate(values):
        class_table[code, list(members[value])] = 1
    return place_XYZ, class_table


def _places(values_XYZ: Array, present: Sequence[int], place_of: Mapping[int, int], dtype: type[Any]) -> Array:
    """Return the place of each value.

    Values are looked up among those that are present, in the file's own type: declared ones may not fit into it.
    """
    places = np.array([place_of[value] for value in present], dtype=dtype)
    found: Array = places[np.searchsorted(np.array(present, dtype=values_XYZ.dtype), values_XYZ)]
    return found


def encode_masks(masks: Mapping[int, Array], shape: tuple[int, ...], labels: Labels) -> tuple[Array, Array | None]:
    """Return the label codes of masks (X, Y, Z), and the class table if classes may overlap.

    Args:
        masks: Number -> its mask. The background need not be there.
        shape: Voxels of each mask.
        labels: What the numbers mean.

    Raises:
        DataError: Masks overlap although classes exclude each other.
    """
    used = {value: mask for value, mask in masks.items() if labels.is_used(value)}
    ignored_XYZ = _union([used.pop(value) for value in labels.ignored if value in used], shape)
    if labels.exclusive:
        return encode_values(_values_of_masks(used, ignored_XYZ, shape, labels), labels)
    of_classes = [
        _union([mask for value, mask in used.items() if k in labels.members[value]], shape)
        for k in range(len(labels.classes))
    ]
    if labels.ignored:
        of_classes = [*(mask & ~ignored_XYZ for mask in of_classes), ignored_XYZ]
    # Class by class, each set of classes that occurs gets the next free number.
    label_codes_XYZ = np.zeros(shape, dtype=np.int32)
    rows = [[0] * len(of_classes)]
    for k, mask in enumerate(of_classes):
        for code in np.unique(label_codes_XYZ[mask]).tolist():
            label_codes_XYZ[mask & (label_codes_XYZ == code)] = len(rows)
            rows.append([*rows[code][:k], 1, *rows[code][k + 1 :]])
    return label_codes_XYZ.astype(np.uint8 if len(rows) <= 256 else np.int32), np.array(rows, dtype=np.uint8)


def _union(masks: Sequence[Array], shape: tuple[int, ...]) -> Array:
    """Return the voxels that are in any of some masks."""
    if len(masks) == 1:
        return masks[0]
    return np.asarray(np.logical_or.reduce(masks)) if masks else np.zeros(shape, dtype=bool)


def _values_of_masks(masks: Mapping[int, Array], ignored_XYZ: Array, shape: tuple[int, ...], labels: Labels) -> Array:
    """Return the number of the mask that each voxel is in, 0 for none."""
    values_XYZ = np.zeros(shape, dtype=np.int32)
    for value, mask in masks.items():
        before: Array = values_XYZ[mask]
        if before.any():
            one, other = (labels.classes[labels.members[each][0]] for each in (int(before[before > 0][0]), value))
            raise DataError(
                f"the masks {one} and {other} overlap in {int((before > 0).sum())} voxels: leave one out, or let a "
                'voxel be of several classes with data.overlap = "multi_label"'
            )
        values_XYZ[mask] = value
    if labels.ignored:
        values_XYZ[ignored_XYZ] = labels.ignored[0]
    return values_XYZ


def check_values(present: Mapping[int, int], labels: Labels) -> None:
    """Check that every label value is declared.

    Args:
        present: Value -> number of voxels.
        labels: What label values mean.

    Raises:
        DataError: A value is not declared.
    """
    if unknown := sorted(set(present) - {*labels.members, *labels.ignored}):
        known = ", ".join(map(str, sorted({*labels.members, *labels.ignored})))
        shown = ", ".join(f"{value} ({present[value]} voxels)" for value in unknown[:5])
        raise DataError(f"the label has values that are not declared: {shown}; the declared ones are {known}")


def voxels_of_class(label_codes: Array, class_table: Array | None, k: int) -> Array:
    """Return where label codes, of any shape, belong to class k."""
    inside: Array = label_codes == k + 1 if class_table is None else class_table[:, k].astype(bool)[label_codes]
    return inside


def ignored_voxels(label_codes: Array, class_table: Array | None, num_classes: int) -> Array:
    """Return where label codes, of any shape, say that a voxel does not count."""
    if class_table is not None and class_table.shape[1] == num_classes:
        return np.zeros(label_codes.shape, dtype=bool)
    return voxels_of_class(label_codes, class_table, num_classes)


def not_counted(label_codes: Tensor, class_table: Tensor | None, num_classes: int) -> Tensor:
    """Return what `ignored_voxels` returns, for tensors on any device."""
    if class_table is None:
        return label_codes == num_classes + 1
    if class_table.shape[1] == num_classes:
        return torch.zeros_like(label_codes, dtype=torch.bool)
    ignored = class_table[:, num_classes].bool()
    return ignored.index_select(0, label_codes.reshape(-1).long()).reshape(label_codes.shape)


def target(
    label_codes_XYZ: Tensor, class_table: Tensor | None, num_classes: int, out_KXYZ: Tensor | None = None
) -> Tensor:
    """Return what a network learns. Voxels that are ignored are background.

    Args:
        label_codes_XYZ: Label codes of a case, or of a part of it.
        class_table: The case's class table; None where classes exclude each other.
        num_classes: Number K of classes.
        out_KXYZ: Where to write it if there is a class table. Not given: into a new tensor.

    Returns:
        (1, X, Y, Z) int64 where classes exclude each other, else (K, X, Y, Z) float32.
    """
    if class_table is None:
        # Not bool, which torch computes, and converts, voxel by voxel.
        counted_XYZ = torch.le(label_codes_XYZ, num_classes, out=torch.empty_like(label_codes_XYZ))
        return (label_codes_XYZ * counted_XYZ)[None].long()
    if out_KXYZ is None:
        shape = (num_classes, *label_codes_XYZ.shape)
        out_KXYZ = torch.empty(shape, dtype=torch.float32, device=label_codes_XYZ.device)
    codes_V, out_KV = label_codes_XYZ.reshape(-1), out_KXYZ.view(num_classes, -1)
    if (changes := _changes(codes_V, class_table[:, :num_classes])) is not None:
        _compare(codes_V, changes, out_KV)
        return out_KXYZ
    table_KN = class_table[:, :num_classes].T.float()
    by_pairs = _come_in_pairs(codes_V, len(class_table))
    index = codes_V.view(torch.uint16).int() if by_pairs else codes_V.int()
    for table_N, out_V in zip(table_KN, out_KV, strict=True):  # four times as fast as indexing
        if by_pairs:
            torch.index_select(_of_pairs(table_N), 0, index, out=out_V.view(torch.int64))
        else:
            torch.index_select(table_N, 0, index, out=out_V)
    return out_KXYZ


def _changes(codes_V: Tensor, table_NK: Tensor) -> list[list[int]] | None:
    """Return for each class the codes at which its voxels begin or end, in the order of codes.

    None if codes are looked up instead: the table is large or changes often, codes are no bytes, on a device that would
    have to be waited for, or not in the table.
    """
    if codes_V.dtype != torch.uint8 or codes_V.device.type != "cpu" or table_NK.numel() > _LARGE_TABLE:
        return None
    if not len(codes_V) or codes_V.amax() >= len(table_NK):
        return None
    changes = []
    for of_class in zip(*table_NK.tolist(), strict=True):
        before = (0, *of_class)
        changes.append([code for code, is_of in enumerate(of_class) if is_of != before[code]])
    return changes if sum(map(len, changes)) <= _MOST_CHANGES * len(changes) else None


def _compare(codes_V: Tensor, changes: Sequence[Sequence[int]], out_KV: Tensor) -> None:
    """Write 1 where an odd number of a class's changes has been reached, else 0.

    Comparisons are written as bytes, for the same reason as in `target`.
    """
    inside_V, reached_V = torch.empty_like(codes_V), torch.empty_like(codes_V)
    for of_class, out_V in zip(changes, out_KV, strict=True):
        if not of_class:
            out_V.zero_()
            continue
        torch.ge(codes_V, of_class[0], out=inside_V)
        for code in of_class[1:]:
            inside_V ^= torch.ge(codes_V, code, out=reached_V)
        out_V.copy_(inside_V)


def _come_in_pairs(codes_V: Tensor, num_codes: int) -> bool:
    """Return whether codes are looked up two at a time, which takes half as long: they are bytes, and many."""
    are_bytes = codes_V.dtype == torch.uint8 and sys.byteorder == "little"
    are_even = len(codes_V) % 2 == 0 and codes_V.storage_offset() % 2 == 0
    return are_bytes and are_even and len(codes_V) >= 2 * num_codes * 256


def _of_pairs(table_N: Tensor) -> Tensor:
    """Return what a table has for each pair of codes, at (second code * 256 + first code), as if it were one int64.

    A code that the table does not have is NaN, or an index that is not there.
    """
    pairs_N256 = torch.full((len(table_N), 256, 2), float("nan"), device=table_N.device)
    pairs_N256[:, : len(table_N), 0] = table_N
    pairs_N256[:, :, 1] = table_N[:, None]
    return pairs_N256.view(torch.int64).flatten()
