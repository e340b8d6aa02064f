"""The encoding is tiny-cuda-nn's: held against the rules written out as loops, and its two forms against each other."""

from __future__ import annotations

import math
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit_ptychography.objects.encoding.hash_grid import encode, encode_grid, plan_grid
from trainkit_ptychography.objects.encoding.levels import Level, levels
from trainkit_ptychography.objects.encoding.pointwise_network import pointwise_network

INTERPOLATIONS = ("nearest", "linear", "smoothstep")


# ---- the rules, one vertex at a time --------------------------------------------------------------------------------


def by_loops(
    positions: np.ndarray, tables: list[np.ndarray], base: int, scale: float, log2_size: int, kind: str, how: str
) -> np.ndarray:
    """Encode with nothing but numpy scalars, by the rules of tiny-cuda-nn."""
    real = tables[0].dtype.type
    dimensions = positions.shape[1]
    out = np.zeros((len(positions), len(tables) * tables[0].shape[1]))
    for number, table in enumerate(tables):
        exponent = np.float32(number) * np.float32(np.log2(float(np.float32(scale))))
        cells = np.float32(np.float32(2.0 ** float(exponent)) * np.float32(base)) - np.float32(1)
        side = int(np.ceil(cells)) + 1
        size = (min(side**dimensions, 2**31 - 1) + 7) // 8 * 8
        if kind == "hash":
            size = min(size, 2**log2_size)
        if kind == "tiled":
            size = min(size, base**dimensions)
        assert len(table) == size
        for place, position in enumerate(positions):
            at = [real(float(cells) * float(x) + 0.5) for x in position]
            low = [math.floor(x) for x in at]
            rest = [x - real(floor) for x, floor in zip(at, low, strict=True)]
            if how == "smoothstep":
                rest = [x * x * (3 - 2 * x) for x in rest]
            for corner in product((0, 1), repeat=dimensions):
                if how == "nearest":
                    weight = float(not any(corner))
                else:
                    weight = math.prod(float(x if up else 1 - x) for x, up in zip(rest, corner, strict=True))
                row = row_of([p + up for p, up in zip(low, corner, strict=True)], side, size, kind)
                for feature in range(table.shape[1]):
                    out[place, number * table.shape[1] + feature] += weight * float(table[row, feature])
    return out


def row_of(vertex: list[int], side: int, size: int, kind: str) -> int:
    stride, row = 1, 0
    if side <= {2: 65535, 3: 1625}[len(vertex)]:  # the most whose square or cube fits into 32 bits
        for p in vertex:
            row += p * stride
            stride *= side
    else:
        stride = 2**32 - 1
    if kind == "hash" and size < stride:
        row = 0
        for p, prime in zip(vertex, (1, 2654435761, 805459861), strict=False):
            row ^= (p * prime) % 2**32
    return row % 2**32 % size


def filled(grids: tuple[Level, ...], features: int, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = (torch.rand(g.entries, features, generator=generator, dtype=torch.float64) * 2 - 1 for g in grids)
    return [table.to(dtype) for table in made]


ENCODINGS = st.fixed_dictionaries(
    {
        "dimensions": st.sampled_from((2, 3)),
        "num": st.integers(1, 6),
        "base_resolution": st.integers(2, 12),
        "per_level_scale": st.sampled_from((1.26, 1.5, 2.0)) | st.floats(1.01, 2.5),
        "log2_hashmap_size": st.integers(3, 11),
        "kind": st.sampled_from(("hash", "tiled")),
    }
)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@settings(max_examples=40)
@given(
    encoding=ENCODINGS,
    features=st.sampled_from((1, 2, 4)),
    how=st.sampled_from(INTERPOLATIONS),
    seed=st.integers(0, 99),
)
def test_any_position_is_encoded_as_by_the_rules(
    dtype: torch.dtype, within: float, encoding: dict[str, Any], features: int, how: Any, seed: int
) -> None:
    grids = levels(**encoding)
    tables = filled(grids, features, dtype, seed)
    positions = np.random.default_rng(seed).random((9, encoding["dimensions"]), dtype=np.float32)
    positions[0], positions[1] = 0.0, 1.0
    base, scale, size = (encoding[key] for key in ("base_resolution", "per_level_scale", "log2_hashmap_size"))
    loops = by_loops(positions, [table.numpy() for table in tables], base, scale, size, encoding["kind"], how)
    np.testing.assert_allclose(encode(torch.from_numpy(positions), tables, grids, how), loops, rtol=0, atol=within)


@settings(max_examples=20)
@given(base=st.integers(2, 9), scale=st.floats(1.05, 2.0), how=st.sampled_from(INTERPOLATIONS))
def test_so_are_grids_that_are_never_hashed(base: int, scale: float, how: Any) -> None:
    grids = levels(3, base, scale, 4, kind="dense")
    tables = filled(grids, 2, torch.float64, base)
    positions = np.random.default_rng(base).random((9, 2), dtype=np.float32)
    loops = by_loops(positions, [table.numpy() for table in tables], base, scale, 4, "dense", how)
    np.testing.assert_allclose(encode(torch.from_numpy(positions), tables, grids, how), loops, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1.26, 1.3819, 1.5, 2.0])
