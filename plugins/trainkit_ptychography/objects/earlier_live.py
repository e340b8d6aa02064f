"""Begins an object with that of a file: where it lies in this scan, and what it is there.

Shapes: S = slices, K, L = rows and columns of the file's object, H, W = those of this run's object, N = scan points.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit import DataError
from trainkit_ptychography.physics.quality import rebinned
from trainkit_ptychography.scans.files.hdf5_live import HDF5File
from trainkit_ptychography.scans.files.single_array import read_array

if TYPE_CHECKING:
    from trainkit_ptychography.objects.kind import ObjectGeometry, ObjectPlacement
    from trainkit_ptychography.objects.pixels import Pixels

_LOGGER = logging.getLogger("trainkit")
_SETTING = "model.object.path"
_WHOLE = 1e-3  # of a pixel, by which an origin may miss a whole pixel and still be one
_SAME_SIZE = 1e-4  # relative difference of two pixel sizes that are the same
_SIZES = (0.1, 10.0)  # the file's pixel over this run's: beyond that, a unit is wrong
_STRAY = 2.0  # pixels (root mean square) by which the file's positions may differ from this scan's, after a shift
_COVERED = 0.9
_AS_THICK = 0.02  # relative difference of two thicknesses that are the same
_SMALLEST_AMPLITUDE = 1e-3
_PTYRAD = ("optimizable_tensors/objp", "optimizable_tensors/obja")


class EarlierObject(NamedTuple):
    """An object as a file holds it.

    Attributes:
        transmission_SKL: Complex.
        where: Where it was found.
        pixel_size_angstrom: None if the file does not say it.
        origin_2: Position of pixel [0, 0] in its own run's pixels and the data's coordinates; None if it is not said.
        positions_N2: Where its patterns were taken, in its pixels; None if the file does not say that.
        thickness_angstrom: Of all slices together; None if the file does not say it.
    """

    transmission_SKL: NDArray[np.complex128]
    where: str
    pixel_size_angstrom: float | None = None
    origin_2: NDArray[np.float64] | None = None
    positions_N2: NDArray[np.float64] | None = None
    thickness_angstrom: float | None = None


class Laid(NamedTuple):
    """A file's object on the pixels of this run.

    Attributes:
        transmission_SHW: Complex; vacuum outside of what the file has.
        covered_HW: Which pixels the file has.
        how: How it was laid, in words.
    """

    transmission_SHW: NDArray[np.complex128]
    covered_HW: NDArray[np.bool_]
    how: str


@torch.no_grad()
def begin_with(pixels: Mapping[str, Tensor], settings: Pixels, geometry: ObjectGeometry) -> None:
    """Write a file's object into the pixels of a new one, in place.

    Args:
        pixels: Phase (S, H, W) and, if the object absorbs, absorption.
        settings: Which file.
        geometry: The new object.

    Raises:
        DataError: The file cannot be read, or its object has no place in this scan.
    """
    assert geometry.placement is not None  # `build` of the model gives it
    found = read_earlier(settings)
    laid = lay(found, settings, geometry.placement, geometry.shape)
    share = _share_of_scan(laid.covered_HW, geometry)
    if share < _COVERED:
        _LOGGER.warning("model.object.path: %s; the rest begins as vacuum", _of_share(share, settings.path))
    ends = _ends_in_depth(found, settings, geometry)
    most = -log(_SMALLEST_AMPLITUDE)
    values = {
        "phase": np.stack([_phase(each_HW) for each_HW in laid.transmission_SHW]),
        "absorption": -np.log(np.maximum(np.abs(laid.transmission_SHW), _SMALLEST_AMPLITUDE)),
    }
    for name, to_SHW in pixels.items():
        values_SHW = values[name]
        if len(values_SHW) != len(to_SHW) or ends != (0.0, 1.0):
            values_SHW = rebinned(values_SHW, len(to_SHW), ends)
        to_SHW.copy_(torch.from_numpy(np.minimum(values_SHW, most) if name == "absorption" else values_SHW))


def _ends_in_depth(found: EarlierObject, settings: Pixels, geometry: ObjectGeometry) -> tuple[float, float]:
    """Return where a file's slices begin and end in the new object, as shares of its thickness.

    Raises:
        DataError: Nothing is left between the vacuum in front and that behind.
    """
    if geometry.slice_thickness_angstrom is None:
        return 0.0, 1.0
    thickness = geometry.slices * geometry.slice_thickness_angstrom
    front, behind = settings.vacuum_angstrom
    within = thickness - front - behind
    if within <= 0:
        raise DataError(
            f"model.object.vacuum_angstrom = [{front:g}, {behind:g}] leaves nothing of the {thickness:.4g} Å "
            "(model.thickness_angstrom) for the object of the file"
        )
    theirs = found.thickness_angstrom
    if theirs is not None and len(found.transmission_SKL) > 1 and abs(theirs / within - 1) > _AS_THICK:
        vacuum = max(0.5 * (thickness - theirs), 0.0)
        _LOGGER.warning(
            "model.object.path: the slices of %s are %.4g Å thick together, and are stretched to %.4g Å here; %s",
            settings.path,
            theirs,
            within,
            f"model.object.vacuum_angstrom = [{vacuum:.3g}, {vacuum:.3g}] keeps them as they are"
            if vacuum
            else "check model.thickness_angstrom",
        )
    return front / thickness, 1 - behind / thickness


def _phase(transmission_HW: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Return the phase in rad, within π of the mean one, so that few pixels wrap."""
    mean = float(np.angle(transmission_HW.mean()))
    phase_HW: NDArray[np.float64] = np.angle(transmission_HW * np.exp(-1j * mean)) + mean
    return phase_HW


