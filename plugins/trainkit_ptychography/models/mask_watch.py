"""Notices a loss that counts pixels which a mask hides: its gradient is not zero there."""

from __future__ import annotations

import torch
from torch import Tensor

from trainkit import State


class MaskWatch:
    """Looks at the gradient of the first step that is trained in this process."""

    def __init__(self) -> None:
        self._leaks: list[Tensor] | None = []

    def look(self, intensities_BYX: Tensor, mask: Tensor) -> None:
        """Look at the gradient when it is known.

        Args:
            intensities_BYX: What the model expects, with its graph.
            mask: Which pixels count, (Y, X) or (B, Y, X).
        """
        if self._leaks is None:
            return
        leaks = self._leaks

        def keep(gradient_BYX: Tensor) -> None:
            leaks.append(gradient_BYX.masked_fill(mask, 0).count_nonzero())

        intensities_BYX.register_hook(keep)  # type: ignore[no-untyped-call]

    def judge(self, state: State) -> None:
        """Report it, after a step; what all processes saw is added up."""
        leaks, self._leaks = self._leaks, None
        if leaks and (num := state.context.exchange.total(int(torch.stack(leaks).sum()))):
            state.doubt(
                f"a loss counts pixels that were not measured: its gradient is not 0 at {num} of them in the first "
                'step; it must leave out what batch["mask"], or data.mask_YX where there is none, hides'
            )
