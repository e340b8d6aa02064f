"""Run folders that are written by hand, so that a test decides what stands in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainkit.recipe.resolve import resolve_text, write
from trainkit.runs.record import RunRecord

PTYCHOGRAPHY = """
trainkit = 1
[run]
name = "scan"
epochs = 4
[data]
use = "diffraction_simulated"
validation_fraction = 0.1
[model]
use = "ptychography"
[model.probe]
use = "aperture"
[losses.data]
use = "amplitude"
[optimizer]
use = "adam"
"""
SPLIT = {"the items of val": "a1"}


def written(
    folder: Path,
    *sets: str,
    text: str = PTYCHOGRAPHY,
    fingerprint: Mapping[str, Any] | None = SPLIT,
    values: Sequence[Mapping[str, float | None]] = (),
    parent: Mapping[str, Any] | None = None,
    **start: Any,
) -> RunRecord:
    """Write the folder of a finished run.

    Args:
        folder: The folder, whose name is the run's id.
        sets: Changes to the recipe.
        text: The recipe.
        fingerprint: What tells its data from others; None: it is not recorded.
        values: The values of each epoch.
        parent: The checkpoint from which it began.
        start: What else stands in the record of its start.
    """
    resolved = resolve_text(text, Path.cwd(), sets)
    (folder / "checkpoints").mkdir(parents=True)
    recipe = write(resolved.tree)
    (folder / "recipe.toml").write_text(recipe)
    created = f"2026-11-26T10:00:{len(list(folder.parent.iterdir())):02d}+00:00"
    identity = {"id": folder.name, "created": created, "parent": parent, "recipe": recipe, "begun_from": parent}
    (folder / "run.json").write_text(json.dumps({**identity, "on_extend": None}))
    known = {"time": created, "ended": "finished", "finished": True, "doubts": [], "components": [], **start}
    if fingerprint is not None:
        known["data"] = {"fingerprint": dict(fingerprint), "facts": None}
    (folder / "environment.json").write_text(json.dumps({"starts": [known]}))
    lines = [{"finished_epochs": i + 1, "step": 5 * (i + 1), **each, "seconds": 2.0} for i, each in enumerate(values)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return RunRecord(folder)
