"""What tests of recipes share: a third party's packages, and a working directory of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from recipe_toys import toys


@pytest.fixture(scope="module")
def toys_installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Installs the packages of `recipe_toys` for the tests of a file."""
    with toys(tmp_path_factory.mktemp("toys")):
        yield


@pytest.fixture
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives each test an empty working directory."""
    monkeypatch.chdir(tmp_path)
