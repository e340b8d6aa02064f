"""``run --smoke`` takes every group through its start in a few steps, saves and resumes, and says whether all works."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from clients import recorder
from clients.toy_run import TOY, lines, run

from trainkit import PartError, RecipeError
from trainkit.console import Console
from trainkit.engine.smoke import smoke
from trainkit.engine.start import ExitCode
from trainkit.recipe.resolve import resolve, resolve_text
from trainkit.recipe.shipped import shipped
from trainkit.recipe.smoke_recipe import smoke_recipe

STAGED = (
    TOY
    + """
[groups.first]
parameters = ["0.*"]
stop_epoch = 70
[groups.last]
parameters = ["2.*"]
start_epoch = 30
scheduler = { use = "cosine", warmup = 9 }
[groups.last.then.end]
start_epoch = 60
lr = 1e-4
"""
).replace("epochs = 2", "epochs = 100")


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def tried(*sets: str, text: str = STAGED) -> ExitCode:
    return smoke(resolve_text(text, Path.cwd(), sets), Console())


def test_every_stage_is_gone_through_in_two_steps_with_validation_and_a_resume(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tried() is ExitCode.FINISHED
    said = capsys.readouterr().out
    for change in ("groups.last.start_epoch: 30 -> 1", "groups.last.then.end.start_epoch: 60 -> 2",
                   "groups.first.stop_epoch: 70 -> 3", "groups.last.scheduler.warmup: 9 -> 0"):  # fmt: skip
        assert f"  {change}\n" in said
    assert re.search(
        r"^smoke: all parts work: 4 stages of 2 steps, 4 evaluations, saved after 7 steps and resumed, in ", said, re.M
    )
    seen = [(event, epoch) for event, epoch, _ in recorder.SEEN]
    assert [epoch for event, epoch in seen if event == "group_start"] == [0, 1]
    assert [epoch for event, epoch in seen if event == "group_stop"] == [3]
    assert [step for event, _, step in recorder.SEEN if event == "step_end"] == list(range(1, 9))
    assert [event for event, _ in seen if event in ("resume", "run_end")] == ["run_end", "resume", "run_end"]
    assert not [*Path().glob("runs"), *Path().glob("trainkit-*")]  # neither its folder nor one below runs/


def test_a_part_that_fails_late_is_named_and_the_folder_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(state: Any) -> None:
        raise ValueError("no more")

    recorder.ACTIONS["group_stop"] = fail
    with pytest.raises(PartError, match=r"hooks\.recorder, in on_group_stop"):
        tried()
    said = capsys.readouterr().out
    assert "smoke: something does not work, in training: hooks.recorder, in on_group_stop: ValueError: no more" in said
    (folder,) = Path().glob("trainkit-smoke-*")
    assert f"its folder is kept: {folder.absolute()}" in said


def test_what_fails_only_after_a_resume_is_found_too(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(state: Any) -> None:
        raise ValueError("forgotten")

    recorder.ACTIONS["resume"] = fail
    with pytest.raises(PartError, match="forgotten"):
        tried()
    assert "smoke: something does not work, in resuming" in capsys.readouterr().out


def test_a_group_that_no_gradient_reaches_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def detach(state: Any) -> None:
        for parameter in state.groups["last"].parameters.values():
            parameter.grad = None

    recorder.ACTIONS["backward_end"] = detach
    assert tried() is ExitCode.DOUBTFUL
    assert "smoke: no gradient reached the groups last, although they train" in capsys.readouterr().out


def test_a_weight_that_is_searched_is_refused() -> None:
    whole = resolve(shipped()["ptycho_staged"], ('losses.smooth={ use = "tv", weight = "auto" }',))
    with pytest.raises(RecipeError, match=r'--smoke: losses\.smooth\.weight is "auto"'):
        smoke_recipe(whole, Path("x"))


def test_the_settings_of_a_run_in_steps_become_epochs() -> None:
    found = smoke_recipe(resolve_text(STAGED, Path.cwd(), ("run.steps=1000",)), Path("x"))
    assert (found.resolved.recipe.run.steps, found.resolved.recipe.run.epochs) == (None, 4)


def test_an_epoch_ends_after_as_many_steps_as_it_may_have(caplog: pytest.LogCaptureFixture) -> None:
    whole = run("run.epochs=3", "run.most_steps_per_epoch=9")  # the data has four batches
    cut = run("run.epochs=3", "run.most_steps_per_epoch=3")
    assert [line["step"] for line in lines(whole.run.state.folder)] == [4, 8, 12]
    assert [line["step"] for line in lines(cut.run.state.folder)] == [3, 6, 9]
    assert "more than" not in caplog.text
    halved = run("run.epochs=3", "run.most_steps_per_epoch=1", "run.accumulate=2")
    assert [line["step"] for line in lines(halved.run.state.folder)] == [1, 2, 3]
