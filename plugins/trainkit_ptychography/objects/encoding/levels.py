"""The levels of a multiresolution hash encoding: how fine each grid is, and how many entries its table has.

Plain Python, so that settings can be checked before torch is there. The numbers are those of tiny-cuda-nn, which works
them out in single precision: at some scales one unit in the last place decides how many vertices a level has. Rows are
those of its version 2.0 (2025); before, the coordinates of tiled grids that no longer fitted into the table did not
count, and those of very fine grids overflowed.

Source: Müller, Evans, Schied, Keller, ACM Trans. Graph. 41 (2022) 102, section 3; tiny-cuda-nn's grid encoding.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Literal, NamedTuple

from trainkit import bytes_in_words

Kind = Literal["hash", "dense", "tiled"]

_MOST_ENTRIES = 2**31 - 1
_WORD = 2**32
_BYTES_PER_FEATURE = 4 * 4  # value, gradient and Adam's two moments, in single precision


class Level(NamedTuple):
    """One grid of the encoding.

    Attributes:
        scale: Cells along a side of the unit cube.
        resolution: Vertices along a side.
        entries: Rows of its table.
        strides: What a vertex' whole-numbered coordinates are multiplied with to give its row. Empty where its number
            would not fit into 32 bits: a grid that is not hashed then has all vertices in row 0.
        hashed: Whether the row is a hash of the coordinates instead. Rows are taken modulo the entries in any case.
    """

    scale: float
    resolution: int
    entries: int
    strides: tuple[int, ...]
    hashed: bool


def levels(
    num: int,
    base_resolution: int,
    per_level_scale: float,
    log2_hashmap_size: int,
    dimensions: int = 2,
    kind: Kind = "hash",
) -> tuple[Level, ...]:
    """Return the levels, from the coarsest to the finest.

    Args:
        num: How many, at least 1.
        base_resolution: Vertices along a side of the coarsest.
        per_level_scale: How much finer each is than the one before, above 0.
        log2_hashmap_size: Binary logarithm of the most entries of a hashed level.
        dimensions: Of the space.
        kind: "hash": levels with more vertices than entries are hashed. "dense": every vertex has an entry of its own.
            "tiled": as many entries as the coarsest level has vertices, repeated.

    Raises:
        ValueError: A number is out of its range.
    """
    if num < 1 or base_resolution < 1 or dimensions < 1 or not 0 < per_level_scale < math.inf:
        raise ValueError(
            "num, base_resolution and dimensions must be at least 1 and per_level_scale a positive number, got "
            f"{num}, {base_resolution}, {dimensions}, {per_level_scale}"
        )
    return tuple(
        _level(_scale(number, base_resolution, per_level_scale), base_resolution, log2_hashmap_size, dimensions, kind)
        for number in range(num)
    )


def scale_that_ends_at(num_vertices: int, num: int, base_resolution: int) -> float:
    """Return the ``per_level_scale`` at which the finest of ``num`` levels has so many vertices along a side.

    It ends half a cell before them: cells are rounded up to vertices, which must not hang on a scale's last bit.

    Args:
        num_vertices: More than ``base_resolution``.
        num: How many levels there are.
        base_resolution: Vertices along a side of the coarsest.

    Example:
        >>> [level.resolution for level in levels(3, 16, scale_that_ends_at(100, 3, 16), log2_hashmap_size=15)]
        [16, 40, 100]
    """
    return math.exp(math.log((num_vertices - 0.5) / base_resolution) / max(num - 1, 1))


def _scale(number: int, base_resolution: int, per_level_scale: float) -> float:
    exponent = _single(number * _single(math.log2(_single(per_level_scale))))
    return _single(_single(_single(2.0**exponent) * base_resolution) - 1.0)


def _level(scale: float, base_resolution: int, log2_hashmap_size: int, dimensions: int, kind: Kind) -> Level:
    resolution = math.ceil(scale) + 1
    entries = -(-min(resolution**dimensions, _MOST_ENTRIES) // 8) * 8
    if kind == "hash":
        entries = min(entries, 2**log2_hashmap_size)
    elif kind == "tiled":
        entries = min(entries, base_resolution**dimensions)
    vertices = resolution**dimensions
    strides = tuple(resolution**axis for axis in range(dimensions)) if vertices < _WORD else ()
    return Level(scale, resolution, entries, strides, kind == "hash" and entries < vertices)


def _single(value: float) -> float:
    """Return a number rounded to single precision."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def memory_needed(grids: Iterable[Level], num_features: int) -> int:
    """Return the bytes that the tables take while they are trained."""
    return sum(grid.entries for grid in grids) * num_features * _BYTES_PER_FEATURE


def too_large(needed: int, free: int, where: str) -> str:
    """Return, for a person, that the tables do not fit."""
    return (
        f"tables, their gradients and Adam's moments take {bytes_in_words(needed)}, and {bytes_in_words(free)} are "
        "free "
        f"{where}; lower log2_hashmap_size, levels or features"
    )
