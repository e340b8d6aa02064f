"""How much memory training and validation take, known beforehand: both are computed once with shapes but no values.

A step is computed by tensors that are fake: they have no values either, but say that they are on the CPU. Operations
under autocast then give the types that they give on the CPU, which tensors on the device "meta" would not do.

Shapes: B = patches of a batch, C = channels of an image, K = scores, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from trainkit_segmentation.data.label_maps import each_on_own_grid, most_likely
from trainkit_segmentation.models.kind_live import SegmentationNetwork
from trainkit_segmentation.models.peak_memory import PeakMemory
from trainkit_segmentation.preparing.grid import Grid
from trainkit_segmentation.sizes import Size

if TYPE_CHECKING:
    from trainkit import Batch, Optimizer, Outputs

_NO_VALUES = torch.device("meta")
_SLIDING = 4  # bytes that the sliding window takes for each voxel, to count its windows


@attrs.frozen
class Footprint:
    """Bytes that a part of a run takes at once.

    Attributes:
        network: The parameters and buffers.
        average: The averaged weights; 0 if there are none.
        optimizer: The optimizer's state; None if it is not known.
        step: Everything else that a training step takes: batch, activations, gradients.
        window: What the network takes for a window in validation, beside the scores.
        batch: The batch, which is part of the step.
    """

    network: int
    average: int
    optimizer: int | None
    step: int
    window: int
    batch: int

    @property
    def kept(self) -> int:
        """What is there all the time."""
        return self.network + self.average + (self.optimizer or 0)

    @property
    def training(self) -> int:
        """What training takes at once."""
        return self.kept + self.step


def footprint(
    network: nn.Module,
    channels: int,
    num_classes: int,
    exclusive: bool,
    patch_size: Size,
    batch_size: int,
    losses: Mapping[str, Callable[..., Tensor]],
    optimizer: Optimizer | float,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    averaged: bool = False,
) -> Footprint:
    """Return what training takes, by one step without values.

    Args:
        network: The network; it loses its values.
        channels: Channels of an image.
        num_classes: Number of foreground classes.
        exclusive: Whether classes exclude each other.
        patch_size: Voxels of a patch.
        batch_size: Patches whose activations are there at once.
        losses: The live losses.
        optimizer: The optimizer's settings, or the bytes of state that it keeps for each byte of parameters.
        precision: That of `[run]`: what autocast computes in.
        averaged: Whether an average of the weights is kept.
    """
    model = SegmentationNetwork(network)
    fake = FakeTensorMode(allow_fallback_kernels=False, allow_non_fake_inputs=True)
    _lose_values(model, fake)
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    autocast = partial(torch.autocast, "cpu", dtype, enabled=dtype is not None)

    def empty(*shape: int, **kind: Any) -> Tensor:
        with fake:
            return torch.empty(shape, **kind)

    with PeakMemory() as step:
        label = (
            empty(batch_size, 1, *patch_size, dtype=torch.int64)
            if exclusive
            else empty(batch_size, num_classes, *patch_size)
        )
        batch = {"image": empty(batch_size, channels, *patch_size), "label": label}
        size = step.now
        model.train()
        with autocast():
            outputs = model(batch)
            loss = sum((each(outputs, batch, model) for each in losses.values()), torch.zeros(()))
        loss.backward()  # type: ignore[no-untyped-call]
        del batch, label, outputs, loss
    model.zero_grad(set_to_none=True)
    model.eval()
    with PeakMemory() as window, torch.no_grad(), autocast():
        model({"image": empty(1, channels, *patch_size)})
    parameters = sum(each.numel() * each.element_size() for each in model.parameters())
    held = parameters + sum(each.numel() * each.element_size() for each in model.buffers())
    state = optimizer if isinstance(optimizer, float) else _state_for_each_byte(optimizer)
    return Footprint(
        network=held,
        average=held if averaged else 0,
        optimizer=None if state is None else round(state * parameters),
        step=step.peak,
        window=window.peak,
        batch=size,
    )


def validation_bytes(
    grid: Grid,
    channels: int,
    num_classes: int,
    exclusive: bool,
    on_own_grid: bool,
    losses: Iterable[Callable[[Outputs, Batch], Tensor]] = (),
) -> int:
    """Return what the validation of one case takes at once, apart from the network and its window.

    Args:
        grid: Position of the preprocessed volume in the case's own grid.
        channels: Channels of an image.
        num_classes: Number of foreground classes.
        exclusive: Whether classes exclude each other.
        on_own_grid: Whether something looks at the prediction on the case's own grid, as metrics do.
        losses: (outputs, batch) -> loss of the whole volume, for each that is computed in validation.
    """
    with PeakMemory() as memory, torch.no_grad():
        image = torch.empty((1, channels, *grid.shape), device=_NO_VALUES)
        kind: Any = {"dtype": torch.int64} if exclusive else {}
        label = torch.empty((1, 1 if exclusive else num_classes, *grid.shape), device=_NO_VALUES, **kind)
        logits_1KXYZ = torch.empty((1, num_classes + exclusive, *grid.shape), device=_NO_VALUES)
        counted = torch.empty((1, _SLIDING, *grid.shape), dtype=torch.uint8, device=_NO_VALUES)
        del counted
        for each in losses:
            each({"logits": logits_1KXYZ}, {"image": image, "label": label})
        if on_own_grid:
            to_own = partial(grid.to_own, background=0 if exclusive else None)
            found_LXYZ = most_likely(each_on_own_grid(logits_1KXYZ[0], to_own), exclusive)
            true_LXYZ = torch.empty_like(found_LXYZ)
            both_XYZ = found_LXYZ[0] & true_LXYZ[0]
            del found_LXYZ, true_LXYZ, both_XYZ
        del image, label, logits_1KXYZ
    return int(memory.peak)


def _lose_values(module: nn.Module, fake: FakeTensorMode) -> None:
    """Replace the parameters and buffers of a module by fake ones; those that are shared stay shared."""
    for each in module.modules():
        for name, tensor in [*each.named_parameters(recurse=False), *each.named_buffers(recurse=False)]:
            setattr(each, name, fake.from_tensor(tensor))


def _state_for_each_byte(settings: Optimizer) -> float | None:
    """Return the bytes of state that an optimizer keeps for each byte of parameters; None if it needs a real model."""
    parameter = nn.Parameter(torch.zeros(1024))
    try:
        made = settings.build([{"name": "all", "params": [parameter], "lr": settings.lr}])
        parameter.grad = torch.ones_like(parameter)
        made.step()
    except Exception:  # whatever an optimizer of somebody else needs of a model
        return None
    tensors = [each for each in made.state[parameter].values() if isinstance(each, Tensor) and each.ndim]
    return sum(each.numel() * each.element_size() for each in tensors) / (4 * parameter.numel())
