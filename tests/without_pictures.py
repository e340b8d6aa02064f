"""Leaves out pictures, which take longer than all else in a small run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def no_pictures_of_ptychography() -> Iterator[None]:
    """Let runs in the process of the tests draw nothing."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures_of_ptychography(patch)
        yield


def leave_out_pictures_of_ptychography(patch: pytest.MonkeyPatch) -> None:
    """Let runs in this process draw neither objects, probes, positions nor residuals."""
    from trainkit_ptychography.models import output

    patch.setattr(output, "show", lambda *_: None)
    patch.setattr(output, "show_residuals", lambda *_: None)


def leave_out_charts(patch: pytest.MonkeyPatch) -> None:
    """Let runs in this process draw no ``progress.png``."""
    from trainkit.engine.every_run import progress_chart

    patch.setattr(progress_chart, "draw", lambda *_: None)
