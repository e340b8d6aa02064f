"""The logger for Weights & Biases, with the real package and without a network: what is in the files that it writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import recorder
from clients.toy_run import resume, run

from loggers.test_files_and_thread import TEXT, fail_at
from trainkit import PartError

pytest.importorskip("wandb", reason="wandb is not installed: pip install 'trainkit[wandb]'")
from wandb.proto.wandb_internal_pb2 import Record

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # W&B's own
LOGGER = '[loggers.files]\nuse = "wandb"\nproject = "toys"\nevery_steps = 2\n'
_BLOCK, _HEADER = 32768, 7


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def records(path: Path) -> Iterator[Any]:
    """Yield the records of a file: 7 bytes, then blocks as in LevelDB's log: checksum, length, kind."""
    content, place, parts = path.read_bytes(), _HEADER, b""
    while place + _HEADER <= len(content):
        if _BLOCK - place % _BLOCK < _HEADER:  # too short for another one
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (1, 4):  # whole, or the last of several parts
            yield Record.FromString(parts)
            parts = b""


class Written:
    """What is in the files of one start of a run."""

    def __init__(self, folder: Path) -> None:
        (path,) = folder.glob("*.wandb")
        self.rows: list[dict[str, Any]] = []
        self.axes: dict[str, str] = {}
        self.summary: dict[str, Any] = {}
        for each in records(path):
            kind = each.WhichOneof("record_type")
            if kind == "run" and each.run.run_id:
                self.run = each.run
                self.config = {item.key: json.loads(item.value_json) for item in each.run.config.update}
            elif kind == "history":
                self.rows.append(
                    {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in each.history.item}
                )
            elif kind == "metric":
                self.axes[each.metric.name] = each.metric.step_metric
            elif kind == "summary":
                self.summary |= {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in each.summary.update
                }
            elif kind == "exit":
                self.exit_code = each.exit.exit_code

    def at(self, name: str, axis: str) -> list[int]:
        return [row[axis] for row in self.rows if name in row]


def starts_of(folder: Path) -> list[Written]:
    return [Written(each) for each in sorted(folder.glob("wandb/offline-run-*"))]


def test_each_start_writes_files_for_the_same_run_over_epochs_and_steps() -> None:
    text = TEXT + LOGGER
    fail_at(18)  # after the checkpoint of 4 epochs
    with pytest.raises(PartError):
        run(text=text)
    recorder.ACTIONS.clear()
    (folder,) = Path("runs/toy").iterdir()
    resume(folder)
    first, second = starts_of(folder)
    for each in (first, second):
        assert (each.run.run_id, each.run.project, each.run.display_name) == (folder.name, "toys", folder.name)
        assert each.config["groups/second/start_epoch"] == 2
        assert each.config["trainkit/run"] == folder.name
        assert each.axes["train/loss"] == "finished_epochs"
        assert each.axes["step/train/loss"] == "finished_steps"
    assert first.at("train/loss", "finished_epochs") == [1, 2, 3, 4]
    assert second.at("train/loss", "finished_epochs") == [5]
    assert first.at("step/train/loss", "finished_steps") == [2, 4, 6, 8, 10, 12, 14, 16]
    assert second.at("step/train/loss", "finished_steps") == [18, 20]
    assert first.at("stages/second_optimization_started", "finished_epochs") == [2]
    assert (first.exit_code, second.exit_code) == (1, 0)
    assert second.summary["trainkit/ended"] == "finished"
    assert list(folder.glob("wandb/offline-run-*/files/recipe-step-*.md"))

    branch = resume(folder, epoch=2).run.state.folder
    (third,) = starts_of(branch)
    assert third.run.run_id == branch.name
    assert third.config["trainkit/parent"] == folder.name


def test_files_that_cannot_be_written_do_not_end_a_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    def fail(**settings: Any) -> None:
        raise OSError("no space left on the device")

    monkeypatch.setattr(wandb, "init", fail)
    assert run(text=TEXT + LOGGER).run.state.ended == "finished"
    said = [each.getMessage() for each in caplog.records if each.getMessage().startswith("W&B: ")]
    assert len(said) == 2
    assert "no space left on the device" in said[0]
    assert "values could not be written" in said[1]
