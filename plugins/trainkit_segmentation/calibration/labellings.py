"""A held-out case as labellings: scores and true labels, with what is near a boundary, some planes at a time.

Where classes exclude each other, there is one labelling with a score for the background and each class. Where they
overlap, there is one for each annotated class, with the scores 0 and that of the class.

Shapes: K = scores, L = 1 or classes, P, U, V = voxels of the image's own grid, turned, N = voxels that count,
C = scores of a labelling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import attrs
import numpy as np
import torch
from torch import Tensor

from trainkit_segmentation.calibration.boundaries import beside_boundaries, within
from trainkit_segmentation.data.label_maps import most_likely
from trainkit_segmentation.files.header import Array
from trainkit_segmentation.metrics.surfaces import Mask
from trainkit_segmentation.prediction.confidence import logits_of

_MOST_VALUES = 1 << 22  # that are worked on at once


class Planes(NamedTuple):
    """Voxels of some planes that count.

    Attributes:
        logits_NC: Logits, float32.
        label_N: The true labels, int64.
        near_N: Which are near a boundary.
    """

    logits_NC: Tensor
    label_N: Tensor
    near_N: Tensor


@attrs.frozen
class ScoredCase:
    """A case whose voxels have scores and true labels.

    Attributes:
        scores_PKUV: Scores of the box of the image that networks have seen; outside of it, there is background.
        box: This box.
        true_LPUV: The true labels, as `LiveSegmentation.truth` has them.
        ignored_PUV: Voxels that do not count; None: all count.
        annotated: Whether each class was annotated.
        exclusive: Whether classes exclude each other.
        are_logits: Whether scores are logits, not probabilities.
        spacing_mm: Size of a voxel along each axis.
    """

    scores_PKUV: Array
    box: tuple[slice, slice, slice]
    true_LPUV: Array
    ignored_PUV: Mask | None
    annotated: tuple[bool, ...]
    exclusive: bool
    are_logits: bool
    spacing_mm: Sequence[float]

    def labellings(self, boundary_mm: float) -> Iterator[Labelling]:
        """Yield the labellings.

        Args:
            boundary_mm: Distance from a boundary up to which a voxel is near it.
        """
        if not any(self.annotated):
            return
        for k in [None] if self.exclusive else [k for k, known in enumerate(self.annotated) if known]:
            true_PUV = self.true_LPUV[0] if k is None else self.true_LPUV[k].astype(np.uint8)
            found_PUV = self._found(k, true_PUV.shape)
            beside_PUV = beside_boundaries(true_PUV, self.ignored_PUV) | beside_boundaries(found_PUV, self.ignored_PUV)
            near_PUV = within(beside_PUV, self.spacing_mm, boundary_mm)
            yield Labelling(self, k, true_PUV, near_PUV)

    @property
    def unknown(self) -> tuple[int, ...]:
        """Scores of classes that were not annotated, where classes exclude each other."""
        return tuple(k + 1 for k, known in enumerate(self.annotated) if not known) if self.exclusive else ()

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield some planes of the box and their scores (P, K, U, V), one after the other."""
        planes = max(1, _MOST_VALUES // max(1, math.prod(self.scores_PKUV.shape[1:])))
        for begin in range(0, len(self.scores_PKUV), planes):
            block = np.array(self.scores_PKUV[begin : begin + planes])
            yield slice(begin, begin + len(block)), torch.from_numpy(block)

    def _found(self, k: int | None, shape: Sequence[int]) -> Array:
        """Return the labels that are the most likely (P, U, V)."""
        found_PUV = np.zeros(shape, np.uint16)
        inside_PUV = found_PUV[self.box]
        for planes, scores_PKUV in self.blocks():
            if k is None:
                inside_PUV[planes] = most_likely(scores_PKUV.unbind(1), exclusive=True).numpy()
            else:
                inside_PUV[planes] = (scores_PKUV[:, k] > (0 if self.are_logits else 0.5)).numpy()
        if self.unknown:
            found_PUV[np.isin(found_PUV, self.unknown)] = 0
        return found_PUV


@attrs.frozen
class Labelling:
    """One labelling of a case.

    Attributes:
        case: The case.
        k: The class; None: all, which exclude each other.
        true_PUV: The true labels.
        near_PUV: Which voxels are near a boundary.
    """

    case: ScoredCase
    k: int | None
    true_PUV: Array
    near_PUV: Mask

    def inside(self) -> Iterator[Planes]:
        """Yield the voxels that networks have seen."""
        true_PUV, near_PUV, counted_PUV = (
            each[self.case.box] for each in (self.true_PUV, self.near_PUV, self._counted)
        )
        for planes, scores_PKUV in self.case.blocks():
            logits_PKUV = logits_of(scores_PKUV, exclusive=self.case.exclusive, are_logits=self.case.are_logits)
            if self.k is not None:
                of_class_PUV = logits_PKUV[:, self.k]
                logits_PKUV = torch.stack([torch.zeros_like(of_class_PUV), of_class_PUV], 1)
            chosen_PUV = torch.from_numpy(counted_PUV[planes])
            yield Planes(
                logits_PKUV.movedim(1, -1)[chosen_PUV],
                torch.from_numpy(true_PUV[planes].astype(np.int64))[chosen_PUV],
                torch.from_numpy(np.ascontiguousarray(near_PUV[planes]))[chosen_PUV],
            )

    def outside(self, *, near: bool) -> tuple[int, int]:
        """Return the number of voxels that networks have not seen, and that of those which are background.

        Args:
            near: Whether only voxels near a boundary are counted.
        """
        outside_PUV = self._counted.copy()
        outside_PUV[self.case.box] = False
        if near:
            outside_PUV &= self.near_PUV
        return int(np.count_nonzero(outside_PUV)), int(np.count_nonzero(outside_PUV & (self.true_PUV == 0)))

    @property
    def num_near(self) -> int:
        """Number of voxels that networks have seen and that are near a boundary."""
        return int(np.count_nonzero((self._counted & self.near_PUV)[self.case.box]))

    @property
    def _counted(self) -> Mask:
        ignored_PUV = self.case.ignored_PUV
        return np.ones(self.true_PUV.shape, dtype=bool) if ignored_PUV is None else ~ignored_PUV
