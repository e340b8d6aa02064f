"""What a model shows of its reconstruction, and the files that it leaves at the run's end.

Shapes: N = scan points, M = probe modes, S = slices, H, W = rows and columns of the object, Y, X = those of
the detector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

from trainkit import State
from trainkit_ptychography.output import pictures
from trainkit_ptychography.output.imagej_tiff import write_imagej_tiff
from trainkit_ptychography.output.result import Result, write_result
from trainkit_ptychography.physics.geometry import affine_part
from trainkit_ptychography.scans.kind_live import LiveDiffraction


@attrs.frozen(kw_only=True, eq=False)
class Reconstruction:
    """What was reconstructed so far, as arrays.

    Attributes:
        phase_SHW: Phase of each slice of the object in rad.
        amplitude_SHW: Amplitude of each slice's transmission, 1 for vacuum.
        probe_MYX: Complex modes, centred at pixel (Y//2, X//2).
        positions_N2: Where the probe's centre is for each pattern, in pixels, in the data's coordinates.
        origin_2: Position, in the data's coordinates, of the object's pixel [0, 0].
    """

    phase_SHW: NDArray[np.floating]
    amplitude_SHW: NDArray[np.floating]
    probe_MYX: NDArray[np.complexfloating]
    positions_N2: NDArray[np.float64]
    origin_2: NDArray[np.float64]

    def projected_phase(self) -> NDArray[np.floating]:
        """Return the phase (H, W) of all slices together, in rad."""
        phase_HW: NDArray[np.floating] = self.phase_SHW.sum(axis=0)
        return phase_HW

    def projected_amplitude(self) -> NDArray[np.floating]:
        """Return the amplitude (H, W) of all slices together."""
        amplitude_HW: NDArray[np.floating] = self.amplitude_SHW.prod(axis=0)
        return amplitude_HW


@runtime_checkable
class Reconstructs(Protocol):
    """A model that gives its reconstruction."""

    def reconstruction(self) -> Reconstruction:
        """Return what was reconstructed so far."""
        ...


def result(found: Reconstruction, data: LiveDiffraction) -> Result:
    """Return a reconstruction as ``result.h5`` holds it."""
    nominal_N2, trained = data.scan.positions_N2, data.train_index.numpy()
    moved_N2 = found.positions_N2 - nominal_N2
    _, matrix_23 = affine_part(torch.from_numpy(moved_N2[trained]), torch.from_numpy(nominal_N2[trained]))
    return Result(
        object_HW=found.projected_amplitude() * np.exp(1j * found.projected_phase()),
        probe_MYX=found.probe_MYX,
        positions_N2=found.positions_N2 - found.origin_2,
        nominal_N2=nominal_N2 - found.origin_2,
        held_out_index=data.held_out_index.numpy(),
        affine_23=matrix_23.numpy(),
        origin_2=found.origin_2,
        pixel_size_angstrom=data.scan.pixel_size_angstrom,
        wavelength_angstrom=data.scan.wavelength_angstrom,
        source=data.scan.source,
        points_N=data.scan.points_N,
    )


def show(found: Reconstruction, data: LiveDiffraction, state: State) -> None:
    """Show phase, amplitude, probe and positions as pictures."""
    scan, size = data.scan, data.scan.pixel_size_angstrom
    phase_HW, amplitude_HW = found.projected_phase(), found.projected_amplitude()
    seen = pictures.scanned_part(scan.positions_N2 - found.origin_2, (phase_HW.shape[0], phase_HW.shape[1]))
    phase_HW, amplitude_HW = phase_HW[seen], amplitude_HW[seen]
    state.picture("object_phase", pictures.grey(phase_HW, size, "rad"))
    state.picture("object_amplitude", pictures.grey(amplitude_HW, size, ""))
    object_HW = amplitude_HW * np.exp(1j * phase_HW)
    state.picture("object", pictures.complex_arrays(object_HW[None], size, brightest_percent=99.0))
    powers_M = (np.abs(found.probe_MYX) ** 2).sum((1, 2))
    shares = " ".join(f"{share:.1%}" for share in powers_M / powers_M.sum()) if len(powers_M) > 1 else ""
    state.picture("probe", pictures.complex_arrays(found.probe_MYX, size, shares))
    true_N2 = None if scan.truth is None else scan.truth.positions_N2
    state.picture("positions", pictures.positions(scan.positions_N2, found.positions_N2, true_N2))


def write_files(found: Reconstruction, data: LiveDiffraction, folder: Path) -> None:
    """Write ``result.h5``, and phase and amplitude for ImageJ, into a folder."""
    write_result(folder / "result.h5", result(found, data))
    for name, map_HW in (("phase", found.projected_phase()), ("amplitude", found.projected_amplitude())):
        write_imagej_tiff(folder / f"object_{name}.tif", map_HW, data.scan.pixel_size_angstrom)
