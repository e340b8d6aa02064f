"""From what RosettaSciIO returns to a recording.

Shapes: N = scan points; R, C = rows and columns of the scan; Y, X = those of the detector.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import h5py
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, guarded_reading, shape_in_words, without_controls
from trainkit_ptychography import Raster, array_beside, read_scan, survives

if TYPE_CHECKING:
    from trainkit_ptychography import FileDiffraction, Recording, Stored
    from trainkit_rosettasciio.reader import RosettaSciIOReader

_FORMATS = {
    ".blo": "blockfile",
    ".dm3": "digitalmicrograph",
    ".dm4": "digitalmicrograph",
    ".emd": "emd",
    ".emi": "tia",
    ".hspy": "hspy",
    ".mib": "quantumdetector",
    ".mrc": "mrc",
    ".ser": "tia",
    ".tvips": "tvips",
}
_PATTERNS = "patterns"
_FEWEST_POINTS, _SMALLEST = 4, 8  # scan points, and pixels along a detector's edge, of what can be a scan
_ENERGY = "Acquisition_instrument.TEM.beam_energy"
_DIFFERS = 0.05
_SECONDS_TO_OPEN = 1.5  # of computing; real files take tens of milliseconds, since no values are read
_LENGTHS = {"å": 1.0, "a": 1.0, "ang": 1.0, "angstrom": 1.0, "pm": 1e-2, "nm": 10.0, "µm": 1e4, "μm": 1e4, "um": 1e4}
_LENGTHS |= {"mm": 1e7, "m": 1e10}
_ANGLES = {"mrad": 1e-3, "rad": 1.0}


def read(reader: RosettaSciIOReader, settings: FileDiffraction) -> Recording:
    """Read the scan that settings describe.

    Raises:
        DataError: The file is missing or damaged, holds no scan or several, or does not say what the recipe leaves out.
    """
    path = settings.path
    file_format = reader.file_format or _FORMATS.get(path.suffix.lower())
    if file_format is None:
        known = ", ".join(sorted(_FORMATS))
        raise DataError(
            f'{path}: its ending is none of {known}: say reader = {{ use = "rosettasciio", file_format = … }}'
        )
    with guarded_reading(path, f"a file of RosettaSciIO's format {file_format}"):
        if h5py.is_hdf5(path):
            _refuse_links(path)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            file_reader = import_module(f"rsciio.{file_format}").file_reader
            # A Velox file can hold spectra beside its images, which take packages and memory to read.
            wanted = {"select_type": "images"} if file_format == "emd" else {}
            if not survives(lambda: file_reader(str(path), lazy=True, **wanted), _SECONDS_TO_OPEN):
                raise DataError(
                    f"{path} is damaged, or made to do harm: RosettaSciIO crashes, or does not come to an end, when it "
                    "opens this file"
                )
            try:
                signals = file_reader(str(path), lazy=True, **wanted)
            except ImportError as error:
                raise DataError(f"{path} cannot be read here, because RosettaSciIO lacks a package: {error}") from error
        signal = _chosen(signals, reader.signal, path)
        axes = sorted(signal["axes"], key=lambda axis: axis.get("index_in_array", 0))
        letters = _letters(axes, settings.pattern_axes, path)
        changes, doubts = _taken(settings, signal, dict(zip(letters, axes, strict=True)))
    changed: Any = attrs.evolve(settings, patterns=_PATTERNS, pattern_axes=letters, **changes)  # type: ignore[misc]
    recording = read_scan(changed, _SignalFile(path, signal["data"]))
    doubts += [f"RosettaSciIO says: {without_controls(str(each.message))[:300]}" for each in said[:5] if _matters(each)]
    return recording.with_doubts(doubts)


def _matters(warning: warnings.WarningMessage) -> bool:
    return not issubclass(warning.category, DeprecationWarning | PendingDeprecationWarning | FutureWarning)


class _Lazy:
    """An array of dask, or one in memory, that gives the part which is indexed as an array of NumPy."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self.shape: tuple[int, ...] = tuple(int(size) for size in data.shape)
        self.dtype: np.dtype[Any] = np.dtype(data.dtype)

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        part = self._data[key]
        return np.asarray(part.compute(scheduler="synchronous") if hasattr(part, "compute") else part)


class _SignalFile:
    """A signal, and the ``.npy`` files beside its file, as an `ArrayFile`."""

    def __init__(self, path: Path, data: Any) -> None:
        self.source, self._path, self._data = str(path), path, data
        self.random_access = hasattr(data, "compute")

    def reading(self) -> AbstractContextManager[None]:
        return guarded_reading(self._path, "a file that RosettaSciIO opened")

    def stored(self, name: str) -> Stored:
        return _Lazy(self._data) if name == _PATTERNS else self.array(name)

    def array(self, name: str) -> NDArray[Any]:
        return array_beside(self._path, name)


