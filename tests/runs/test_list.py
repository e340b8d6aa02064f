"""`trainkit runs`: what it says of runs that ran, of one that is going on, and of folders that are damaged."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tomli
from click.testing import CliRunner, Result

from trainkit.cli.runs import command
from trainkit.engine.folder_lock import lock
from trainkit.errors import CheckpointError, RecipeError
from trainkit.recipe.resolve import write
from trainkit.runs.families import families
from trainkit.runs.finding import run_named, runs_below
from trainkit.runs.record import RunRecord
from trainkit.runs.settings import differing, settings_of


def listed(*arguments: str, columns: int = 80) -> Result:
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(command, [*arguments], catch_exceptions=False)


def objects(*arguments: str) -> list[dict]:
    return [json.loads(line) for line in listed(*arguments, "--json").stdout.splitlines()]


@pytest.fixture
def runs(toy_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Copies of the toy runs in runs/points, in the order of their creation."""
    shutil.copytree(toy_runs / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return sorted(
        Path("runs/points").iterdir(), key=lambda path: json.loads((path / "run.json").read_text())["created"]
    )


def of_start(folder: Path, **changes: object) -> None:
    path = folder / "environment.json"
    content = json.loads(path.read_text())
    content["starts"][-1] |= changes
    content["starts"][-1] = {key: value for key, value in content["starts"][-1].items() if value is not None}
    path.write_text(json.dumps(content))


def test_each_run_has_its_epochs_its_best_value_what_differs_and_its_parent(runs: list[Path]) -> None:
    found = objects()
    assert [each["id"] for each in found] == [path.name for path in runs]
    for each, path in zip(found, runs, strict=True):
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        values = [line["train/loss"] for line in lines]
        assert (each["epochs"], each["planned_epochs"], each["state"]) == (4, 4, "finished")
        at = values.index(min(values))
        assert each["best"] == {"value": min(values), "epochs": at + 1, "steps": lines[at]["step"]}
        assert each["last"]["train/loss"] == values[-1]
    assert [each["differs"] for each in found] == [{"optimizer.lr": rate} for rate in (0.001, 0.05, 0.1)]
    assert found[2]["parent"]["run"] == found[1]["id"]
    assert found[2]["parent"]["epochs"] == 2


@pytest.mark.parametrize("columns", [80, 140])
def test_the_list_fits_the_terminal_and_draws_a_resumed_run_below_the_one_it_began_from(
    runs: list[Path], columns: int
) -> None:
    lines = listed(columns=columns).output.splitlines()
    assert max(map(len, lines)) <= columns
    short = [path.name.rpartition("-")[2] for path in runs]
    rows = [next(line for line in lines if each in line) for each in short]
    assert rows[0].startswith(f"  {short[0]}")
    assert rows[2].startswith(f"  └ {short[2]}")
    assert lines.index(rows[2]) > lines.index(rows[1])
    text = " ".join(" ".join(lines).split())
    assert "optimizer.lr=0.05" in text
    assert "train/loss, lower is better" in text


def test_runs_are_sorted_and_filtered(runs: list[Path]) -> None:
    best = [each["best"]["value"] for each in objects("--sort", "best")]
    assert best == sorted(best)
    assert [each["id"] for each in objects("--where", "optimizer.lr>0.01")] == [path.name for path in runs[1:]]
    assert [each["id"] for each in objects("--where", "optimizer.lr=0.1", "--state", "finished")] == [runs[2].name]
    assert objects("--state", "failed") == []
    assert [each["id"] for each in objects("points", "--sort", "optimizer.lr", "--reverse")] == [
        path.name for path in reversed(runs)
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--where", "lr=1"), "did you mean optimizer.lr"),
        (("--sort", "optimiser.lr"), 'did you mean "optimizer.lr"'),
        (("--where", "optimizer.lr>fast"), '"fast" is no number'),
        (("--where", "optimizer.lr"), "write KEY=VALUE"),
        (("--where", "run.name>3"), "which is no number"),
    ],
)
def test_a_wrong_condition_is_refused_with_what_may_be_meant(
    runs: list[Path], arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        listed(*arguments)


def test_a_run_is_named_by_its_name_its_id_and_the_end_of_its_id(runs: list[Path]) -> None:
    assert run_named("points").folder.name == runs[-1].name
    assert run_named(str(runs[0])).folder == runs[0]
    assert run_named(runs[0].name).folder.name == runs[0].name
    assert run_named(runs[1].name.rpartition("-")[2]).folder.name == runs[1].name
    with pytest.raises(CheckpointError, match='did you mean "points"'):
        run_named("pionts")


def test_the_state_says_how_a_run_ended(runs: list[Path]) -> None:
    of_start(runs[0], ended=None, finished=None)
    assert RunRecord(runs[0]).state.name == "killed"
    of_start(runs[0], ended="failed: DeviceError", finished=False, error="the memory of cuda is full")
    assert (RunRecord(runs[0]).state.name, RunRecord(runs[0]).state.why) == ("failed", "the memory of cuda is full")
    of_start(runs[0], ended="stopped: signal SIGTERM", finished=False, error=None)
    assert (RunRecord(runs[0]).state.name, RunRecord(runs[0]).state.why) == ("stopped", "signal SIGTERM")
    of_start(runs[0], ended="finished", finished=True, doubts=["the training diverged: val/loss ends at 9"])
    assert RunRecord(runs[0]).state.name == "diverged"
    of_start(runs[0], ended="stopped: no improvement", finished=True, doubts=[])
    assert RunRecord(runs[0]).state.name == "finished"


def test_a_run_that_is_going_on_is_shown_with_its_process_and_is_not_disturbed(runs: list[Path]) -> None:
    with lock(runs[0]):
        assert f"in process {os.getpid()} on {os.uname().nodename}" in " ".join(listed().output.split())
        assert next(each for each in objects() if each["id"] == runs[0].name)["state"] == "running"
        assert "" not in listed().output.splitlines()
    assert RunRecord(runs[0]).state.name == "finished"


def test_a_run_that_starts_while_somebody_looks_gets_its_lock(runs: list[Path]) -> None:
    looking = (runs[0] / ".lock").open()
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Thread(target=lambda: (time.sleep(0.03), looking.close())).start()
    with lock(runs[0]):
        pass


def test_damaged_and_foreign_folders_are_named_and_the_rest_is_listed(runs: list[Path]) -> None:
    (runs[0] / "run.json").write_text('{"id": ')
    (runs[1] / "environment.json").write_bytes(b"\xff\x00")
    lines = (runs[2] / "metrics.jsonl").read_text().splitlines()
    (runs[2] / "metrics.jsonl").write_text(
        "\n".join([lines[0], '{"finished_epochs": 2, "st', "[1, 2]", *lines[2:]]) + "\n"
    )
    Path("runs/other/checkpoints").mkdir(parents=True)
    Path("runs/other/checkpoints/model.pt").touch()
    Path("runs/loop").symlink_to(Path("..").resolve() / "runs")
    result = listed()
    said = " ".join(result.output.split())
    assert result.exit_code == 0
    assert "damaged: run.json cannot be read" in said
    assert "unknown: environment.json is missing or cannot be read" in said
    assert "metrics.jsonl: 2 lines cannot be read" in said
    assert "runs/other has a folder checkpoints, but trainkit did not write it" in said
    assert len(objects()) == 3
    assert objects("--where", "name=points")[0]["epochs"] == 4
    for path in runs[0].iterdir():
        if path.is_file():
            path.unlink()
    assert len(objects()) == 3  # its checkpoints still say what it is


def test_the_last_line_may_be_half_written(runs: list[Path]) -> None:
    with (runs[0] / "metrics.jsonl").open("a") as file:
        file.write('{"finished_epochs": 5, "step": 9, "train/l')
    assert RunRecord(runs[0]).values.epochs == 4
    assert RunRecord(runs[0]).problems == []


def test_records_that_name_each_other_as_parents_are_listed_once(runs: list[Path]) -> None:
    for path, other in ((runs[0], runs[1]), (runs[1], runs[0])):
        content = json.loads((path / "run.json").read_text())
        content["parent"] = {"checkpoint": "x", "run": other.name, "epoch": 1, "step": 1}
        (path / "run.json").write_text(json.dumps(content))
    (family,) = families(runs_below(Path("runs")).runs)
    assert sorted(branch.run.folder.name for branch in family.tree()) == sorted(path.name for path in runs)


def test_settings_read_table_by_table_are_those_of_the_whole_text() -> None:
    tree = {
        "trainkit": 1,
        "run": {"name": "a\n\n[b]\nc = 1", "epochs": 3},
        "groups": {"my key": {"lr": 0.1, "then": {"x": {"lr": 1.0}}}, "empty": {}},
        "data": {"list": ["a" * 50, "b" * 50], "tables": [{"a": 1}, {"b": [{"c": 2}]}]},
    }
    for each in (tree, {key: value for key, value in tree.items() if key != "data"}):
        found = settings_of(write(each))
        whole = tomli.loads(write(each))
        assert found.get("run.name") == whole["run"]["name"]
        assert found['groups."my key".then.x.lr'] == 1.0
        assert found.get("data.list") == whole.get("data", {}).get("list")
    assert differing([{"a": 1, "b": 1.0}, {"a": True, "b": 1.0}, {"b": 1.0}]) == ["a"]


def test_listing_runs_imports_neither_torch_nor_numpy(toy_runs: Path) -> None:
    code = (
        "import sys; from trainkit.cli import cli\n"
        "try: cli.main(['runs', '--sort', 'created'], standalone_mode=False)\n"
        "finally: assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=toy_runs, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "points" in done.stdout


def test_a_narrow_terminal_shows_whole_values_and_leaves_out_when_a_run_was_started(runs: list[Path]) -> None:
    wide, narrow = listed(columns=100).output.splitlines(), listed(columns=60).output.splitlines()
    assert max(map(len, narrow)) <= 60
    assert "STARTED" in wide[0]
    assert "STARTED" not in narrow[0]
    assert not [line for line in narrow if line.endswith("…")]
