"""Damaged files of each format: each is read, or refused in one sentence, within seconds of CPU time.

    python tests/ptychography/file_fuzz.py                      # 10,000 of each kind
    python tests/ptychography/file_fuzz.py hdf5 --number 500 --first 2000

A file is made anew from its number, so that what went wrong can be tried again.

Files are read in child processes, because the HDF5 library may crash or hang where Python cannot help. trainkit itself
tries each step on such a file in a process of its own first (trial_process.py), which takes most of the time. So a
child process reads many files without these trials; a file that ends it, or takes long, is read once more with them.
"""

from __future__ import annotations

import argparse
import io
import resource
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_SECONDS = 10.0  # of CPU time for a file
_SECONDS_WITHOUT_TRIALS = 2.0
_WAITING = 600  # seconds for a file, whatever it waits for
_MEMORY = 4 * 2**30
_HEADER = 3000  # bytes at the beginning (and end), where most damage is done


ENDINGS = {"hdf5": "h5", "cxi": "cxi", "npz": "npz", "ptyd": "ptyd", "matlab": "mat", "table": "csv", "empad": "xml"}


class Failure(NamedTuple):
    """A file that was neither read nor refused."""

    kind: str
    number: int
    what: str


class Outcome(NamedTuple):
    """What became of many files."""

    failures: list[Failure]
    refused: int


def originals(kind: str, folder: Path) -> list[bytes]:
    """Return files without damage, of several layouts."""
    generator = np.random.default_rng(1)
    patterns = generator.poisson(9.0, (12, 8, 8)).astype(np.float32)
    points = generator.uniform(0, 20, (12, 2))
    if kind == "npz":
        return _archives(patterns, points)
    if kind == "matlab":
        return _of_matlab(patterns, points)
    if kind == "table":
        return _tables(points)
    if kind == "empad":
        return [_EMPAD]
    import h5py

    found = []
    layouts: list[dict[str, object]] = [
        {},
        {"chunks": (2, 8, 8), "compression": "gzip", "shuffle": True},
        {"chunks": (1, 4, 8), "fletcher32": True},
    ]
    for number, (libver, layout) in enumerate((libver, each) for libver in ("earliest", "latest") for each in layouts):
        path = folder / f"original_{number}.h5"
        with h5py.File(path, "w", libver=libver) as file:
            if kind == "ptyd":
                file["meta/energy"], file["meta/distance"] = 6.2, 2.0
                file["meta/psize"], file["meta/center"] = np.full(2, 1e-4), np.full(2, 4.0)
                for chunk, part in enumerate((slice(5), slice(5, 12))):
                    file.create_dataset(f"chunks/{chunk}/data", data=patterns[part], **layout)
                    file[f"chunks/{chunk}/positions"] = points[part] * 1e-6
                    file[f"chunks/{chunk}/weights"] = np.ones((len(patterns[part]), 8, 8), bool)
                found.append(path)
                continue
            if kind == "cxi":
                detector = file.create_group("entry_1/instrument_1/detector_1")
                detector.create_dataset("data", data=patterns, **layout)
                detector["distance"], detector["x_pixel_size"] = 1.0, 1e-4
                file["entry_1/instrument_1/source_1/energy"] = 1e-15  # J
                metres = np.pad(points, ((0, 0), (0, 1))) * 1e-6
                file["entry_1/sample_1/geometry_1/translation"] = metres
                found.append(path)
                continue
            file.create_dataset("entry/data", data=patterns, **layout)
            file["entry/points"], file["entry/data"].attrs["units"] = points, "counts"
            file["data"], file["points"] = h5py.SoftLink("/entry/data"), h5py.SoftLink("entry/points")
            virtual = h5py.VirtualLayout((12, 8, 8), "f4")
            virtual[:] = h5py.VirtualSource(".", "entry/data", (12, 8, 8))
            file.create_virtual_dataset("entry/virtual", virtual)
            file["mask"] = np.eye(8, dtype="u1")
            found.append(path)
    return [path.read_bytes() for path in found]


