"""The short form of ``file_fuzz.py``: some hundreds of damaged files of each kind."""

from __future__ import annotations

import pytest

from .file_fuzz import fuzz


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hdf5", "npz"])
def test_damaged_files_are_read_or_refused(kind):
    assert fuzz(kind, 150) == []
