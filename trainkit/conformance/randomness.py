"""Sees whether code draws from the global random numbers of Python, numpy or torch, or seeds them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch

from trainkit.randomness import generators_kept, seed_everything

_Made = TypeVar("_Made")


@contextlib.contextmanager
def untouched_randomness(what: str, instead: str) -> Iterator[None]:
    """Raise AssertionError if the block draws from the global random numbers, or seeds them.

    Args:
        what: What the block calls, for the message.
        instead: What to do instead, for the message.
    """
    before = _states()
    yield
    changed = [name for name, state in _states().items() if state != before[name]]
    assert not changed, f"{what} draws from, or seeds, the global random numbers of {' and '.join(changed)}; {instead}"


def made_without_seeding(make: Callable[[], _Made], what: str) -> _Made:
    """Return what a function makes, which may draw from the global random numbers, but not seed them.

    Args:
        make: The function; it is called twice.
        what: What it is, for the message.
    """
    after = []
    made = None
    with generators_kept():
        for seed in (918273645, 546372819):  # unlike those that code would seed with
            seed_everything(seed)
            before = _states()
            made = make()
            after.append({name: state for name, state in _states().items() if state != before[name]})
    assert made is not None
    seeded = [name for name, state in after[0].items() if after[1].get(name) == state]
    assert not seeded, (
        f"{what} seeds the global random numbers of {' and '.join(seeded)}: whatever draws from them later in the run "
        "then gets the same numbers for each seed of the run; leave them as they are"
    )
    return made


def _states() -> dict[str, bytes]:
    return {
        "Python": repr(random.getstate()).encode(),
        "numpy": repr(
            [part.tobytes() if isinstance(part, np.ndarray) else part for part in np.random.get_state()]
        ).encode(),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
