"""Seeds that depend only on a place in a run, and the state of the global random generators."""

from __future__ import annotations

import random
from typing import Any

_MASK = 0xFFFFFFFFFFFFFFFF


def random_seed(*numbers: int) -> int:
    """Return a well-mixed 63-bit seed for a place in a run.

    Seeding each sample by (seed, epoch, index) makes it independent of the number of workers and of what ran before,
    so a run can be resumed exactly from any step.

    Args:
        numbers: Integers that identify the place, for example run seed, epoch and sample index.

    Example:
        >>> random_seed(7, 0, 3) == random_seed(7, 0, 3) != random_seed(7, 3, 0)
        True

    Source:
        Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014), splitmix64.
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def seed_everything(seed: int) -> None:
    """Seed the global generators of python, numpy and torch (all devices)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator_states() -> dict[str, Any]:
    """Return the state of the global generators of python, numpy and torch (CPU and CUDA): JSON values and tensors."""
    import numpy as np
    import torch

    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [name, [int(key) for key in keys], position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = {str(i): each for i, each in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_generators(states: dict[str, Any]) -> None:
    """Set the global generators to what `generator_states` returned."""
    import numpy as np
    import torch

    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([states["cuda"][str(i)].cpu() for i in range(len(states["cuda"]))])
