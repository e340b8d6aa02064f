"""Reads what CXI and NeXus files say about themselves into settings.

Shapes: N = scan points, V, U = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError
from trainkit_ptychography.scans.files.array_file import ReaderHints
from trainkit_ptychography.scans.files.assembly import read_scan
from trainkit_ptychography.scans.files.hdf5_doubts import with_doubts
from trainkit_ptychography.scans.files.hdf5_live import HDF5File, NotNamedError
from trainkit_ptychography.scans.scan import Recording

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.cxi import CXIDiffraction

_METRES = {"m": 1.0, "metre": 1.0, "meter": 1.0, "meters": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6}
_METRES |= {"micron": 1e-6, "microns": 1e-6, "nm": 1e-9, "angstrom": 1e-10, "å": 1e-10, "cm": 1e-2}
_KEV = {"j": 1 / 1.602176634e-16, "joule": 1 / 1.602176634e-16, "ev": 1e-3, "kev": 1.0}
_MOST_KEV = 2000.0
_STANDS_ACROSS_DEG = 5.0  # at that angle, lengths along the detector are wrong by 0.4 %
_HAS_SIGNAL = 0x1000  # the one bit of a CXI mask that does not make a pixel bad

_ENTRY = ("entry_1", "entry")
_INSTRUMENT = ("instrument_1", "instrument")
_DETECTOR = ("detector_1", "detector")
_SOURCE = (
    "beam_1/energy",
    "beam_1/incident_beam_energy",
    "beam/incident_energy",
    "beam/energy",
    "source_1/energy",
    "monochromator/energy",
    "source/energy",
)
_WAVELENGTH = (
    "beam_1/incident_wavelength",
    "beam/incident_wavelength",
    "source_1/wavelength",
    "monochromator/wavelength",
)
_SCAN = ("sample_1/transformations", "sample/transformations", "data_1", "data")


def read_cxi(settings: CXIDiffraction) -> Recording:
    """Read a file; what the settings say takes precedence.

    Raises:
        DataError: Something is missing in the file, or has an impossible value.
    """
    file = HDF5File(settings.path, linked=settings.linked_files)
    with file.reading():
        changes = _patterns(settings, file) | _energy(settings, file) | _detector(settings, file)
        settings = _changed(settings, **changes)
        settings, hints = _positions(settings, file)
    return with_doubts(read_scan(settings, file, hints), settings, file, look_for_masks=False)


def has_patterns(path: Path) -> bool:
    """Return whether an HDF5 file has patterns in the places of CXI or NeXus, in this file or in another one."""
    file = HDF5File(path)
    with file.reading():
        try:
            return file.first(_places_of_patterns()) is not None
        except NotNamedError:
            return True


def _places_of_patterns() -> list[str]:
    return [*_in_detector("data"), *_in_entry("data_1/data", "image_1/data", "data/data")]


def _in_detector(name: str) -> list[str]:
    return ["/".join([*each, name]) for each in product(_ENTRY, _INSTRUMENT, _DETECTOR)]


def _in_entry(*names: str) -> list[str]:
    return [f"{entry}/{name}" for entry in _ENTRY for name in names]


def _patterns(settings: CXIDiffraction, file: HDF5File) -> dict[str, Any]:
    if settings.patterns is not None:
        return {}
    found = file.first(_places_of_patterns())
    if found is None:
        raise file.missing("has no patterns in the places of CXI or NeXus; say where: patterns = …")
    return {"patterns": found}


def _energy(settings: CXIDiffraction, file: HDF5File) -> dict[str, float]:
    if settings.energy_kev is not None or settings.wavelength_angstrom is not None:
        return {}
    instruments = ["/".join(each) for each in product(_ENTRY, _INSTRUMENT)]
    if found := file.first([f"{instrument}/{name}" for instrument in instruments for name in _SOURCE]):
        unit, value = file.units(found), _number(file, found)
        energy_kev = value * _factor(file, found, unit or "j", _KEV)
        if energy_kev > _MOST_KEV:
            reason = "it may be that of the machine" if unit else 'it has no attribute "units", so it was taken as J'
            raise DataError(
                f"{file.source}: {found} = {value:g} would be {energy_kev:.3g} keV, which no such beam has; {reason}: "
                "set energy_kev"
            )
        return {"energy_kev": energy_kev}
    if found := file.first([f"{instrument}/{name}" for instrument in instruments for name in _WAVELENGTH]):
        return {"wavelength_angstrom": _length(file, found) * 1e10}
    return {}


def _detector(settings: CXIDiffraction, file: HDF5File) -> dict[str, Any]:
    far_field = not settings.detector_propagation.patterns_are_images  # the others need the distance in any case
    if far_field and (settings.pixel_size_angstrom is not None or settings.dk_per_angstrom is not None):
        return {}
    if settings.pixel_size_angstrom is None:
        _check_in_transmission(file)
    found: dict[str, Any] = {}
    if settings.detector_distance_m is None and (name := file.first(_in_detector("distance"))):
        found["detector_distance_m"] = abs(_length(file, name))
    if settings.detector_pixel_um is None:
        sizes = [_length(file, name) for each in "xy" if (name := file.first(_in_detector(f"{each}_pixel_size")))]
        if len(sizes) == 2 and abs(sizes[0] / sizes[1] - 1) > 1e-3:
            found["detector_pixel_um"] = (sizes[1] * 1e6, sizes[0] * 1e6)  # rows are along y
        elif sizes:
            found["detector_pixel_um"] = sizes[0] * 1e6
    return found


def _check_in_transmission(file: HDF5File) -> None:
    """Check that the detector stands across the beam, if the file says how it stands.

    Raises:
        DataError: It stands at an angle, as in Bragg and reflection geometry.
    """
    name = file.first(_in_detector("basis_vectors"))
    vectors = None if name is None else file.array(name).astype(np.float64)
    if vectors is None or vectors.shape not in ((2, 3), (3, 2)):
        return
    normal_3 = np.cross(*(vectors if vectors.shape == (2, 3) else vectors.T))
    length = float(np.linalg.norm(normal_3))
    angle = float(np.degrees(np.arccos(min(1.0, abs(normal_3[2]) / length)))) if length > 0 else 0.0
    if angle > _STANDS_ACROSS_DEG:
        raise DataError(
            f"{file.source}: by {name} the detector stands at {angle:.3g}° to the beam, as in Bragg and reflection "
            "geometry, which are not supported: the object is taken to be flat and across the beam, and the detector "
            "to see it in transmission. If it does, give data.pixel_size_angstrom, that of the object"
        )


def _positions(settings: CXIDiffraction, file: HDF5File) -> tuple[CXIDiffraction, ReaderHints]:
    hints = _mask(settings, file)
    if settings.raster is not None:
        return settings, hints
    if settings.positions is not None or settings.positions_path is not None:
        return settings, hints
    places = ["sample_1/geometry_1/translation", "instrument_1/detector_1/translation", "data_1/translation"]
    settings = _changed(settings, positions_unit="m")
    if found := file.first(_in_entry(*places)):
        return settings, hints._replace(points_N2=_points(file, found), positions_dtype=file.stored(found).dtype)
    for group in _in_entry(*_SCAN):
        rows, columns = (file.first([f"{group}/{name}"]) for name in "yx")
        if rows is not None and columns is not None:
            points_N2 = _points(file, (rows, columns))
            return settings, hints._replace(points_N2=points_N2, positions_dtype=file.stored(rows).dtype)
    raise file.missing(
        "has no positions in the places of CXI or NeXus; say where: positions = …, or raster = { step = … }"
    )


def _points(file: HDF5File, names: str | tuple[str, ...]) -> NDArray[np.float64]:
    """Return (row, column) in m, out of (N, 3) or (3, N) translations (x, y, z), or two arrays (y, x)."""
    if not isinstance(names, str):
        parts = [file.array(name).ravel() * _factor(file, name, file.units(name) or "m", _METRES) for name in names]
        if len(parts[0]) != len(parts[1]):
            raise DataError(f"{file.source}: {names[0]} has {len(parts[0])} values, {names[1]} has {len(parts[1])}")
        return np.stack(parts, axis=1).astype(np.float64)
    values = file.array(names)
    if values.ndim == 2 and values.shape[1] not in (2, 3) and values.shape[0] in (2, 3):
        values = values.T
    if values.ndim < 2 or values.shape[-1] not in (2, 3):
        raise DataError(f"{file.source}: {names} must hold x, y (and z) for each point, its shape is {values.shape}")
    points_N2: NDArray[np.float64] = values.reshape(-1, values.shape[-1])[:, 1::-1].astype(np.float64)
    return points_N2 * _factor(file, names, file.units(names) or "m", _METRES)


def _mask(settings: CXIDiffraction, file: HDF5File) -> ReaderHints:
    """Return the bad pixels of the detector's own mask, of all patterns or of each."""
    if settings.prepare.mask is not None or not settings.use_mask:
        return ReaderHints()
    found = file.first([*_in_detector("mask"), *_in_detector("pixel_mask")])
    found = found or file.first([f"{each}/pixel_mask" for each in _in_detector("detectorSpecific")])
    if found is None:
        return ReaderHints()
    if sum(size > 1 for size in file.stored(found).shape[:-2]):
        return ReaderHints(mask=found, mask_ignores=_HAS_SIGNAL)
    marks_VU = file.array(found)
    bad_VU: NDArray[np.bool_] = (marks_VU.astype(np.int64) & ~_HAS_SIGNAL) != 0
    return ReaderHints(bad_VU=bad_VU)


def _changed(settings: Any, **changes: Any) -> CXIDiffraction:
    changed: CXIDiffraction = attrs.evolve(settings, **changes)
    return changed


def _length(file: HDF5File, name: str) -> float:
    """Return a length in m."""
    return _number(file, name) * _factor(file, name, file.units(name) or "m", _METRES)


def _number(file: HDF5File, name: str) -> float:
    values = file.array(name).ravel()
    if len(values) == 0 or not np.isfinite(values).all() or np.ptp(values) > 1e-6 * abs(float(values[0])):
        raise DataError(f"{file.source}: {name} must be one number, it has the shape {values.shape} and varies")
    return float(values[0])


def _factor(file: HDF5File, name: str, unit: str, known: Mapping[str, float]) -> float:
    if unit not in known:
        raise DataError(
            f'{file.source}: {name} is in "{unit}"; known here: {", ".join(known)}: set it in [data] instead'
        )
    return known[unit]
