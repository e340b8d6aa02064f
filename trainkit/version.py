"""The version of the installed distribution; it stands in pyproject.toml alone."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("trainkit")
