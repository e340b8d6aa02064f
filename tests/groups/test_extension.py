"""Another length, another schedule, other groups: how learning rates and groups go on after a resume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from clients import toy_run
from clients.toy import Line
from clients.toy_run import PARTS, RECORDER, lines, resume

from trainkit import RecipeError, component
from trainkit.groups.plan import Clock, GroupPlan, Phase
from trainkit.groups.resuming import CHOICES, ResumePoint, SavedGroup, is_ambiguous, rates_per_epoch, resume_group
from trainkit.optimizers.adam import Adam
from trainkit.recipe.group_epochs import ActiveEpochs
from trainkit_schedulers.cosine import Cosine
from trainkit_schedulers.none import NoSchedule
from trainkit_schedulers.one_cycle import OneCycle
from trainkit_schedulers.polynomial import Polynomial
from trainkit_schedulers.reduce_on_plateau import ReduceOnPlateau

AT_50 = ResumePoint(epoch=50, epoch_step=5000, steps_per_epoch=100)


def plan(scheduler: Any, epochs: int, lr: float = 1.0, start: int = 0) -> GroupPlan:
    return GroupPlan((Phase(ActiveEpochs(start, epochs), lr, scheduler, Adam()),))


def old(scheduler: Any, epochs: int = 50, memory: Mapping[str, Any] | None = None, start: int = 0) -> SavedGroup:
    phase = Phase(ActiveEpochs(start, epochs), 1.0, scheduler, Adam(), clock=Clock(start, start * 100, epochs))
    return SavedGroup(phase, phase.lr, memory or {})


def cosine(t: int, horizon: int) -> float:
    return 0.01 + 0.99 * (1 + math.cos(math.pi * t / horizon)) / 2


def test_a_stretched_cosine_is_the_one_that_the_new_length_would_have_had() -> None:
    rates = rates_per_epoch(resume_group(plan(Cosine(), 100), old(Cosine()), AT_50, "stretch"), AT_50)
    assert rates == pytest.approx([cosine(t, 100) for t in range(50, 100)], rel=1e-12)


def test_a_held_cosine_keeps_the_last_value_that_was_trained_with() -> None:
    rates = rates_per_epoch(resume_group(plan(Cosine(), 100), old(Cosine()), AT_50, "hold"), AT_50)
    assert rates == pytest.approx([cosine(49, 50)] * 50, rel=1e-12)


def test_a_held_cosine_first_runs_to_its_old_end() -> None:
    at_30 = ResumePoint(30, 3000, 100)
    rates = rates_per_epoch(resume_group(plan(Cosine(), 100), old(Cosine()), at_30, "hold"), at_30)
    assert rates == pytest.approx([cosine(min(t, 49), 50) for t in range(30, 100)], rel=1e-12)


def test_a_restarted_cosine_begins_anew_over_what_is_left() -> None:
    rates = rates_per_epoch(resume_group(plan(Cosine(), 100), old(Cosine()), AT_50, "restart"), AT_50)
    assert rates == pytest.approx([cosine(t, 50) for t in range(50)], rel=1e-12)


@pytest.mark.parametrize("scheduler", [Cosine(), OneCycle(), Polynomial(), Cosine(by="step"), OneCycle(by="step")])
def test_a_longer_run_under_a_schedule_with_a_horizon_has_to_be_told_how(scheduler: Any) -> None:
    assert is_ambiguous(plan(scheduler, 100), old(scheduler), AT_50)


@pytest.mark.parametrize(
    ("scheduler", "memory"),
    [(NoSchedule(), {}), (ReduceOnPlateau(), {"best": 0.1, "bad": 3, "cooldown": 0, "reductions": 2})],
)
def test_a_longer_run_without_schedule_or_under_plateau_just_resume_group(
    scheduler: Any, memory: dict[str, Any]
) -> None:
    before = old(scheduler, memory=memory)
    assert not is_ambiguous(plan(scheduler, 100), before, AT_50)
    present = before.phase.rate(49, 4900, 100, memory).lr
    assert rates_per_epoch(resume_group(plan(scheduler, 100), before, AT_50, "stretch"), AT_50) == [present] * 50


def test_the_same_length_and_schedule_go_on_untouched_in_every_way() -> None:
    at_30 = ResumePoint(30, 3000, 100)
    for choice in CHOICES:
        rates = rates_per_epoch(resume_group(plan(Cosine(), 50), old(Cosine()), at_30, choice), at_30)
        assert rates == pytest.approx([cosine(t, 50) for t in range(30, 50)], rel=1e-12)


def test_another_schedule_begins_at_the_present_rate_or_at_the_recipes() -> None:
    new, before = plan(ReduceOnPlateau(), 100), old(Cosine())
    assert is_ambiguous(new, before, AT_50)
    first = {choice: rates_per_epoch(resume_group(new, before, AT_50, choice), AT_50)[0] for choice in CHOICES}
    assert first == pytest.approx({"stretch": 1.0, "hold": cosine(49, 50), "restart": 1.0}, rel=1e-12)


def test_from_no_schedule_to_plateau_there_is_nothing_to_choose() -> None:
    assert not is_ambiguous(plan(ReduceOnPlateau(), 100), old(NoSchedule()), AT_50)


def test_a_group_that_is_let_go_only_now_begins_its_own_clock_now() -> None:
    continued = resume_group(plan(Cosine(), 100, start=0), None, AT_50, "stretch")
    assert continued.plan.epochs.start == 50
    assert rates_per_epoch(continued, AT_50) == pytest.approx([cosine(t, 50) for t in range(50)], rel=1e-12)


# ---- the whole way --------------------------------------------------------------------------------------------------

TOY = f"""
trainkit = 1
[run]
name = "toy"
epochs = 4
device = "cpu"
{PARTS}[scheduler]
use = "cosine"
"""
GROUPS = """
[groups.first]
parameters = ["0.*"]
[groups.second]
parameters = ["2.*"]
"""


@component
class OtherLine(Line):
    """Might have more steps an epoch."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*sets: str, text: str = TOY) -> Path:
    return toy_run.run(*sets, text=text).run.state.folder


