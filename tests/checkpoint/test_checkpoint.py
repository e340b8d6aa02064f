from __future__ import annotations

import errno
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from same import bits, same

from trainkit import CheckpointError
from trainkit.checkpoint import file as checkpoint
from trainkit.checkpoint.folder import Best, CheckpointFolder

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.uint32,
    torch.int32,
    torch.uint64,
    torch.int64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    if dtype is torch.bool:
        made = torch.randint(0, 2, shape, generator=generator).bool()
    else:  # any bits at all, NaNs with a payload too
        count = torch.Size(shape).numel() * dtype.itemsize
        made = torch.randint(0, 256, (count,), generator=generator, dtype=torch.uint8).view(dtype).reshape(shape)
    way = draw(st.sampled_from(["contiguous", "transposed", "strided", "expanded"]))
    if way == "transposed":
        return made.permute(tuple(reversed(range(made.ndim))))
    if way == "strided" and made.ndim:
        return made[::2]
    return made.expand(2, *shape) if way == "expanded" else made


KEYS = st.text(max_size=4) | st.sampled_from(["__metadata__", "a/b", "~1", "~0/", "0"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | tensors()
NODES = st.recursive(
    LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner, max_size=3), max_leaves=10
)


@pytest.mark.slow
@given(st.dictionaries(KEYS, NODES, max_size=5))
@settings(max_examples=150)
def test_what_is_read_is_what_was_written_bit_for_bit(content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.safetensors"
        checkpoint.write(path, content)
        assert same(content, checkpoint.read(path))


def some_content() -> dict[str, Any]:
    weight = torch.arange(6.0).reshape(2, 3)
    return {
        "step": 3,
        "best": float("inf"),
        "model": {"weight": weight, "same": weight, "wave": torch.tensor([1 + 2j, 3 - 4j]), "ok": torch.tensor(True)},
        "rng": [1, "µ", torch.arange(3)],
    }


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "epoch-0001.safetensors"
    checkpoint.write(path, some_content())
    return path


def test_the_package_safetensors_reads_the_same_tensors(written: Path) -> None:
    theirs = safetensors.torch.load_file(written)
    assert set(theirs) == {"/model/weight", "/model/wave", "/model/ok", "/rng/2"}
    assert torch.equal(theirs["/model/weight"], some_content()["model"]["weight"])
    assert torch.equal(theirs["/model/wave"], torch.tensor([[1.0, 2.0], [3.0, -4.0]]))


def test_tied_tensors_are_stored_once_and_come_back_as_one_object(tmp_path: Path) -> None:
    tied = torch.nn.Linear(100, 100, bias=False)
    model = torch.nn.ModuleDict({"a": tied, "b": tied})
    checkpoint.write(tmp_path / "c", {"model": model.state_dict()})
    read = checkpoint.read(tmp_path / "c")["model"]
    assert read["a.weight"] is read["b.weight"]
    assert (tmp_path / "c").stat().st_size < 1.1 * 100 * 100 * 4


def test_tensors_that_share_memory_without_being_the_same_are_kept_apart(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    wave = torch.tensor([1 + 2j])
    content = {"whole": whole, "row": whole[0], "turned": whole.T, "wave": wave, "conjugate": wave.conj()}
    content |= {"imaginary": wave.conj().imag, "empty": torch.empty(0), "other": torch.empty(0)}
    checkpoint.write(tmp_path / "c", content)
    read = checkpoint.read(tmp_path / "c")
    assert same(content, read)
    assert len({id(tensor) for tensor in read.values()}) == len(content)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"hooks": {"ema": {"decay": object()}}}, "/hooks/ema/decay"),
        ({"a": {"f": print}}, "/a/f"),
        ({"optimizer": {"state": {0: 1.0}}}, "/optimizer/state"),
        ({"a": [1, {2}]}, "/a/1"),
        ({"a/b": b"bytes"}, "/a~1b"),
        ({"sparse": torch.eye(2).to_sparse()}, "/sparse"),
        ({"nowhere": torch.empty(2, device="meta")}, "/nowhere"),
    ],
)
def test_what_cannot_be_saved_is_named_and_leaves_nothing_behind(
    content: dict[str, Any], where: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=f'"{where}"'):
        checkpoint.write(tmp_path / "c", content)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_no_flipped_bit_is_read(written: Path) -> None:
    good = written.read_bytes()
    for place in range(8 * len(good)):
        flip(written, place // 8, place % 8)
        with pytest.raises(CheckpointError, match=written.name):
            checkpoint.read(written)
        flip(written, place // 8, place % 8)
    assert written.read_bytes() == good


def test_no_truncation_and_no_appendix_is_read(written: Path) -> None:
    good = written.read_bytes()
    for length in reversed(range(len(good))):
        os.truncate(written, length)
        with pytest.raises(CheckpointError, match=written.name):
            checkpoint.read(written)
    written.write_bytes(good + b"\0")
    with pytest.raises(CheckpointError, match=written.name):
        checkpoint.read(written)


def forged(header: dict[str, Any], data: bytes = b"", **metadata: str) -> bytes:
    """A file as a forger would make it: whatever it claims, its digest is right."""
    given = {"digest": "0" * 32, "trainkit": "1", "content": "{}", "complex": "{}", "tied": "{}"} | metadata
    text = json.dumps({"__metadata__": given, **header}, separators=(",", ":")).encode()
    whole = struct.pack("<Q", len(text)) + text + data
    return whole.replace(b"0" * 32, xxhash.xxh3_128(whole).hexdigest().encode(), 1)


def tensor_of(dtype: str, shape: list[Any], *offsets: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


NULL = '{"x":null}'
HOSTILE = {
    "empty": b"",
    "another thing": b"name = 'a recipe, perhaps'",
    "declares a huge header": struct.pack("<Q", 2**63) + forged({})[8:],
    "declares a header larger than itself": struct.pack("<Q", 10**7) + forged({})[8:],
    "declares a header of no length": struct.pack("<Q", 0) + forged({})[8:],
    "declares half a header": struct.pack("<Q", 60) + forged({})[8:],
    "an endless nest": struct.pack("<Q", 10**6) + forged({})[8:100] + b"[" * (10**6 - 92),
    "an endless nest in the content": forged({}, content="[" * 10**6),
    "a table that is none": forged({}, tied="[]"),
    "of a later format": forged({}, trainkit="2"),
    "declares terabytes": forged({"/x": tensor_of("F32", [2**41], 0, 2**43)}, b"1234", content=NULL),
    "declares a shape beyond its bytes": forged({"/x": tensor_of("F32", [2**40], 0, 4)}, b"1234", content=NULL),
    "a shape that overflows": forged({"/x": tensor_of("F32", [2**31, 2**31, 4], 0, 4)}, b"1234", content=NULL),
    "a negative shape": forged({"/x": tensor_of("F32", [-1, -1], 0, 4)}, b"1234", content=NULL),
    "a shape of truths": forged({"/x": tensor_of("F32", [True], 0, 4)}, b"1234", content=NULL),
    "a shape of ten thousand dimensions": forged({"/x": tensor_of("F32", [1] * 10**4, 0, 4)}, b"1234", content=NULL),
    "overlapping tensors": forged(
        {"/x": tensor_of("U8", [4], 0, 4), "/y": tensor_of("U8", [4], 0, 4)}, b"1234", content=NULL
    ),
    "a hole": forged({"/x": tensor_of("U8", [2], 2, 4)}, b"1234", content=NULL),
    "an unknown dtype": forged({"/x": tensor_of("OBJECT", [4], 0, 4)}, b"1234", content=NULL),
    "a tensor that belongs nowhere": forged({"/x/y": tensor_of("U8", [4], 0, 4)}, b"1234"),
    "a tensor on another value": forged({"/x": tensor_of("U8", [4], 0, 4)}, b"1234", content='{"x":1}'),
    "a pair that is none": forged(
        {"/x": tensor_of("F32", [1], 0, 4)}, b"1234", content=NULL, complex='{"/x":"complex64"}'
    ),
    "tied to nothing": forged({}, content=NULL, tied='{"/x":"/y"}'),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_cleanly(what: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(HOSTILE[what])
    with pytest.raises(CheckpointError, match=r"hostile\.safetensors"):
        checkpoint.read(path)


def test_the_forger_of_these_tests_makes_readable_files(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(forged({"/x": tensor_of("U8", [4], 0, 4)}, b"1234", content=NULL))
    assert bits(checkpoint.read(tmp_path / "c")["x"]) == b"1234"


def test_other_peoples_files_are_no_checkpoints(tmp_path: Path) -> None:
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "weights.safetensors")
    torch.save({"w": torch.ones(2)}, tmp_path / "pickle.safetensors")
    for path in tmp_path.iterdir():
        with pytest.raises(CheckpointError, match=path.name):
            checkpoint.read(path)
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        checkpoint.read(tmp_path / "missing.safetensors")


def test_the_header_is_read_without_torch(written: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from trainkit.checkpoint import file as checkpoint; "
        "print(checkpoint.read_header(Path(sys.argv[1]))['step'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(written)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]


# ---- a write is whole or not at all ---------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to see which file a descriptor is")
def test_a_file_is_on_the_disk_before_it_takes_the_name_and_the_name_before_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        done.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name.partition('.tmp-')[0]}")

    def watched_replace(source: Path, target: Path) -> None:
        replace(source, target)
        done.append(f"rename to {target.name}")

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    checkpoint.write(tmp_path / "c", some_content())
    assert done == ["fsync c", "rename to c", f"fsync {tmp_path.name}"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_previous_file_and_no_other(
    call: str, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(CheckpointError, match=r"epoch-0001\.safetensors cannot be written \(No space left"):
        checkpoint.write(written, {"step": 4})
    assert list(written.parent.iterdir()) == [written]
    assert same(some_content(), checkpoint.read(written))


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from trainkit.checkpoint import file as checkpoint
from trainkit.checkpoint.folder import CheckpointFolder

path = Path(sys.argv[1])
torch.set_num_threads(1)
checkpoint.write(path, {"step": 0, "x": torch.zeros(3_000_000)})
times = random.Random(0)
killed_while_writing = 0
for trial in range(20):
    child = os.fork()
    if child == 0:
        step = checkpoint.read_header(path)["step"]
        while True:
            step += 1
            checkpoint.write(path, {"step": step, "x": torch.full((3_000_000,), float(step))})
    time.sleep(times.uniform(0.0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    killed_while_writing += any(path.parent.glob("*.tmp-*"))
    content, (newest, _) = checkpoint.read(path), CheckpointFolder(path.parent).newest_good(print)
    assert newest == path and bool((content["x"] == content["step"]).all())
CheckpointFolder(path.parent).prepare({"epoch": 1, "step": 1, "epoch_step": 1}).write()
print(killed_while_writing, *[each.name for each in path.parent.iterdir()])
"""


@pytest.mark.slow
def test_a_write_that_is_killed_never_loses_the_previous_file(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "epoch-0001.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    killed_while_writing, *files = done.stdout.split()
    assert int(killed_while_writing) > 0
    assert files == ["epoch-0001.safetensors"]


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def test_a_checkpoint_has_the_mode_of_any_new_file(umask: int, tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "c", {})
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o666 & ~umask


# ---- the newest good one --------------------------------------------------------------------------------------------


def folder_of(folder: Path, **steps: int) -> Path:
    for name, step in steps.items():
        checkpoint.write(folder / f"{name.replace('_', '-')}.safetensors", {"step": step, "name": name})
    return folder


def newest(folder: Path) -> tuple[str, list[str]]:
    said: list[str] = []
    path, content = CheckpointFolder(folder).newest_good(said.append)
    assert path.stem == content["name"].replace("_", "-")
    return path.stem, said


def test_the_newest_is_the_one_of_most_steps_whatever_it_is_called(tmp_path: Path) -> None:
    folder_of(tmp_path, epoch_0001=10, epoch_0002=20, step_00000015=15)
    (tmp_path / "epoch-0009.safetensors.tmp-123").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert newest(tmp_path) == ("epoch-0002", [])
    folder_of(tmp_path, step_00000023=23)
    assert newest(tmp_path) == ("step-00000023", [])


def test_of_as_many_steps_the_finished_epoch_is_newer(tmp_path: Path) -> None:
    assert newest(folder_of(tmp_path, epoch_0002=20, step_00000020=20)) == ("epoch-0002", [])


def test_damaged_ones_are_skipped_aloud(tmp_path: Path) -> None:
    folder_of(tmp_path, epoch_0001=10, epoch_0002=20, epoch_0003=30, epoch_0004=40)
    last, third = tmp_path / "epoch-0004.safetensors", tmp_path / "epoch-0003.safetensors"
    last.write_bytes(last.read_bytes()[:100])
    third.write_bytes(third.read_bytes().replace(b"epoch_0003", b"epoch_0008"))
    stem, said = newest(tmp_path)
    assert stem == "epoch-0002"
    assert ["epoch-0004" in said[0], "epoch-0003" in said[1], len(said)] == [True, True, 2]
    assert all("damaged" in line for line in said)


def test_a_folder_without_a_good_checkpoint_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "epoch-0001.safetensors").write_bytes(b"")
    said: list[str] = []
    with pytest.raises(CheckpointError, match="no good checkpoint"):
        CheckpointFolder(tmp_path).newest_good(said.append)
    assert len(said) == 1


def test_what_was_adopted_goes_when_it_is_no_longer_the_best_and_nothing_else_goes(tmp_path: Path) -> None:
    inside = tmp_path / "checkpoints"
    inside.mkdir()
    places = {"epoch_0001": inside, "epoch_0002": inside, "epoch_0003": inside, "epoch_0004": tmp_path}
    for number, (name, folder) in enumerate(places.items(), 1):
        ran = "own" if name == "epoch_0003" else "another"
        path = folder / f"{name.replace('_', '-')}.safetensors"
        checkpoint.write(path, {"step": number, "epoch": number, "run": {"id": ran}})
    checkpoints = CheckpointFolder(inside, "own")
    first, second, third = (path.name for path in checkpoints.files())
    checkpoints.keep_while_best([first, second, third, "../epoch-0004.safetensors"], [Best(0.1, 2)])
    assert checkpoints.adopted == {second}
    assert [path.name for path in checkpoints.files()] == [second, third]
    assert (tmp_path / "epoch-0004.safetensors").is_file()
    checkpoints.prune(1, 0, [], inside / third)
    assert [path.name for path in checkpoints.files()] == [third]


def flip(path: Path, place: int, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def test_a_large_checkpoint_damaged_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.write(path, {"x": torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))})
    places = random.Random(0)
    for _ in range(100):
        place, bit = places.randrange(path.stat().st_size), places.randrange(8)
        flip(path, place, bit)
        with pytest.raises(CheckpointError):
            checkpoint.read(path)
        flip(path, place, bit)
    checkpoint.read(path)


def nested(levels: int) -> dict[str, Any]:
    return {"a": nested(levels - 1)} if levels else {}


def test_what_is_nested_too_deeply_to_be_read_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "deep.safetensors"
    checkpoint.write(path, nested(100))
    assert checkpoint.read(path) == nested(100)
    endless: dict[str, Any] = {}
    endless["a"] = endless
    for deeper in (nested(101), endless):
        with pytest.raises(CheckpointError, match="more than 100 levels, or it holds itself"):
            checkpoint.write(path, deeper)
    assert checkpoint.read(path) == nested(100)
