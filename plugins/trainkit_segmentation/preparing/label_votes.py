"""Resampling label codes by votes, so that labels stay where the image is and thin structures stay what they are.

Shapes: N = codes, M = voxels of the new grid whose neighbours differ, X, Y, Z = voxels.

A voxel of the new grid lies between eight voxels of the old one. Each votes for its own code, with the weight that it
has when the image is interpolated linearly; the code with most votes wins, and of codes with the same number, the
rarest of the volume. Taking the nearest voxel instead would move every structure by half a voxel where the ratio of the
grids is even.

By the majority alone, a structure that is thinner than a voxel of the new grid would vanish, since most of its votes
are below a half. So the votes of a code that would lose more than a tenth of its volume count more, up to three times,
such that it keeps its volume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from trainkit_segmentation.files.nifti import Array

_SLAB = 1 << 20  # voxels that are worked on at once
_BINS = 256  # votes are counted in steps of 1/256
_FEWEST = _BINS // 4  # below a quarter of the votes, a code never wins against one other
_ENOUGH = 0.9  # share of its volume that a code keeps without help
_TIE = 1e-4  # scores that are as close as this, divided by the number of codes, are equal


def resample_label_codes(label_codes_XYZ: Array, class_table: Array | None, shape: Sequence[int]) -> Array:
    """Resample label codes to another number of voxels over the same extent.

    Args:
        label_codes_XYZ: Label codes.
        class_table: (codes, K), which classes a code stands for. A code then also gets the votes of other codes, for
            each class on which both agree. None: classes exclude each other.
        shape: The new number of voxels.

    Returns:
        Label codes (X, Y, Z) of the same dtype. Each code is that of one of the eight voxels around.
    """
    if label_codes_XYZ.shape == tuple(shape):
        return label_codes_XYZ
    counts_N = np.bincount(label_codes_XYZ.ravel(), minlength=0 if class_table is None else len(class_table))
    agreement_NN = _agreement(class_table, len(counts_N))
    rarity_N = np.empty(len(counts_N), np.float32)
    rarity_N[np.argsort(-counts_N, kind="stable")] = np.arange(len(counts_N)) * (_TIE / len(counts_N))
    weights_N = _weights(label_codes_XYZ, counts_N, shape)

    resampled_XYZ = np.empty(tuple(shape), label_codes_XYZ.dtype)
    for planes, nearby in _slabs(label_codes_XYZ, shape):
        votes_M8 = nearby.votes_M8 * weights_N[nearby.codes_M8]
        scores_M8 = rarity_N[nearby.codes_M8]
        for one in range(8):
            scores_M8 += votes_M8[:, one, None] * agreement_NN[nearby.codes_M8[:, one, None], nearby.codes_M8]
        slab_XYZ = nearby.codes_XYZ.copy()
        chosen = scores_M8.argmax(axis=1)[:, None]
        slab_XYZ.reshape(-1)[nearby.places_M] = np.take_along_axis(nearby.codes_M8, chosen, axis=1)[:, 0]
        resampled_XYZ[planes] = slab_XYZ
    return resampled_XYZ


class _Nearby(NamedTuple):
    """The codes around the voxels of a slab.

    Attributes:
        codes_XYZ: The lowest code around each voxel.
        places_M: Voxels of the slab around which there are several codes, as positions in the flattened slab.
        codes_M8: The codes around each of these.
        votes_M8: Their weights in a linear interpolation; the sum is 1.
    """

    codes_XYZ: Array
    places_M: Array
    codes_M8: Array
    votes_M8: Array


def _slabs(label_codes_XYZ: Array, shape: Sequence[int]) -> Iterator[tuple[slice, _Nearby]]:
    axes = [_neighbours(old, new) for old, new in zip(label_codes_XYZ.shape, shape, strict=True)]
    planes = max(1, _SLAB // (shape[1] * shape[2]))
    for start in range(0, shape[0], planes):
        slab = slice(start, min(start + planes, shape[0]))
        lowest = highest = label_codes_XYZ
        for axis, ((below, _), (above, _)) in enumerate(axes):
            chosen = slab if axis == 0 else slice(None)
            lowest = np.minimum(lowest.take(below[chosen], axis), lowest.take(above[chosen], axis))
            highest = np.maximum(highest.take(below[chosen], axis), highest.take(above[chosen], axis))
        places_M = np.flatnonzero(lowest != highest)
        at_x, at_y, at_z = np.unravel_index(places_M, lowest.shape)
        codes_M8 = np.empty((len(places_M), 8), label_codes_XYZ.dtype)
        votes_M8 = np.empty((len(places_M), 8), np.float32)
        corners = ((x, y, z) for x in axes[0] for y in axes[1] for z in axes[2])
        for corner, ((own_x, weight_x), (own_y, weight_y), (own_z, weight_z)) in enumerate(corners):
            codes_M8[:, corner] = label_codes_XYZ[own_x[slab][at_x], own_y[at_y], own_z[at_z]]
            votes_M8[:, corner] = weight_x[slab][at_x] * weight_y[at_y] * weight_z[at_z]
        yield slab, _Nearby(lowest, places_M, codes_M8, votes_M8)


def _neighbours(old: int, new: int) -> list[tuple[Array, Array]]:
    """Return the two old voxels around each new one, along one axis, with their weights."""
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    below = place.astype(np.intp)
    weight = (place - below).astype(np.float32)
    return [(below, 1 - weight), (np.minimum(below + 1, old - 1), weight)]


def _agreement(class_table: Array | None, num_codes: int) -> Array:
    """Return the share of classes on which two codes agree, (N, N); where classes exclude each other, 0 or 1."""
    if class_table is None:
        return np.eye(num_codes, dtype=np.float32)
    has = class_table.astype(np.float32)
    return np.asarray((has @ has.T + (1 - has) @ (1 - has).T) / has.shape[1])


def _weights(label_codes_XYZ: Array, counts_N: Array, shape: Sequence[int]) -> Array:
    """Return how much a vote for each code counts, such that none loses much volume; 1 for the commonest code."""
    num_codes, half = len(counts_N), _BINS // 2
    reached_NB = np.zeros((num_codes, half + 1), np.int64)  # voxels with at least so many votes
    for _, nearby in _slabs(label_codes_XYZ, shape):
        certain_N = np.bincount(nearby.codes_XYZ.reshape(-1), minlength=num_codes)
        certain_N -= np.bincount(nearby.codes_XYZ.reshape(-1)[nearby.places_M], minlength=num_codes)
        reached_NB[:, half] += certain_N
        for one in range(8):
            same_M8 = nearby.codes_M8 == nearby.codes_M8[:, one, None]
            votes = (nearby.votes_M8 * same_M8).sum(axis=1)
            counted = ~same_M8[:, :one].any(axis=1)
            place = np.minimum(np.rint(votes[counted] * _BINS), half).astype(np.int64)
            place += nearby.codes_M8[counted, one].astype(np.int64) * (half + 1)
            reached_NB += np.bincount(place, minlength=reached_NB.size).reshape(reached_NB.shape)
    reached_NB = reached_NB[:, ::-1].cumsum(axis=1)[:, ::-1]
    wanted_N = counts_N * (np.prod([float(n) for n in shape]) / label_codes_XYZ.size)
    enough_NB = np.abs(reached_NB[:, _FEWEST:] - wanted_N[:, None])
    fewest_N = half - enough_NB[:, ::-1].argmin(axis=1)
    fewest_N[reached_NB[:, half] >= _ENOUGH * wanted_N] = half
    fewest_N[counts_N.argmax()] = half
    share_N = np.where(fewest_N < half, (fewest_N - 0.5) / _BINS, 0.5)
    return ((1 - share_N) / share_N).astype(np.float32)
