"""What tests of ptychography share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def _no_pictures() -> Iterator[None]:
    """Let runs in the process of the tests draw nothing: it takes longer than all else in a small run.

    Pictures have tests of their own (test_pictures.py), and runs in other processes draw them.
    """
    from trainkit_ptychography.models import output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "show", lambda *_: None)
        patch.setattr(output, "show_residuals", lambda *_: None)
        yield
