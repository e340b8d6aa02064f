"""Files that are written whole, read with care, and remembered."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from trainkit import DataError, FileFacts, guarded_reading, remove_unfinished, written_whole
from trainkit.files import facts
from trainkit.files.tables import write_json, write_table


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_is_written_takes_the_place_of_the_old_one_only_at_the_end(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with written_whole(path) as new:
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["result.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_file_whose_writing_fails_leaves_the_old_one_and_nothing_else(tmp_path, error):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def write_half() -> None:
        with written_whole(path) as new:
            new.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_written_file_has_the_permissions_that_open_gives_whatever_a_library_does(tmp_path, mask):
    before = os.umask(mask)
    try:
        (tmp_path / "opened").touch()
        with written_whole(tmp_path / "written") as new:
            save_file({"x": np.ones(3)}, new)  # this library replaces the file by one that its owner alone can read
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("opened", "written")}
    assert modes == {0o666 & ~mask}
    assert load_file(tmp_path / "written")["x"].tolist() == [1, 1, 1]


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_block_is_left(tmp_path, monkeypatch):
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def kind(descriptor: int) -> str:
        return "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"

    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append(f"fsync {kind(descriptor)}"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("replace"), replace(old, new)))
    with written_whole(tmp_path / "result.txt") as new:
        new.write_text("content")
        done.append("written")
    assert done == ["written", "fsync file", "replace", "fsync folder"]


KILLED = """
import os, signal, sys
from pathlib import Path
from trainkit import written_whole
with written_whole(Path(sys.argv[1])) as new:
    new.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_is_removed_by_name(tmp_path):
    (tmp_path / "result.txt").write_text("old")
    for name in ("result.txt", "other.txt"):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name)], check=False)
    assert (tmp_path / "result.txt").read_text() == "old"
    assert len(names(tmp_path)) == 3
    remove_unfinished(tmp_path, "result.txt")
    assert [name for name in names(tmp_path) if not name.startswith("other.txt.")] == ["result.txt"]
    remove_unfinished(tmp_path)
    assert names(tmp_path) == ["result.txt"]


def test_a_folder_that_is_not_there_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "none" / "result.txt"):
        pass


@pytest.mark.parametrize(
    "raised", [KeyError("x"), UnicodeDecodeError("utf-8", b"x", 0, 1, "y"), MemoryError(), OSError()]
)
def test_whatever_a_parser_raises_is_one_error_that_names_the_file(tmp_path, raised):
    path = tmp_path / "scan.h5"
    path.touch()
    expected = rf"scan\.h5 cannot be read as an HDF5 file.*{type(raised).__name__}"
    with pytest.raises(DataError, match=expected), guarded_reading(path, "an HDF5 file"):
        raise raised


def test_an_error_of_the_system_does_not_call_the_file_damaged(tmp_path):
    path = tmp_path / "scan.h5"
    path.touch()
    with pytest.raises(DataError) as refused, guarded_reading(path, "an HDF5 file"):
        raise OSError(errno.EMFILE, "Too many open files", str(tmp_path / "other.h5"))
    assert str(refused.value).startswith(f"{tmp_path}/other.h5 cannot be read: Too many open files; allow more")


def test_an_error_that_says_what_is_wrong_is_left_as_it_is(tmp_path):
    path = tmp_path / "scan.h5"
    path.touch()
    with pytest.raises(DataError, match=r"^no patterns$"), guarded_reading(path, "an HDF5 file"):
        raise DataError("no patterns")
    missing = guarded_reading(tmp_path / "none.h5", "an HDF5 file", "data.scan")
    with pytest.raises(DataError, match=r"there is no file .*none\.h5 \(data\.scan\)"), missing:
        pass


def test_a_fact_is_computed_once_for_each_content_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "_SETTLED_NS", 0)
    path = tmp_path / "file"
    path.write_bytes(b"one")
    asked: list[Path] = []

    def size(path: Path) -> dict[str, Any]:
        asked.append(path)
        return {"size": path.stat().st_size}

    for _ in range(3):
        assert FileFacts(tmp_path / "facts").remember(path, "size", size) == {"size": 3}
    path.write_bytes(b"three")
    assert FileFacts(tmp_path / "facts").remember(path, "size", size) == {"size": 5}
    assert len(asked) == 2


def test_a_digest_is_xxh3_and_two_facts_of_a_file_do_not_disturb_each_other(tmp_path, monkeypatch):
    import xxhash

    monkeypatch.setattr(facts, "_SETTLED_NS", 0)
    path = tmp_path / "file"
    path.write_bytes(content := bytes(range(256)) * 3)
    known = FileFacts(tmp_path / "facts")
    assert known.digest(path) == xxhash.xxh3_128_hexdigest(content)
    assert known.remember(path, "length", lambda path: len(path.read_bytes())) == len(content)
    assert known.digest(path) == xxhash.xxh3_128_hexdigest(content)


def test_a_folder_of_facts_that_cannot_be_written_names_its_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "_SETTLED_NS", 0)
    (tmp_path / "facts").write_text("a file, no folder")
    path = tmp_path / "file"
    path.write_bytes(b"one")
    with pytest.raises(DataError, match=r"cannot be written: .*; set data\.memory$"):
        FileFacts(tmp_path / "facts", setting="data.memory").digest(path)


def test_tables_hold_names_that_are_no_utf_8_and_json_holds_no_nan(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_table(tmp_path / "t.csv", [{"case": name, "dice": 0.5}])
    assert (tmp_path / "t.csv").read_text() == "case,dice\ncaf\\udce9,0.5\n"
    write_json(tmp_path / "s.json", {"case": name, "means": [0.5, float("nan"), float("inf")]})

    def refused(constant: str) -> Any:
        raise ValueError(constant)

    assert json.loads((tmp_path / "s.json").read_text(), parse_constant=refused) == {
        "case": name,
        "means": [0.5, None, None],
    }
