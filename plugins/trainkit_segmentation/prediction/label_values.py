"""From scores to the values of a data set's own label files.

Shapes: P = planes, K = scores (classes, and the background where they exclude each other), N = label values, U, V =
voxels of a plane.

Where classes overlap, a label value stands for a set of classes. The scores may find a set that no value stands for,
such as the core of a tumour outside of the tumour. Of all values, the one is taken under which the scores are the most
likely: the sum of the logits of its classes is the highest. If a value stands for the set that the scores find, it is
this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from trainkit_segmentation.data.label_maps import most_likely
from trainkit_segmentation.files.header import Array
from trainkit_segmentation.prediction.confidence import logits_of


@attrs.frozen
class LabelValues:
    """The values that masks are written with.

    Attributes:
        classes: The foreground classes.
        exclusive: Whether a voxel has at most one class.
        values: The values.
        members: For each value, the classes that it stands for, as positions in ``classes``.
        dropped: Values that mean the same as another one, which is written instead.
    """

    classes: tuple[str, ...]
    exclusive: bool
    values: tuple[int, ...]
    members: tuple[tuple[int, ...], ...]
    dropped: Mapping[int, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest type that holds the values."""
        types: Sequence[type[Any]] = (np.uint8, np.int16, np.int32, np.int64)
        low, high = min(self.values), max(self.values)
        return np.dtype(next(each for each in types if np.iinfo(each).min <= low and high <= np.iinfo(each).max))

    def of(self, scores_PKUV: Tensor, *, are_logits: bool) -> Array:
        """Return the values (P, U, V) that scores stand for.

        Args:
            scores_PKUV: Logits or probabilities.
            are_logits: Which of the two they are.
        """
        values_N = np.array(self.values, self.dtype)
        if self.exclusive:
            place_of = [self.members.index(()), *(self.members.index((k,)) for k in range(len(self.classes)))]
            found_PUV = most_likely(scores_PKUV.unbind(1), exclusive=True)
            return np.asarray(values_N[place_of][found_PUV.cpu().numpy()])
        logits_PKUV = logits_of(scores_PKUV, exclusive=False, are_logits=are_logits)
        logits = logits_PKUV.unbind(1)
        zero = torch.zeros_like(logits[0])
        sums = (sum((logits[k] for k in of), start=zero) for of in self.members)
        return np.asarray(values_N[most_likely(sums, exclusive=True).cpu().numpy()])

    def without(self, k: int, values: Array) -> Array:
        """Return values that stand for the same classes without class ``k``, or else for as many as possible."""
        instead = dict(zip(self.values, self.values, strict=True))
        for value, members in zip(self.values, self.members, strict=True):
            if k in members:
                others = set(members) - {k}
                left = [each for each in zip(self.members, self.values, strict=True) if set(each[0]) <= others]
                instead[value] = max(left, key=lambda each: len(each[0]))[1]
        known = np.array(sorted(instead), values.dtype)
        new = np.array([instead[int(value)] for value in known], values.dtype)
        return np.asarray(new[np.searchsorted(known, values)])


def label_values(classes: Sequence[str], exclusive: bool, named: Mapping[int, Sequence[str]]) -> LabelValues | None:
    """Return the values that masks are written with; None: one file cannot hold classes that overlap.

    Args:
        classes: The foreground classes.
        exclusive: Whether a voxel has at most one class.
        named: Value of the training data's label files -> the classes that it stands for; empty: each class had a file
            of its own, and gets its position in the list as its value, from 1 on.
    """
    if not named:
        if not exclusive:
            return None
        named = {0: (), **{k: (name,) for k, name in enumerate(classes, start=1)}}
    value_of: dict[tuple[int, ...], int] = {}
    dropped = {}
    for value in sorted(named, key=lambda value: (value != 0, value)):
        members = tuple(sorted(classes.index(name) for name in named[value]))
        if value_of.setdefault(members, value) != value:
            dropped[value] = value_of[members]
    if () not in value_of:
        value_of[()] = next(value for value in range(len(named) + 1) if value not in named)
    # The background first: of equal sums, the first is taken.
    ordered = sorted(value_of, key=len)
    return LabelValues(tuple(classes), exclusive, tuple(value_of[each] for each in ordered), tuple(ordered), dropped)
