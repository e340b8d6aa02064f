"""What tests of run folders share: a few runs that really ran."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients import toy_run

TOY = """
trainkit = 1
[run]
name = "points"
epochs = 4
device = "cpu"
[data]
use = "clients.predicting:Points"
[model]
use = "clients.toy:Perceptron"
[losses.squares]
use = "clients.toy:Squares"
[monitor]
metric = "train/loss"
[checkpoint]
keep_last = 9
"""


@pytest.fixture(scope="session")
def toy_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/points: a run, one with another rate, and one that was resumed from epoch 2 of that."""
    folder = tmp_path_factory.mktemp("listed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        toy_run.run(text=TOY)
        second = toy_run.run("optimizer.lr=0.05", text=TOY).run.state.folder
        toy_run.resume(second, "optimizer.lr=0.1", epoch=2)
    return folder
