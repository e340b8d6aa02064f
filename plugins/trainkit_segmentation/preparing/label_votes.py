"""Resampling label codes by votes, so that labels stay where the image is and thin structures stay what they are.

Shapes: X, Y, Z = voxels of either grid.

Each voxel of the old grid votes for its own code in the voxels of the new grid. Along an axis that becomes coarser, the
weight of a vote is the share of the new voxel that the old one fills; along an axis that becomes finer, it is that of
linear interpolation. The code with most votes wins. Taking the nearest voxel instead would move every structure by half
a voxel where the ratio of the grids is even.

By the majority alone, a structure of about the size of a new voxel would lose its thin parts, since most of its votes
are below a half there, and its centre would move to its thick parts. So each code but the commonest has a bonus: a
smooth field that grows where the code has won fewer voxels nearby than its votes add up to, and falls where it has won
more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np
from scipy.ndimage import find_objects, gaussian_filter
from scipy.sparse import csr_array

from trainkit_segmentation.files.header import Array

_NEARBY = 3.0  # standard deviation, in voxels of the new grid, of the weight with which voxels are nearby
_ROUNDS = 12  # the bonus changes less in each; then the volume nearby is kept to a few percent
_STEP, _SHRINKING = 2.0, 0.85
_HIGHEST = 0.6  # a code wins against one other with at least a fifth of the votes
_TIE = 1e-4  # codes whose votes are as close as this have the same, and the rarer one wins
_SLAB = 16  # planes of the old grid that are averaged at once

Box = tuple[slice, slice, slice]


@attrs.define
class _Candidate:
    """A code, in the box of new voxels in which it has votes.

    Attributes:
        code: The code.
        box: The box.
        votes_XYZ: The code's share of the votes.
        score_XYZ: What decides between codes, before the bonus.
        bonus_XYZ: The bonus.
    """

    code: int
    box: Box
    votes_XYZ: Array
    score_XYZ: Array
    bonus_XYZ: Array


def resample_label_codes(label_codes_XYZ: Array, class_table: Array | None, shape: Sequence[int]) -> Array:
    """Resample label codes to another number of voxels over the same extent.

    Args:
        label_codes_XYZ: Label codes.
        class_table: (codes, K), which classes a code stands for. Then the votes are counted for each class, and a code
            is judged by all of them. None: classes exclude each other.
        shape: The new number of voxels.

    Returns:
        Label codes (X, Y, Z) of the same dtype. Each code has votes where it is.
    """
    if label_codes_XYZ.shape == tuple(shape):
        return label_codes_XYZ
    counts = np.bincount(label_codes_XYZ.ravel())
    commonest, *others = (int(code) for code in np.argsort(-counts, kind="stable") if counts[code])
    scores_XYZ, candidates = _votes(label_codes_XYZ, class_table, commonest, others, shape)
    nearby = [_nearby(each.votes_XYZ > 0) + 1e-6 for each in candidates]
    wanted = [_nearby(each.votes_XYZ) for each in candidates]
    for number in range(_ROUNDS):
        codes_XYZ = _winners(commonest, scores_XYZ, candidates)
        for each, nearby_XYZ, wanted_XYZ in zip(candidates, nearby, wanted, strict=True):
            surplus_XYZ = (_nearby(codes_XYZ[each.box] == each.code) - wanted_XYZ) / nearby_XYZ
            each.bonus_XYZ -= np.float32(_STEP * _SHRINKING**number) * surplus_XYZ
            np.clip(each.bonus_XYZ, -_HIGHEST, _HIGHEST, out=each.bonus_XYZ)
    return _winners(commonest, scores_XYZ, candidates).astype(label_codes_XYZ.dtype)


def _winners(commonest: int, scores_XYZ: Array, candidates: Sequence[_Candidate]) -> Array:
    """Return the code with the highest score in each voxel.

    Args:
        commonest: The code that no candidate stands for.
        scores_XYZ: Its scores.
        candidates: The others, the commoner ones first.
    """
    highest_XYZ = scores_XYZ.copy()
    codes_XYZ = np.full(scores_XYZ.shape, commonest)
    for each in candidates:
        score_XYZ = each.score_XYZ + each.bonus_XYZ
        wins = score_XYZ >= highest_XYZ[each.box] - _TIE
        wins &= each.votes_XYZ > 0
        codes_XYZ[each.box][wins] = each.code
        highest_XYZ[each.box][wins] = score_XYZ[wins]
    return codes_XYZ


def _votes(
    label_codes_XYZ: Array, class_table: Array | None, commonest: int, others: Sequence[int], shape: Sequence[int]
) -> tuple[Array, list[_Candidate]]:
    """Return the scores of the commonest code, and the other codes with theirs."""
    weights = tuple(_weights(old, new) for old, new in zip(label_codes_XYZ.shape, shape, strict=True))
    boxes = find_objects(label_codes_XYZ.astype(np.int32) + 1)
    rest_XYZ = np.ones(tuple(shape), np.float32)
    candidates = []
    for code in others:
        box, votes_XYZ = _share(label_codes_XYZ, code, boxes[code], weights)
        rest_XYZ[box] -= votes_XYZ
        candidates.append(_Candidate(code, box, votes_XYZ, votes_XYZ, np.zeros_like(votes_XYZ)))
    if class_table is None:
        return rest_XYZ, candidates
    # A code agrees with the votes on a class if it stands for the class and most votes do, or if neither does. Up to
    # terms that all codes have in common, a class that the code stands for adds its share of the votes twice, less one.
    shares_KXYZ = [(class_table[commonest, k] * rest_XYZ).astype(np.float32) for k in range(class_table.shape[1])]
    for each in candidates:
        for k in np.flatnonzero(class_table[each.code]):
            shares_KXYZ[k][each.box] += each.votes_XYZ
    for each in candidates:
        classes = np.flatnonzero(class_table[each.code])
        each.score_XYZ = sum((2 * shares_KXYZ[k][each.box] - 1 for k in classes), np.zeros_like(each.votes_XYZ))
    classes = np.flatnonzero(class_table[commonest])
    scores_XYZ = sum((2 * shares_KXYZ[k] - 1 for k in classes), np.zeros_like(rest_XYZ))
    scores_XYZ[rest_XYZ < _TIE] = -np.inf
    return scores_XYZ, candidates


def _share(label_codes_XYZ: Array, code: int, old: Box, weights: Sequence[csr_array]) -> tuple[Box, Array]:
    """Return a code's share of the votes, and the box outside of which it has none.

    Args:
        label_codes_XYZ: Label codes.
        code: The code.
        old: The box of the old grid outside of which the code does not occur.
        weights: For each axis (new, old), the weight of each old voxel in each new one.
    """
    new, inside = [], []
    for weight, extent in zip(weights, old, strict=True):
        part = weight[:, extent]
        rows = np.flatnonzero(np.diff(part.indptr))
        new.append(slice(int(rows[0]), int(rows[-1]) + 1))
        inside.append(part[new[-1]])
    along_x, along_y, along_z = inside
    planes = []
    for start in range(0, old[0].stop - old[0].start, _SLAB):
        slab_XYZ = label_codes_XYZ[old][start : start + _SLAB] == code
        planes.append(_along(_along(slab_XYZ.astype(np.float32), along_z, 2), along_y, 1))
    return (new[0], new[1], new[2]), _along(np.concatenate(planes), along_x, 0)


def _along(volume_XYZ: Array, weight: csr_array, axis: int) -> Array:
    """Apply weights (new, old) along an axis."""
    moved = np.moveaxis(volume_XYZ, axis, 0)
    applied = (weight @ moved.reshape(len(moved), -1)).reshape(-1, *moved.shape[1:])
    return np.ascontiguousarray(np.moveaxis(applied, 0, axis))


def _weights(old: int, new: int) -> csr_array:
    """Return the weight of each old voxel in each new one along an axis, (new, old); the sum over old ones is 1."""
    ratio = old / new
    if new > old:
        place = np.clip((np.arange(new) + 0.5) * ratio - 0.5, 0, old - 1)
        first = np.minimum(place.astype(np.intp), max(old - 2, 0))
        columns = first[:, None] + np.arange(min(old, 2))
        shares = np.maximum(0, 1 - np.abs(columns - place[:, None]))
    else:
        start = np.arange(new)[:, None] * ratio
        columns = start.astype(np.intp) + np.arange(math.ceil(ratio) + 1)
        shares = np.clip(np.minimum(start + ratio, columns + 1) - np.maximum(start, columns), 0, None) / ratio
        shares[(shares < 1e-9) | (columns >= old)] = 0
    rows = np.broadcast_to(np.arange(new)[:, None], columns.shape)
    counted = shares > 0
    return csr_array((shares[counted].astype(np.float32), (rows[counted], columns[counted])), shape=(new, old))


def _nearby(volume_XYZ: Array) -> Array:
    """Average over the voxels nearby; there is nothing outside of the volume."""
    average_XYZ: Array = gaussian_filter(volume_XYZ.astype(np.float32), _NEARBY, mode="constant", truncate=3.0)
    return average_XYZ
