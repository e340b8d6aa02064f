"""Steps of segmentation that are recorded once, and repeated without Python, have the bits of steps made one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from clients.made_up_inputs import MADE_UP
from clients.replays import Listed, Replays, repeated_to_the_same_bits
from same import differences

from segmentation.test_models import SMALL, patch_for, volumes
from trainkit.engine import build as engine
from trainkit.engine import run_folder
from trainkit.engine.live_run import LiveRun
from trainkit.engine.loop import train
from trainkit.recipe.promises import gives
from trainkit.recipe.resolve import resolve
from trainkit.recipe.shipped import shipped

CASES: dict[str, tuple[str, ...]] = {
    "adam": ("segmentation_synthetic",),
    "bf16, focal": ("segmentation_synthetic", "run.precision=bf16", 'losses.overlap={ use = "focal" }'),
    "tversky": ("segmentation_synthetic", 'losses.overlap={ use = "tversky" }', "model.norm=batch"),
    "dropout and two losses": ("segmentation_synthetic", "model.dropout=0.2", 'losses.more={ use = "focal" }'),
    "an average": ("segmentation_synthetic", "ema={ decay = 0.9 }", 'scheduler={ use = "polynomial", by = "step" }'),
    "sgd with deep supervision": ("nnunet_like",),
    "evaluations inside an epoch": ("segmentation_synthetic", "validation.every_steps=3"),
    "channels last": ("segmentation_synthetic", "run.channels_last=true"),
}

ON_A_CPU = ("dropout and two losses", "sgd with deep supervision", "an average")  # most steps of networks are too large
RECORDABLE = [name for name, each in SMALL.items() if gives(each, "steps_can_be_recorded")]


def trained(name: str, sets: tuple[str, ...], folder: Path) -> LiveRun:
    """Train a recipe for two epochs, and return the run."""
    short = ("run.threads=1", "run.epochs=2", "run.cuda_graph=true", "checkpoint.every_epochs=0", f"run.dir={folder}")
    resolved = resolve(shipped()[name], (*MADE_UP[name](folder), *short, "data.steps_per_epoch=5", *sets))
    with run_folder.created(resolved) as into:
        run = engine.build(resolved, into)
    train(run)
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "recordings"), [*((case, Replays) for case in CASES), *((case, Listed) for case in ON_A_CPU)]
)
def test_steps_of_a_run(
    case: str, recordings: type[Replays | Listed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *sets = CASES[case]
    repeated_to_the_same_bits(lambda: trained(name, tuple(sets), tmp_path), recordings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "recordings"), [*((name, Replays) for name in RECORDABLE), *((name, Listed) for name in RECORDABLE[:3])]
)
def test_steps_of_each_network(name: str, recordings: type[Replays | Listed]) -> None:
    def ends(repeats: bool) -> dict[str, Any]:
        torch.manual_seed(0)
        patch = patch_for(SMALL[name])
        network = SMALL[name].build(volumes(patch))
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
        image = torch.empty(1, 1, *patch)

        def step() -> None:
            optimizer.zero_grad()
            sum(head.square().mean() for head in network({"image": image}).values()).backward()
            optimizer.step()

        again = None
        for number in range(3):
            image.normal_()
            if number and repeats:
                again = again or recordings().record(step)
                again()
            else:
                step()
        return dict(network.state_dict())

    assert differences(ends(repeats=True), ends(repeats=False)) == []
