"""A search of values of a recipe's keys: its trials, whatever happens to them, and what it leaves behind."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from clients import recorder
from clients.ridge import RECIPE as RIDGE
from clients.warm import Warm
from PIL import Image

from trainkit import RecipeError, State
from trainkit.contracts import Monitor
from trainkit.engine.tuning.records import TrialRecord, best_trials
from trainkit.engine.tuning.trial_run import values_of
from trainkit.errors import NonFiniteError
from trainkit.recipe.resolve import resolve
from trainkit.recipe.search import Parameter, Search

pytest.importorskip("optuna", reason="Optuna, which trainkit tune needs (the extra tune), is not installed")

from trainkit.cli.tune import command
from trainkit.engine.tuning import pictures
from trainkit.engine.tuning import study as studies

BASE = (
    RIDGE.replace('weight = "auto"', "weight = 0.1")
    .replace("[weight_search]\nbranches = 7\n", "")
    .replace('use = "clients.ridge:Points"', 'use = "clients.ridge:Points"\nsteps = 8')
)
SEARCH = """
[search]
trials = 4
[search.keys]
"optimizer.lr" = { low = 1e-3, high = 1e-1, log = true }
"losses.ridge.weight" = { choices = [0.0, 0.3] }
"""
FOLDER = Path("runs/ridge_search")
NO_PICTURES = """
from trainkit.engine.tuning import pictures
pictures.draw_study = lambda *_: []
"""


def tune(*options: str, search: str = SEARCH) -> Result:
    Path("r.toml").write_text(BASE + search)
    return CliRunner().invoke(command, ["r.toml", *options])


def table() -> list[dict[str, str]]:
    with (FOLDER / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def proposals() -> list[tuple[str, str]]:
    return [(each["optimizer.lr"], each["losses.ridge.weight"]) for each in table()]


def width(name: str) -> int:
    with Image.open(FOLDER / name) as picture:
        return picture.size[0]


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pictures, "_slices", lambda path, *_: path.touch())
    monkeypatch.setattr(pictures, "_history", lambda path, *_: path.touch())
    monkeypatch.setattr(pictures, "_parallel", lambda path, *_: path.touch())
    monkeypatch.setattr(pictures, "_importances", lambda path, *_: path.touch())


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder with a finished search, and what it printed."""
    folder = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, tune()


