"""Where a result comes from, as the run folder says it: the run, its recipe, and the versions of what computed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def provenance(folder: Path) -> dict[str, str]:
    """Return what a run folder says of its run: name -> text. What it does not say is not there.

    Returns:
        "run" (the folder's and the run's name), "run_id", "parent_run_id" (if it began with a checkpoint of another
        run), "recipe" (the resolved recipe), and "versions" (of trainkit, torch and others at the last start, a line
        each).
    """
    identity, environment = (_json(folder / name) for name in ("run.json", "environment.json"))
    parent = identity.get("parent")
    starts = environment.get("starts")
    versions = (
        starts[-1].get("versions") if isinstance(starts, list) and starts and isinstance(starts[-1], dict) else None
    )
    found = {
        "run": f"{folder.parent.name}/{folder.name}" if identity else "",
        "run_id": _text(identity.get("id")),
        "parent_run_id": _text(parent.get("run") if isinstance(parent, dict) else parent),
        "recipe": _content(folder / "recipe.toml"),
        "versions": "\n".join(f"{name} {version}" for name, version in versions.items())
        if isinstance(versions, dict)
        else "",
    }
    return {name: text for name, text in found.items() if text}


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(_content(path) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # a result says what it can, and is written all the same
        return ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
