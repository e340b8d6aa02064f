"""Finds out what is what in an HDF5 file of no known layout, by shapes and names of its datasets, for a first recipe.

Nothing is certain here: a planner writes it with its reason, and ``check --data`` holds it against the patterns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from trainkit_ptychography.scans.files.hdf5_live import HDF5File

_SMALLEST = 8  # pixels of a detector, along each edge
_FEWEST = 4  # patterns
_MEASURED = re.compile(r"intensit|pattern|diffract|amplitude|data|cbed|frames|4d", re.I)
_NOT_MEASURED = re.compile(r"noiseless|clean|true|truth|(^|/)gt(/|$)|mask|background|object|probe|mean", re.I)
_POSITIONS = re.compile(r"pos|scan|coord|translation|points", re.I)
_UNITS = {"a": "angstrom", "ang": "angstrom", "angstrom": "angstrom", "nm": "nm", "um": "um", "mm": "mm", "m": "m"}
_UNITS |= {"px": "pixels", "pix": "pixels", "pixel": "pixels", "pixels": "pixels"}

_NUMBERS: Mapping[str, tuple[str, float]] = {
    "energy_ev": ("energy_kev", 1e-3),
    "energy_kev": ("energy_kev", 1.0),
    "voltage_kv": ("energy_kev", 1.0),
    "wavelength_a": ("wavelength_angstrom", 1.0),
    "wavelength_angstrom": ("wavelength_angstrom", 1.0),
    "dk_inva": ("dk_per_angstrom", 1.0),
    "dk_per_angstrom": ("dk_per_angstrom", 1.0),
    "px_a": ("pixel_size_angstrom", 1.0),
    "pixel_size_a": ("pixel_size_angstrom", 1.0),
    "pixel_size_angstrom": ("pixel_size_angstrom", 1.0),
    "semiangle_rad": ("semiangle_mrad", 1e3),
    "semiangle_mrad": ("semiangle_mrad", 1.0),
    "convergence_angle_mrad": ("semiangle_mrad", 1.0),
    "defocus_a": ("defocus_angstrom", 1.0),
    "defocus_angstrom": ("defocus_angstrom", 1.0),
}
"""Attributes of the file whose names say their unit: in lower case -> setting, and factor."""
_THICKNESS = {"thickness_a": 1.0, "thickness_angstrom": 1.0, "thickness_nm": 10.0}
"""The same of the specimen's thickness -> Å."""
_LENGTHS = {"a": 1.0, "å": 1.0, "angstrom": 1.0, "nm": 10.0, "[n_m]": 10.0, "um": 1e4, "[u_m]": 1e4}
"""Units of axes of the scan, in lower case -> Å."""
_PER_LENGTH = {"a^-1": 1.0, "å^-1": 1.0, "1/a": 1.0, "1/å": 1.0, "nm^-1": 0.1, "1/nm": 0.1, "[n_m^-1]": 0.1}
"""Units of axes of the detector, in lower case -> 1/Å."""
_STEPS = ("scan_step_a", "step_a", "step_size_a", "scan_step_angstrom", "step_angstrom")
_INSTEAD = (("energy_kev", "wavelength_angstrom"), ("dk_per_angstrom", "pixel_size_angstrom"))


def settings_for(path: Path) -> Mapping[str, Any] | None:
    """Return settings of "diffraction_hdf5" for a file; None: there is nothing in it that looks like patterns."""
    file = HDF5File(path)
    with file.reading():
        shapes, _ = file.datasets()
        patterns = _patterns(shapes)
        if patterns is None:
            return None
        numbers = file.numbers()
        axes = _axes(file, shapes, patterns)
    found: dict[str, Any] = {"path": path, "patterns": patterns}
    if re.search("amplitude", patterns, re.I):
        found["values"] = "amplitude"
    points = prod(shapes[patterns][:-2])
    if (positions := _array_of_points(shapes, points)) is not None:
        found["positions"] = positions
        unit = _UNITS.get(re.split(r"[_./]", positions.lower())[-1])
        if unit is not None:
            found["positions_unit"] = unit
    elif len(shapes[patterns]) == 4:
        steps = [value for name, value in numbers.items() if name.lower() in _STEPS]
        if steps:
            found |= {"raster": {"step": steps[0]}, "positions_unit": "angstrom"}
        elif "raster" in axes:
            found |= {"raster": axes["raster"], "positions_unit": "angstrom"}
    for name, value in numbers.items():
        if name.lower() in _NUMBERS:
            key, factor = _NUMBERS[name.lower()]
            found.setdefault(key, round(value * factor, 12))
    if "dk_per_angstrom" in axes and "pixel_size_angstrom" not in found:
        found.setdefault("dk_per_angstrom", axes["dk_per_angstrom"])
    for first, second in _INSTEAD:
        if first in found:
            found.pop(second, None)
    return found


def thickness_in(path: Path) -> float | None:
    """Return the thickness of the specimen in Å that an HDF5 file says; None: it says none."""
    file = HDF5File(path)
    with file.reading():
        numbers = {name.lower(): value for name, value in file.numbers().items()}
    told = [round(numbers[name] * factor, 12) for name, factor in _THICKNESS.items() if numbers.get(name, 0.0) > 0]
    return told[0] if told else None


def _patterns(shapes: Mapping[str, Sequence[int]]) -> str | None:
    """Return the dataset that looks most like measured patterns."""
    likely = [
        name
        for name, shape in shapes.items()
        if len(shape) in (3, 4) and min(shape[-2:]) >= _SMALLEST and prod(shape[:-2]) >= _FEWEST
    ]
    likely = [name for name in likely if not _NOT_MEASURED.search(name)]
    return max(
        likely, key=lambda name: (bool(_MEASURED.search(name)), prod(shapes[name]), -len(name), name), default=None
    )


def _axes(file: HDF5File, shapes: Mapping[str, Sequence[int]], patterns: str) -> dict[str, Any]:
    """Return the steps of scan and detector, where arrays beside the patterns place their axes, as in EMD files.

    The arrays are called dim0 to dim3 (py4DSTEM) or dim1 to dim4, and hold a place for each index, or the first two.
    """
    above = patterns.rpartition("/")[0]
    for first in (0, 1):
        names = [f"{above}/dim{first + axis}".lstrip("/") for axis in range(4)]
        if len(shapes[patterns]) == 4 and all(len(shapes.get(name, ())) == 1 and shapes[name][0] > 1 for name in names):
            break
    else:
        return {}
    steps = []
    for name, known in zip(names, (_LENGTHS, _LENGTHS, _PER_LENGTH, _PER_LENGTH), strict=True):
        places, factor = file.array(name), known.get(file.units(name) or "", 0.0)
        steps.append(
            round(factor * abs(float(places[1]) - float(places[0])), 12) if places.dtype.kind in "iuf" else 0.0
        )
    found: dict[str, Any] = {}
    if min(steps[:2]) > 0:
        found["raster"] = {"step": steps[0] if steps[0] == steps[1] else steps[:2]}
    if steps[2] == steps[3] > 0:
        found["dk_per_angstrom"] = steps[2]
    return found


def _array_of_points(shapes: Mapping[str, Sequence[int]], points: int) -> str | None:
    """Return the dataset that has two numbers for each pattern; None: none has, or several may."""
    likely = [name for name, shape in shapes.items() if tuple(shape) == (points, 2)]
    named = [name for name in likely if _POSITIONS.search(name)] or likely
    told = [name for name in named if not _NOT_MEASURED.search(name)]
    return told[0] if len(told) == 1 else None
