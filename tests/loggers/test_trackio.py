"""The logger for trackio, against a real database: it continues its run, and writes no value twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients import recorder
from clients.toy_run import resume, run

from loggers.test_files_and_thread import TEXT, fail_at
from trainkit import PartError

pytest.importorskip("trackio", reason="trackio is not installed: pip install 'trainkit[trackio]'")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # trackio's own
LOGGER = '[loggers.local]\nuse = "trackio"\nproject = "toys"\nevery_steps = 2\n'


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trackio.sqlite_storage
    import trackio.utils

    monkeypatch.chdir(tmp_path)
    for module in (trackio.utils, trackio.sqlite_storage):  # it reads TRACKIO_DIR once, when it is imported
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")


def test_a_resumed_run_continues_its_run_of_trackio_and_writes_no_value_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    text = TEXT + LOGGER
    fail_at(18)  # after the checkpoint of 4 epochs
    with pytest.raises(PartError):
        run(text=text)
    recorder.ACTIONS.clear()
    (folder,) = Path("runs/toy").iterdir()
    before = SQLiteStorage.get_logs("toys", folder.name)
    assert before
    resume(folder)
    assert SQLiteStorage.get_runs("toys") == [folder.name]
    rows = SQLiteStorage.get_logs("toys", folder.name)

    def steps(name: str) -> list[int]:
        return sorted(row["step"] for row in rows if name in row)

    assert steps("train/loss") == [1, 2, 3, 4, 5]
    assert steps("step/train/loss") == list(range(2, 21, 2))
    assert steps("stages/second_optimization_started") == [2]
    config = SQLiteStorage.get_run_config("toys", folder.name)
    assert config["groups.second.start_epoch"] == 2
    assert [row["trainkit.ended"] for row in rows if "trainkit.ended" in row][-1] == "finished"
    assert "rackio" not in capsys.readouterr().out

    branch = resume(folder, epoch=2).run.state.folder
    assert sorted(SQLiteStorage.get_runs("toys")) == sorted([folder.name, branch.name])
    assert SQLiteStorage.get_run_config("toys", branch.name)["trainkit.parent"] == folder.name


def test_a_database_that_cannot_be_written_does_not_end_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "trackio").write_text("no folder")
    assert run(text=TEXT + LOGGER).run.state.ended == "finished"
    said = [each.getMessage() for each in caplog.records if each.getMessage().startswith("trackio: ")]
    assert said
    assert "the run goes on, and what cannot be written is lost" in said[0]
