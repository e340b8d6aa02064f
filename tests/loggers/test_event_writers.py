"""What TensorBoard reads of a file has the time and the place of when it was logged, whenever it was written."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.summary_pb2 import Summary

from trainkit.loggers import event_writers
from trainkit.loggers.event_writers import EventWriters


def put(writers: EventWriters, value: float, at: int) -> None:
    writers.put(lambda: {"train": Summary(value=[Summary.Value(tag="loss", simple_value=value)])}, at)


def read(folder: Path) -> list[tuple[float, int, float]]:
    """Return time, place and value of what a writer wrote, as TensorBoard reads it."""
    (file,) = folder.iterdir()
    assert file.name.split(".")[:3] == ["events", "out", "tfevents"]
    header, *events = EventFileLoader(str(file)).Load()
    assert header.file_version == "brain.Event:2"
    return [(each.wall_time, each.step, each.summary.value[0].tensor.float_val[0]) for each in events]


def test_what_is_written_later_has_the_time_at_which_it_was_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = EventWriters(tmp_path, ["train", "val"])
    with monkeypatch.context() as patch:
        for at in range(3):
            patch.setattr(time, "time", lambda at=at: 1e9 + at)
            put(writers, at / 4, at)
    assert read(tmp_path / "train") == []
    writers.flush()
    assert read(tmp_path / "train") == [(1e9, 0, 0.0), (1e9 + 1, 1, 0.25), (1e9 + 2, 2, 0.5)]
    put(writers, 1.0, 9)
    writers.close()
    assert [each[1:] for each in read(tmp_path / "train")] == [(0, 0.0), (1, 0.25), (2, 0.5), (9, 1.0)]
    assert read(tmp_path / "val") == []


def test_what_waits_is_written_after_a_while_without_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_writers, "_SECONDS", 0.01)
    writers = EventWriters(tmp_path, ["train"])
    put(writers, 1.0, 5)
    until = time.monotonic() + 30
    while not read(tmp_path / "train") and time.monotonic() < until:
        time.sleep(0.01)
    assert [each[1:] for each in read(tmp_path / "train")] == [(5, 1.0)]
    writers.close()


def test_a_full_disk_is_told_and_leaves_a_file_that_can_be_read_and_goes_on(tmp_path: Path) -> None:
    writers = EventWriters(tmp_path, ["train"])
    put(writers, 0.5, 1)
    writers.flush()
    (file,) = (tmp_path / "train").iterdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    put(writers, 0.75, 2)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 7, before[1]))  # in the middle of the record
        with pytest.raises(OSError, match="too large"):
            writers.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    put(writers, 1.0, 3)
    writers.close()
    assert [each[1:] for each in read(tmp_path / "train")] == [(1, 0.5), (3, 1.0)]


def test_what_fails_in_the_thread_is_raised_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_writers, "_SECONDS", 0.01)
    writers = EventWriters(tmp_path, ["train"])
    writers.put(lambda: {"train": Summary(value=[Summary.Value(tag="loss", simple_value="much")])}, 1)
    time.sleep(0.3)
    with pytest.raises(TypeError):
        put(writers, 1.0, 2)
    writers.close()
    assert [each[1:] for each in read(tmp_path / "train")] == [(2, 1.0)]
