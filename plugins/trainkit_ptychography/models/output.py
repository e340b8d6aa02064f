"""What a model shows of its reconstruction, and the files that it leaves at the run's end.

Shapes: N = scan points, M = probe modes, S = slices, H, W = rows and columns of the object, Y, X = those of
the detector.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol, runtime_checkable

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

from trainkit import State
from trainkit_ptychography.direct.geometry import DirectGeometry
from trainkit_ptychography.models.residuals import Predicts, Residuals, poor_fits, residuals, some_patterns
from trainkit_ptychography.output import (
    background_picture,
    geometry_picture,
    object_pictures,
    probe_picture,
    scan_pictures,
)
from trainkit_ptychography.output.frame import angle_bar, length_bar
from trainkit_ptychography.output.illumination import illumination, lit, scanned_part
from trainkit_ptychography.output.imagej_tiff import write_imagej_tiff
from trainkit_ptychography.output.provenance import provenance
from trainkit_ptychography.output.result import Result, write_result
from trainkit_ptychography.physics.geometry import AffineMotion
from trainkit_ptychography.physics.quality import PhaseAgreement, phase_agreement, rebinned
from trainkit_ptychography.preflight.noise import electrons_in
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.sampling import scanned_area

_LOGGER = logging.getLogger("trainkit")
_NAMED = 8  # patterns that a message names
_THIRDS = 3  # slices, from which on a first third differs from a last one
_DIFFER = 1e-6  # share of the largest phase, below which depths do not differ
_EDGE = 2.0  # pixels at the edge of the scan that are not compared: few patterns see them


@attrs.frozen(kw_only=True, eq=False)
class Reconstruction:
    """What was reconstructed so far, as arrays.

    Attributes:
        phase_SHW: Phase of each slice of the object in rad.
        amplitude_SHW: Amplitude of each slice's transmission, 1 for vacuum.
        object_modes_OSHW: Complex transmission of each mode of the object, of which phase and amplitude are the means;
            None: it has one.
        probe_MYX: Complex modes, centred at pixel (Y//2, X//2).
        num_scans: Number of scans that have probes of their own; their modes follow each other.
        defocus_spread_angstrom: Standard deviation of the defocus with which each mode is seen; None: there is none.
        opr_modes_KMYX: Modes by which the probe changes over the scan; None: it does not.
        opr_weights_NK: Their weights at each scan point.
        background_YX: Light that all patterns have in common, of which a mean pattern has 1, zero frequency at [0, 0];
            None: there is none.
        pattern_intensities_N: Factor of the light of each pattern; None: they are not modelled.
        distance_change_percent: By how much the effective distance differs from what was told; None: it cannot.
        positions_N2: Where the probe's centre is for each pattern, in pixels, in the data's coordinates.
        origin_2: Position, in the data's coordinates, of the object's pixel [0, 0].
        slice_spacing_angstrom: Distance from one slice to the next; None: there is one slice, or it is not known.
        tilt_mrad: Direction of the beam through the slices (2,), or at each scan point (N, 2), in mrad; None: there is
            one slice.
    """

    phase_SHW: NDArray[np.floating]
    amplitude_SHW: NDArray[np.floating]
    object_modes_OSHW: NDArray[np.complexfloating] | None = None
    probe_MYX: NDArray[np.complexfloating]
    num_scans: int = 1
    defocus_spread_angstrom: float | None = None
    opr_modes_KMYX: NDArray[np.complexfloating] | None = None
    opr_weights_NK: NDArray[np.floating] | None = None
    background_YX: NDArray[np.floating] | None = None
    pattern_intensities_N: NDArray[np.floating] | None = None
    distance_change_percent: float | None = None
    positions_N2: NDArray[np.float64]
    origin_2: NDArray[np.float64]
    slice_spacing_angstrom: float | None = None
    tilt_mrad: NDArray[np.float64] | None = None

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


def agreement_with_truth(found: Reconstruction, data: LiveDiffraction) -> PhaseAgreement | None:
    """Return how near the phase is to the true one over the scanned part; None if the truth is not known."""
    truth, nominal_N2 = data.scan.truth, data.scan.positions_N2
    if truth is None:
        return None
    return truth.in_box(found.origin_2, _scanned_box(nominal_N2)).agreement(found.projected_phase())


def depth_agreement_with_truth(found: Reconstruction, data: LiveDiffraction) -> float | None:
    """Return Pearson's r of the phase's first third in depth less its last, which no object blind to depth can have.

    None: the truth of slices is not known, or is the same in all depths, or fewer than three were reconstructed.
    """
    truth = data.scan.truth
    if truth is None or truth.slices_SKL is None or len(found.phase_SHW) < _THIRDS:
        return None
    of_found_3HW, of_truth_3KL = (rebinned(each, _THIRDS) for each in (found.phase_SHW, truth.slices_SKL))
    box = _scanned_box(data.scan.positions_N2)
    differences = (each[0] - each[2] for each in (of_found_3HW, of_truth_3KL))
    found_HW, truth_KL = differences
    if np.abs(truth_KL).max() < _DIFFER * np.abs(truth.slices_SKL).max():
        return None
    return phase_agreement(found_HW, found.origin_2, truth_KL, box).pearson


def _scanned_box(nominal_N2: NDArray[np.float64]) -> tuple[tuple[float, float], tuple[float, float]]:
    low_2, high_2 = nominal_N2.min(axis=0) + _EDGE, nominal_N2.max(axis=0) - _EDGE
    return (low_2[0], high_2[0]), (low_2[1], high_2[1])


def result(found: Reconstruction, data: LiveDiffraction, off: Residuals | None = None) -> Result:
    """Return a reconstruction as ``result.h5`` holds it.

    Args:
        found: The reconstruction.
        data: The data.
        off: How far each modelled pattern is from the measured one; None: not known.
    """
    nominal_N2, trained = data.scan.positions_N2, data.train_index.numpy()
    moved_N2 = found.positions_N2 - nominal_N2
    _, matrix_23 = AffineMotion(torch.from_numpy(nominal_N2[trained])).within(torch.from_numpy(moved_N2[trained]))
    return Result(
        object_HW=found.projected_amplitude() * np.exp(1j * found.projected_phase()),
        object_modes_OSHW=found.object_modes_OSHW,
        probe_MYX=found.probe_MYX,
        num_scans=found.num_scans,
        defocus_spread_angstrom=found.defocus_spread_angstrom,
        opr_modes_KMYX=found.opr_modes_KMYX,
        opr_weights_NK=found.opr_weights_NK,
        background_YX=background_in_counts(found, data),
        pattern_intensities_N=found.pattern_intensities_N,
        distance_change_percent=found.distance_change_percent,
        positions_N2=found.positions_N2 - found.origin_2,
        nominal_N2=nominal_N2 - found.origin_2,
        held_out_index=data.held_out_index.numpy(),
        affine_23=matrix_23.numpy(),
        origin_2=found.origin_2,
        pixel_size_angstrom=data.scan.pixel_size_angstrom,
        wavelength_angstrom=data.scan.wavelength_angstrom,
        source=data.scan.source,
        points_N=data.scan.points_N,
        residual_N=None if off is None else off.of_all_N,
        residual_of_noise_N=None if off is None else off.of_noise_N,
        slices_SHW=found.amplitude_SHW * np.exp(1j * found.phase_SHW) if len(found.phase_SHW) > 1 else None,
        slice_spacing_angstrom=found.slice_spacing_angstrom,
        tilt_mrad=found.tilt_mrad,
        energy_kev=data.scan.energy_kev,
        dose=dose(data),
    )


def background_in_counts(found: Reconstruction, data: LiveDiffraction) -> NDArray[np.floating] | None:
    """Return the background in the unit of the patterns, the middle of the detector at (Y//2, X//2); None: none."""
    if found.background_YX is None:
        return None
    centred_YX: NDArray[np.floating] = np.fft.fftshift(data.mean_counts * found.background_YX)
    return centred_YX


def dose(data: LiveDiffraction) -> float | None:
    """Return the counts per Å² of the scanned area; None: the pixel size is not known, or there is no area."""
    size, points_N2 = data.scan.pixel_size_angstrom, data.scan.positions_N2
    area = 0.0 if size is None else scanned_area(points_N2) * size**2
    return float(data.mean_counts * len(points_N2) / area) if area > 0 else None


def show(found: Reconstruction, data: LiveDiffraction, state: State, model: Predicts) -> None:
    """Show object, probe, positions and some patterns as pictures.

    Args:
        found: What was reconstructed so far.
        data: The data.
        state: The run, whose pictures they become.
        model: Gives the patterns.
    """
    scan, size, under = data.scan, data.scan.pixel_size_angstrom, _subtitle(found, data, state)
    phase_HW, amplitude_HW = found.projected_phase(), found.projected_amplitude()
    shape_HW = (phase_HW.shape[0], phase_HW.shape[1])
    in_object_N2 = found.positions_N2 - found.origin_2
    lit_HW = lit(illumination(found.probe_MYX, in_object_N2, shape_HW), in_object_N2)
    seen = scanned_part(scan.positions_N2 - found.origin_2, shape_HW)
    phase_HW, amplitude_HW, lit_HW = phase_HW[seen], amplitude_HW[seen], lit_HW[seen]
    state.picture("object_phase", object_pictures.phase(phase_HW, lit_HW, size, under), rank=10)
    if (picture := object_pictures.amplitude(amplitude_HW, lit_HW, size, under)) is not None:
        state.picture("object_amplitude", picture, rank=20)
    state.picture("object", object_pictures.both(phase_HW, amplitude_HW, lit_HW, size, under), rank=15)
    if len(found.phase_SHW) > 1:
        slices_SHW = found.phase_SHW[:, *seen]
        spacing = found.slice_spacing_angstrom
        state.picture("object_slices", object_pictures.slices(slices_SHW, lit_HW, size, spacing, under), rank=25)
        state.picture("object_depth", object_pictures.depth(slices_SHW, lit_HW, size, spacing, under), rank=26)
    optics = (size, scan.wavelength_angstrom)
    state.picture("probe", probe_picture.probe(found.probe_MYX, *optics, under, found.num_scans), rank=30)
    if found.opr_weights_NK is not None and found.opr_weights_NK.any():
        weights = scan_pictures.opr_weights(
            scan.positions_N2,
            found.opr_weights_NK,
            data.train_index.numpy(),
            size,
            under,
            scan.scan_N if found.num_scans > 1 else None,
        )
        state.picture("probe_over_scan", weights, rank=60)
    columns = data.detector_shape[1]
    if scan.detector_propagation.patterns_are_images:
        bar = length_bar(columns, size)
    else:
        bar = angle_bar(columns, size, scan.wavelength_angstrom)
    if (background_YX := background_in_counts(found, data)) is not None:
        share = float(background_YX.sum()) / data.mean_counts
        state.picture("background", background_picture.background(background_YX, share, bar, under), rank=70)
    if found.pattern_intensities_N is not None:
        factors = (scan.positions_N2, found.pattern_intensities_N, data.train_index.numpy())
        state.picture("pattern_intensities", scan_pictures.intensities(*factors, size, under), rank=75)
    true_N2 = None if scan.truth is None else scan.truth.positions_N2
    state.picture(
        "positions",
        scan_pictures.displacements(
            scan.positions_N2, found.positions_N2, true_N2, data.train_index.numpy(), size, under
        ),
        rank=40,
    )
    shown = some_patterns(model, data)
    captions = [f"pattern {scan.number(point)}" for point in shown.points]
    arrays = (shown.measured_KYX, shown.modelled_KYX, shown.mask_KYX)
    state.picture("patterns", scan_pictures.patterns(*arrays, captions, bar, under), rank=50)


def show_beginning(phase_HW: NDArray[np.float64], found: Reconstruction, data: LiveDiffraction, state: State) -> None:
    """Show the phase that an object began with; arguments as for `show`."""
    began = attrs.evolve(found, phase_SHW=phase_HW[None], amplitude_SHW=np.ones_like(phase_HW)[None])
    in_object_N2 = data.scan.positions_N2 - found.origin_2
    shape_HW = (phase_HW.shape[0], phase_HW.shape[1])
    lit_HW = lit(illumination(found.probe_MYX, in_object_N2, shape_HW), in_object_N2)
    seen, agreement = scanned_part(in_object_N2, shape_HW), agreement_with_truth(began, data)
    against = "" if agreement is None else f", r = {agreement.pearson:.4f} with the truth"
    under = f"{state.folder.parent.name} / {state.folder.name}, before training{against}"
    size = data.scan.pixel_size_angstrom
    state.picture("object_beginning", object_pictures.phase(phase_HW[seen], lit_HW[seen], size, under), rank=90)


def show_geometry(geometry: DirectGeometry, state: State) -> None:
    """Show what patterns tell of the geometry without a reconstruction."""
    under = f"{state.folder.parent.name} / {state.folder.name}, before training"
    state.picture("geometry", geometry_picture.geometry(geometry, under), rank=91)


def finish(found: Reconstruction, data: LiveDiffraction, state: State, model: Predicts) -> None:
    """Leave the files of a run that ends, and show how well each pattern is fitted.

    Patterns that are fitted far worse than the others are named in a message. An interrupted run leaves the files
    alone, without residuals: its machine may be taken away.

    Args:
        found: What was reconstructed.
        data: The data.
        state: The run.
        model: Gives the patterns.
    """
    if state.interrupted:
        write_files(found, data, state.folder)
        return
    off = None
    try:
        off = residuals(model, data, electrons_in(data) if data.is_half else None)
    except Exception as error:  # whatever a device raises: the result does not depend on it
        _LOGGER.warning("result.h5 has no residuals: %s: %s", type(error).__name__, error)
    write_files(found, data, state.folder, off)
    if off is not None:
        try:
            show_residuals(off.of_all_N, found, data, state)
        except Exception as error:  # a picture never ends a run
            _LOGGER.warning("the residuals cannot be drawn: %s: %s", type(error).__name__, error)


def show_residuals(residual_N: NDArray[np.float64], found: Reconstruction, data: LiveDiffraction, state: State) -> None:
    """Show how well each pattern is fitted, and name those that are fitted far worse than the others."""
    scan, size = data.scan, data.scan.pixel_size_angstrom
    poor = poor_fits(residual_N, scan.positions_N2)
    under = _subtitle(found, data, state)
    state.picture(
        "residuals", scan_pictures.residuals(scan.positions_N2, residual_N, poor, scan.points_N, size, under), rank=50
    )
    if poor:
        numbers = ", ".join(str(scan.number(each)) for each in poor[:_NAMED]) + (" …" if len(poor) > _NAMED else "")
        median = float(np.nanmedian(residual_N))
        _LOGGER.warning(
            "%d of %d patterns are fitted far worse than the others (%s; the worst has a residual of %.3g, the median "
            "is %.3g): look at them (figures/residuals, and residual in result.h5), and leave them out if the beam or "
            "the detector failed (data.leave_out)",
            len(poor),
            len(residual_N),
            numbers,
            residual_N[poor[0]],
            median,
        )


def _subtitle(found: Reconstruction, data: LiveDiffraction, state: State) -> str:
    finished = state.epoch + 1 if state.closing else state.epoch
    when = f"{finished} epoch{'s' * (finished != 1)}" if state.closing or state.ended else f"step {state.step}"
    agreement = agreement_with_truth(found, data)
    against = "" if agreement is None else f", r = {agreement.pearson:.4f} with the truth"
    return f"{state.folder.parent.name} / {state.folder.name}, {when}{against}"


def write_files(found: Reconstruction, data: LiveDiffraction, folder: Path, off: Residuals | None = None) -> None:
    """Write ``result.h5``, and phase and amplitude for ImageJ, into a folder; arguments as for `result`."""
    write_result(folder / "result.h5", result(found, data, off), provenance(folder))
    scanned_N2 = data.scan.positions_N2 - found.origin_2
    for name, map_HW in (("phase", found.projected_phase()), ("amplitude", found.projected_amplitude())):
        write_imagej_tiff(folder / f"object_{name}.tif", map_HW, data.scan.pixel_size_angstrom, scanned_N2=scanned_N2)
