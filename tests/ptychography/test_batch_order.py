"""Which points a step sees together."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainkit import Context
from trainkit_ptychography.scans.batch_order import BatchOrder, arrange
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

ORDERS: tuple[BatchOrder, ...] = ("random", "compact", "sparse")
SMALL = SimulatedDiffraction(scan_shape=(12, 10), detector_size=24, batch_size=8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    order=st.sampled_from(ORDERS),
    points=st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=1, max_size=60),
    data=st.data(),
)
def test_each_point_is_in_one_batch_and_batches_differ_in_size_by_at_most_one(order, points, data):
    num = data.draw(st.integers(1, len(points)))
    batches = arrange(order, torch.tensor(points, dtype=torch.float64), num, seeded())
    assert len(batches) == num
    assert sorted(chain(*(batch.tolist() for batch in batches))) == list(range(len(points)))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1


def spread(order: BatchOrder, positions: torch.Tensor, num: int) -> tuple[float, float]:
    """Return the mean distance of a point to the nearest and to the farthest of its batch."""
    shuffled = positions[torch.randperm(len(positions), generator=seeded(1))]
    nearest, farthest = [], []
    for batch in arrange(order, shuffled, num, seeded()):
        distances = torch.cdist(shuffled[batch], shuffled[batch])
        farthest.append(float(distances.max(1).values.mean()))
        nearest.append(float((distances + 1e9 * torch.eye(len(batch))).min(1).values.mean()))
    return float(np.mean(nearest)), float(np.mean(farthest))


def test_compact_batches_hold_neighbours_and_sparse_ones_keep_their_distance():
    grid = torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij"), -1).reshape(-1, 2)
    nearest, farthest = zip(*(spread(order, grid.double(), 32) for order in ORDERS), strict=True)
    random, compact, sparse = 0, 1, 2
    # 32 points of a square raster with step 1: a compact cell is about 4 × 8, a lattice of them has a step of 5.7.
    assert farthest[compact] < 9 < farthest[random]
    assert nearest[compact] < 1.2
    assert nearest[sparse] > 1.15 * nearest[random] > 2.5


@pytest.mark.parametrize("order", ["compact", "sparse"])
def test_batches_differ_from_epoch_to_epoch_and_can_begin_anywhere(order):
    def live() -> object:
        settings = attrs.evolve(SMALL, batches=order, validation_fraction=0.1)
        return settings.build(Context(0, torch.device("cpu"), Path()))

    def indices(data, epoch: int, start: int) -> list[list[int]]:
        return [batch["index"].tolist() for batch in data.train(epoch, start)]

    data = live()
    epoch = indices(data, 3, 0)
    torch.manual_seed(99)
    assert indices(live(), 3, 5) == epoch[5:]
    assert len(epoch) == data.batches_per_epoch
    assert sorted(chain(*epoch)) == data.train_index.tolist()
    other = indices(data, 4, 0)
    assert {frozenset(batch) for batch in other} != {frozenset(batch) for batch in epoch}
