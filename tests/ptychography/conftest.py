"""What tests of ptychography share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from without_pictures import no_pictures_of_ptychography


@pytest.fixture(scope="package", autouse=True)
def _no_pictures() -> Iterator[None]:
    """Pictures have tests of their own (test_pictures.py), and runs in other processes draw them."""
    with no_pictures_of_ptychography():
        yield