def _archives(patterns: np.ndarray, points: np.ndarray) -> list[bytes]:
    found = []
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, data=patterns, scan=points)
        found.append(buffer.getvalue())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_BZIP2) as archive:
        for name, array in (("data", patterns), ("scan", points)):
            one = io.BytesIO()
            np.save(one, array)
            archive.writestr(f"{name}.npy", one.getvalue())
    return [*found, buffer.getvalue()]


_EMPAD = b"""<root><raw_file filename="scan.raw"/><pix_x>4</pix_x><pix_y>3</pix_y><iom_measurements>
<high_voltage>80000</high_voltage><full_scan_field_of_view><x>4e-10</x><scale_factor>0.72</scale_factor>
</full_scan_field_of_view></iom_measurements></root>"""


def _of_matlab(patterns: np.ndarray, points: np.ndarray) -> list[bytes]:
    import scipy.io

    found = []
    for compressed in (False, True):
        buffer = io.BytesIO()
        arrays = {"data": patterns.transpose(1, 2, 0), "points": points, "probe": np.ones((8, 8), complex)}
        scipy.io.savemat(buffer, arrays, do_compression=compressed)
        found.append(buffer.getvalue())
    return found


def _tables(points: np.ndarray) -> list[bytes]:
    rows = [f"{row:.6f},{column:.6f}" for row, column in points]
    heads = ("y_nm,x_nm\n", "# y [nm], x [nm]\n", "y,x\nnm,nm\n")
    semicolons = "Pos. Y;Pos. X\n" + "\n".join(row.replace(",", ";").replace(".", ",") for row in rows)
    return [*((head + "\n".join(rows)).encode() for head in heads), semicolons.encode()]


def damaged(original: bytes, number: int) -> bytes:
    """Return a file with a few bytes changed, a piece moved, or an end cut off."""
    generator = np.random.default_rng((number, 0xF2))
    content = bytearray(original)
    for _ in range(int(generator.integers(1, 5))):
        near = int(generator.integers(min(_HEADER, len(content))))
        at = [near, len(content) - 1 - near, int(generator.integers(len(content)))][
            int(generator.choice(3, p=[0.6, 0.2, 0.2]))
        ]
        match int(generator.integers(7)):
            case 0:
                content[at] ^= 1 << int(generator.integers(8))
            case 1:
                content[at] = int(generator.integers(256))
            case 2:  # a large number
                content[at : at + 8] = int(generator.integers(2**62)).to_bytes(8, "little")
            case 3:
                content[at : at + 8] = b"\xff" * 8
            case 4:
                content[at : at + int(generator.integers(1, 64))] = bytes(int(generator.integers(0, 64)))
            case 5:
                source = int(generator.integers(len(content)))
                content[at : at + 16] = content[source : source + 16]
            case _:
                if generator.random() < 0.2:
                    del content[at:]
        if not content:
            break
    return bytes(content)


def is_refused(kind: str, path: Path) -> bool:
    """Look at a file as ``check --data`` does; return whether it is refused.

    Whatever is raised but a `TrainkitError` is a fault.
    """
    from trainkit import TrainkitError
    from trainkit_ptychography.scans.files.any_format import AnyFormatDiffraction
    from trainkit_ptychography.scans.files.cxi import CXIDiffraction
    from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
    from trainkit_ptychography.scans.files.kind import Raster
    from trainkit_ptychography.scans.files.numpy import NumPyDiffraction
    from trainkit_ptychography.scans.files.readers.empad import EMPADReader
    from trainkit_ptychography.scans.files.readers.matlab import MATLABReader
    from trainkit_ptychography.scans.files.readers.ptyd import PtydReader

    beside = path.parent / "patterns.npy"
    if kind == "table" and not beside.exists():
        np.save(beside, np.random.default_rng(1).poisson(9.0, (12, 8, 8)))
    if kind == "empad" and not (path.parent / "scan.raw").exists():
        np.ones((12, 130, 128), "<f4").tofile(path.parent / "scan.raw")

    made: dict[str, Callable[[], list[Any]]] = {
        "hdf5": lambda: [
            HDF5Diffraction(path=path, patterns=name, positions="points", positions_unit="pixels")
            for name in ("data", "entry/virtual")
        ],
        "cxi": lambda: [CXIDiffraction(path=path)],
        "npz": lambda: [NumPyDiffraction(path=path)],
        "ptyd": lambda: [AnyFormatDiffraction(path=path, reader=PtydReader())],
        "matlab": lambda: [
            AnyFormatDiffraction(
                path=path,
                reader=MATLABReader(),
                patterns="data",
                pattern_axes="yxn",
                positions="points",
                positions_unit="pixels",
                probe="probe",
            )
        ],
        "table": lambda: [NumPyDiffraction(path=beside, positions_path=path, pixel_size_angstrom=10.0)],
        "empad": lambda: [
            AnyFormatDiffraction(path=path, reader=EMPADReader(), raster=Raster(step=1.0), dk_per_angstrom=0.04)
        ],
    }
    refused = False
    for data in made[kind]():
        try:
            list(data.inspect(None, "all"))
        except TrainkitError as error:
            refused = True
            if "\x1b" in str(error) or len(str(error)) > 20_000:
                raise AssertionError("the message is not fit for a terminal") from error
    return refused


