"""A trial of the stages to come leaves a reconstruction as it is, whatever object, probe and constraints it has."""

from __future__ import annotations

from pathlib import Path

import pytest
from same import differences, trained

from trainkit.checkpoint import file as checkpoint
from trainkit.console import Console
from trainkit.engine import stage_trial
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve_text

from .small_recipe import small_recipe

GROUPS = """
[groups.probe]
start_epoch = 2
[groups.dr]
start_epoch = 2
[groups.scan]
start_epoch = 3
"""
SCALED = """
[optimizer]
use = "scaled_steps"
[groups.object.then.finish]
start_epoch = 3
optimizer = { use = "adam" }
"""
LENS = "[groups.aberrations]\nstart_epoch = 2\n"
OPR = "[groups.opr_modes]\nstart_epoch = 2\n[groups.opr_weights]\nstart_epoch = 2\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "probe", "groups"),
    [
        ("", "modes = 2, opr_modes = 2", OPR),
        ('object = { use = "hash_encoding", levels = 4 }', "modes = 2", ""),
        ('[model.constraints.limits]\nuse = "limits"\nmax_phase_rad = 0.2\n', "", SCALED),
        (
            "slices = 2\nthickness_angstrom = 40.0",
            'trained_aberrations = ["C10"]',
            "[groups.aberrations]\nstart_epoch = 2\n",
        ),
    ],
)
def test_a_trial_of_the_stages_to_come_changes_no_bit(
    model: str, probe: str, groups: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage_trial, "_SECONDS", 10.0)
    text = small_recipe(model, GROUPS + groups, probe).replace("epochs = 2", "epochs = 4")
    if "[optimizer]" in groups:
        text = text.replace('[optimizer]\nuse = "adam"\nlr = 1e-3\n', "", 1)
    found = []
    for allowed in (True, False):
        if not allowed:
            monkeypatch.setattr(stage_trial, "may_be_tried", lambda run: False)
        sets = (f"run.dir={allowed}", "run.threads=1", "run.device=cpu", "pictures.every_epochs=0", "data.batch_size=4")
        outcome = start(resolve_text(text, Path.cwd(), sets), Console(quiet=True))
        trial = outcome.run.parts["stage_trial"]
        assert isinstance(trial, stage_trial.StageTrial)
        assert (len(trial.costs) > 2) == allowed
        files = sorted((outcome.run.state.folder / "checkpoints").glob("*.safetensors"))
        found.append([trained(checkpoint.read(path)) for path in files])
    for one, other in zip(*found, strict=True):
        assert differences(one, other) == []
