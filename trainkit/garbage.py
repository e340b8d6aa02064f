"""Pauses Python's garbage collection where much is made that stays.

While a large library is imported, Python looks for garbage again and again among objects that all stay: of 5 CPU
seconds in which torch, its compiler and MONAI are imported, this is one.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def not_collected() -> Iterator[None]:
    """Pause the collection in the block. What is made there should be small, or stay."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
