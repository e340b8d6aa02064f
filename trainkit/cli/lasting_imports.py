"""Keeps Python from looking for garbage in what is imported once and stays."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator

from trainkit.garbage import not_collected


@contextlib.contextmanager
def lasting_imports() -> Iterator[None]:
    """Import torch in the block without looks for garbage, and leave what there is after it out of all later ones.

    A full look goes through every object, and torch has made 150,000 of them when it is imported: a tenth of a second
    each time, at the start of a run and among its pictures.

    If torch was imported before, nothing is changed: what there is may be more than modules then, such as a run.
    """
    if "torch" in sys.modules:
        yield
        return
    with not_collected():
        yield
        gc.freeze()  # before the next look
