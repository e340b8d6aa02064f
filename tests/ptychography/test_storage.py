"""Patterns on the device, in the host's memory or in their file: the same run to the bit, within a limit of memory."""

from __future__ import annotations

import bz2
import io
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from trainkit import Context, DataError, Problem, free_host_memory
from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.scans import storage
from trainkit_ptychography.scans.files import hdf5_live, numpy_live
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.files.kind import FileDiffraction, Raster
from trainkit_ptychography.scans.files.numpy import NumPyDiffraction
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.prepare import Prepare
from trainkit_ptychography.scans.scan import checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction
from trainkit_ptychography.scans.simulated_live import simulate
from trainkit_ptychography.scans.storage import Resident, Streamed, choose_storage

CPU = torch.device("cpu")
SIMULATED = simulate(SimulatedDiffraction(scan_shape=(6, 7), detector_size=32))
COUNTS = np.fft.fftshift(np.asarray(SIMULATED.intensities_NYX), axes=(1, 2))
POINTS = SIMULATED.scan.positions_N2
COMMON: dict[str, Any] = {
    "positions_unit": "pixels",
    "pixel_size_angstrom": 0.4,
    "energy_kev": 80.0,
    "semiangle_mrad": 25.0,
    "defocus_angstrom": 60.0,
    "batch_size": 8,
    "prepare": Prepare(background=0.2, bad_pixels=((3, 4),), crop=(28, 28)),
}


def hdf5(folder: Path, **more: Any) -> HDF5Diffraction:
    path = folder / "scan.h5"
    with h5py.File(path, "w") as file:
        raster = COUNTS.reshape(6, 7, 32, 32)
        file.create_dataset("raster", data=raster, chunks=(4, 5, 16, 9), compression="gzip", shuffle=True)
        file["points"] = POINTS
    return HDF5Diffraction(path=path, patterns="raster", positions="points", **COMMON, **more)


def npy(folder: Path, **more: Any) -> NumPyDiffraction:
    np.save(folder / "patterns.npy", COUNTS[None])
    np.save(folder / "points.npy", POINTS)
    return NumPyDiffraction(path=folder / "patterns.npy", positions="points.npy", **COMMON, **more)


def npz(folder: Path, **more: Any) -> NumPyDiffraction:
    np.savez(folder / "scan.npz", points=POINTS, patterns=COUNTS.reshape(6, 7, 32, 32).astype(">u2"))
    return NumPyDiffraction(path=folder / "scan.npz", patterns="patterns", positions="points", **COMMON, **more)


def built(settings: FileDiffraction) -> LiveDiffraction:
    return settings.build(Context(3, CPU, Path()))


# ---- the same everywhere --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [hdf5, npy, npz])
def test_batches_are_the_same_bits_wherever_patterns_are(tmp_path, written):
    resident, streamed = (built(written(tmp_path, patterns_on=place)) for place in ("device", "disk"))
    assert isinstance(resident._patterns, Resident)
    assert isinstance(streamed._patterns, Streamed)
    assert resident.mean_counts == streamed.mean_counts
    for epoch in (0, 1):
        pairs = list(zip(resident.train(epoch, 0), streamed.train(epoch, 0), strict=True))
        assert len(pairs) == resident.batches_per_epoch
        for one, other in pairs:
            assert torch.equal(one["index"], other["index"])
            assert torch.equal(one["amplitudes"], other["amplitudes"])
    later = list(streamed.train(1, 3))
    assert [batch["index"].tolist() for batch in later] == [one["index"].tolist() for one, _ in pairs[3:]]
    for one, other in zip(resident.evaluate("val"), streamed.evaluate("val"), strict=True):
        assert torch.equal(one["amplitudes"], other["amplitudes"])


def test_a_pattern_in_host_memory_comes_to_the_device_the_same(tmp_path):
    """As with an accelerator: not gathered on the device, but brought there."""
    scan = checked(hdf5(tmp_path).read())
    one = LiveDiffraction(scan, Context(3, CPU, Path()), 8, 0.05, storage="device")
    kept_NYX = np.array(scan.intensities_NYX)
    host = Streamed(kept_NYX, one._amplitudes, CPU)
    for batch, (_, amplitudes) in zip(
        one.train(0, 0), host.batches([b["index"] for b in one.train(0, 0)]), strict=True
    ):
        assert torch.equal(batch["amplitudes"], amplitudes)
    assert np.array_equal(kept_NYX, np.asarray(scan.intensities_NYX))


