"""The cache of preprocessed cases is never out of date, survives being killed, and keeps to its size."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from clients import segmentation_cases as made_up
from clients.opened_data import opened
from clients.warm import Warm, WarmProcess

from trainkit import DataError, FileFacts
from trainkit.files import facts
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.preparing import cache_filling, cache_live
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.cache_live import CaseStore, read_entry
from trainkit_segmentation.preparing.cached_cases import open_case
from trainkit_segmentation.preparing.code_digest import code_digest
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.splits.same_cases import SameCases

KEYS = [f"{n:02x}" * 16 for n in range(6)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def task(tmp_path):
    return made_up.msd(tmp_path / "Task99", cases=3)


def built(task: Path, folder: Path, **settings):
    return opened(MSD(path=task, cache=Cache(folder=folder), split=SameCases(), **settings))


def entries(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (folder / "entries").glob("*/*")}


def arrays(size: int = 1000):
    return {"image": np.arange(size, dtype=np.float32)}, {"size": size}


# ---- never out of date ----------------------------------------------------------------------------------------------


def test_a_second_run_makes_nothing_and_reads_the_same(task, folder):
    first = list(built(task, folder).evaluate("val"))
    before = entries(folder)
    second = list(built(task, folder).evaluate("val"))
    assert entries(folder) == before
    assert len(before) == 3
    assert all(torch.equal(one["image"], other["image"]) for one, other in zip(first, second, strict=True))


def test_a_file_that_is_overwritten_with_the_same_size_and_time_is_read_anew(task, folder, monkeypatch):
    monkeypatch.setattr(facts, "_SETTLED_NS", 0)
    path, listing = task / "not_packed.nii", task / "dataset.json"
    listing.write_text(listing.read_text().replace("imagesTr/case_001.nii.gz", path.name))
    made_up.save(path, np.full(made_up.SIZE, 7, np.int16))
    settings = Preprocessing(normalization="none")
    before = {b["case"]: b["image"].clone() for b in built(task, folder, preprocessing=settings).evaluate("val")}
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(352)
        file.write(np.full(made_up.SIZE, 9, np.int16).tobytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    after = {b["case"]: b["image"] for b in built(task, folder, preprocessing=settings).evaluate("val")}
    assert before["case_001"].unique().tolist() == [7]
    assert after["case_001"].unique().tolist() == [9]
    assert torch.equal(before["case_000"], after["case_000"])
    assert len(entries(folder)) == 4


@pytest.mark.parametrize(
    "settings",
    [
        {"preprocessing": Preprocessing(spacing_mm=(2.0, 2.0, 2.0))},
        {"preprocessing": Preprocessing(orientation="LPS")},
        {"preprocessing": Preprocessing(normalization="zscore_nonzero")},
        {"regions": {"all": (1, 2)}},
    ],
)
def test_other_settings_make_other_entries(task, folder, settings):
    built(task, folder)
    built(task, folder, **settings)
    assert len(entries(folder)) == 6


CODE = """
def crop(image, margin: int):
    # keep what is inside
    if margin < 0:
        raise ValueError("margin is below zero")
    return image[margin:-margin]
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# keep what is inside", "# the rest is air"),
        ("def crop(image, margin: int):", 'def crop(image, margin: int):\n    """Crop an image."""'),
        ("margin: int", "margin"),
        ('"margin is below zero"', 'f"margin = {margin}, but it must be at least 0"'),
        ("\ndef crop", "\n\n\ndef crop"),
    ],
)
def test_the_digest_of_code_ignores_what_changes_no_result(old, new):
    assert old in CODE
    assert code_digest(CODE.replace(old, new)) == code_digest(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("-margin]", "-margin - 1]"), ("margin < 0", "margin <= 0"), ("image[margin", "image[1 + margin"), ("raise", "#")],
)
def test_the_digest_of_code_follows_what_it_computes(old, new):
    assert old in CODE
    changed = CODE.replace(old, new) if old != "raise" else CODE.replace("raise ValueError", "margin = abs")
    assert code_digest(changed) != code_digest(CODE)


def test_an_annotated_assignment_is_an_assignment():
    assert code_digest("a: int = 3\nb: int") == code_digest("a = 3")
    assert code_digest("a: int = 3") != code_digest("a: int = 4")


def test_other_code_makes_other_entries(task, folder, monkeypatch):
    built(task, folder)
    monkeypatch.setattr(cache_filling, "code_of_reading", lambda: "another version")
    built(task, folder)
    assert len(entries(folder)) == 6


def test_settings_of_patches_and_augmentation_make_no_other_entries(task, folder):
    built(task, folder)
    built(task, folder, patch_size=(8, 8, 8), batch_size=1, foreground_probability=0.0)
    assert len(entries(folder)) == 3


