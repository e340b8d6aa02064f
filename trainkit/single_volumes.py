"""Convolves a single small volume on a CPU as fast as each of several.

torch convolves a batch of two volumes or more by oneDNN. For a batch of one it takes an algorithm of its own, unless
the volume is large; with kernels of 3³ that one is up to ten times slower. Steps that are cut into shards, or divided
among processes, have such batches.

This is for training alone: what is computed without gradients has the bits of the model as anybody builds it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_SMALL = 20480
"""Channels · depth · height up to which torch takes its own algorithm (`use_mkldnn` in ATen's Convolution.cpp)."""

_Settings = tuple[Any, Any, Any, bool, Any, int]  # stride, padding, dilation, transposed, output padding, groups

_HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def convolve_single_volumes(model: nn.Module) -> int:
    """Let the 3-D convolutions of a model convolve a single small volume by oneDNN too.

    The names in the model's state stay as they are. Layers of other classes, those with kernels up to 2³, with groups,
    or with a padding other than zeros stay as they are: torch is fast there, or takes oneDNN already.

    Args:
        model: The model, on the CPU.

    Returns:
        The number of layers.
    """
    number = 0
    if not _HAS_ONEDNN:
        return number
    for layer in model.modules():
        faster = {nn.Conv3d: _Conv3d, nn.ConvTranspose3d: _ConvTranspose3d}.get(type(layer))
        if faster is None or layer.groups > 1 or max(layer.kernel_size) < 3 or layer.padding_mode != "zeros":  # type: ignore[operator, arg-type]
            continue
        if not isinstance(layer.padding, str):
            layer.__class__ = faster
            number += 1
    return number


class _Conv3d(nn.Conv3d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002 (as torch)
        if not _is_slow(input, weight):
            made: Tensor = super()._conv_forward(input, weight, bias)
            return made
        return _convolved(input, weight, bias, self, (0, 0, 0))


class _ConvTranspose3d(nn.ConvTranspose3d):
    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002 (as torch)
        if not _is_slow(input, self.weight):
            return super().forward(input, output_size)
        more = self._output_padding(input, output_size, self.stride, self.padding, self.kernel_size, 3, self.dilation)  # type: ignore[arg-type]
        return _convolved(input, self.weight, self.bias, self, more)


def _is_slow(volume: Tensor, weight: Tensor) -> bool:
    """Return whether torch would take its own algorithm for a batch."""
    return bool(
        torch.is_grad_enabled()
        and volume.ndim == 5
        and volume.shape[0] == 1
        and volume.shape[:4].numel() <= _SMALL
        and type(volume) is Tensor  # a subclass, such as a tensor without values, may not be converted
        and volume.device.type == "cpu"
        and volume.dtype == weight.dtype == torch.float32
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


def _convolved(volume: Tensor, weight: Tensor, bias: Tensor | None, layer: Any, output_padding: Any) -> Tensor:
    settings = (layer.stride, layer.padding, layer.dilation, layer.transposed, output_padding, layer.groups)
    result: Tensor = _Convolution.apply(volume, weight, bias, settings)  # type: ignore[no-untyped-call]
    return result


class _Convolution(torch.autograd.Function):
    """``torch.convolution`` by oneDNN, which torch takes for any tensor in oneDNN's own layout."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor, weight: Tensor, bias: Tensor | None, settings: _Settings) -> Tensor:
        ctx.save_for_backward(volume, weight)
        ctx.bias_shape, ctx.settings = None if bias is None else list(bias.shape), settings
        stride, padding, dilation, transposed, _, groups = settings
        if not transposed:
            made: Tensor = torch.ops.aten.mkldnn_convolution(volume, weight, bias, padding, stride, dilation, groups)
            return made
        made = torch.convolution(volume.contiguous().to_mkldnn(), weight, bias, *settings).to_dense()
        return made if volume.is_contiguous() else made.contiguous(memory_format=torch.channels_last_3d)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        volume, weight = ctx.saved_tensors
        (grad,) = grads
        if not torch.is_grad_enabled():  # a gradient that has a gradient itself is torch's own
            volume = volume.contiguous().to_mkldnn()
            if ctx.settings[3]:
                grad = grad.contiguous().to_mkldnn()
        needed = list(ctx.needs_input_grad[:3])
        found = torch.ops.aten.convolution_backward(grad, volume, weight, ctx.bias_shape, *ctx.settings, needed)
        return (*(each.to_dense() if each is not None and each.is_mkldnn else each for each in found), None)
