"""Finds the recipes that come with trainkit: in ``recipes/`` of a checkout, or in the copy of an installation."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def shipped() -> dict[str, Path]:
    """Return the recipes that come with trainkit, sorted by name: name -> file."""
    checkout = Path(__file__).parents[2]
    installed = Path(sysconfig.get_path("data")) / "share" / "trainkit"
    top = checkout if (checkout / "pyproject.toml").is_file() else installed
    return {path.stem: path for path in sorted((top / "recipes").glob("*.toml"))}
