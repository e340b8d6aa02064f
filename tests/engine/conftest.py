"""What tests of the engine share: trained models that can be recalled from their checkpoints alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients import toy_run
from clients.together import Together
from clients.warm import Warm

POINTS = """
trainkit = 1
[run]
name = "points"
epochs = 3
device = "cpu"
[data]
use = "clients.predicting:Points"
[model]
use = "clients.toy:Perceptron"
[losses.squares]
use = "clients.toy:Squares"
[monitor]
metric = "train/loss"
[hooks.recorder]
use = "clients.recorder:Recorder"
[checkpoint]
keep_last = 9
best = 1
"""


@pytest.fixture(scope="session")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs seed-0 and seed-1 of three epochs."""
    folder = tmp_path_factory.mktemp("points")
    for seed in (0, 1):
        toy_run.kept(folder, f"seed-{seed}", f"run.seed={seed}", "optimizer.lr=0.05", text=POINTS)
    return folder


@pytest.fixture(scope="session")
def together(warm: Warm) -> Together:
    """Starts a command in several processes that meet."""
    return Together(warm)
