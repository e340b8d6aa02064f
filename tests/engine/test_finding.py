"""A run is found by its folder, its name, or its id as ``trainkit runs`` prints it, in one way for all commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from runs.folders import written

from trainkit import open_run
from trainkit.cli import cli
from trainkit.engine.finding import run_folder_at, short_id
from trainkit.errors import CheckpointError, TrainkitError

IDS = ("2026-11-26T10-00-00-1a2b3c4d", "2026-11-26T10-00-01-1a2bffff", "2026-11-26T10-00-02-00c0ffee")
NESTED = "2026-11-26T10-00-03-deadbeef"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three runs of the name scan, and one of a sweep."""
    monkeypatch.chdir(tmp_path)
    found = [written(Path("runs/scan") / each).folder for each in IDS]
    return [*found, written(Path("runs/lr_sweep/lr_3") / NESTED, "run.name=lr_3").folder]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("scan", 2),
        ("runs/scan", 2),
        ("./runs/scan/", 2),
        (IDS[0], 0),
        (f"scan/{IDS[0]}", 0),
        (f"runs/scan/{IDS[1]}", 1),
        ("1a2b3c4d", 0),
        ("1a2bf", 1),
        ("00c0", 2),
        ("deadbeef", 3),
        ("lr_3", 3),
        ("lr_sweep/lr_3", 3),
    ],
)
def test_a_run_is_what_a_person_means(folders: list[Path], text: str, place: int) -> None:
    assert run_folder_at(Path(text)).samefile(folders[place])


def test_the_id_stands_in_the_run_and_not_in_the_name_of_its_folder(folders: list[Path]) -> None:
    moved = folders[0].rename("runs/scan/kept")
    assert run_folder_at(Path("1a2b3c4d")).samefile(moved)


def test_what_may_be_several_runs_is_asked_with_their_names(folders: list[Path]) -> None:
    with pytest.raises(CheckpointError, match='"1a2b" is the id of several runs') as said:
        run_folder_at(Path("1a2b"))
    lines = [line.split() for line in str(said.value).splitlines()[1:]]
    assert sorted(lines) == [["scan", "1a2b3c4d", str(folders[0])], ["scan", "1a2bffff", str(folders[1])]]
    shutil.copytree(folders[0], "runs/copy")
    with pytest.raises(CheckpointError, match="several runs"):
        run_folder_at(Path("1a2b3c4d"))
    with pytest.raises(CheckpointError, match="lr_sweep holds several runs") as said:
        run_folder_at(Path("lr_sweep"))
    assert str(said.value).splitlines()[1:] == [f"  lr_3  deadbeef  {folders[3]}"]
    written(Path("runs/other_sweep/lr_3/2026-11-27T10-00-03-cafecafe"), "run.name=lr_3")
    with pytest.raises(CheckpointError, match='"lr_3" is the name of runs in several folders'):
        run_folder_at(Path("lr_3"))


@pytest.mark.parametrize(("typed", "meant"), [("scna", "scan"), ("1a2b3c4e", "1a2b3c4d"), ("lr_4", "lr_3")])
def test_a_run_that_is_not_there_is_answered_with_those_that_are(folders: list[Path], typed: str, meant: str) -> None:
    with pytest.raises(CheckpointError, match=f'there is no run at {typed}.*did you mean "{meant}"') as said:
        run_folder_at(Path(typed))
    listed = {line.split()[1] for line in str(said.value).splitlines()[2:]}
    assert listed == {"deadbeef", "00c0ffee", "1a2bffff", "1a2b3c4d"}


def test_many_runs_are_not_all_listed(folders: list[Path]) -> None:
    for number in range(20):
        written(Path(f"runs/many/2026-11-25T10-00-{number:02d}-{number:08x}"))
    with pytest.raises(CheckpointError) as said:
        run_folder_at(Path("nothing like it"))
    assert len(str(said.value).splitlines()) == 2 + 8 + 1
    assert "… and 16 more: trainkit runs" in str(said.value)


def test_an_id_of_another_form_is_not_shortened() -> None:
    assert [short_id(each) for each in (IDS[0], "mine", "2026-11-26T10-00-00-1a2b3c4d-2")] == [
        "1a2b3c4d",
        "mine",
        "1a2b3c4d-2",
    ]


def test_a_path_is_never_searched_for_runs_outside_of_runs(folders: list[Path]) -> None:
    Path("elsewhere").mkdir()
    Path("runs/lr_sweep").rename("elsewhere/lr_sweep")
    with pytest.raises(CheckpointError, match="there is no run at elsewhere/lr_sweep"):
        run_folder_at(Path("elsewhere/lr_sweep"))


COMMANDS = [
    "resume RUN",
    "branch RUN",
    "edit RUN groups.object.lr=1",
    "save RUN",
    "stop RUN",
    "picture RUN",
    "inspect RUN",
    "archive RUN",
    "report RUN",
    "compare scan RUN",
    "runs RUN",
    "predict RUN runs --out masks",
    "export RUN --to safetensors",
    "calibrate RUN",
    "resolution RUN",
]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_finds_runs_in_the_same_way(line: str, folders: list[Path]) -> None:
    result = CliRunner().invoke(cli, line.replace("RUN", "1a2b3c4e").split())
    assert isinstance(result.exception, TrainkitError)
    assert 'did you mean "1a2b3c4d"' in str(result.exception)
    result = CliRunner().invoke(cli, line.replace("RUN", "1a2b3c4d").split())
    assert "there is no run" not in str(result.exception)


def test_python_finds_runs_in_the_same_way(folders: list[Path]) -> None:
    assert open_run("1a2b3c4d").folder.name == IDS[0]
    with pytest.raises(CheckpointError, match="did you mean"):
        open_run("1a2b3c4e")