def rates(folder: Path, group: str = "other") -> list[float]:
    return [line[f"lr/{group}"] for line in lines(folder)]


def test_an_extension_is_refused_with_the_three_learning_rates_and_nothing_is_touched() -> None:
    folder = run()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(RecipeError) as caught:
        resume(folder, "run.epochs=8")
    for choice, now in (("stretch", cosine(4, 8)), ("hold", cosine(3, 4)), ("restart", 1.0)):
        assert f"--on-extend {choice:8} other {1e-3 * now:.4g} now" in str(caught.value)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before


def test_it_is_refused_before_the_data_is_opened_unless_other_data_might_make_it_another_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = run()
    opened = []
    build = Line.build
    monkeypatch.setattr(Line, "build", lambda line, context: opened.append(line) or build(line, context))
    with pytest.raises(RecipeError, match="--on-extend stretch"):
        resume(folder, "run.epochs=8")
    assert not opened
    with pytest.raises(RecipeError, match="--on-extend stretch"):
        resume(folder, "run.epochs=8", "data.use=groups.test_extension:OtherLine")
    assert opened


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("stretch", [cosine(t, 8) for t in (4, 5, 6, 7)]),
        ("hold", [cosine(3, 4)] * 4),
        ("restart", [cosine(t, 4) for t in range(4)]),
    ],
)
def test_an_extension_goes_on_as_was_chosen_also_after_it_was_stopped_again(choice: Any, expected: list[float]) -> None:
    folder = run("checkpoint.keep_last=20")
    resume(folder, "run.epochs=8", on_extend=choice)
    assert rates(folder) == pytest.approx([1e-3 * r for r in [cosine(t, 4) for t in range(4)] + expected], rel=1e-12)
    again = resume(folder, epoch=6).run.state.folder  # the choice is saved: it is not asked again
    assert again != folder
    assert rates(again) == rates(folder)


def test_the_way_of_the_field_is_one_command() -> None:
    run("scheduler.use=none", "checkpoint.keep_last=20")
    ending = resume(Path("runs/toy"), "run.epochs=8", "scheduler.use=reduce_on_plateau", epoch=3)
    assert rates(ending.run.state.folder) == pytest.approx([1e-3] * 8)


