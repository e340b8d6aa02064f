"""Multiresolution hash encoding: trainable features at the vertices of ever finer grids, interpolated in between.

There are two forms of the same function. `encode` takes any positions. `encode_grid` takes all points of a rectangular
grid: it gathers each vertex only once, and interpolates along one axis after the other, as products with narrow
matrices; gradients of an entry are added up in a fixed order, so they are the same bits each time.

The order of axes is tiny-cuda-nn's: the first coordinate of a position is the one whose vertices are neighbours in the
table. Positions are in the unit cube; the tables and their gradients are in tiny-cuda-nn's layout.

Shapes: N = positions, D = dimensions, E = entries of a level, F = features of an entry, L = levels, V = vertices that
are touched, along one axis or in all.

Source: Müller, Evans, Schied, Keller, ACM Trans. Graph. 41 (2022) 102.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from trainkit_ptychography.objects.encoding.levels import Level

Interpolation = Literal["nearest", "linear", "smoothstep"]

_PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737)
_WORD = 0xFFFFFFFF
_BAND = 128  # points of an axis that are interpolated by one matrix product


def entry(vertex: Sequence[Tensor], level: Level) -> Tensor:
    """Return the row of a level's table that belongs to a vertex.

    Args:
        vertex: Its integer coordinates: one int64 tensor for each dimension, all of the same shape.
        level: The level.
    """
    row = torch.zeros_like(vertex[0])
    if level.hashed:
        for along, prime in zip(vertex, _PRIMES, strict=False):
            row = row ^ (along * prime & _WORD)
    else:
        for along, stride in zip(vertex, level.strides, strict=False):
            row = row + along * stride
    return (row & _WORD) % level.entries


def cell(along: Tensor, level: Level, interpolation: Interpolation, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return, for coordinates along one axis, the vertex below (int64) and the weight of the vertex above.

    Args:
        along: Coordinates, 0 … 1 across the unit cube; any shape.
        level: The level.
        interpolation: "nearest" takes the vertex below alone.
        dtype: Dtype of the weight.
    """
    # Half a cell off, so that the vertices of different levels do not coincide. In float64 this is what a fused
    # multiplication and addition in float32 gives, but for the last rounding.
    place = (level.scale * along.double() + 0.5).to(dtype)
    below = place.detach().floor()
    weight = place - below
    if interpolation == "nearest":
        weight = torch.zeros_like(weight)
    elif interpolation == "smoothstep":
        weight = weight * weight * (3 - 2 * weight)
    return below.long(), weight


def encode(
    positions_ND: Tensor, tables: Sequence[Tensor], levels: Sequence[Level], interpolation: Interpolation = "linear"
) -> Tensor:
    """Return the features at any positions, differentiable in tables and positions.

    Args:
        positions_ND: 0 … 1.
        tables: For each level (E, F).
        levels: The levels, of D dimensions.
        interpolation: How to get from vertices to positions.

    Returns:
        (N, L·F), all features of the coarsest level first.
    """
    found = []
    for table_EF, level in zip(tables, levels, strict=True):
        cells = [cell(along_N, level, interpolation, table_EF.dtype) for along_N in positions_ND.unbind(1)]
        features_NF = torch.zeros((), dtype=table_EF.dtype, device=table_EF.device)
        for corner in product((0, 1), repeat=len(cells)) if interpolation != "nearest" else [(0,) * len(cells)]:
            weight_N = torch.ones((), dtype=table_EF.dtype, device=table_EF.device)
            for up, (_, above_N) in zip(corner, cells, strict=True):
                weight_N = weight_N * (above_N if up else 1 - above_N)
            row_N = entry([below_N + up for up, (below_N, _) in zip(corner, cells, strict=True)], level)
            features_NF = features_NF + weight_N[..., None] * table_EF.index_select(0, row_N)
        found.append(features_NF)
    return torch.cat(found, dim=1)


class Band(NamedTuple):
    """Neighbouring points of an axis, and the touched vertices that they lie between.

    Attributes:
        points: Which points of the axis.
        vertices: Which of the vertices that the axis touches.
        weights: (points, vertices): the weight of each vertex at each point.
    """

    points: slice
    vertices: slice
    weights: Tensor


class GridLevel(NamedTuple):
    """How one level is evaluated at all points of a grid. Axes are in the order of `encode_grid`'s result.

    Attributes:
        shape: Touched vertices along each axis.
        rows_V: The table's row for each touched vertex.
        by_row_V: The touched vertices, sorted by row.
        bounds: (E + 1): where each row's vertices begin in ``by_row_V``.
        axes: The bands of each axis.
    """

    shape: tuple[int, ...]
    rows_V: Tensor
    by_row_V: Tensor
    bounds: Tensor
    axes: tuple[tuple[Band, ...], ...]