def child(kind: str, first: int, last: int, trials: bool) -> None:
    """Try files one after the other; print the number of each before it is read, and what became of it.

    Args:
        kind: The kind of files.
        first: The number of the first file.
        last: The number after that of the last file.
        trials: Whether trainkit tries each step on a file in a process of its own first, as it does for users.
    """
    from trainkit_ptychography.scans.files import hdf5_live, matlab_live

    if not trials:
        hdf5_live.survives = matlab_live.survives = lambda action, cpu_seconds: True
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)  # ends the process, even within the HDF5 library
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        whole = originals(kind, Path(folder))
        for number in range(first, last):
            path = Path(folder) / f"{number}.{ENDINGS[kind]}"
            path.write_bytes(damaged(whole[number % len(whole)], number))
            print(number, flush=True)
            signal.setitimer(signal.ITIMER_PROF, _SECONDS if trials else _SECONDS_WITHOUT_TRIALS)
            signal.alarm(_WAITING)
            try:
                if is_refused(kind, path):
                    print("refused", flush=True)
            except Exception as error:
                print(f"! {type(error).__name__}: {error}"[:300].replace("\n", " "), flush=True)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            path.unlink()


def fuzz(kind: str, number: int, first: int = 0) -> Outcome:
    """Try damaged files in child processes.

    Raises:
        RuntimeError: A child process ended before it read a file, so the fault is in this script.
    """
    failures: list[Failure] = []
    refused = 0
    at, last, trials = first, first + number, False
    while at < last:
        command = [sys.executable, __file__, kind, "--child", str(at), str(at + 1 if trials else last)]
        run = subprocess.run([*command, *["--trials"] * trials], capture_output=True, text=True)
        if not run.stdout:
            raise RuntimeError(f"the process ended before it read a file: {run.stderr}")
        for line in run.stdout.splitlines():
            if line.startswith("! "):
                failures.append(Failure(kind, at, line[2:]))
            elif line.isdigit():
                at = int(line)
            elif line == "refused":
                refused += 1
        if run.returncode == 0 and not trials:
            break
        if run.returncode != 0 and trials:
            hangs = run.returncode in (-signal.SIGPROF, -signal.SIGALRM)
            what = "hangs" if hangs else f"ends the process ({run.returncode}) {run.stderr[-300:]}"
            failures.append(Failure(kind, at, what))
        at += trials
        trials = not trials
    return Outcome(failures, refused)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="|".join(ENDINGS))
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--child", type=int, nargs=2)
    parser.add_argument("--trials", action="store_true")
    given = parser.parse_args()
    if unknown := [kind for kind in given.kinds if kind not in ENDINGS]:
        parser.error(f"there are the kinds {', '.join(ENDINGS)}, and no {unknown[0]}")
    if given.child:
        child(given.kinds[0], *given.child, given.trials)
        return
    outcomes = [fuzz(kind, given.number, given.first) for kind in given.kinds or ENDINGS]
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    for failure in failures:
        print(f"{failure.kind} {failure.number}: {failure.what}")
    refused = sum(outcome.refused for outcome in outcomes)
    print(f"{given.number} files of each kind, {refused} refused, {len(failures)} neither read nor refused")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