# ---- what the file holds --------------------------------------------------------------------------------------------


def read_earlier(settings: Pixels) -> EarlierObject:
    """Read the object of a file, and what the file says about its place.

    Raises:
        DataError: The file or the array is missing or damaged, or is no object.
    """
    assert settings.path is not None
    if settings.path.suffix in (".npy", ".npz"):
        values, where = read_array(settings.path, settings.name or "object", _SETTING)
        return EarlierObject(_as_transmission(values, where, settings), where)
    file = HDF5File(settings.path, _SETTING)
    with file.reading():
        if settings.name is None and file.first(_PTYRAD[:1]) is not None:
            return _of_ptyrad(file, settings.path)
        name = settings.name or "object"
        if file.first([name]) is None:
            raise file.missing(f'({_SETTING}) has no dataset "{name}": say which one holds the object, name = …')
        where = f"{settings.path}: {name}"
        found = EarlierObject(_as_transmission(file.array(name), where, settings), where)
        size = file.numbers().get("pixel_size_angstrom")
        found = found._replace(thickness_angstrom=file.numbers().get("thickness_angstrom"))
        origin = file.vector("object_origin_px")
        if origin is not None and len(origin) == 2:
            return found._replace(pixel_size_angstrom=size, origin_2=np.array(origin))
        if file.first(["obj_pixel_size_m"]) is not None:  # Pty-Chi, whose positions count from the object's middle
            size = 1e10 * float(file.array("obj_pixel_size_m").ravel()[0])
            middle_2 = np.array([each // 2 for each in found.transmission_SKL.shape[1:]])
            positions_N2 = file.array("positions_px") + middle_2 if file.first(["positions_px"]) is not None else None
            return found._replace(pixel_size_angstrom=size, positions_N2=positions_N2)
        return found._replace(pixel_size_angstrom=size)


def _of_ptyrad(file: HDF5File, path: Path) -> EarlierObject:
    """Return the object of a PtyRAD model file: the first of its modes, whose positions are corners of patches."""
    phase, amplitude = (file.array(name) if file.first([name]) is not None else None for name in _PTYRAD)
    assert phase is not None
    first = tuple(0 for _ in range(phase.ndim - 3))
    transmission_SKL = np.exp(1j * phase[first]) * (1.0 if amplitude is None else amplitude[first])
    positions_N2 = size = None
    names = ("model_attributes/crop_pos", "optimizable_tensors/probe_pos_shifts", "optimizable_tensors/probe")
    if all(file.first([name]) is not None for name in names):
        corners_N2, shifts_N2, probe_MYX = (file.array(name) for name in names)
        positions_N2 = corners_N2 + shifts_N2 + np.array([each // 2 for each in probe_MYX.shape[-2:]])
    if file.first(["model_attributes/dx"]) is not None:
        size = float(file.array("model_attributes/dx").ravel()[0])
    return EarlierObject(
        transmission_SKL.astype(np.complex128),
        f"{path}: {_PTYRAD[0]}",
        pixel_size_angstrom=size,
        positions_N2=positions_N2,
    )


def _as_transmission(values: NDArray[np.generic], where: str, settings: Pixels) -> NDArray[np.complex128]:
    while values.ndim > 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim not in (2, 3):
        raise DataError(
            f"{where} ({_SETTING}) must be an object, (rows, columns) or (slices, rows, columns); its shape is "
            f"{values.shape}"
        )
    if settings.holds == "phase":
        if np.iscomplexobj(values):
            raise DataError(f'{where} ({_SETTING}) is complex: say holds = "transmission"')
        values = np.exp(1j * values.astype(np.float64))
    elif not np.iscomplexobj(values):
        raise DataError(
            f"{where} ({_SETTING}) must be a complex transmission; it is {values.dtype}. If it is a phase in rad, say "
            'holds = "phase"'
        )
    if not (np.isfinite(values).all() and values.any()):
        raise DataError(f"{where} ({_SETTING}) is zero or holds values that are not finite")
    return values.reshape(-1, *values.shape[-2:]).astype(np.complex128)


# ---- where it lies --------------------------------------------------------------------------------------------------


def lay(found: EarlierObject, settings: Pixels, placement: ObjectPlacement, shape_HW: tuple[int, int]) -> Laid:
    """Lay a file's object on the pixels of this run.

    Raises:
        DataError: It has no place there; says why.
    """
    own = placement.pixel_size_angstrom
    theirs = settings.file_pixel_size_angstrom or found.pixel_size_angstrom or own
    if (theirs is None) != (own is None):
        raise DataError(
            f"{found.where} ({_SETTING}) has pixels of {theirs:.4g} Å, and this scan says no pixel size: say it in "
            "[data], or take the object of a run without one"
        )
    factor = 1.0 if theirs is None or own is None else theirs / own
    if not _SIZES[0] < factor < _SIZES[1]:
        raise DataError(
            f"{found.where} ({_SETTING}) has pixels of {theirs:.4g} Å, {factor:.3g} times those of this run ({own:.4g} "
            "Å): check model.object.file_pixel_size_angstrom and the pixel size of the data"
        )
    if abs(factor - 1) < _SAME_SIZE:
        factor = 1.0
    origin_2, how = _origin(found, settings, placement, factor)
    start_2 = (placement.origin_2 - origin_2) / factor  # this run's pixel [0, 0] in the file's pixels
    whole_2 = np.rint(start_2)
    if factor == 1 and np.abs(start_2 - whole_2).max() < _WHOLE:
        start_2 = whole_2
    else:
        how += f", resampled from pixels of {factor:.4g} times the size" if factor != 1 else ", resampled"
    coordinates = [start + np.arange(size) / factor for start, size in zip(start_2, shape_HW, strict=True)]
    covered_HW = np.logical_and.outer(
        *(
            (places > -0.5) & (places < size - 0.5)
            for places, size in zip(coordinates, found.transmission_SKL.shape[1:], strict=True)
        )
    )
    if not covered_HW.any():
        raise DataError(
            f"{found.where} ({_SETTING}) does not overlap with this scan: its pixel [0, 0] is taken to be at "
            f"({origin_2[0]:.4g}, {origin_2[1]:.4g}) pixels, the scan's object begins at ({placement.origin_2[0]:.4g}, "
            f"{placement.origin_2[1]:.4g}); say where it is, model.object.origin_pixels = [row, column]"
        )
    return Laid(_sampled(found.transmission_SKL, coordinates, factor, covered_HW), covered_HW, how)


def _origin(
    found: EarlierObject, settings: Pixels, placement: ObjectPlacement, factor: float
) -> tuple[NDArray[np.float64], str]:
    """Return the position of the file's pixel [0, 0] in this run's pixels, and how it is known."""
    if settings.origin_pixels is not None:
        return np.array(settings.origin_pixels), "where origin_pixels says"
    if found.origin_2 is not None:
        return factor * found.origin_2, "where its file says"
    if found.positions_N2 is not None and found.positions_N2.shape == placement.positions_N2.shape:
        away_N2 = placement.positions_N2 - factor * found.positions_N2
        stray = float(np.sqrt(((away_N2 - away_N2.mean(axis=0)) ** 2).sum(axis=1).mean()))
        if stray > _STRAY:
            raise DataError(
                f"{found.where} ({_SETTING}): its scan points lie otherwise than those of this scan ({stray:.3g} "
                "pixels after the best shift), so rows, columns or a rotation differ between the two: turn the object, "
                "or say where it is, model.object.origin_pixels = [row, column]"
            )
        return away_N2.mean(axis=0), "by the positions of its patterns"
    return np.zeros(2), "with pixel [0, 0] at position (0, 0)"


def _sampled(
    transmission_SKL: NDArray[np.complex128],
    coordinates: list[NDArray[np.float64]],
    factor: float,
    covered_HW: NDArray[np.bool_],
) -> NDArray[np.complex128]:
    from scipy import ndimage  # not at the start of every run

    sampled_SHW = []
    exact = all(np.array_equal(each, np.rint(each)) for each in coordinates)
    for transmission_KL in transmission_SKL:
        edge = np.concatenate([transmission_KL[[0, -1]].ravel(), transmission_KL[:, [0, -1]].ravel()])
        vacuum = np.exp(1j * np.angle(edge.mean()))
        if exact:
            rows, columns = (
                np.clip(each, 0, size - 1).astype(np.int64)
                for each, size in zip(coordinates, transmission_KL.shape, strict=True)
            )
            values_HW = transmission_KL[rows[:, None], columns]
        else:
            if factor < 1:  # finer than this run's pixels: what these cannot show would be taken for something else
                transmission_KL = ndimage.gaussian_filter(transmission_KL, 0.5 * (1 / factor - 1), mode="nearest")
            at = np.meshgrid(*coordinates, indexing="ij")
            values_HW = ndimage.map_coordinates(transmission_KL, at, order=3, mode="nearest")
        sampled_SHW.append(np.where(covered_HW, values_HW, vacuum))
    return np.stack(sampled_SHW)


def _share_of_scan(covered_HW: NDArray[np.bool_], geometry: ObjectGeometry) -> float:
    """Return which share of the scanned area the file has."""
    placement = geometry.placement
    assert placement is not None
    low_2, high_2 = (
        np.clip(np.rint(each - placement.origin_2).astype(int), 0, np.array(covered_HW.shape) - 1)
        for each in (placement.positions_N2.min(axis=0), placement.positions_N2.max(axis=0))
    )
    return float(covered_HW[low_2[0] : high_2[0] + 1, low_2[1] : high_2[1] + 1].mean())


def _of_share(share: float, path: object) -> str:
    return f"the object of {path} covers {100 * share:.0f} % of the scanned area"