def plan_grid(
    axes: Sequence[Tensor],
    level: Level,
    interpolation: Interpolation,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> GridLevel:
    """Plan once how a level is evaluated on a grid.

    Args:
        axes: Coordinates (0 … 1, increasing) of the grid's points along each axis, slowest first: for a picture rows,
            then columns. So the last axis is the first dimension of `encode`'s positions.
        level: The level.
        interpolation: How to get from vertices to points.
        dtype: Dtype of the tables.
        device: Device of the plan, and of what is computed with it.
    """
    vertices, bands = [], []
    for along in axes:
        below, weight = cell(along.cpu(), level, interpolation, dtype)
        above = below if interpolation == "nearest" else below + 1
        touched = torch.cat((below, above)).unique()  # type: ignore[no-untyped-call]
        vertices.append(touched)
        bands.append(_bands(torch.searchsorted(touched, below), torch.searchsorted(touched, above), weight, device))
    spread = torch.meshgrid(*vertices, indexing="ij")
    rows_V = entry(spread[::-1], level).flatten()
    counts_E = torch.bincount(rows_V, minlength=level.entries)
    bounds = torch.cat((counts_E.new_zeros(1), counts_E.cumsum(0)))
    return GridLevel(
        tuple(len(each) for each in vertices),
        rows_V.to(device),
        rows_V.argsort(stable=True).to(device),
        bounds.to(device),
        tuple(bands),
    )


def _bands(below: Tensor, above: Tensor, weight: Tensor, device: torch.device | str) -> tuple[Band, ...]:
    found = []
    for start in range(0, len(below), _BAND):
        points = slice(start, min(start + _BAND, len(below)))
        vertices = slice(int(below[points.start]), int(above[points.stop - 1]) + 1)
        weights = torch.zeros(points.stop - points.start, vertices.stop - vertices.start, dtype=weight.dtype)
        place = torch.arange(len(weights))
        weights[place, below[points] - vertices.start] += 1 - weight[points]
        weights[place, above[points] - vertices.start] += weight[points]
        found.append(Band(points, vertices, weights.to(device)))
    return tuple(found)


def encode_grid(tables: Sequence[Tensor], plans: Sequence[GridLevel]) -> Tensor:
    """Return the features at all points of a grid, differentiable in the tables.

    Args:
        tables: For each level (E, F).
        plans: The plan of each level, by `plan_grid`.

    Returns:
        (L·F, *grid), all features of the coarsest level first.
    """
    result: Tensor = _EncodeGrid.apply(tuple(plans), *tables)  # type: ignore[no-untyped-call]
    return result


class _EncodeGrid(torch.autograd.Function):
    """`encode_grid` with its adjoint: the transposed products, in reverse, and a sum over the vertices of each row."""

    @staticmethod
    def forward(ctx: Any, plans: tuple[GridLevel, ...], *tables: Tensor) -> Tensor:
        ctx.plans = plans
        num = tables[0].shape[1]
        shape = [bands[-1].points.stop for bands in plans[0].axes]
        features = tables[0].new_empty(len(plans) * num, *shape)
        for number, (table_EF, plan) in enumerate(zip(tables, plans, strict=True)):
            values = table_EF.T.contiguous().index_select(1, plan.rows_V).reshape(num, *plan.shape)
            for axis in reversed(range(len(shape))):
                out = features[number * num : (number + 1) * num] if axis == 0 else None
                values = _along(values, plan.axes[axis], axis + 1, shape[axis], out)
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        num = len(gradients[0]) // len(ctx.plans)
        found: list[Tensor | None] = [None]
        for number, plan in enumerate(ctx.plans):
            if not ctx.needs_input_grad[number + 1]:
                found.append(None)
                continue
            values = gradients[0][number * num : (number + 1) * num]
            for axis, bands in enumerate(plan.axes):
                values = _back_along(values, bands, axis + 1, plan.shape[axis])
            sorted_FV = values.reshape(num, -1).index_select(1, plan.by_row_V)
            sums = [torch.segment_reduce(each_V, "sum", offsets=plan.bounds, initial=0) for each_V in sorted_FV]
            found.append(torch.stack(sums, dim=1))
        return tuple(found)


def _along(values: Tensor, bands: Sequence[Band], axis: int, length: int, out: Tensor | None) -> Tensor:
    """Return the values at the points of one axis, interpolated between vertices."""
    if out is None:
        out = values.new_empty(*values.shape[:axis], length, *values.shape[axis + 1 :])
    source, target = _three(values, axis), _three(out, axis)
    for points, vertices, weights in bands:
        if source.shape[2] == 1:
            torch.mm(source[:, vertices, 0], weights.T, out=target[:, points, 0])
        else:
            for each_VB, out_NB in zip(source[:, vertices], target[:, points], strict=True):
                torch.mm(weights, each_VB, out=out_NB)
    return out


def _back_along(values: Tensor, bands: Sequence[Band], axis: int, length: int) -> Tensor:
    """Apply the adjoint of `_along`: from the points of one axis back to its vertices."""
    result = values.new_zeros(*values.shape[:axis], length, *values.shape[axis + 1 :])
    source, target = _three(values, axis), _three(result, axis)
    for points, vertices, weights in bands:
        if source.shape[2] == 1:
            target[:, vertices, 0].addmm_(source[:, points, 0], weights)
        else:
            for each_NB, out_VB in zip(source[:, points], target[:, vertices], strict=True):
                out_VB.addmm_(weights.T, each_NB)
    return result


def _three(values: Tensor, axis: int) -> Tensor:
    """Return an array with the axes before and after one axis flattened."""
    before = values.shape[:axis].numel()
    return values.reshape(before, values.shape[axis], -1)
