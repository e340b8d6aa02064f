"""How much memory training and validation take, known beforehand: both are computed once with shapes but no values.

Shapes: B = patches of a batch, C = channels of an image, K = scores, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn

from trainkit_segmentation.data.label_maps import each_on_own_grid, most_likely
from trainkit_segmentation.models.kind_live import SegmentationNetwork
from trainkit_segmentation.models.peak_memory import PeakMemory
from trainkit_segmentation.preparing.grid import Grid
from trainkit_segmentation.sizes import Size

if TYPE_CHECKING:
    from trainkit import Optimizer

_NO_VALUES = torch.device("meta")
_SLIDING = 4  # bytes that the sliding window takes for each voxel, to count its windows


@attrs.frozen
class Footprint:
    """Bytes that a part of a run takes at once, as 32-bit numbers.

    Attributes:
        network: The parameters and buffers.
        optimizer: The optimizer's state; None if it is not known.
        step: Everything else that a training step takes: batch, activations, gradients.
        window: What the network takes for a window in validation, beside the scores.
    """

    network: int
    optimizer: int | None
    step: int
    window: int

    @property
    def training(self) -> int:
        """What training takes at once."""
        return self.network + (self.optimizer or 0) + self.step


def footprint(
    network: nn.Module,
    channels: int,
    num_classes: int,
    exclusive: bool,
    patch_size: Size,
    batch_size: int,
    losses: Mapping[str, Callable[..., Tensor]],
    optimizer: Optimizer | float,
) -> Footprint:
    """Return what training takes, by one step without values.

    Args:
        network: The network; it is moved to the device without values.
        channels: Channels of an image.
        num_classes: Number of foreground classes.
        exclusive: Whether classes exclude each other.
        patch_size: Voxels of a patch.
        batch_size: Patches of a batch.
        losses: The live losses.
        optimizer: The optimizer's settings, or the bytes of state that it keeps for each byte of parameters.
    """
    model = SegmentationNetwork(network.to(_NO_VALUES))
    kept = [*model.parameters(), *model.buffers()]
    label = torch.empty((batch_size, 1, *patch_size), dtype=torch.int64, device=_NO_VALUES)
    if not exclusive:
        label = torch.empty((batch_size, num_classes, *patch_size), device=_NO_VALUES)
    with PeakMemory() as step:
        batch = {"image": torch.empty((batch_size, channels, *patch_size), device=_NO_VALUES), "label": label.clone()}
        model.train()
        outputs = model(batch)
        loss = sum((each(outputs, batch, model) for each in losses.values()), torch.zeros((), device=_NO_VALUES))
        loss.backward()  # type: ignore[no-untyped-call]
        del batch, outputs, loss
    model.zero_grad(set_to_none=True)
    model.eval()
    with PeakMemory() as window, torch.no_grad():
        model({"image": torch.empty((1, channels, *patch_size), device=_NO_VALUES)})
    parameters = sum(each.numel() * each.element_size() for each in model.parameters())
    state = optimizer if isinstance(optimizer, float) else _state_for_each_byte(optimizer)
    return Footprint(
        network=sum(each.numel() * each.element_size() for each in kept),
        optimizer=None if state is None else round(state * parameters),
        step=step.peak,
        window=window.peak,
    )


def validation_bytes(grid: Grid, channels: int, num_classes: int, exclusive: bool, on_own_grid: bool) -> int:
    """Return what the validation of one case takes at once, apart from the network and its window.

    Args:
        grid: Position of the preprocessed volume in the case's own grid.
        channels: Channels of an image.
        num_classes: Number of foreground classes.
        exclusive: Whether classes exclude each other.
        on_own_grid: Whether something looks at the prediction on the case's own grid, as metrics do.
    """
    with PeakMemory() as memory, torch.no_grad():
        image = torch.empty((1, channels, *grid.shape), device=_NO_VALUES)
        kind: Any = {"dtype": torch.int64} if exclusive else {}
        label = torch.empty((1, 1 if exclusive else num_classes, *grid.shape), device=_NO_VALUES, **kind)
        logits_1KXYZ = torch.empty((1, num_classes + exclusive, *grid.shape), device=_NO_VALUES)
        counted = torch.empty((1, _SLIDING, *grid.shape), dtype=torch.uint8, device=_NO_VALUES)
        del counted
        if on_own_grid:
            to_own = partial(grid.to_own, background=0 if exclusive else None)
            found_LXYZ = most_likely(each_on_own_grid(logits_1KXYZ[0], to_own), exclusive)
            true_LXYZ = torch.empty_like(found_LXYZ)
            both_XYZ = found_LXYZ[0] & true_LXYZ[0]
            del found_LXYZ, true_LXYZ, both_XYZ
        del image, label, logits_1KXYZ
    return int(memory.peak)


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