def test_copies_of_a_folder_share_entries(task, tmp_path, folder):
    built(task, folder)
    built(made_up.msd(tmp_path / "copy", cases=3), folder)
    assert len(entries(folder)) == 3


def test_files_that_stay_are_hashed_once(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    asked: list[Path] = []
    hashed = facts.file_digest
    monkeypatch.setattr(facts, "file_digest", lambda path: asked.append(path) or hashed(path))
    memory = FileFacts(tmp_path / "memory")
    assert memory.digest(path) == memory.digest(path)
    assert len(asked) == 2  # it changed a moment ago, and may again within one tick of the clock
    monkeypatch.setattr(facts, "_SETTLED_NS", 0)
    one = memory.digest(path)
    assert FileFacts(tmp_path / "memory").digest(path) == one
    assert len(asked) == 3
    path.write_bytes(b"two")
    assert memory.digest(path) != one
    next((tmp_path / "memory").glob("*/*.json")).write_text("{damaged")
    assert memory.digest(path) != one


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    memory = FileFacts(tmp_path / "memory")
    with pytest.raises(DataError, match="was changed while it was read"):
        memory.remember(path, "question", lambda path: path.write_bytes(b"another"))


# ---- killed, and several at once ------------------------------------------------------------------------------------

MAKER = """
import sys, time
from pathlib import Path
import numpy as np
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.code_digest import code_digest
from trainkit_segmentation.preparing.cache_live import CaseStore

folder, key, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
store = CaseStore(Cache(folder=folder))
store.use([key])

def make():
    (folder / "begun").open("a").write("x")
    time.sleep(seconds)
    return {"image": np.arange(1000, dtype=np.float32)}, {"size": 1000}

print(store.ensure(key, make), flush=True)
if seconds == 0:
    time.sleep(60)
"""


@pytest.fixture
def maker(warm: Warm):
    """Starts a process that makes an entry, and does not outlive the test."""
    with contextlib.ExitStack() as processes:

        def start(folder: Path, key: str, seconds: float) -> WarmProcess:
            folder.mkdir(exist_ok=True)
            process = warm.start("-c", MAKER, str(folder), key, str(seconds), folder=folder)
            processes.callback(process.kill)
            return process

        yield start


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.02)


@pytest.mark.slow
def test_two_runs_that_want_the_same_entry_make_it_once(folder, maker):
    both = [maker(folder, KEYS[0], 0.5) for _ in range(2)]
    assert [each.wait(60) for each in both] == [0, 0]
    assert sorted(each.stdout for each in both) == ["found\n", "made\n"]
    assert (folder / "begun").read_text() == "x"


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_makes_an_entry_leaves_none_and_no_lock(folder, maker):
    run = maker(folder, KEYS[0], 60)
    wait_for(folder / "begun")
    run.kill()
    run.wait()
    store = CaseStore(Cache(folder=folder))
    assert not store.path(KEYS[0]).exists()
    assert store.ensure(KEYS[0], arrays) == "made"
    assert read_entry(store.path(KEYS[0])).about == {"size": 1000}


def test_what_was_half_written_is_no_entry_and_is_written_over(folder):
    store = CaseStore(Cache(folder=folder))
    half = store.path(KEYS[0]).with_suffix(".safetensors.tmp-1a2b3c4d")
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half of it")
    assert not store.path(KEYS[0]).exists()
    assert store.ensure(KEYS[0], arrays) == "made"
    assert [path.name for path in half.parent.iterdir()] == [f"{KEYS[0]}.safetensors"]


def test_a_failure_while_an_entry_is_made_frees_its_lock(folder):
    store = CaseStore(Cache(folder=folder))

    def fail():
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        store.ensure(KEYS[0], fail)
    assert store.ensure(KEYS[0], arrays) == "made"