RECIPE = """
trainkit = 1
[run]
name = "streamed"
epochs = 3
device = "cpu"
threads = 1
[data]
use = "diffraction_hdf5"
path = "scan.h5"
patterns = "raster"
positions = "points"
positions_unit = "pixels"
pixel_size_angstrom = 0.4
energy_kev = 80.0
semiangle_mrad = 25.0
defocus_angstrom = 60.0
batch_size = 8
[model]
use = "single_slice_ptychography"
probe = { use = "aperture" }
[losses.data]
use = "amplitude"
[optimizer]
use = "adam"
[groups.probe]
start_epoch = 1
[groups.dr]
start_epoch = 2
"""


@pytest.mark.slow
def test_a_run_from_the_file_ends_with_the_same_bits_as_one_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hdf5(tmp_path)
    (tmp_path / "own.toml").write_text(RECIPE)
    states = [
        start(resolve("own.toml", (f"data.patterns_on={place}",)), Console(quiet=True)).run.state
        for place in ("device", "host", "disk", "auto")
    ]
    for state in states[1:]:
        assert state.metrics == states[0].metrics
        for (name, one), (_, other) in zip(
            states[0].model.named_parameters(), state.model.named_parameters(), strict=True
        ):
            assert torch.equal(one, other), name


@pytest.mark.slow
def test_what_bad_pixels_hold_changes_no_bit_of_a_run_and_masking_them_matters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metrics = []
    for name, value, masked in (("a", 0.0, True), ("b", 1e6, True), ("c", np.nan, True), ("d", 0.0, False)):
        path = tmp_path / name / "scan.h5"
        path.parent.mkdir()
        hdf5(path.parent)
        with h5py.File(path, "a") as file:
            file["raster"][:, :, 14:18, 20] = value  # in the bright disc
        mask = "bad_pixels = [[14, 20], [15, 20], [16, 20], [17, 20]]" if masked else ""
        text = RECIPE.replace("[model]", f"[data.prepare]\n{mask}\n[model]")
        (path.parent / "own.toml").write_text(text)
        metrics.append(start(resolve(path.parent / "own.toml"), Console(quiet=True)).run.state.metrics)
    assert metrics[0] == metrics[1] == metrics[2]
    assert metrics[3]["val/loss"] > 1.05 * metrics[0]["val/loss"]


# ---- reading ahead --------------------------------------------------------------------------------------------------


def as_they_are(intensities: Any, overwrites: bool) -> torch.Tensor:
    """Intensities in place of amplitudes."""
    assert not overwrites  # patterns of another kind may keep what they return
    return torch.from_numpy(intensities)


