"""The recipes that come with trainkit: in a checkout the folder ``recipes/``, in an installation a copy of it."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def shipped() -> dict[str, Path]:
    """Return name -> file of every recipe that comes with trainkit, sorted by name."""
    checkout = Path(__file__).parents[2]
    installed = Path(sysconfig.get_path("data")) / "share" / "trainkit"
    top = checkout if (checkout / "pyproject.toml").is_file() else installed
    return {path.stem: path for path in sorted((top / "recipes").glob("*.toml"))}
