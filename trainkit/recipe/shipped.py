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


def named_recipe(given: Path | str) -> tuple[Path, str | None]:
    """Return the file that is meant by what stands on a command line, and what is to be said about the choice.

    A file is itself. A bare name, such as ``ptycho_staged``, is the file NAME.toml of the working directory if there is
    one, else the recipe of this name that comes with trainkit.

    Returns:
        The file, which need not exist; and a message, or None if the file is what was given.
    """
    path = Path(given)
    if path.suffix or len(path.parts) != 1 or path.is_file():
        return path, None
    own = path.with_suffix(".toml")
    coming = shipped().get(path.name)
    if own.is_file():
        other = f"; the one that comes with trainkit is {coming}" if coming else ""
        return own, f'"{path}" is taken for this file of the working directory{other}'
    if coming is not None:
        return coming, f'"{path}" is taken for this recipe, which comes with trainkit'
    return path, None
