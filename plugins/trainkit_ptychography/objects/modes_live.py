"""Several modes of one object, whose patterns are averaged: a specimen that moves while patterns are taken.

Shapes: O = object modes, S = slices, B = patterns of a batch, H, W = rows and columns of the object, Y, X = those of a
patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from trainkit import random_seed
from trainkit_ptychography.objects.kind import LiveObject, PixelwiseObject

_SEED = 0xF04  # keeps what is drawn here apart from all else


class ObjectModes(nn.Module):
    """Objects of the same kind; as one object, it has the slices of all, those of the first mode in front.

    So losses that look at an object (sparsity, total variation) see the mean over its modes.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def modes(self) -> Iterator[LiveObject]:
        """Yield the modes."""
        for member in self.members:
            yield cast(LiveObject, member)

    def forward(self, corner_B2: Tensor) -> Tensor:
        """Return the transmission of patches of all modes, complex (O·S, B, Y, X)."""
        return torch.cat([each(corner_B2) for each in self.modes()])

    def phase(self) -> Tensor:
        """Return the phase of all slices (O·S, H, W) in rad."""
        return torch.cat([each.phase() for each in self.modes()])

    def amplitude(self) -> Tensor:
        """Return the amplitude of all slices (O·S, H, W), 1 for vacuum."""
        return torch.cat([each.amplitude() for each in self.modes()])

    def on_epoch_start(self, state: Any) -> None:
        """Pass the event on."""
        self._tell("on_epoch_start", state)

    def on_epoch_end(self, state: Any) -> None:
        """Pass the event on."""
        self._tell("on_epoch_end", state)

    def _tell(self, event: str, state: Any) -> None:
        for member in self.members:
            listener = getattr(member, event, None)
            if listener is not None:
                listener(state)


def modes_of(live_object: nn.Module) -> list[LiveObject]:
    """Return the modes of an object; of one that has none, itself."""
    return [*live_object.modes()] if isinstance(live_object, ObjectModes) else [cast(LiveObject, live_object)]


@torch.no_grad()
def make_different(member: nn.Module, number: int, size_rad: float, seed: int) -> None:
    """Add noise to the phase of an object of pixels, in place: modes that begin alike would stay alike.

    Args:
        member: The object; another than one of pixels stays as it is.
        number: Which mode it is.
        size_rad: Standard deviation of the noise.
        seed: The run's seed.
    """
    if not isinstance(member, PixelwiseObject):
        return
    phase_SHW = member.pixels()["phase"]
    generator = torch.Generator().manual_seed(random_seed(seed, _SEED, number))
    noise_SHW = torch.randn(phase_SHW.shape, generator=generator)
    phase_SHW += size_rad * noise_SHW.to(phase_SHW)
