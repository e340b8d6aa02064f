"""What tests of segmentation share: a cache of their own for prepared cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainkit_segmentation.preparing.cache import Cache


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(folder=tmp_path / "cache")