class Clocked:
    """Patterns whose reading takes so many seconds of a clock of its own, and who read each time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now, self.readers = seconds, 0.0, list[str]()
        self.shape = (100, 2, 2)

    def __getitem__(self, points: Any) -> Any:
        self.readers.append(threading.current_thread().name.partition("_")[0])
        self.now += self.seconds
        return np.ones((len(points), 2, 2), np.float32)


@pytest.mark.parametrize(
    ("reading", "using", "in_line"),
    [(0.001, 0.1, 40), (0.01, 0.1, 40), (0.06, 0.1, 2), (1.0, 0.1, 1), (0.003, 0.0, 17)],
)
def test_batches_are_read_in_a_second_thread_if_that_takes_much_of_the_time(monkeypatch, reading, using, in_line):
    patterns = Clocked(reading)
    monkeypatch.setattr(storage, "perf_counter", lambda: patterns.now)
    streamed = Streamed(patterns, as_they_are, CPU)
    indices = [torch.tensor([number]) for number in range(40)]
    for epoch in range(2):  # each begins anew: the second may find the file in memory
        patterns.readers.clear()
        found = []
        for index, _ in streamed.batches(indices):
            found.append(index)
            if len(found) <= in_line:
                patterns.now += using
        assert [int(each) for each in found] == list(range(len(found))), epoch
        assert patterns.readers == ["MainThread"] * in_line + ["patterns"] * (len(found) - in_line)


def test_an_accelerator_never_waits_for_a_read(monkeypatch):
    patterns = Clocked(0.0)
    monkeypatch.setattr(Streamed, "_read", lambda self, index: (index, self._amplitudes(self._patterns[index], False)))
    streamed = Streamed(patterns, as_they_are, torch.device("meta"))
    assert len(list(streamed.batches(torch.arange(6).split(2)))) == 3
    assert patterns.readers == ["patterns"] * 3


def test_the_next_batches_are_read_while_one_is_worked_on_and_not_many_more(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_SECONDS", -1.0)  # so that none is read in line
    monkeypatch.setattr(storage, "_SHARE", 0.0)
    data = built(hdf5(tmp_path, patterns_on="disk"))
    reads: list[int] = []
    whole = data._patterns._patterns  # type: ignore[union-attr]
    read, asked = type(whole).__getitem__, threading.Event()

    class Counting:
        shape = whole.shape

        def __len__(self) -> int:
            return len(whole)

        def __getitem__(self, points: Any) -> Any:
            reads.append(threading.get_ident())
            if len(reads) == 3:
                asked.set()
            return read(whole, points)

    data._patterns._patterns = Counting()  # type: ignore[union-attr]
    batches = data.train(0, 0)
    next(batches)
    assert asked.wait(10)
    assert threading.get_ident() not in reads
    assert len(reads) <= 4
    batches.close()  # type: ignore[attr-defined]
    assert len(list(data.train(0, 0))) == data.batches_per_epoch
    assert len(reads) <= 4 + data.batches_per_epoch
    assert len(set(reads)) == 1


def test_a_file_that_breaks_off_in_a_run_is_one_message(tmp_path):
    data = built(npy(tmp_path, patterns_on="disk"))
    whole = (tmp_path / "patterns.npy").read_bytes()
    (tmp_path / "patterns.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="was changed while it was in use"):
        list(data.train(0, 0))


# ---- where they go --------------------------------------------------------------------------------------------------


def limited(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    for module in (storage, hdf5_live, numpy_live):
        monkeypatch.setattr(module, "free_host_memory", lambda: num_bytes)


def test_patterns_go_to_the_first_place_where_they_fit(tmp_path, monkeypatch):
    recording, needed = hdf5(tmp_path).read(), 4 * 42 * 28 * 28
    assert choose_storage(recording, "auto", CPU) == "device"
    gpu = torch.device("cuda")
    for on_gpu, on_host, expected in ((10, 10, "device"), (1, 10, "host"), (1, 1, "disk"), (10, 1, "device")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=on_gpu: (free * needed, 0))
        limited(monkeypatch, on_host * needed)
        assert choose_storage(recording, "auto", gpu) == expected
    assert choose_storage(recording, "device", gpu) == "device"
    limited(monkeypatch, needed // 2)
    for place in ("device", "host"):
        with pytest.raises(DataError, match=rf"42 patterns of 28 × 28 take .* on the {place}.*patterns_on = \"disk\""):
            choose_storage(recording, place, CPU)  # type: ignore[arg-type]
    assert choose_storage(recording, "auto", CPU) == "disk"


def test_what_cannot_be_streamed_is_said_to_be_so(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "scan.npz", patterns=COUNTS, points=POINTS)
    packed = NumPyDiffraction(path=tmp_path / "scan.npz", patterns="patterns", positions="points", **COMMON).read()
    np.save(tmp_path / "fortran.npy", np.asfortranarray(COUNTS))
    np.save(tmp_path / "points.npy", POINTS)
    fortran = NumPyDiffraction(path=tmp_path / "fortran.npy", positions="points.npy", **COMMON).read()
    for recording in (packed, fortran, SIMULATED):
        with pytest.raises(DataError, match='patterns_on = "disk", but these cannot be read piece by piece'):
            choose_storage(recording, "disk", CPU)
    limited(monkeypatch, 1000)
    with pytest.raises(DataError, match="make them smaller"):
        choose_storage(packed, "auto", CPU)
    simulated = SimulatedDiffraction(patterns_on="disk")
    problems = list(simulated.problems(None))  # type: ignore[arg-type]
    assert [problem.key for problem in problems if isinstance(problem, Problem)] == ["patterns_on"]
    bz2ed = NumPyDiffraction(path=Path("scan.npz.bz2"), patterns_on="disk")
    problems = list(bz2ed.problems(None))  # type: ignore[arg-type]
    assert [problem.key for problem in problems if isinstance(problem, Problem)] == ["patterns_on"]


# ---- a limit of memory smaller than the file ------------------------------------------------------------------------


_LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np, torch, h5py
from trainkit import Context
from trainkit_ptychography.scans.files.kind import Raster
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.files.numpy import NumPyDiffraction
from trainkit_ptychography.scans import kind_live
from trainkit_ptychography.scans.files import hdf5_live
from trainkit_ptychography.scans.files import numpy_live
from trainkit.memory import _field

torch.set_num_threads(1)
path, limit = Path(sys.argv[1]), int(sys.argv[2])
used = 1024 * _field(Path("/proc/self/status"), "VmData:")
resource.setrlimit(resource.RLIMIT_DATA, (used + limit,) * 2)
try:
    np.ones((1600, 128, 128), np.float32)
    print("there is no limit")
except MemoryError:
    pass
common = dict(path=path, raster=Raster(step=2.0, shape=(40, 40)), positions_unit="pixels", batch_size=16)
if path.suffix == ".h5":
    data = HDF5Diffraction(patterns="data", **common)
else:
    data = NumPyDiffraction(**common)
live = data.build(Context(0, torch.device("cpu"), Path()))
seen = sum(float(batch["amplitudes"].double().square().sum()) for batch in live.train(0, 0))
seen += sum(float(batch["amplitudes"].double().square().sum()) for batch in live.evaluate("val"))
print(type(live._patterns).__name__, round(seen, 3), live.mean_counts)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h5", "packed.h5", "npy"])
def test_a_file_larger_than_the_memory_is_streamed(tmp_path, kind, warm):
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells how much memory a process uses")
    generator = np.random.default_rng(3)
    one = generator.poisson(5.0, (40, 128, 128)).astype(np.float32)
    path, shape = tmp_path / f"scan.{kind}", (1600, 128, 128)
    if kind == "npy":
        whole = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        for start_ in range(0, 1600, 40):
            whole[start_ : start_ + 40] = one
        del whole
    else:
        with h5py.File(path, "w") as file:
            more = {"chunks": (2, 128, 128), "compression": "lzf"} if kind == "packed.h5" else {}
            dataset = file.create_dataset("data", shape, "f4", **more)
            for start_ in range(0, 1600, 40):
                dataset[start_ : start_ + 40] = one
    limit = 80 * 2**20  # the patterns take 100 MiB
    run = warm.start("-c", _LIMITED, str(path), str(limit), folder=tmp_path, apart=True)
    assert run.wait() == 0, run.stderr
    name, seen, mean = run.stdout.split()
    assert name == "Streamed"
    assert float(seen) == pytest.approx(1600, rel=1e-5)  # a mean pattern's total is 1
    assert float(mean) == pytest.approx(one.sum(dtype=float) / 40, rel=1e-9)


# ---- files that could hurt ------------------------------------------------------------------------------------------


def test_a_file_that_unpacks_to_more_than_memory_is_not_taken_in(tmp_path, monkeypatch):
    """The bound of 1,100 : 1 lets 20 MB through here, which are read piece by piece, or not at all."""
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("data", data=np.zeros((300, 128, 128), "f4"), chunks=(1, 128, 128), compression="gzip")
        file["points"] = np.arange(600.0).reshape(300, 2)
    assert (tmp_path / "bomb.h5").stat().st_size < 400_000
    settings = HDF5Diffraction(path=tmp_path / "bomb.h5", patterns="data", positions="points", positions_unit="pixels")
    limited(monkeypatch, 10 * 2**20)
    recording = settings.read()
    assert choose_storage(recording, "auto", CPU) == "disk"
    tracemalloc.start()
    with pytest.raises(DataError, match="all patterns are zero"):
        checked(recording)
    assert tracemalloc.get_traced_memory()[1] < 60 * 2**20
    tracemalloc.stop()
    for wrong in ({"positions": "data"}, {"prepare": Prepare(background="data")}, {"probe": "data"}):
        with pytest.raises(DataError, match=r"takes 18.8 MiB, but only 10 MiB of memory are free; is it the right one"):
            HDF5Diffraction(
                **{
                    "path": settings.path,
                    "patterns": "data",
                    "positions": "points",
                    "positions_unit": "pixels",
                    **wrong,
                }
            ).read()


def test_pieces_that_are_larger_than_memory_are_refused(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        shape = (300, 256, 256)
        file.create_dataset("data", shape, "f4", chunks=shape, compression="gzip")[:3, 0] = 1.0
    limited(monkeypatch, 20 * 2**20)
    settings = HDF5Diffraction(path=tmp_path / "scan.h5", patterns="data", raster=Raster(step=1.0, shape=(20, 15)))
    with pytest.raises(DataError, match=r"stored in pieces of 75 MiB.*only 20 MiB of memory are free.*h5repack"):
        settings.read()


def test_a_packed_numpy_file_does_not_unpack_beyond_memory(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    np.savez(buffer, data=np.zeros((200, 128, 128), np.float32), scan=POINTS)
    (tmp_path / "scan.npz.bz2").write_bytes(bz2.compress(buffer.getvalue()))
    np.savez_compressed(tmp_path / "scan.npz", data=np.zeros((200, 128, 128), np.float32), scan=POINTS)
    limited(monkeypatch, 8 * 2**20)
    with pytest.raises(DataError, match=r"unpacks to more than 4 MiB, half of the memory that is free"):
        NumPyDiffraction(path=tmp_path / "scan.npz.bz2").read()
    with pytest.raises(
        DataError, match=r"takes 12.5 MiB, but only 8 MiB of memory are free; save the patterns as .npy"
    ):
        NumPyDiffraction(path=tmp_path / "scan.npz").read()


def test_a_compression_that_is_not_known_here_is_named(tmp_path, monkeypatch):
    settings = hdf5(tmp_path)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    with pytest.raises(DataError, match=r"packed with filter 2 \(shuffle\), .* brings hdf5plugin"):
        settings.read()
    assert free_host_memory() > 0
