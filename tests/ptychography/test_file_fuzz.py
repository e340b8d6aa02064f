"""The short form of ``file_fuzz.py``: some hundreds of damaged files of each kind."""

from __future__ import annotations

import pytest

from .file_fuzz import fuzz, is_refused, originals


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hdf5", "cxi", "npz"])
def test_damaged_files_are_read_or_refused(kind):
    outcome = fuzz(kind, 150)
    assert outcome.failures == []
    assert outcome.refused > 30


@pytest.mark.parametrize("kind", ["hdf5", "cxi", "npz"])
def test_without_damage_each_of_them_is_read(kind, tmp_path):
    for number, content in enumerate(originals(kind, tmp_path)):
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(content)
        assert not is_refused(kind, path)
