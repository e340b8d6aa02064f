from __future__ import annotations

from pathlib import Path

import pytest
from clients import wheel

TOY = {
    "trainkit.data": {"line": "Line"},
    "trainkit.models": {"perceptron": "Perceptron"},
    "trainkit.losses": {"squares": "Squares"},
    "trainkit.schedulers": {"halving": "Halving"},
    "trainkit.hooks": {"count": "Count"},
}


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the third party's toy installed, to be put on the path of a process."""
    source = Path(__file__).parent / "clients" / "toy.py"
    packed = wheel.pack(source, "trainkit_toy", TOY, tmp_path_factory.mktemp("wheel"))
    site = tmp_path_factory.mktemp("site")
    wheel.install(packed, site)
    return site
