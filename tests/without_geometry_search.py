"""Leaves out the search for another geometry at the beginning and the end of a reconstruction: a second or two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def no_geometry_search() -> Iterator[None]:
    """Let reconstructions in the process of the tests neither look whether patterns are out of step, nor doubt the end.

    Both have tests of their own: ptychography/test_in_step.py, test_ending.py and test_geometry_in_a_run.py.
    """
    with pytest.MonkeyPatch.context() as patch:
        leave_out_geometry_search(patch)
        yield


def leave_out_geometry_search(patch: pytest.MonkeyPatch) -> None:
    """Let reconstructions in this process look for no other geometry than the one that is told."""
    from trainkit_ptychography.preflight.watch import GeometryWatch

    patch.setattr(GeometryWatch, "_steps", lambda watch: ())
    patch.setattr(GeometryWatch, "judge_ending", lambda watch, state, ending: None)
