"""What a resumed run remembers of earlier values, and what it is told of where it continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from clients import recorder
from clients.toy_run import TOY, resume, run

from trainkit import HARMLESS, Hook, Logger, State, component
from trainkit.engine.changes import Redefinitions, setting_changes
from trainkit.recipe.resolve import resolve_text, write

WATCHED = TOY.replace(
    "[hooks.recorder]",
    """[scheduler]
use = "reduce_on_plateau"
patience = 0
[hooks.early]
use = "early_stopping"
patience = 3
[hooks.recorder]""",
)


@component
class Sleepy(Hook):
    """A hook of a third party with a setting that changes nothing."""

    nap_seconds: float = attrs.field(default=0.0, metadata=HARMLESS)

    def build(self, context: Any) -> object:
        return object()


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def show(*values: float) -> None:
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": values[state.epoch]})


def test_what_is_best_patience_and_plateau_begin_anew_when_a_loss_changes(capsys: pytest.CaptureFixture[str]) -> None:
    show(1.0, 5.0, 5.0, 50.0, 60.0, 40.0)
    first = run("run.epochs=3", "checkpoint.keep_last=1", text=WATCHED)
    rate = first.run.state.groups["other"].lr
    sets = ("run.epochs=6", "losses.squares.weight=10.0", "checkpoint.keep_last=1")
    outcome = resume(first.run.state.folder, *sets, quiet=False)
    said = capsys.readouterr().out
    assert "changed: losses.squares.weight: 1.0 -> 10.0 (the run goes on differently)" in said
    assert "what is best begins anew, because losses.squares.weight has changed; the best before is kept" in said
    assert "EarlyStopping: the best value so far and the patience begin anew, because losses.squares.weight" in said
    assert "group other: its schedule forgets the values so far" in said
    assert "lr after 3 epochs" not in said, "the learning rate stays as it is"
    assert outcome.best == (40.0, 6, None)
    kept = sorted(path.stem for path in (first.run.state.folder / "checkpoints").iterdir())
    assert kept == ["epoch-0001", "epoch-0006"]
    assert outcome.run.state.groups["other"].lr == rate / 4, "one bad epoch before the change, one after it"


def test_nothing_is_forgotten_when_no_value_changes_its_meaning() -> None:
    show(1.0, 5.0, 5.0, 2.0)
    first = run("run.epochs=3", text=WATCHED)
    outcome = resume(first.run.state.folder, "run.epochs=6", "optimizer.lr=1e-4", "run.name=other")
    assert outcome.best == (1.0, 1, None)


def changes(before: str, *sets: str) -> dict[str, bool]:
    resolved = resolve_text(before, Path.cwd())
    again = resolve_text(write(resolved.tree), Path.cwd(), sets)
    return {str(each).split(": ")[1]: each.is_harmless for each in setting_changes(write(resolved.tree), again)}


def test_a_setting_itself_declares_whether_its_change_is_harmless() -> None:
    text = TOY.replace("[hooks.recorder]", '[hooks.nap]\nuse = "engine.test_memories:Sleepy"\n[hooks.recorder]')
    assert changes(text, "hooks.nap.nap_seconds=1.0", "run.name=other", "loggers.t={use='tensorboard'}") == {
        "hooks.nap.nap_seconds": True,
        "run.name": True,
        "loggers.t.use": True,
    }
    assert changes(text, "data.batch_size=4", "run.seed=1") == {"data.batch_size": False, "run.seed": False}


@pytest.mark.parametrize(
    ("more", "harmless"),
    [
        ("[checkpoint]\nbest = 0", True),
        ('[monitor]\nmetric = "train/loss"', True),
        ("", False),
        ('[checkpoint]\nbest = 0\n[scheduler]\nuse = "reduce_on_plateau"', False),
        ('[checkpoint]\nbest = 0\n[groups.other.scheduler]\nuse = "reduce_on_plateau"', False),
        ('[checkpoint]\nbest = 0\n[hooks.early]\nuse = "early_stopping"', False),
    ],
)
def test_validating_more_rarely_is_harmless_only_if_nothing_reacts_to_the_values(more: str, harmless: bool) -> None:
    text = TOY[: TOY.index("[hooks.recorder]")] + more
    assert changes(text, "validation.every_epochs=2") == {"validation.every_epochs": harmless}


CASES = """
trainkit = 1
[run]
name = "cases"
epochs = 1
[data]
use = "segmentation_synthetic"
[model]
use = "unet"
[losses.overlap]
use = "dice"
"""


@pytest.mark.parametrize(
    ("more", "harmless"),
    [
        ("", True),
        ('[loggers.curves]\nuse = "tensorboard"', True),
        ('[scheduler]\nuse = "reduce_on_plateau"', False),
        ('[hooks.early]\nuse = "early_stopping"', False),
    ],
)
def test_validating_beside_is_harmless_only_if_nothing_acts_on_the_values(more: str, harmless: bool) -> None:
    assert changes(CASES + more, "validation.beside=true") == {"validation.beside": harmless}


def test_workers_are_harmless_and_a_change_of_batches_keeps_what_values_of_whole_cases_mean() -> None:
    text = (
        CASES
        + """
