"""The third party's toy as a whole run: a recipe, and how tests start, resume and read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainkit.console import Console
from trainkit.engine.resume import resume as resume_from
from trainkit.engine.start import RunOutcome, start
from trainkit.recipe.resolve import resolve_text

PARTS = """
[data]
use = "clients.toy:Line"
[model]
use = "clients.toy:Perceptron"
[losses.squares]
use = "clients.toy:Squares"
"""
RECORDER = """
[hooks.recorder]
use = "clients.recorder:Recorder"
"""
TOY = f"""
trainkit = 1
[run]
name = "toy"
epochs = 2
device = "cpu"
{PARTS}{RECORDER}"""


def run(*sets: str, text: str = TOY) -> RunOutcome:
    """Start the recipe in the working directory."""
    return start(resolve_text(text, Path.cwd(), sets), Console(quiet=True))


def kept(folder: Path, name: str, *sets: str, text: str) -> None:
    """Start a recipe in a folder, and give the run folder a short name there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(*sets, text=text).run.state.folder.rename(folder / name)


def resume(path: Path, *sets: str, quiet: bool = True, **options: Any) -> RunOutcome:
    """Resume a run; there must be something left to do."""
    outcome = resume_from(path, Console(quiet), sets=sets, allow_code=True, **options)
    assert isinstance(outcome, RunOutcome)
    return outcome


def lines(folder: Path) -> list[dict[str, Any]]:
    """Return what metrics.jsonl holds."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