def test_a_level_is_as_fine_as_single_precision_has_it(scale: float) -> None:
    for number, level in enumerate(levels(16, 16, scale, 15)):
        exponent = np.float32(number) * np.float32(np.log2(float(np.float32(scale))))
        power = np.float32(2.0 ** float(exponent))
        assert level.scale == power * np.float32(16) - np.float32(1)
    if scale == 2.0:  # whole numbers: a unit in the last place more, and there would be one vertex more
        assert [level.resolution for level in levels(12, 16, 2.0, 15)] == [16 * 2**number for number in range(12)]


# dimensions, kind, interpolation, features, base, scale, log2 of table, levels -> what the last level gives at three
# positions, the sum of what all give, and the gradient of that sum times given weights. Worked out by the kernels of
# tiny-cuda-nn 2.0 itself, compiled for a CPU.
BY_ITS_OWN_KERNELS = {
    (2, "hash", "linear", 2, 4, 1.5, 5, 3): (
        [-0.165386, 0.152408, 0.240646, -0.14132, -0.115908, -0.083714],
        -0.49375,
        8.49752,
    ),
    (2, "hash", "smoothstep", 1, 16, 2.0, 6, 13): ([0.035091, 0.07559, 0.042421], 0.24919, 19.62961),
    (2, "dense", "nearest", 1, 5, 1.26, 3, 3): ([0.080486, -0.099854, 0.483739], 1.21707, 5.713),
    (3, "tiled", "linear", 1, 3, 2.0, 3, 4): ([0.095279, 0.233143, -0.058376], 0.45172, 6.44696),
    (3, "hash", "smoothstep", 2, 16, 2.0, 4, 8): (
        [-0.240835, 0.033589, -0.115257, 0.041464, -0.160162, 0.157151],
        -0.88338,
        23.07264,
    ),
}


@pytest.mark.parametrize("setting", BY_ITS_OWN_KERNELS, ids=lambda each: "-".join(map(str, each)))
def test_it_gives_what_tiny_cuda_nns_own_kernels_give(setting: Any) -> None:
    dimensions, kind, how, features, base, scale, log2_size, num = setting
    last, total, weighted = BY_ITS_OWN_KERNELS[setting]
    grids = levels(num, base, scale, log2_size, dimensions, kind)
    number = np.arange(sum(grid.entries for grid in grids) * features)
    flat = torch.from_numpy((number * 2654435761 % 2**32 / 2**32 - 0.5).astype(np.float32)).requires_grad_()
    tables = [part.view(-1, features) for part in flat.split([grid.entries * features for grid in grids])]
    steps = (0.618, 0.755, 0.570)[:dimensions]
    positions = torch.tensor([[(place + 1) * step % 1 for step in steps] for place in range(3)])
    found = encode(positions, tables, grids, how)
    np.testing.assert_allclose(found[:, -features:].flatten().detach(), last, rtol=0, atol=2e-6)
    assert found.sum().item() == pytest.approx(total, abs=2e-5)
    (gradient,) = torch.autograd.grad(found.sum(), flat)
    assert float(gradient.double() @ torch.from_numpy(number * 40503 % 65536 / 65536)) == pytest.approx(
        weighted, abs=5e-5
    )


def test_levels_refuse_numbers_that_make_none() -> None:
    for wrong in ((0, 16, 1.5), (4, 0, 1.5), (4, 16, 0.0), (4, 16, math.inf)):
        with pytest.raises(ValueError, match="at least 1"):
            levels(*wrong, log2_hashmap_size=15)


# ---- the form for grids ---------------------------------------------------------------------------------------------