def _refuse_links(path: Path) -> None:
    """Refuse an HDF5 file that would make others be opened: RosettaSciIO follows whatever links it meets.

    Raises:
        DataError: It has such a link, or a dataset whose values are in another file.
    """
    with h5py.File(path, "r") as file:

        def look(name: str, link: Any) -> str | None:
            if isinstance(link, h5py.ExternalLink):
                return name
            item = file.get(name) if isinstance(link, h5py.HardLink) else None
            if isinstance(item, h5py.Dataset) and (
                item.external or (item.is_virtual and any(each.file_name != "." for each in item.virtual_sources()))
            ):
                return name
            return None

        found = file.visititems_links(look)
    if found is not None:
        raise DataError(
            f"{path}: {without_controls(found)[:200]} leads to another file, and a file must not open others by "
            'itself: read it with use = "diffraction_hdf5", where linked_files names those that you trust'
        )


def _chosen(signals: Sequence[Mapping[str, Any]], number: int | None, path: Path) -> Mapping[str, Any]:
    held = [tuple(signal["data"].shape) for signal in signals]
    listed = "\n".join(f"  {place}: {shape_in_words(shape) or 'one number'}" for place, shape in enumerate(held[:30]))
    if number is not None:
        if number >= len(signals):
            raise DataError(f"{path} has no signal {number}; it holds:\n{listed}")
        if len(held[number]) not in (3, 4):
            raise DataError(
                f"{path}: signal {number} has {len(held[number])} axes, and patterns of a scan have three or four; the "
                f"file holds:\n{listed}"
            )
        return signals[number]
    likely = [place for place, shape in enumerate(held) if _is_scan(shape)]
    if len(likely) != 1:
        what = "no signal that can be a scan" if not likely else "several signals that can be scans"
        raise DataError(f"{path} holds {what}; say which: reader.signal = …; it holds:\n{listed}")
    return signals[likely[0]]


def _is_scan(shape: tuple[int, ...]) -> bool:
    """Return whether two axes can be a detector's, and the others a scan's; in which order, units tell later."""
    edges = sorted(shape)[-2:]
    points = np.prod(shape, dtype=np.float64) / max(1, edges[0] * edges[-1]) if len(shape) > 2 else 0
    return len(shape) in (3, 4) and edges[0] >= _SMALLEST and points >= _FEWEST_POINTS


def _letters(axes: Sequence[Mapping[str, Any]], told: str | None, path: Path) -> str:
    """Return what each axis is: n, or r and c, for the scan; y and x for the detector."""
    if told is not None:
        if len(told) != len(axes):
            raise DataError(f'{path}: its array has {len(axes)} axes, so pattern_axes = "{told}" does not fit')
        return told
    reciprocal = [_reciprocal(axis) is not None or _angle(axis) is not None for axis in axes]
    lengths = [_length(axis) is not None for axis in axes]
    if (any(reciprocal[:-2]) and not any(reciprocal[-2:])) or (any(lengths[-2:]) and any(reciprocal[:-2])):
        raise DataError(
            f"{path}: by its units, the detector's axes come first and the scan's last: say which is which, for "
            'example pattern_axes = "yxrc"'
        )
    if [bool(axis.get("navigate")) for axis in axes] != [True] * (len(axes) - 2) + [False, False]:
        order = ", ".join(f"{axis.get('name') or '?'} ({axis['size']})" for axis in axes)
        raise DataError(
            f"{path}: it is not certain which axes are the detector's, of {without_controls(order)}: say it, for "
            'example pattern_axes = "rcyx"'
        )
    return "nyx" if len(axes) == 3 else "rcyx"


