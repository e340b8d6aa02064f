"""Targets of overlapping classes by comparison have the bits of those that are looked up."""

from __future__ import annotations

import pytest
import torch

from trainkit_segmentation.cases.labels import target
from trainkit_segmentation.patches.regions import overlapping_target

BRATS = [[0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]]  # whole 1 to 3, core 1 and 3, enhancing 3
SCATTERED = [[0, 0], [1, 0], [0, 1], [1, 0], [0, 0], [1, 1], [0, 0], [1, 0], [0, 1]]  # of too many ranges to compare


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
@pytest.mark.parametrize("table", [BRATS, SCATTERED, [[0], [0]], [[0, 1], [1, 1]]])
def test_a_target_by_comparison_is_the_one_that_is_looked_up(table: list[list[int]], dtype: torch.dtype) -> None:
    class_table = torch.tensor(table, dtype=torch.uint8)
    num = class_table.shape[1]
    codes = torch.randint(0, len(table), (5, 6, 7), generator=torch.Generator().manual_seed(1)).to(dtype)
    found = overlapping_target(codes, class_table, torch.full((num, 5, 6, 7), 9.0))
    assert torch.equal(found, target(codes, class_table, num))
    wider = torch.cat([class_table, class_table], dim=1)  # a column beyond the classes, for ignored voxels
    assert torch.equal(overlapping_target(codes, wider, torch.full((num, 5, 6, 7), 9.0)), found)


def test_a_code_that_the_table_does_not_have_is_refused_as_before() -> None:
    codes = torch.full((2, 2, 2), 4, dtype=torch.uint8)
    with pytest.raises((IndexError, RuntimeError)):
        overlapping_target(codes, torch.tensor(BRATS, dtype=torch.uint8), torch.empty(3, 2, 2, 2))