def test_a_switch_of_schedule_keeps_the_optimizers_state() -> None:
    folder = run("scheduler.use=none")
    ending = resume(folder, "run.epochs=5", "scheduler.use=reduce_on_plateau")
    steps = {float(state["step"]) for state in ending.run.optimizers.members["all"].state.values()}
    assert steps == {20.0}


def test_groups_that_are_renamed_and_reordered_keep_their_state(capsys: pytest.CaptureFixture[str]) -> None:
    whole = run("run.epochs=6", "checkpoint.keep_last=20", text=TOY + GROUPS)
    (file,) = (whole / "checkpoints").glob("epoch-0003.safetensors")
    other = TOY + '[groups.tail]\nparameters = ["2.*"]\n[groups.head]\nparameters = ["0.*"]\n'
    Path("other.toml").write_text(other.replace("epochs = 4", "epochs = 6"))
    ending = resume(file, recipe=Path("other.toml"), quiet=False)
    assert "group tail: was called second" in capsys.readouterr().out
    final = ending.run.state.model.state_dict()
    reference = resume(whole / "checkpoints" / "epoch-0005.safetensors").run.state.model.state_dict()
    assert all(torch.equal(final[name], reference[name]) for name in reference)


def test_a_group_that_was_frozen_can_be_let_go(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("groups.second.stop_epoch=4", "groups.first.start_epoch=3", "scheduler.use=none", text=TOY + GROUPS)
    ending = resume(folder, "run.epochs=6", "groups.second.stop_epoch=6", quiet=False)
    assert rates(ending.run.state.folder, "second") == [1e-3] * 6


def test_a_group_that_stays_frozen_has_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("groups.second.stop_epoch=2", "scheduler.use=none", text=TOY + GROUPS)
    resume(folder, "run.epochs=6", quiet=False)
    assert "group second:" not in capsys.readouterr().out


def test_settings_that_do_not_matter_are_told_from_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("scheduler.use=none")
    resume(folder, "run.epochs=5", "checkpoint.keep_last=7", "losses.squares.weight=2.0", quiet=False)
    said = capsys.readouterr().out
    assert "changed: checkpoint.keep_last: 3 -> 7 (harmless)" in said
    assert "changed: losses.squares.weight: 1.0 -> 2.0 (the run goes on differently)" in said


def test_an_epoch_that_was_not_kept_is_answered_with_those_that_were() -> None:
    from trainkit import CheckpointError

    folder = run("run.epochs=6", "checkpoint.keep_last=2", "checkpoint.best=0")
    with pytest.raises(CheckpointError, match="it has checkpoints after: 5, 6"):
        resume(folder, epoch=2)


@pytest.mark.slow
def test_a_run_is_found_by_its_name_and_of_several_the_newest_is_taken() -> None:
    run("scheduler.use=none")
    newest = run("scheduler.use=none")
    assert resume(Path("toy"), "run.epochs=5").run.state.folder == newest


def test_another_model_is_refused_with_the_parameters_names() -> None:
    from trainkit import CheckpointError

    folder = run()
    Path("other.toml").write_text(TOY.replace("toy:Perceptron", "bigger:Wide").replace("epochs = 4", "epochs = 5"))
    shapes = r"of another shape are 0.weight \(8, 3\) \(here \(9, 3\)\), 0.bias \(8,\) \(here \(9,\)\), 2.weight"
    with pytest.raises(CheckpointError, match=shapes):
        resume(folder, recipe=Path("other.toml"), on_extend="hold")
    Path("other.toml").write_text(TOY.replace("toy:Perceptron", "bigger:Deep").replace("epochs = 4", "epochs = 5"))
    with pytest.raises(
        CheckpointError, match=r"this recipe's model: it lacks 3.weight, 3.bias. Resume with the same model"
    ):
        resume(folder, recipe=Path("other.toml"), on_extend="hold")


def test_a_checkpoint_inside_an_epoch_refuses_another_length_of_epochs() -> None:
    from clients import recorder

    from trainkit import CheckpointError

    recorder.ACTIONS["step_end"] = lambda state: state.interrupt("here") if state.step == 2 else None
    try:
        folder = run(text=TOY + RECORDER)
    finally:
        recorder.ACTIONS.clear()
    with pytest.raises(CheckpointError, match="inside an epoch of 4 steps, but an epoch now has 2"):
        resume(folder, "run.accumulate=2")
