"""Gradients against finite differences, for functions whose gradients flow back only once (`gradcheck` asks twice)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def check_gradients(function: Callable[..., Tensor], values: Sequence[Tensor], directions: int = 5) -> None:
    """Check the gradient of a weighted sum of what a function returns, along random directions of each argument.

    Args:
        function: Real, of real arguments in double precision.
        values: Where.
        directions: How many of each argument.
    """
    generator = torch.Generator().manual_seed(8)

    def random(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    found = function(*values)
    weight = random(found)
    gradients = torch.autograd.grad((found * weight).sum(), values)
    with torch.no_grad():
        for place, gradient in enumerate(gradients):
            for _ in range(directions):
                step = 1e-6 * random(values[place])
                ahead, behind = (
                    function(*(each + sign * step if number == place else each for number, each in enumerate(values)))
                    for sign in (1, -1)
                )
                torch.testing.assert_close(
                    2 * (gradient * step).sum(), ((ahead - behind) * weight).sum(), rtol=1e-6, atol=1e-13
                )
