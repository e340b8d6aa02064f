"""The meaning of label values, and the codes that labels are stored as.

Shapes: K = classes, X, Y, Z = voxels.

A label is stored as one small number for each voxel, its *label code*. Where classes exclude each other, the code is 0
for the background and i + 1 for class i. Where classes overlap, a code stands for a set of classes, and a *class table*
(codes, K) says which. So one array is stored, cropped and resampled, however many classes there are.

Voxels that are ignored are stored as if they were of one more class, after all others: code K + 1, or a column more in
the class table. So they stay where they are when labels are cropped, resampled and turned.
"""

from __future__ import annotations

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


@attrs.frozen
class Labels:
    """Meaning of the label values of a data set.

    Attributes:
        classes: The foreground classes.
        exclusive: Whether a voxel has at most one class.
        members: Value of a label file -> the classes that it belongs to, as positions in ``classes``. Empty where each
            class has a mask file of its own.
        ignored: Values of a label file that say that a voxel does not count.
    """

    classes: tuple[str, ...]
    exclusive: bool
    members: Mapping[int, tuple[int, ...]]
    ignored: tuple[int, ...] = ()

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


def encode_masks(masks: Sequence[Array], labels: Labels) -> tuple[Array, Array | None]:
    """Return the label codes of one mask (X, Y, Z) for each class, and the class table if classes may overlap.

    Raises:
        DataError: Masks overlap although classes exclude each other.
    """
    dtype = np.uint8 if len(masks) < 256 else np.int32
    if labels.exclusive:
        label_codes_XYZ = np.zeros(masks[0].shape, dtype=dtype)
        for k, mask in enumerate(masks):
            before: Array = label_codes_XYZ[mask]
            if before.any():
                other = labels.classes[int(before[before > 0][0]) - 1]
                raise DataError(
                    f"the masks {other} and {labels.classes[k]} overlap in {int((before > 0).sum())} voxels: leave one "
                    'out, or let a voxel be of several classes with data.overlap = "multi_label"'
                )
            label_codes_XYZ[mask] = k + 1
        return label_codes_XYZ, None
    # Class by class, each set of classes that occurs gets the next free number.
    label_codes_XYZ = np.zeros(masks[0].shape, dtype=np.int32)
    rows = [[0] * len(masks)]
    for k, mask in enumerate(masks):
        for code in np.unique(label_codes_XYZ[mask]).tolist():
            label_codes_XYZ[mask & (label_codes_XYZ == code)] = len(rows)
            rows.append([*rows[code][:k], 1, *rows[code][k + 1 :]])
    return label_codes_XYZ.astype(np.uint8 if len(rows) <= 256 else np.int32), np.array(rows, dtype=np.uint8)


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
        return (label_codes_XYZ * (label_codes_XYZ <= num_classes))[None].long()
    # Four times as fast as indexing.
    if out_KXYZ is None:
        shape = (num_classes, *label_codes_XYZ.shape)
        out_KXYZ = torch.empty(shape, dtype=torch.float32, device=label_codes_XYZ.device)
    codes = label_codes_XYZ.reshape(-1).long()
    torch.index_select(class_table[:, :num_classes].T.float(), 1, codes, out=out_KXYZ.view(num_classes, -1))
    return out_KXYZ