def _taken(
    settings: FileDiffraction, signal: Mapping[str, Any], axes: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """Return what the recipe leaves to the file, and doubts where both say something else."""
    changes: dict[str, Any] = {}
    doubts: list[str] = []
    energy_kev = _energy_kev(signal)
    if energy_kev is not None and settings.wavelength_angstrom is None:
        if settings.energy_kev is None:
            changes["energy_kev"] = energy_kev
        elif abs(settings.energy_kev / energy_kev - 1) > _DIFFERS:
            doubts.append(f"energy_kev is {settings.energy_kev:g}, but the file says {energy_kev:.6g}")
    dk = _dk(settings, axes, settings.energy_kev or energy_kev)
    given = (settings.pixel_size_angstrom, settings.dk_per_angstrom, settings.detector_distance_m)
    if dk is not None and all(each is None for each in given):
        changes["dk_per_angstrom"] = dk
    elif dk is not None and settings.dk_per_angstrom is not None:
        told = (
            settings.dk_per_angstrom if isinstance(settings.dk_per_angstrom, tuple) else (settings.dk_per_angstrom,) * 2
        )
        if any(abs(one / two - 1) > _DIFFERS for one, two in zip(told, dk, strict=True)):
            doubts.append(f"dk_per_angstrom is {told[0]:.4g}, but the file says {dk[0]:.4g}")
    steps = _steps(axes)
    if settings.raster is not None and steps is not None and settings.unit != "pixels":
        of_unit = {"angstrom": 1.0, "nm": 10.0, "um": 1e4, "mm": 1e7, "m": 1e10}[settings.unit]
        step = settings.raster.step if isinstance(settings.raster.step, tuple) else (settings.raster.step,) * 2
        if any(not 0.5 < abs(one) * of_unit / two < 2 for one, two in zip(step, steps, strict=True)):
            doubts.append(
                f"raster.step is {abs(step[0]) * of_unit:.4g} Å, but the file says {steps[0]:.4g} Å: check it, and "
                "positions_unit"
            )
    elif settings.raster is None and settings.positions is None and settings.positions_path is None:
        if steps is None:
            units = ", ".join(sorted({str(axis.get("units") or "none") for axis in axes.values()}))
            raise DataError(
                f"{settings.path} does not say the step of its scan in a unit of length (units of its axes: "
                f"{without_controls(units)}): say it, raster = {{ step = …, shape = […] }} and positions_unit"
            )
        changes |= {"raster": Raster(step=steps), "positions_unit": "angstrom"}
    return changes, doubts


# ---- what axes and metadata say -------------------------------------------------------------------------------------


def _steps(axes: Mapping[str, Mapping[str, Any]]) -> tuple[float, float] | None:
    """Return the distances of lines and of points in Å; None: the file does not say both in a unit of length."""
    found = [_length(axes[letter]) if letter in axes else None for letter in "rc"]
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _dk(
    settings: FileDiffraction, axes: Mapping[str, Mapping[str, Any]], energy_kev: float | None
) -> tuple[float, float] | None:
    """Return the size of a detector pixel along rows and columns in 1/Å; None: the file does not say it."""
    wavelength = settings.wavelength_angstrom
    if wavelength is None and energy_kev is not None and settings.radiation == "electrons":
        wavelength = _electron_wavelength(energy_kev)
    found: list[float] = []
    for letter in "yx":
        angle, value = _angle(axes[letter]), _reciprocal(axes[letter])
        if value is None and angle is not None and wavelength is not None:
            value = angle / wavelength
        if value is not None:
            found.append(value)
    return (found[0], found[1]) if len(found) == 2 else None


def _electron_wavelength(energy_kev: float) -> float:
    """Return the wavelength in Å: h·c / sqrt(E·(E + 2·m·c²))."""
    ev = energy_kev * 1e3
    return 12398.41984 / float(np.sqrt(ev * (ev + 2 * 510998.95)))


def _energy_kev(signal: Mapping[str, Any]) -> float | None:
    """Return the energy, from the metadata, or from where the format keeps what would become metadata."""
    energy = _within(signal.get("metadata"), _ENERGY)
    for place, (meaning, convert) in (signal.get("mapping") or {}).items():
        if (
            energy is None
            and meaning == _ENERGY
            and (found := _within(signal.get("original_metadata"), place)) is not None
        ):
            energy = found if convert is None else convert(found)
    is_number = isinstance(energy, int | float | np.number) and not isinstance(energy, bool)
    return float(energy) if is_number and 5 <= energy <= 1000 else None


def _within(tree: Any, place: str) -> Any:
    """Return what a path of names leads to; None: nothing."""
    for name in place.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def _length(axis: Mapping[str, Any]) -> float | None:
    return _scaled(axis, _LENGTHS.get(_unit(axis)))


def _angle(axis: Mapping[str, Any]) -> float | None:
    return _scaled(axis, _ANGLES.get(_unit(axis)))


def _reciprocal(axis: Mapping[str, Any]) -> float | None:
    """Return the size of a pixel in 1/Å, of units such as "1/nm", "nm^-1" and "Å⁻¹"."""
    unit = _unit(axis).replace("⁻¹", "^-1").replace("**", "^")
    of = unit.removeprefix("1/").removeprefix("(").removesuffix(")") if unit.startswith("1/") else None
    if of is None and unit.endswith(("^-1", "^(-1)")):
        of = unit.split("^")[0]
    length = _LENGTHS.get(of or "")
    return None if length is None else _scaled(axis, 1.0 / length)


def _unit(axis: Mapping[str, Any]) -> str:
    return str(axis.get("units") or "").replace(" ", "").replace("\u212b", "å").lower()


def _scaled(axis: Mapping[str, Any], factor: float | None) -> float | None:
    scale = axis.get("scale")
    if factor is None or not isinstance(scale, int | float | np.number) or not isfinite(scale) or scale == 0:
        return None
    return abs(float(scale)) * factor
