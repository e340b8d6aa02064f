"""``result.h5``: what was reconstructed, with units, for people who do not have trainkit.

Shapes: N = scan points, M = probe modes, S = slices, H, W = rows and columns of the object, Y, X = those of the
detector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import written_whole


@attrs.frozen(kw_only=True, eq=False)
class Result:
    """A reconstruction.

    Attributes:
        object_HW: Complex transmission, of all slices together.
        object_modes_OSHW: Complex transmission of each mode of the object and each slice; None: the object has one.
        probe_MYX: Complex modes, centred at pixel (Y//2, X//2).
        positions_N2: Where the probe's centre ended up, in pixels of the object.
        nominal_N2: Where the data says that it was, in pixels of the object.
        held_out_index: Scan points that were held out; their positions were fitted to their own patterns alone.
        affine_23: Affine part of the displacements: displacement ≈ affine @ (row, column, 1), in pixels and in the
            coordinates of the data.
        origin_2: Position of the object's pixel [0, 0] in the coordinates of the data, in pixels.
        pixel_size_angstrom: Size of an object pixel; None if unknown.
        wavelength_angstrom: None if unknown.
        source: Where the patterns came from.
        points_N: Numbers of the patterns in their file, if some were left out; else None.
        num_scans: Number of scans that have probes of their own; their modes follow each other.
        defocus_spread_angstrom: Standard deviation of the defocus with which each mode is seen; None: there is none.
        opr_modes_KMYX: Modes by which the probe changes over the scan; None: it does not.
        opr_weights_NK: Their weights at each scan point.
        background_YX: Light that all patterns have in common, in the unit of the patterns, the middle of the detector
            at pixel (Y//2, X//2); None: there is none.
        pattern_intensities_N: Factor of the light of each pattern; None: they are not modelled.
        distance_change_percent: By how much the effective distance of the near field differs from what was told; None:
            it was not trained.
        residual_N: How far each modelled pattern is from the measured one, as a share; None: not known.
        residual_of_noise_N: What counting noise alone makes of it; None: not known.
        slices_SHW: Complex transmission of each slice, the one that the beam meets first in front; None: one slice.
        slice_spacing_angstrom: Distance from one slice to the next; None: one slice.
        tilt_mrad: Direction of the beam through the slices (2,), or at each scan point (N, 2); None: one slice.
        energy_kev: Energy of the radiation; None if unknown.
        dose: Counts per Å² of the scanned area; None if unknown. The detector's counts are those of its own unit.
    """

    object_HW: NDArray[np.complexfloating]
    object_modes_OSHW: NDArray[np.complexfloating] | None = None
    probe_MYX: NDArray[np.complexfloating]
    positions_N2: NDArray[np.float64]
    nominal_N2: NDArray[np.float64]
    held_out_index: NDArray[np.int64]
    affine_23: NDArray[np.float64]
    origin_2: NDArray[np.float64]
    pixel_size_angstrom: float | None
    wavelength_angstrom: float | None
    source: str
    points_N: NDArray[np.int64] | None = None
    num_scans: int = 1
    defocus_spread_angstrom: float | None = None
    opr_modes_KMYX: NDArray[np.complexfloating] | None = None
    opr_weights_NK: NDArray[np.floating] | None = None
    background_YX: NDArray[np.floating] | None = None
    pattern_intensities_N: NDArray[np.floating] | None = None
    distance_change_percent: float | None = None
    residual_N: NDArray[np.float64] | None = None
    residual_of_noise_N: NDArray[np.float64] | None = None
    slices_SHW: NDArray[np.complexfloating] | None = None
    slice_spacing_angstrom: float | None = None
    tilt_mrad: NDArray[np.float64] | None = None
    energy_kev: float | None = None
    dose: float | None = None


class Stored(NamedTuple):
    """An array of a result.

    Attributes:
        name: Its name in files.
        values: Its values.
        unit: Their unit.
        description: What they are.
    """

    name: str
    values: NDArray[Any]
    unit: str
    description: str


def write_result(path: Path, result: Result, origin: Mapping[str, str] | None = None) -> None:
    """Write the file: whole, or not at all.

    Args:
        path: The file.
        result: The reconstruction.
        origin: Where it comes from, as `provenance` returns it; these texts are datasets of the group "provenance".
    """
    import h5py

    with written_whole(path) as new, h5py.File(new, "w") as file:
        file.attrs["description"] = "ptychographic reconstruction by trainkit; axes are (row, column)"
        file.attrs["source"] = result.source
        file.attrs["object_origin_px"] = result.origin_2  # position of the object's pixel [0, 0] in the data
        if result.pixel_size_angstrom is not None:
            file.attrs["pixel_size_angstrom"] = result.pixel_size_angstrom
        if result.wavelength_angstrom is not None:
            file.attrs["wavelength_angstrom"] = result.wavelength_angstrom
        if result.slices_SHW is not None and result.slice_spacing_angstrom is not None:
            file.attrs["slice_spacing_angstrom"] = result.slice_spacing_angstrom
            file.attrs["thickness_angstrom"] = result.slice_spacing_angstrom * len(result.slices_SHW)
        if result.defocus_spread_angstrom is not None:
            file.attrs["defocus_spread_angstrom"] = result.defocus_spread_angstrom  # of each mode of the probe
        if result.distance_change_percent is not None:
            file.attrs["distance_change_percent"] = result.distance_change_percent  # of the effective distance
        if result.energy_kev is not None:
            file.attrs["energy_kev"] = result.energy_kev
        if result.dose is not None:
            file.attrs["dose_counts_per_square_angstrom"] = result.dose
        low_2, high_2 = result.nominal_N2.min(axis=0), result.nominal_N2.max(axis=0)
        file.attrs["scanned_box_px"] = [*low_2, *high_2]  # first row and column, last row and column, in the object
        for name, values, unit, description in arrays(result):
            file.create_dataset(name, data=values).attrs.update({"unit": unit, "description": description})
        for name, text in (origin or {}).items():
            file[f"provenance/{name}"] = text


def arrays(result: Result) -> Iterator[Stored]:
    """Yield the arrays of a result, as files hold them."""
    yield from (Stored(*each) for each in _arrays(result))


def _arrays(result: Result) -> Iterator[tuple[str, NDArray[Any], str, str]]:
    of_all = "" if result.slices_SHW is None else " of all slices together"
    yield "object", result.object_HW, "1", f"complex transmission{of_all}; its angle is the phase in rad"
    if result.slices_SHW is not None:
        yield (
            "object_slices",
            result.slices_SHW,
            "1",
            "complex transmission (slice, row, column), the slice that the beam meets first in front; slice s is at "
            "(s + 1/2) · slice_spacing_angstrom below the entrance of the specimen",
        )
    if result.object_modes_OSHW is not None:
        yield (
            "object_modes",
            result.object_modes_OSHW,
            "1",
            "complex transmission (mode, slice, row, column) of each mode of the object: patterns are the mean of "
            "theirs; phase and amplitude of object are means over the modes",
        )
    if result.tilt_mrad is not None:
        yield (
            "tilt",
            result.tilt_mrad,
            "mrad",
            "direction of the beam: with depth it moves towards larger rows and columns by its tangent",
        )
    yield "probe", result.probe_MYX, "1", "complex modes (mode, row, column), centred at pixel (Y//2, X//2)"
    if result.num_scans > 1:
        scan_M = np.repeat(np.arange(result.num_scans), len(result.probe_MYX) // result.num_scans)
        yield "probe_scan", scan_M, "1", "the scan, from 0, that each mode of the probe belongs to"
    if result.opr_modes_KMYX is not None and result.opr_weights_NK is not None:
        yield (
            "opr_modes",
            result.opr_modes_KMYX,
            "1",
            "modes (OPR mode, mode, row, column) by which the probe changes over the scan: that of scan point j is "
            "probe + sum over k of opr_weights[j, k] * opr_modes[k]"
            + (", both of the modes of its scan (probe_scan)" if result.num_scans > 1 else ""),
        )
        yield (
            "opr_weights",
            result.opr_weights_NK,
            "1",
            "weights (scan point, OPR mode); those of held-out points are interpolated in the order of the measurement",
        )
    yield "positions_px", result.positions_N2, "pixel", "where the probe's centre ended up in the object"
    yield "positions_nominal_px", result.nominal_N2, "pixel", "where it was said to be in the object"
    yield (
        "held_out",
        result.held_out_index,
        "1",
        "patterns kept for validation; each position was fitted to its own alone",
    )
    if result.background_YX is not None:
        yield (
            "background",
            result.background_YX,
            "counts",
            "light that all patterns have in common, the middle of the detector at pixel (Y//2, X//2)",
        )
    if result.pattern_intensities_N is not None:
        yield (
            "pattern_intensities",
            result.pattern_intensities_N,
            "1",
            "factor of the light of each pattern; those of held-out patterns were fitted to their totals",
        )
    if result.points_N is not None:
        yield "points", result.points_N, "1", "number of each pattern in its file; the others were left out"
    if result.residual_N is not None:
        yield (
            "residual",
            result.residual_N,
            "1",
            "of each pattern: sqrt(sum (sqrt(measured) - sqrt(modelled))^2 / sum measured); NaN where it is dark",
        )
    if result.residual_of_noise_N is not None:
        yield "residual_of_noise", result.residual_of_noise_N, "1", "what counting noise alone makes of residual"
    yield (
        "affine",
        result.affine_23,
        "pixel",
        "affine part of the displacements in the coordinates of the data: displacement = affine @ (row, column, 1)",
    )
    if result.pixel_size_angstrom is not None:
        for name, value_N2 in (("positions", result.positions_N2), ("positions_nominal", result.nominal_N2)):
            in_data_N2 = (value_N2 + result.origin_2) * result.pixel_size_angstrom
            yield f"{name}_angstrom", in_data_N2, "angstrom", "the same in the coordinates of the data"
