"""Convolutions of a single small volume by oneDNN, held against torch's own in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainkit.single_volumes import convolve_single_volumes

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


class Converted(TorchDispatchMode):
    """Counts tensors that are brought into oneDNN's own layout: that of the backward pass, or all three."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func is torch.ops.aten.to_mkldnn.default
        return func(*args, **(kwargs or {}))


def volume(num: int = 1, channels: int = 4, **like: Any) -> Tensor:
    shape = (num, channels, 7, 6, 9)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), **like).requires_grad_()


def values_and_gradients(layer: nn.Module, x: Tensor, **more: Any) -> list[Tensor]:
    y = layer(x, **more)
    (y * torch.arange(y.numel(), dtype=y.dtype).view(y.shape).sin()).sum().backward()
    given = x.grad
    assert given is not None
    return [y.detach(), given, *(each.grad for each in layer.parameters() if each.grad is not None)]


LAYERS = [
    nn.Conv3d(4, 3, 3, padding=1),
    nn.Conv3d(4, 3, 3, stride=2, bias=False),
    nn.Conv3d(4, 3, (1, 3, 5), padding=(0, 1, 2), dilation=(1, 2, 1)),
    nn.ConvTranspose3d(4, 3, 3, stride=2, padding=1, output_padding=1),
    nn.ConvTranspose3d(4, 3, 3, stride=(1, 2, 2), bias=False),
]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_values_and_gradients_are_torchs(layer: nn.Module, channels_last: bool) -> None:
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    exact = values_and_gradients(copy.deepcopy(layer).double(), volume().detach().double().requires_grad_())
    ours = copy.deepcopy(layer).to(memory_format=layout)
    x = volume().detach().contiguous(memory_format=layout).requires_grad_()
    assert convolve_single_volumes(ours) == 1
    with Converted() as converted:
        found = values_and_gradients(ours, x)
    assert converted.number == (3 if isinstance(layer, nn.ConvTranspose3d) else 1)
    assert found[0].is_contiguous(memory_format=layout)
    for mine, its in zip(found, exact, strict=True):
        torch.testing.assert_close(mine.double(), its, rtol=1e-4, atol=1e-5)


def test_the_size_of_what_a_transposed_convolution_makes_can_be_given() -> None:
    layer = nn.ConvTranspose3d(4, 3, 3, stride=2)
    convolve_single_volumes(layer)
    assert layer(volume(), output_size=[16, 14, 20]).shape == (1, 3, 16, 14, 20)


def test_a_gradient_of_a_gradient_is_torchs() -> None:
    def penalty(layer: nn.Module, x: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()  # type: ignore[no-untyped-call]
        assert layer.weight.grad is not None
        return layer.weight.grad  # type: ignore[return-value]

    plain = nn.Conv3d(4, 3, 3)
    ours = copy.deepcopy(plain)
    convolve_single_volumes(ours)
    exact = penalty(plain.double(), volume().detach().double().requires_grad_())
    torch.testing.assert_close(penalty(ours, volume()).double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv3d(4, 3, 3), volume(2)),
        (nn.Conv3d(4, 3, 3), volume().double()),
        (nn.Conv3d(4, 3, 3), torch.zeros(1, 4, 72, 72, 3)),
        (nn.Conv3d(4, 3, 3, padding="same"), volume()),
        (nn.Conv3d(4, 3, 3, padding=1, padding_mode="replicate"), volume()),
        (nn.Conv3d(4, 4, 3, groups=2), volume()),
        (nn.ConvTranspose3d(4, 3, 2, stride=2), volume()),
        (nn.Conv3d(4, 3, 3, device="meta"), volume(device="meta")),
    ],
    ids=["two", "float64", "large", "same", "replicate", "groups", "kernel of 2", "without values"],
)
def test_everything_else_is_left_to_torch(layer: nn.Module, x: Tensor) -> None:
    layer = layer.to(x.dtype)
    ours = copy.deepcopy(layer)
    convolve_single_volumes(ours)
    with Converted() as converted:
        y = ours(x)
    assert converted.number == 0
    assert y.device.type == "meta" or torch.equal(y, layer(x))


def test_what_has_no_gradient_has_the_bits_of_torch() -> None:
    plain = nn.Conv3d(4, 3, 3)
    ours = copy.deepcopy(plain)
    convolve_single_volumes(ours)
    with Converted() as converted, torch.no_grad():
        assert torch.equal(ours(volume()), plain(volume()))
    assert converted.number == 0


def test_a_copy_of_the_model_computes_with_its_own_weights_and_names_stay() -> None:
    model = nn.Sequential(nn.Conv3d(4, 3, 3), nn.ReLU())
    names = list(model.state_dict())
    convolve_single_volumes(model)
    copied = copy.deepcopy(model)
    nn.init.zeros_(copied[0].weight)
    nn.init.zeros_(copied[0].bias)
    assert not copied(volume()).any()
    assert model(volume()).any()
    assert list(model.state_dict()) == names