def test_a_damaged_entry_is_told(folder):
    store = CaseStore(Cache(folder=folder))
    store.ensure(KEYS[0], arrays)
    path = store.path(KEYS[0])
    assert store.ensure(KEYS[0], arrays) == "found"
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(DataError, match=r"is damaged \(.*not fully covered\); delete it"):
        read_entry(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is damaged"):
        read_entry(path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=r"the cache .* cannot be written: .*; set data\.cache\.folder"):
        CaseStore(Cache(folder=tmp_path / "file" / "cache")).use(KEYS)


def test_a_full_disk_is_told_and_nothing_is_left(folder, monkeypatch):
    def full(*_, **__):
        raise cache_live.SafetensorError("No space left on device")

    monkeypatch.setattr(cache_live, "save_file", full)
    with pytest.raises(DataError, match=r"No space left on device; set data\.cache\.folder"):
        CaseStore(Cache(folder=folder)).ensure(KEYS[0], arrays)
    assert not entries(folder)


# ---- damaged --------------------------------------------------------------------------------------------------------


def flipped(path: Path, place: int) -> None:
    """Flip one bit of a file, and keep its times."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[place // 8 % len(content)] ^= 1 << place % 8
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_whatever_bit_of_an_entry_is_wrong_it_is_found_and_the_entry_made_anew(folder):
    store = CaseStore(Cache(folder=folder))
    store.use([KEYS[0]])
    store.ensure(KEYS[0], lambda: arrays(64))
    path = store.path(KEYS[0])
    as_written = path.read_bytes()
    expected, _ = arrays(64)
    outcomes = set()
    for place in range(0, 8 * len(as_written), 7):
        flipped(path, place)
        outcomes.add(store.ensure(KEYS[0], lambda: arrays(64)))
        tensors, about = read_entry(path)
        assert np.array_equal(tensors["image"], expected["image"])
        assert about == {"size": 64}
        path.write_bytes(as_written)
    assert "mended" in outcomes
    assert outcomes <= {"mended", "found"}  # some bits of the header mean nothing


def test_odd_bytes_in_an_entry_are_one_sentence(folder):
    store = CaseStore(Cache(folder=folder))
    store.ensure(KEYS[0], lambda: arrays(64))
    path = store.path(KEYS[0])
    as_written = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(400):
        content = bytearray(as_written)
        for at in rng.integers(0, min(len(content), 300), rng.integers(1, 6)):
            content[at] = rng.integers(256)
        path.write_bytes(content[: rng.integers(len(content)) if rng.random() < 0.2 else None])
        try:
            said = str(read_entry(path).about)
        except DataError as error:
            said = str(error)
        assert "is damaged" in said or said == "{'size': 64}"


def test_a_run_names_the_damaged_entries_once_and_trains_on_what_was_written(task, folder, caplog):
    before = {b["case"]: b["image"].clone() for b in built(task, folder).evaluate("val")}
    for path in sorted((folder / "entries").glob("*/*"))[:2]:
        flipped(path, 8 * (path.stat().st_size - 40))
    with caplog.at_level(logging.WARNING, "trainkit"):
        after = {b["case"]: b["image"] for b in built(task, folder).evaluate("val")}
    (message,) = caplog.messages
    assert message.startswith("2 of 3 entries of the cache were not as they were written, and were made anew: case_00")
    assert all(torch.equal(before[case], after[case]) for case in before)
    caplog.clear()
    built(task, folder)
    assert not caplog.messages


def test_an_entry_with_a_right_digest_whose_arrays_do_not_fit_is_refused(folder):
    store = CaseStore(Cache(folder=folder))
    store.ensure(KEYS[0], arrays)
    with pytest.raises(DataError, match=r"entry of the cache is damaged \('grid'\)"):
        open_case(store.path(KEYS[0]))


@pytest.mark.parametrize("content", ["[]", "{}", "null", "3", "{damaged", '{"signature": 1, "known": 2, "xxh3": 3}'])
def test_a_damaged_list_of_known_files_is_made_anew(tmp_path, monkeypatch, content):
    monkeypatch.setattr(facts, "_SETTLED_NS", 0)
    path = tmp_path / "file"
    path.write_bytes(b"one")
    memory = FileFacts(tmp_path / "memory")
    expected = memory.digest(path)
    (store,) = (tmp_path / "memory").glob("*/*.json")
    whole = store.read_text()
    store.write_text(content)
    assert memory.digest(path) == expected
    store.write_text(whole.replace(expected, expected[::-1]))
    assert memory.digest(path) == expected
    assert store.read_text() == whole


# ---- shared by a group ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "mask", "files", "folders"), [(0o755, 0o022, 0o644, 0o755), (0o2770, 0o077, 0o660, 0o2770)]
)
def test_what_is_in_the_cache_is_open_to_those_who_may_use_its_folder(
    task, folder, mode, mask, files, folders, monkeypatch
):
    monkeypatch.setattr(facts, "_SETTLED_NS", 0)
    folder.mkdir()
    folder.chmod(mode)
    before = os.umask(mask)
    try:
        live = built(task, folder)
    finally:
        os.umask(before)
    inside = {path: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert {path.relative_to(folder).parts[0] for path in inside} == {"entries", "files", "leases", "lock", "locks"}
    assert {mode for path, mode in inside.items() if path.is_file()} == {files}
    assert {mode for path, mode in inside.items() if path.is_dir()} == {folders}
    del live


def test_who_can_only_read_the_cache_uses_what_is_there(task, folder, tmp_path, monkeypatch, caplog):
    found = [batch["image"].clone() for batch in built(task, folder).evaluate("val")]
    opened_before = os.open

    def refuse(path, flags, *rest, **more):
        if flags & (os.O_WRONLY | os.O_RDWR) and Path(path).is_relative_to(folder):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened_before(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)  # root, as whom tests often run, may write everywhere
    with caplog.at_level(logging.INFO, "trainkit"):
        again = [batch["image"] for batch in built(task, folder).evaluate("val")]
    assert all(map(torch.equal, found, again))
    assert any("can only be read" in message for message in caplog.messages)
    made_up.msd(task, cases=4)
    with pytest.raises(DataError, match=r"case_003: its entry in the cache .* is absent, and the folder can only be"):
        built(task, folder)


# ---- its size -------------------------------------------------------------------------------------------------------


def store_of(folder: Path, megabytes: float, *keys: str) -> CaseStore:
    store = CaseStore(Cache(folder=folder, limit_gb=megabytes / 1000))
    store.use(keys)
    for key in keys:
        store.ensure(key, lambda: arrays(250_000))  # 1 MB
        time.sleep(0.01)
    return store


def test_what_was_not_used_for_longest_makes_room(folder):
    for key in KEYS[:3]:
        store_of(folder, 100, key)  # goes at once, and with it its lease
    store_of(folder, 100, KEYS[0])  # used again
    store = store_of(folder, 2.1, KEYS[3])
    assert {key for key in KEYS if store.path(key).exists()} == {KEYS[0], KEYS[3]}
    assert store.size() <= 2.1e6


@pytest.mark.slow
def test_what_a_living_run_uses_is_never_removed(folder, maker):
    run = maker(folder, KEYS[0], 0)
    until = time.monotonic() + 30
    while not run.stdout.endswith("\n"):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert run.stdout == "made\n"
    mine = store_of(folder, 100, KEYS[1])
    for key in KEYS[:2]:
        os.utime(mine.path(key), (1, 1))  # used longest ago
    with pytest.raises(DataError, match=r"in use take 0\.002 GB, more than data\.cache\.limit_gb = 0\.0015"):
        store_of(folder, 1.5, KEYS[2])
    assert [mine.path(key).exists() for key in KEYS[:2]] == [True, True]
    run.kill()
    run.wait()
    del mine
    last = store_of(folder, 1.5, KEYS[3])  # neither who was killed nor who ended uses anything any more
    assert [last.path(key).exists() for key in KEYS[:4]] == [False, False, False, True]
    assert len(list((folder / "leases").iterdir())) == 1


def test_an_entry_that_is_removed_can_still_be_read_by_who_has_it_open(folder):
    store = store_of(folder, 100, KEYS[0])
    tensors = read_entry(store.path(KEYS[0])).tensors
    store.path(KEYS[0]).unlink()
    assert tensors["image"].sum().item() == pytest.approx(250_000 * 249_999 / 2, rel=1e-3)


def test_a_lease_ends_with_its_owner_not_with_a_process_that_was_forked(folder):
    store = store_of(folder, 100, KEYS[0])
    child = os.fork()
    if child == 0:
        del store
        os._exit(0)
    os.waitpid(child, 0)
    assert len(list((folder / "leases").iterdir())) == 1
    del store
    assert not list((folder / "leases").iterdir())


def test_what_is_no_entry_and_no_lease_is_left_alone(folder):
    store_of(folder, 100, KEYS[0])
    (folder / "leases" / "folder").mkdir()
    (folder / "leases" / "odd").write_bytes(bytes(range(256)))
    note = folder / "entries" / KEYS[0][:2] / "note.txt"
    note.write_text("somebody's")
    (note.parent / "subfolder.safetensors").mkdir()
    store = store_of(folder, 1.5, KEYS[1])
    assert not store.path(KEYS[0]).exists()
    assert note.read_text() == "somebody's"


def test_the_folder_is_the_users_cache_unless_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert CaseStore(Cache()).folder == tmp_path / "trainkit" / "segmentation"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert CaseStore(Cache()).folder == tmp_path / "home" / ".cache" / "trainkit" / "segmentation"


def test_entries_are_mapped_not_read(folder):
    store = CaseStore(Cache(folder=folder))
    store.ensure(KEYS[0], lambda: arrays(20_000_000))  # 80 MB

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    image = read_entry(store.path(KEYS[0]), verify=False).tensors["image"]
    assert image[123].item() == 123
    assert resident() - before < 20e6