@pytest.fixture
def whole(searched: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Work in a copy of the folder of the finished search."""
    shutil.copytree(searched[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return searched[1]


def test_each_trial_is_a_run_folder_and_the_best_is_written_as_a_recipe(
    whole: Result, searched: tuple[Path, Result]
) -> None:
    assert whole.exit_code == 0, whole.output
    trials = table()
    assert [each["what"] for each in trials] == ["finished"] * 4
    for number, each in enumerate(trials):
        run = FOLDER / each["run"]
        assert run.parent.name == f"trial_{number:04d}"
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert float(each["val/loss"]) == pytest.approx(min(line["val/loss"] for line in lines), rel=1e-9)
        recipe = resolve(run / "recipe.toml").recipe
        assert recipe.optimizer.lr == pytest.approx(float(each["optimizer.lr"]), rel=1e-9)  # the file has ten digits
    (best,) = [each for each in trials if each["best"]]
    assert float(best["val/loss"]) == min(float(each["val/loss"]) for each in trials)
    written = resolve(FOLDER / "best.toml")
    assert written.recipe.optimizer.lr == pytest.approx(float(best["optimizer.lr"]), rel=1e-9)
    assert (written.recipe.run.name, written.recipe.run.dir) == ("ridge", searched[0] / "runs")
    assert written.search is None
    text = (FOLDER / "best.toml").read_text()
    assert f"trial {best['trial']}, val/loss" in text
    assert "# searched: 0.001 to 0.1, log" in text.partition("[optimizer]")[2]
    assert f"best: trial {best['trial']}, val/loss" in whole.output


def test_what_a_run_says_is_said_once(whole: Result) -> None:
    # not held by the lines being unlike: two trials can come to the same figures
    lines = whole.output.splitlines()
    for epoch in range(1, 5):
        assert sum(line.startswith(f"epoch {epoch}/4") for line in lines) == len(table())
    assert sum("had not converged" in line for line in lines) <= len(table())


def test_the_first_trial_has_the_values_of_the_recipe_where_they_are_searched(whole: Result) -> None:
    first = table()[0]
    assert float(first["optimizer.lr"]) == 0.1  # that of the recipe; its weight is none of the choices
    assert first["losses.ridge.weight"] in ("0", "0.3")


def test_pictures_are_large_enough(whole: Result) -> None:
    for name in ("history", "slices", "parallel"):
        assert width(f"{name}.png") >= 1200


def test_the_same_command_adds_nothing_to_a_finished_search(whole: Result) -> None:
    again = tune()
    assert again.exit_code == 0, again.output
    assert not recorder.SEEN
    assert "so far 4 finished" in again.output


def test_another_recipe_is_not_mixed_into_a_search(whole: Result) -> None:
    again = tune("--set", "run.epochs=3")
    assert isinstance(again.exception, RecipeError)
    assert "holds the search of another recipe: run.epochs (4 -> 3) differs from" in str(again.exception)
    assert "--set run.name=ridge_2" in str(again.exception)


def test_a_search_of_an_older_version_is_gone_on_with_and_new_settings_are_named(
    whole: Result,
) -> None:
    file = FOLDER / "recipe.toml"
    now = file.read_text()
    older = now.replace("shards = 0\n", "").replace("deterministic = false\n", "").replace('value = "best"\n', "")
    assert len(older.splitlines()) == len(now.splitlines()) - 3
    try:
        file.write_text(older)
        again = tune()
        assert again.exit_code == 0, again.output
        assert 'run.deterministic = false, run.shards = 0, search.value = "best" (their defaults)' in again.output
        assert "so far 4 finished" in again.output
        another = tune("--set", "run.deterministic=true")
        assert "holds the search of another recipe: run.deterministic (false -> true) differs from" in str(
            another.exception
        )
        last = tune("--set", "search.value=last")
        assert 'search.value ("best" -> "last") differs from' in str(last.exception)
        file.write_text(now.replace("shards = 0", "split = 0"))
        gone = tune()
        assert "run.split (0 -> not set), run.shards (not set -> 0) differ from" in str(gone.exception)
    finally:
        file.write_text(now)


def test_a_trial_of_an_older_version_is_not_trained_again() -> None:
    search = '[search]\ntrials = 2\n[search.keys]\n"losses.ridge.weight" = { choices = [0.0, 0.3] }\n'
    assert tune(search=search).exit_code == 0
    journal = FOLDER / "study.journal"
    lines = journal.read_text()
    marks = {
        each["user_attr"]["recipe"]
        for each in map(json.loads, lines.splitlines())
        if "recipe" in each.get("user_attr", {})
    }
    assert marks
    for mark in marks:  # the text of the recipe was another one then
        lines = lines.replace(mark, "0" * len(mark))
    journal.write_text(lines)
    again = tune("--trials", "6", search=search)
    assert again.exit_code == 0, again.output
    trials = table()
    assert len({each["losses.ridge.weight"] for each in trials}) == sum(not each["same_as"] for each in trials)


@pytest.mark.slow  # a whole search, with a stop
def test_proposals_depend_on_the_seed_and_not_on_where_a_search_was_stopped(
    searched: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(state: State) -> None:
        if state.folder.parent.name == "trial_0001" and state.step == 10:
            signal.raise_signal(signal.SIGTERM)

    recorder.ACTIONS["step_end"] = stop
    stopped = tune()
    assert stopped.exit_code == 75, stopped.output
    assert "the same command goes on with it" in stopped.output
    recorder.ACTIONS.clear()
    recorder.SEEN.clear()
    resumed = tune()
    assert resumed.exit_code == 0, resumed.output
    assert "trial 1 (2 of 4), resumed" in resumed.output
    assert sum(event == "step_end" for event, _, _ in recorder.SEEN) == 22 + 2 * 32  # nothing is trained twice
    here = table()
    monkeypatch.chdir(searched[0])
    for one, other in zip(table(), here, strict=True):
        assert {**one, "seconds": "", "run": ""} == {**other, "seconds": "", "run": ""}


@pytest.mark.slow  # a process of its own
def test_a_trial_whose_process_is_killed_is_resumed(
    searched: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch, warm: Warm
) -> None:
    Path("r.toml").write_text(BASE + SEARCH)
    code = (
        "import os, signal, sys\nfrom clients import recorder\n" + NO_PICTURES + "def kill(state):\n"
        "    if state.folder.parent.name == 'trial_0002' and state.step == 18: os.kill(os.getpid(), signal.SIGKILL)\n"
        "recorder.ACTIONS['step_end'] = kill\nsys.argv = ['trainkit', 'tune', 'r.toml']\n"
        "from trainkit.cli import main\nmain()\n"
    )
    assert warm.start("-c", code, folder=Path.cwd()).wait() == -signal.SIGKILL
    resumed = tune()
    assert resumed.exit_code == 0, resumed.output
    assert "trial 2 (3 of 4), resumed" in resumed.output
    assert sum(event == "step_end" for event, _, _ in recorder.SEEN) == 16 + 32  # from its last checkpoint
    here = proposals()
    monkeypatch.chdir(searched[0])
    assert here == proposals()


def test_trials_that_fail_are_recorded_with_their_reason_and_the_search_goes_on() -> None:
    def fail(state: State) -> None:
        name = state.folder.parent.name
        if name == "trial_0000":
            raise NonFiniteError("train/loss is nan")
        if name == "trial_0001":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if name == "trial_0002":
            raise ZeroDivisionError("a mistake")

    recorder.ACTIONS["step_end"] = fail
    found = tune()
    assert found.exit_code == 0, found.output
    trials = table()
    assert [each["what"] for each in trials] == ["failed", "failed", "failed", "finished"]
    assert "not finite" in trials[0]["reason"]
    assert "the memory of cpu is full" in trials[1]["reason"]
    assert "hooks.recorder, in on_step_end: ZeroDivisionError: a mistake" in trials[2]["reason"]
    assert trials[3]["best"] == "yes"


def test_a_search_in_which_nothing_succeeds_has_failed() -> None:
    recorder.ACTIONS["step_end"] = lambda state: 1 / 0  # type: ignore[assignment, return-value]
    found = tune("--trials", "2")
    assert found.exit_code == 1, found.output
    assert "no trial has succeeded" in found.output


def test_a_doubtful_trial_is_marked_and_a_doubtful_best_one_has_exit_code_3() -> None:
    recorder.ACTIONS["run_end"] = lambda state: state.doubt("a test says so")
    found = tune("--trials", "1")
    assert found.exit_code == 3, found.output
    assert "finished, but doubtful" in found.output
    assert table()[0]["doubtful"] == "a test says so"
    assert "# Doubtful: a test says so" in (FOLDER / "best.toml").read_text()


def test_a_poor_trial_ends_after_a_validation() -> None:
    def spoil(state: State) -> None:
        if state.folder.parent.name == "trial_0003":
            state.metrics["val/loss"] += 100.0

    recorder.ACTIONS["validation_end"] = spoil
    found = tune("--set", "search.prune_after_trials=3", "--set", "search.prune_after=2")
    assert found.exit_code == 0, found.output
    last = table()[3]
    assert (last["what"], last["epochs"]) == ("ended early", "2")
    assert last["reason"].startswith("worse than other trials: val/loss 10")
    assert "trial 3 ended early" in found.output
    environment = json.loads((FOLDER / last["run"] / "environment.json").read_text())["starts"][-1]
    assert environment["finished"]


def test_a_trial_with_the_recipe_of_an_earlier_one_is_not_trained_again() -> None:
    search = '[search]\ntrials = 5\n[search.keys]\n"losses.ridge.weight" = { choices = [0.0, 0.3] }\n'
    found = tune(search=search)
    assert found.exit_code == 0, found.output
    trials = table()
    trained = [each for each in trials if not each["same_as"]]
    assert len({each["losses.ridge.weight"] for each in trials}) == len(trained) < 5
    for each in trials:
        if each["same_as"]:
            assert each["val/loss"] == trials[int(each["same_as"])]["val/loss"]


def test_several_objectives_give_a_front_of_recipes() -> None:
    search = """
[search]
trials = 4
[search.objectives.loss]
metric = "val/loss"
mode = "min"
[search.objectives.train]
metric = "train/squares"
mode = "min"
[search.keys]
"losses.ridge.weight" = { low = 1e-3, high = 10.0, log = true }
"""
    found = tune(search=search)
    assert found.exit_code == 0, found.output
    front = [int(each["trial"]) for each in table() if each["best"]]
    assert sorted(path.name for path in FOLDER.glob("best*.toml")) == [f"best_{n:04d}.toml" for n in sorted(front)]
    assert width("pareto.png") >= 1200


@pytest.mark.slow  # two processes
def test_two_processes_share_a_search(warm: Warm) -> None:
    Path("r.toml").write_text(BASE + SEARCH.replace("trials = 4", "trials = 6"))
    code = NO_PICTURES + "import sys; from trainkit.cli import main; sys.argv[0] = 'trainkit'; main()"
    command_line = ("-c", code, "tune", "r.toml", "--set", "run.threads=1", "--set", "search.prune_after_trials=6")
    both = [warm.start(*command_line, folder=Path.cwd()) for _ in range(2)]
    codes = [each.wait() for each in both]
    assert codes == [0, 0], [each.stdout for each in both]
    trials = table()
    assert [each["what"] for each in trials] == ["finished"] * 6
    assert all(len(list((FOLDER / f"trial_{n:04d}").glob("2*"))) == 1 for n in range(6))
    assert len(set(proposals())) == 6


def test_after_its_time_limit_a_process_begins_no_further_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 40))
    monkeypatch.setattr("trainkit.engine.tuning.tune.time", type("Clock", (), {"monotonic": lambda: next(clock)}))
    found = tune("--set", "search.time_limit=1m", "--set", "run.epochs=1")
    assert found.exit_code == 0, found.output
    assert "the time limit of 1m is over" in found.output
    assert len(table()) == 1


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_a_study_is_the_same_in_both_storages(storage: str) -> None:
    found = tune("--trials", "2", "--set", f"search.storage={storage}", "--set", "run.epochs=1")
    assert found.exit_code == 0, found.output
    assert (FOLDER / ("study.db" if storage == "sqlite" else "study.journal")).is_file()
    assert len(table()) == 2


def test_a_journal_whose_last_line_is_torn_is_read(
    whole: Result, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = tmp_path / "study.journal"
    journal.write_bytes((FOLDER / "study.journal").read_bytes() + b'{"op_code":4,"wor')
    settings = resolve("r.toml").search
    assert settings is not None
    study = studies.Study(tmp_path, settings.settings, [Monitor()], 4)
    assert [each.became for each in study.records()] == ["finished"] * 4
    assert "is cut off" in caplog.text


def test_a_process_that_is_killed_again_and_again_at_one_point_fails_its_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """Ends the process without a trace in the study."""

    def kill(state: State) -> None:
        raise Killed

    recorder.ACTIONS["step_end"] = kill
    monkeypatch.setattr("trainkit.engine.tuning.tune._Tuning._unnote", lambda *_: None)
    for _ in range(3):
        with pytest.raises(Killed):
            tune("--trials", "1")
    found = tune("--trials", "1")
    assert found.exit_code == 1, found.output
    assert "its process was killed 3 times at the same point" in table()[0]["reason"]


# ---- samplers -------------------------------------------------------------------------------------------------------

RATE = Parameter("rate", ("rate",), (), "float", 0.0, 1.0)
WIDTH = Parameter("width", ("width",), (), "int", 1, 8)
KIND = Parameter("kind", ("kind",), (), "choice", choices=("x", "y"), labels=("x", "y"))


def proposed(folder: Path, sampler: Any, trials: int, *keys: Parameter, anew_after: int = -1) -> list[list[Any]]:
    """Return what a sampler proposes where the value of a trial is the squared distance of each key from 0.3."""
    made = []
    for number in range(trials):
        if number in (0, anew_after):
            study = studies.Study(folder, Search(sampler=sampler, trials=trials), [Monitor()], 3)
        with contextlib.ExitStack() as held:
            claim = study.next(trials, held)
            assert claim is not None
            made.append([studies.proposed(claim)(key) for key in keys])
            study.finish(claim, [sum((value - 0.3) ** 2 for value in made[-1])])
    return made


@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc", "random"])
def test_every_sampler_goes_on_in_another_process_as_it_would_have_in_this_one(tmp_path: Path, sampler: str) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    straight.mkdir()
    stopped.mkdir()
    keys = RATE, WIDTH, KIND
    assert proposed(straight, sampler, 13, *keys) == proposed(stopped, sampler, 13, *keys, anew_after=6)


def test_a_gaussian_process_finds_the_minimum_of_a_parabola(tmp_path: Path) -> None:
    found = [rate for (rate,) in proposed(tmp_path, "gp", 15, RATE)]
    assert min(abs(rate - 0.3) for rate in found[10:]) < 1e-3 < min(abs(rate - 0.3) for rate in found[:10])


def test_a_sobol_sequence_visits_each_sixteenth_of_a_range_once(tmp_path: Path) -> None:
    found = [rate for (rate,) in proposed(tmp_path, "qmc", 17, RATE)]
    assert sorted(int(16 * rate) for rate in found[1:]) == list(range(16))  # the first trial tells which keys there are


# ---- values and fronts ----------------------------------------------------------------------------------------------


def lines_of(folder: Path, *values: Any) -> Path:
    lines = [{"finished_epochs": n + 1, "step": 9 * n, "val/loss": v, "seconds": 2.0} for n, v in enumerate(values)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_best_or_the_last_value_of_a_run_counts(tmp_path: Path) -> None:
    lines_of(tmp_path, 3.0, 1.0, 2.0)
    best, last = (values_of(tmp_path, [Monitor()], takes_best) for takes_best in (True, False))
    assert (best.values, best.epoch, best.epochs, best.seconds) == ((1.0,), 2, 3, 6.0)
    assert (last.values, last.epoch) == ((2.0,), 3)
    larger = [Monitor(metric="val/loss", mode="max")]
    assert values_of(tmp_path, larger, True).values == (3.0,)
    lines_of(tmp_path, 3.0, None)  # it was not finite in the end
    assert values_of(tmp_path, [Monitor()], True).values == (3.0,)
    assert values_of(tmp_path, [Monitor()], False).missing == "val/loss was not a finite number"
    assert values_of(tmp_path, [Monitor(metric="val/dice")], True).missing == "val/dice was never computed"


def test_the_front_is_what_no_other_trial_beats_in_all_values() -> None:
    values = {0: (1.0, 0.9), 1: (2.0, 0.95), 2: (2.0, 0.8), 3: (0.5, 0.1), 4: (1.0, 0.9)}
    records = [TrialRecord(n, "finished", {}, values=v) for n, v in values.items()]
    records.append(TrialRecord(5, "failed", {}))
    judged_by = [Monitor(metric="a", mode="min"), Monitor(metric="b", mode="max")]
    assert sorted(each.number for each in best_trials(records, judged_by)) == [0, 1, 3, 4]
