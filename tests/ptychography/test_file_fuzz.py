"""The short form of ``file_fuzz.py``: some hundreds of damaged files of each kind."""

from __future__ import annotations

import subprocess

import pytest

from .file_fuzz import ENDINGS, Failure, fuzz, is_refused, originals


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENDINGS)
def test_damaged_files_are_read_or_refused(kind):
    outcome = fuzz(kind, 150)
    assert outcome.failures == []
    assert outcome.refused > 30


@pytest.mark.parametrize("kind", ENDINGS)
def test_without_damage_each_of_them_is_read(kind, tmp_path):
    for number, content in enumerate(originals(kind, tmp_path)):
        path = tmp_path / f"{number}.{ENDINGS[kind]}"
        path.write_bytes(content)
        assert not is_refused(kind, path)


def test_a_file_that_ends_its_process_counts_as_it_is_read_with_trials_and_the_others_are_read_once(monkeypatch):
    read = []

    def run(command, **_):
        """Files 1 and 3 end a process that reads them without trials, and file 3 any process."""
        trials = "--trials" in command
        lines: list[str] = []
        for number in range(int(command[4]), int(command[5])):
            read.append((number, trials))
            lines.append(str(number))
            if number == 3 or (number == 1 and not trials):
                return subprocess.CompletedProcess(command, -11, "\n".join(lines), "")
            lines.append("refused")
        return subprocess.CompletedProcess(command, 0, "\n".join(lines), "")

    monkeypatch.setattr(subprocess, "run", run)
    outcome = fuzz("hdf5", 5)
    assert outcome.failures == [Failure("hdf5", 3, "ends the process (-11) ")]
    assert outcome.refused == 4
    assert read == [(0, False), (1, False), (1, True), (2, False), (3, False), (3, True), (4, False)]


def test_a_process_that_cannot_begin_is_a_fault_of_the_script_and_not_of_each_file(monkeypatch):
    ended = subprocess.CompletedProcess([], 1, "", "no module named h5py")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(RuntimeError, match="no module named h5py"):
        fuzz("hdf5", 5)