def on_a_grid(shape: tuple[int, ...], encoding: dict[str, Any], how: Any, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """Return plans, positions of `encode` for the same points, and levels."""
    grids = levels(**encoding)
    axes = [(torch.arange(n) + 0.5).double() / max(shape) for n in shape]
    positions = torch.stack([each.flatten() for each in torch.meshgrid(*axes, indexing="ij")][::-1], dim=1)
    return [plan_grid(axes, level, how, dtype) for level in grids], positions, grids


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@settings(max_examples=25)
@given(
    encoding=ENCODINGS,
    shape=st.tuples(st.integers(1, 90), st.integers(1, 20), st.integers(1, 9)),
    how=st.sampled_from(INTERPOLATIONS),
)
def test_the_form_for_grids_gives_the_same_and_the_same_gradients(
    dtype: torch.dtype, within: float, encoding: dict[str, Any], shape: tuple[int, ...], how: Any
) -> None:
    shape = shape[: encoding["dimensions"]]
    plans, positions, grids = on_a_grid(shape, encoding, how, dtype)
    tables = [table.requires_grad_() for table in filled(grids, 2, dtype, 0)]
    direct, separable = encode(positions, tables, grids, how), encode_grid(tables, plans)
    assert separable.shape == (2 * len(grids), *shape)
    torch.testing.assert_close(separable.flatten(1).T, direct, rtol=0, atol=within)
    back = torch.rand(direct.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    for one, other in zip(
        torch.autograd.grad(direct, tables, back),
        torch.autograd.grad(separable, tables, back.T.reshape(separable.shape)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=10 * within, atol=10 * within)


@pytest.mark.slow
@pytest.mark.parametrize("how", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 3)])
def test_gradients_are_those_of_finite_differences(how: Any, shape: tuple[int, ...]) -> None:
    encoding = {
        "dimensions": len(shape),
        "num": 2,
        "base_resolution": 3,
        "per_level_scale": 1.6,
        "log2_hashmap_size": 3,
    }
    plans, positions, grids = on_a_grid(shape, encoding, how, torch.float64)
    tables = [table.requires_grad_() for table in filled(grids, 2, torch.float64, 0)]
    assert torch.autograd.gradcheck(lambda *tables: encode_grid(tables, plans), tables)
    positions.requires_grad_()
    if how != "nearest":  # whose gradient with respect to positions is zero, but at jumps
        positions.data += 0.01 * torch.rand(positions.shape, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda p, *tables: encode(p, tables, grids, how), (positions, *tables))


def test_gradients_have_the_same_bits_each_time() -> None:
    encoding = {"num": 8, "base_resolution": 8, "per_level_scale": 1.5, "log2_hashmap_size": 8}
    plans, _, grids = on_a_grid((130, 140), encoding, "linear", torch.float32)
    tables = [table.requires_grad_() for table in filled(grids, 2, torch.float32, 0)]
    back = torch.rand(16, 130, 140, generator=torch.Generator().manual_seed(1))
    found = [torch.autograd.grad(encode_grid(tables, plans), tables, back) for _ in range(3)]
    for again in found[1:]:
        for one, other in zip(found[0], again, strict=True):
            assert torch.equal(one, other)


# ---- the network after it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(4, 2), (4, 7, 1), (4, 6, 5, 2)])
def test_the_network_is_its_layers_one_after_another_for_more_points_than_a_block(widths: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return (torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5).requires_grad_()

    layers = [torch.nn.Linear(into, out, dtype=torch.float64) for into, out in pairwise(widths)]
    weights, biases = [layer.weight for layer in layers], [layer.bias[:, None] for layer in layers]
    stack = [part for layer in layers for part in (layer, torch.nn.ReLU())][:-1]
    values, back = drawn(widths[0], 9000), drawn(widths[-1], 9000).detach()
    plain, ours = torch.nn.Sequential(*stack)(values.T).T, pointwise_network(values, weights, biases)
    torch.testing.assert_close(ours, plain)
    wanted = (values, *(parameter for layer in layers for parameter in layer.parameters()))
    for one, other in zip(
        torch.autograd.grad(plain, wanted, back), torch.autograd.grad(ours, wanted, back), strict=True
    ):
        torch.testing.assert_close(one, other)
    few = drawn(widths[0], 3)
    assert torch.autograd.gradcheck(
        lambda values, *both: pointwise_network(values, both[::2], both[1::2]),
        (few, *(each.detach().requires_grad_() for pair in zip(weights, biases, strict=True) for each in pair)),
    )
