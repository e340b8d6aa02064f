"""Tells whether environment variables that a recipe reads have other values than before, without writing them down.

A checkpoint holds a mark of each value: a few bits of its digest, salted with the id of the run. One in 4096 other
values has the same mark. So a mark shows that a value has changed, but not which one it is, whatever is tried.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from trainkit.checkpoint.folder import run_id_of
from trainkit.recipe.references import variables

_DIGITS = 3  # hexadecimal


def marks(tree: Mapping[str, Any], run_id: str) -> dict[str, str]:
    """Return the marks of the environment variables that a resolved recipe reads, by name.

    Args:
        tree: The recipe.
        run_id: The run in whose checkpoints the marks are.
    """
    return {name: _mark(os.environ[name], run_id) for name in variables(tree) if name in os.environ}


def changed_since(saved: Mapping[str, Any], tree: Mapping[str, Any]) -> set[str]:
    """Return the variables that a recipe reads and that have another value than when a checkpoint was written.

    Args:
        saved: The content or the header of the checkpoint.
        tree: The recipe.
    """
    run = saved.get("run")
    before = run.get("variables") if isinstance(run, Mapping) else None
    if not isinstance(before, Mapping):
        return set()  # an older version wrote it
    now = marks(tree, str(run_id_of(saved)))
    return {name for name in now if name in before and before[name] != now[name]}


def _mark(value: str, run_id: str) -> str:
    content = f"{run_id}\0{value}".encode(errors="surrogateescape")
    return blake2b(content).hexdigest()[:_DIGITS]
