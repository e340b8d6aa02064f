"""PtyRAD beside the engine: its iterations, in an environment of its own, and its result."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from ptyrad_peer import SECONDS

from trainkit_ptychography.models.output import Reconstruction
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Scan


class Found(NamedTuple):
    """What PtyRAD found.

    Attributes:
        phase_HW: The phase of the first slice, in rad.
        positions_N2: Where the probe's centre is for each pattern, in pixels of the phase, in the order of the file.
    """

    phase_HW: NDArray[np.float64]
    positions_N2: NDArray[np.float64]

    def reconstruction(self, scan: Scan) -> Reconstruction:
        """Return it as our model would show it; in the mean, positions are where the scan has them."""
        off_2 = (self.positions_N2 - scan.positions_N2).mean(0)
        return Reconstruction(
            phase_SHW=self.phase_HW[None],
            amplitude_SHW=np.ones_like(self.phase_HW)[None],
            probe_MYX=np.ones((1, 1, 1), np.complex64),
            positions_N2=self.positions_N2 - off_2,
            origin_2=-off_2,
        )


class PtyRAD:
    """PtyRAD on a file, one iteration whenever it is asked for.

    Args:
        python: The Python of an environment that has PtyRAD.
        data: The file; see `ptyrad_peer`.
        slices: Number of slices.
        batch: Patterns of a batch.
        iterations: How many there will be.
    """

    def __init__(self, python: Path, data: Path, slices: int, batch: int, iterations: int) -> None:
        self._command = [python, Path(__file__).with_name("ptyrad_peer.py"), "--data", data, "--slices", slices]
        self._command += ["--batch", batch, "--iterations", iterations]
        self._iterations = iterations
        self.found: Found | None = None  # after the last iteration

    def iterations(self) -> Iterator[float]:
        """Yield the CPU seconds of each iteration, over all patterns."""
        with tempfile.TemporaryDirectory() as folder:
            command = [str(each) for each in (*self._command, "--folder", folder)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
                assert peer.stdin is not None
                assert peer.stdout is not None
                for number in range(self._iterations):
                    peer.stdin.write("\n")
                    peer.stdin.flush()
                    answer = next((line for line in peer.stdout if line.startswith(SECONDS)), None)
                    if answer is None:
                        sys.exit(f"PtyRAD ended in iteration {number + 1}; what it said stands above")
                    if number == self._iterations - 1:
                        peer.stdout.read()  # until it has written its result
                        with np.load(Path(folder) / "found.npz") as file:
                            self.found = Found(file["phase_HW"], file["positions_N2"])
                    yield float(answer.removeprefix(SECONDS))


def why_no_ptyrad(python: Path | None, data: Path | None) -> str | None:
    """Return why PtyRAD cannot be measured; None: it can."""
    if python is None:
        return "--ptyrad does not name the Python of an environment that has it"
    if data is None:
        return "it needs a file, which --data gives"
    found = subprocess.run([python, "-c", "import importlib.metadata as m; m.version('ptyrad')"], capture_output=True)
    return f"{python} has no package ptyrad" if found.returncode else None


def write_scan(data: LiveDiffraction, settings: Any, path: Path) -> None:
    """Write a simulated scan of a thin specimen so that `ptyrad_peer` can read it.

    Args:
        data: The scan.
        settings: What it was simulated with.
        path: The file.
    """
    scan, rows_columns = data.scan, data.detector_shape
    intensity_NYX = np.zeros((len(scan.positions_N2), *rows_columns), np.float32)
    for batch in (*data.evaluate("train"), *data.evaluate("val")):
        counts_BYX = batch["amplitudes"].square() * data.mean_counts
        intensity_NYX[batch["index"].numpy()] = torch.fft.fftshift(counts_BYX, (1, 2)).numpy()
    with h5py.File(path, "w") as file:
        file["intensity"] = intensity_NYX
        file.attrs["scan_shape"] = settings.scan_shape
        file.attrs["detector_shape"] = rows_columns
        file.attrs["energy_eV"] = settings.energy_kev * 1e3
        file.attrs["semiangle_rad"] = settings.semiangle_mrad / 1e3
        file.attrs["C10_A"] = -settings.defocus_angstrom
        file.attrs["scan_step_A"] = settings.step_angstrom
        file.attrs["dk_invA"] = 1 / (rows_columns[0] * cast(float, scan.pixel_size_angstrom))