[metrics.dice]
use = "dice"
[metrics.distance]
use = "hd95"
"""
    )
    assert changes(text, "data.workers=4") == {"data.workers": True}

    def why(name: str, *sets: str) -> str | None:
        resolved = resolve_text(text, Path.cwd())
        again = resolve_text(write(resolved.tree), Path.cwd(), sets)
        return Redefinitions(setting_changes(write(resolved.tree), again), (), again.recipe).why(name)

    assert why("val/dice", "data.batch_size=1", "losses.overlap.weight=2.0", "data.workers=2") is None
    assert why("train/loss", "data.batch_size=1") == "data.batch_size has changed"
    assert why("val/loss", "losses.overlap.weight=2.0") == "losses.overlap.weight has changed"
    assert why("val/dice", "data.num_cases=5") == "data.num_cases has changed"
    assert why("val/dice", "metrics.distance.use=surface_dice") is None
    assert why("lr/other", "data.num_cases=5") is None


def test_another_monitor_begins_anew_even_if_its_value_was_computed_before() -> None:
    show(1.0, 5.0, 3.0, 4.0)
    first = run("run.epochs=2", text=WATCHED)
    outcome = resume(first.run.state.folder, "run.epochs=4", "monitor.mode=max")
    assert outcome.best == (4.0, 4, None)


def test_the_best_checkpoint_so_far_is_in_the_new_folder_of_a_run_that_is_resumed_from_an_earlier_one() -> None:
    show(1.0, 5.0, 3.0, 4.0)
    first = run("run.epochs=3", "checkpoint.keep_last=9").run.state
    outcome = resume(first.folder / "checkpoints" / "epoch-0002.safetensors", "run.epochs=4")
    folder = outcome.run.state.folder
    assert folder != first.folder
    assert outcome.best == (1.0, 1, None)
    assert (folder / "checkpoints" / "epoch-0001.safetensors").is_file()


def test_the_best_of_a_parent_is_there_for_its_childrens_children_until_a_better_one_comes() -> None:
    show(1.0, 5.0, 3.0, 4.0, 0.5)
    keep = "checkpoint.keep_last=9"
    folder = run("run.epochs=3", keep).run.state.folder
    for epoch in (2, 3):
        outcome = resume(folder / "checkpoints" / f"epoch-000{epoch}.safetensors", "run.epochs=4", "run.seed=1")
        assert outcome.run.state.folder != folder
        folder = outcome.run.state.folder
        assert outcome.best == (1.0, 1, None)
    assert resume(folder, "run.epochs=5").best == (0.5, 5, None)
    assert not (folder / "checkpoints" / "epoch-0001.safetensors").exists()


def test_the_best_begins_anew_when_its_checkpoint_was_removed(caplog: pytest.LogCaptureFixture) -> None:
    show(1.0, 5.0, 3.0, 4.0)
    first = run("run.epochs=3").run.state
    (first.folder / "checkpoints" / "epoch-0001.safetensors").unlink()
    assert resume(first.folder, "run.epochs=4").best == (4.0, 4, None)
    assert "the best so far is not in" in caplog.text


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("every_epochs", [0, 2])
def test_a_logger_is_told_where_the_run_continues_before_anything_is_logged_again(every_epochs: int) -> None:
    written: list[int] = []

    def log(state: State) -> None:
        written.append(state.epoch)
        if len(written) == 4:
            raise Killed

    told: list[tuple[str, int, int]] = []

    def cut_back(state: State) -> None:
        told.append(("resume", state.epoch, state.step))
        del written[state.epoch :]

    recorder.ACTIONS.update({"epoch_end": log, "resume": cut_back})
    recorder.ACTIONS["run_start"] = lambda state: told.append(("run_start", state.epoch, state.step))
    with pytest.raises(Killed):
        run("run.epochs=6", f"checkpoint.every_epochs={every_epochs}", "checkpoint.best=0")
    assert told == [("run_start", 0, 0)]
    recorder.ACTIONS["epoch_end"] = lambda state: written.append(state.epoch)
    (folder,) = Path("runs/toy").iterdir()
    resume(folder)
    assert written == list(range(6))
    place = (2, 8) if every_epochs else (0, 0)
    assert told[1:] == [("resume", *place), ("run_start", *place)]


class Lines:
    """A live logger that can only append."""

    def on_epoch_end(self, state: State) -> None: ...


class Cut(Lines):
    """One that finds out where the run continues when it starts."""

    def on_run_start(self, state: State) -> None: ...


@component
class Either(Logger):
    """Appends, or cuts back first."""

    cuts: bool = False

    def build(self, context: Any) -> object:
        return Cut() if self.cuts else Lines()


@pytest.mark.parametrize("every_epochs", [0, 2])
@pytest.mark.parametrize("cuts", [False, True])
def test_a_logger_that_cannot_know_where_the_run_continues_is_named_if_something_is_logged_again(
    cuts: bool, every_epochs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill(state: State) -> None:
        if state.epoch == 3:
            raise Killed

    text = TOY + f'[loggers.lines]\nuse = "engine.test_memories:Either"\ncuts = {str(cuts).lower()}\n'
    recorder.ACTIONS["epoch_end"] = kill
    with pytest.raises(Killed):
        run("run.epochs=4", f"checkpoint.every_epochs={every_epochs}", "checkpoint.best=0", text=text)
    recorder.ACTIONS.clear()
    (folder,) = Path("runs/toy").iterdir()
    resume(folder, quiet=False)
    named = "loggers.lines has neither on_resume nor on_run_start"
    assert (named in capsys.readouterr().out) is not cuts
    resume(folder, "run.epochs=5", quiet=False)
    assert named not in capsys.readouterr().out  # nothing is logged again
