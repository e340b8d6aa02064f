"""The version of the installed distribution, which is set only in pyproject.toml."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("trainkit")
