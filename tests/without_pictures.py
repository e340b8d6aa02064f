"""Leaves out pictures, which take longer than all else in a small run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def no_pictures_of_ptychography() -> Iterator[None]:
    """Let runs in the process of the tests draw nothing."""
    from trainkit_ptychography.models import output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "show", lambda *_: None)
        patch.setattr(output, "show_residuals", lambda *_: None)
        yield
