"""Patches of arrays, by windows and by places, held against slices in numpy."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from trainkit_ptychography.physics.patches import PatchesByPlace, PatchesByWindow, crop, patches_at, places

CORNERS = torch.tensor([[0, 0], [1, 2], [3, 4], [1, 2]])  # two are the same, and all overlap
SHAPE = (4, 3)
FINDERS = {
    "windows": patches_at(CORNERS, SHAPE, 7),
    "places": partial(PatchesByPlace, places_BYX=places(CORNERS, SHAPE, 7)),
}


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(*shape, 2)) @ [1, 1j])


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("leading", [(), (2, 3)])
def test_patches_are_cut_out_and_added_to_where_their_corners_are(finder, leading):
    array, values = numbers(*leading, 8, 7), numbers(*leading, 4, *SHAPE, seed=1)
    expected = array.numpy().copy()
    cut = [expected[..., row : row + 4, column : column + 3].copy() for row, column in CORNERS.tolist()]
    patches = FINDERS[finder](array)
    np.testing.assert_array_equal(patches.cut().numpy(), np.stack(cut, axis=-3))
    patches.add(values)
    for number, (row, column) in enumerate(CORNERS.tolist()):
        expected[..., row : row + 4, column : column + 3] += values.numpy()[..., number, :, :]
    np.testing.assert_allclose(array.numpy(), expected, rtol=0, atol=1e-14)
    array.zero_()
    assert not patches.cut().any()  # they show the array as it is now


def test_on_a_cpu_patches_are_windows():
    assert isinstance(FINDERS["windows"](numbers(8, 7)), PatchesByWindow)


def test_the_same_patch_is_added_at_each_corner():
    array, patch = torch.zeros(8, 7, dtype=torch.complex128), numbers(*SHAPE)
    FINDERS["windows"](array).add(patch.expand(4, -1, -1))
    light = torch.zeros(8, 7, dtype=torch.complex128)
    FINDERS["places"](light).add(torch.stack([patch] * 4))
    torch.testing.assert_close(array, light)


def test_the_gradient_of_a_crop_is_that_of_slicing():
    array = numbers(2, 8, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda array: crop(array, CORNERS, SHAPE), array)


@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (5, 0), (0, 7)])
def test_a_patch_that_leaves_the_array_is_refused_and_not_read_from_the_next_row(corner):
    corner_B2 = torch.tensor([(0, 0), corner])
    with pytest.raises(IndexError, match="leave an array"):
        crop(torch.zeros(8, 10), corner_B2, (4, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("size", [16, 200])
def test_patches_are_added_in_the_same_order_in_any_number_of_threads(dtype, size):
    generator = torch.Generator().manual_seed(0)
    corner_B2 = torch.randint(
        0, 5, (12, 2), generator=generator
    )  # all overlap, so that the order shows in the last bits
    values = torch.randn(12, size, size, dtype=dtype, generator=generator)
    expected, threads = torch.zeros(size + 4, size + 4, dtype=dtype), torch.get_num_threads()
    for (row, column), patch in zip(corner_B2.tolist(), values, strict=True):
        expected[row : row + size, column : column + size] += patch
    try:
        for number in (1, 4):
            torch.set_num_threads(number)
            array = torch.zeros_like(expected)
            patches_at(corner_B2, (size, size), size + 4)(array).add(values)
            assert torch.equal(array, expected)
    finally:
        torch.set_num_threads(threads)


def test_patches_of_an_array_whose_rows_do_not_lie_one_behind_the_other():
    whole = numbers(3, 10, 9)
    for array in (whole[:, 1:9, 1:8], whole.transpose(-1, -2)[:, :8, :7]):
        cut = patches_at(CORNERS, SHAPE, array.shape[-1])(array).cut()
        rows = [array[..., row : row + 4, column : column + 3] for row, column in CORNERS.tolist()]
        assert torch.equal(cut, torch.stack(rows, -3))
