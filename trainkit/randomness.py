"""Seeds that depend only on a place in a run, and the state of the global random generators."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

from trainkit.errors import CheckpointError

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


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Give the global generators the state afterwards that they had before."""
    import numpy as np
    import torch

    python, numpy, cpu = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def generator_states() -> dict[str, Any]:
    """Return the state of the global generators of python, numpy and torch (CPU and CUDA): JSON values and tensors."""
    import numpy as np
    import torch

    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = {str(i): each for i, each in enumerate(torch.cuda.get_rng_state_all())}
    return states


def check_generator_states(states: Mapping[str, Any]) -> None:
    """Make sure that states from a file are such as `generator_states` returns; tensors may be missing (None).

    NumPy does not check the position that it is given, and an impossible one ends the interpreter.

    Raises:
        ValueError: They are not; the message says which.
    """
    python: Any = states.get("python")
    numpy: Any = states.get("numpy")
    words: Any = python[1] if isinstance(python, list | tuple) and len(python) == 3 else None
    if words is None or python[0] != 3 or not _are_words(words, 625) or words[-1] > 624 or not _is_gauss(python[2]):
        raise ValueError("of python: is no state of the Mersenne Twister")
    legacy = isinstance(numpy, list | tuple) and len(numpy) == 5 and numpy[0] == "MT19937" and _are_words(numpy[1], 624)
    position, has_gauss, cached = numpy[2:] if legacy else (None, None, None)
    if type(position) is not int or not 0 <= position <= 624:
        raise ValueError("of numpy: is no state of the Mersenne Twister")
    if has_gauss not in (0, 1) or not _is_gauss(cached):
        raise ValueError("of numpy: its cached Gaussian is no number")
    if "torch" not in states or not isinstance(states.get("cuda", {}), Mapping):
        raise ValueError("of torch: is missing")
    tensors = [states["torch"], *states.get("cuda", {}).values()]
    if not all(each is None or str(getattr(each, "dtype", "")) == "torch.uint8" for each in tensors):
        raise ValueError("of torch: is no state of a generator")
    if "cuda" in states and set(states["cuda"]) != {str(index) for index in range(len(states["cuda"]))}:
        raise ValueError("of torch: the CUDA devices are not numbered")
    if states["torch"] is not None:
        import torch

        try:
            torch.Generator().set_state(states["torch"])
        except RuntimeError as error:
            raise ValueError(f"of torch: {error}") from error


def _are_words(words: Any, number: int) -> bool:
    return (
        isinstance(words, list | tuple)
        and len(words) == number
        and all(type(word) is int and 0 <= word < 2**32 for word in words)
    )


def _is_gauss(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))


def restore_generators(states: Mapping[str, Any]) -> None:
    """Set the global generators to what `generator_states` returned.

    Raises:
        CheckpointError: It is no state of the generators.
    """
    import numpy as np
    import torch

    try:
        check_generator_states(states)
    except ValueError as error:
        raise CheckpointError(f"the random generators cannot be restored from the checkpoint: {error}") from error
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    try:
        torch.set_rng_state(states["torch"].cpu())
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([states["cuda"][str(i)].cpu() for i in range(len(states["cuda"]))])
    except (AttributeError, RuntimeError, IndexError) as error:
        raise CheckpointError(f"the random generators cannot be restored from the checkpoint: {error}") from error
