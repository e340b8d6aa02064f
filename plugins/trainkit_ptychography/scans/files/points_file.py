"""Reads positions from a file of their own: a table, NumPy's files, our own results, and those of other programs.

Shapes: N = scan points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, bytes_in_words, did_you_mean, guarded_reading, without_controls
from trainkit_ptychography.scans.files.arrays import as_points
from trainkit_ptychography.scans.files.foreign import holds_hdf5
from trainkit_ptychography.scans.files.numpy_live import NumPyFile

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.hdf5_live import HDF5File
    from trainkit_ptychography.scans.files.kind import LengthUnit

_SETTING = "data.positions_path"
_LARGEST_TABLE = 2**26  # bytes; a million points take a third of that
_LONGEST_HEADING = 200
_UNITS: dict[str, LengthUnit] = {
    "a": "angstrom", "ang": "angstrom", "angstrom": "angstrom", "angstroms": "angstrom", "å": "angstrom",
    "nm": "nm", "um": "um", "µm": "um", "μm": "um", "micron": "um", "microns": "um", "mm": "mm", "m": "m",
    "px": "pixels", "pixel": "pixels", "pixels": "pixels",
}  # fmt: skip
_HEADING = re.compile(r"(?P<name>.*?)[\s_]*(?P<open>[\[(/])?\s*(?P<unit>[^\W\d_]+)\s*[\])]?", re.DOTALL)
_ROWS = {"y", "row", "rows", "posy", "ypos", "positiony", "yposition", "probepositiony", "scany", "coordy"}
_COLUMNS = {"x", "col", "column", "cols", "columns", "posx", "xpos", "positionx", "xposition", "probepositionx"}
_COLUMNS |= {"scanx", "coordx"}


class FoundPoints(NamedTuple):
    """Positions in a file.

    Attributes:
        points_N2: (row, column), or in the order that ``positions_order`` says.
        dtype: The dtype in which the file holds them.
        unit: Their unit; None: the file does not say it.
        numbers_N: Numbers of the patterns that they belong to; None: 0, 1, 2, …
        tells_rows: Whether the file's own names say which of the two numbers is the row.
        is_oriented: Whether they are along the detector's axes already, and (row, column).
    """

    points_N2: NDArray[np.float64]
    dtype: np.dtype[Any] | None = None
    unit: LengthUnit | None = None
    numbers_N: NDArray[np.int64] | None = None
    tells_rows: bool = False
    is_oriented: bool = False


def read_points(path: Path, names: str | tuple[str, ...] | None, told_unit: LengthUnit | None) -> FoundPoints:
    """Read the positions of a file.

    Args:
        path: The file.
        names: The array, two arrays or two columns ([rows, columns]) that hold them; None: where it can be told.
        told_unit: The unit that the recipe says.

    Raises:
        DataError: The file is missing, damaged or hostile; has no such array, or several that may be meant; or says
            another unit than the recipe.
    """
    named = () if names is None else (names,) if isinstance(names, str) else names
    if len(named) > 2:
        raise DataError(f"{path} ({_SETTING}): positions must name one array, or two, [rows, columns]")
    if path.suffix in (".npy", ".npz"):
        found = _of_numpy(path, named)
    elif holds_hdf5(path):
        found = _of_hdf5(path, named)
    else:
        found = _of_table(path, named)
    if found.unit is not None and told_unit not in (None, found.unit):
        raise DataError(
            f'{path} says that its positions are in {found.unit}, but positions_unit = "{told_unit}": leave '
            "positions_unit out, or correct the file"
        )
    return found


def _of_numpy(path: Path, names: Sequence[str]) -> FoundPoints:
    file = NumPyFile(path, _SETTING)
    with file.reading():
        if path.suffix == ".npy":
            array = file.array(path.name)
            return FoundPoints(as_points(array, str(path)), array.dtype)
        if not names:
            held = [name for name in file.names() if re.search("pos|scan|coord|translation|points", name, re.I)]
            if len(held) != 1:
                raise DataError(f"{path} ({_SETTING}) holds {', '.join(file.names()[:30])}: say which, positions = …")
            names = held
        return _of_arrays(path, names, [file.array(name) for name in names])


def _of_arrays(path: Path, names: Sequence[str], arrays: Sequence[NDArray[Any]]) -> FoundPoints:
    if len(arrays) == 1:
        return FoundPoints(as_points(arrays[0], f"{path}: {names[0]}"), arrays[0].dtype)
    if arrays[0].size != arrays[1].size:
        raise DataError(f"{path}: {names[0]} has {arrays[0].size} values, {names[1]} has {arrays[1].size}")
    points_N2 = np.stack([array.ravel() for array in arrays], axis=1).astype(np.float64)
    return FoundPoints(points_N2, min((array.dtype for array in arrays), key=lambda each: each.itemsize))


# ---- HDF5 -----------------------------------------------------------------------------------------------------------


def _of_hdf5(path: Path, names: Sequence[str]) -> FoundPoints:
    from trainkit_ptychography.scans.files.hdf5_live import HDF5File

    file = HDF5File(path, _SETTING)
    with file.reading():
        shapes, _ = file.datasets()
        if "positions_nominal_px" in shapes and "object" in shapes:
            return _of_result(path, file, names, shapes)
        if names:
            found = _of_arrays(path, names, [file.array(name) for name in names])
            units = {unit_named(file.units(name) or "") for name in names}
            return found._replace(unit=units.pop() if len(units) == 1 else None)
        if {"model_attributes/crop_pos", "optimizable_tensors/probe_pos_shifts"} <= shapes.keys():  # PtyRAD
            corners_N2, shifts_N2 = (
                as_points(file.array(name), f"{path}: {name}")
                for name in ("model_attributes/crop_pos", "optimizable_tensors/probe_pos_shifts")
            )
            if corners_N2.shape != shifts_N2.shape:
                raise DataError(f"{path}: it has {len(corners_N2)} positions, but {len(shifts_N2)} shifts of them")
            size = float(file.array("model_attributes/dx").ravel()[0]) if "model_attributes/dx" in shapes else None
            if size is None or not size > 0:
                return FoundPoints(corners_N2 + shifts_N2, np.dtype(np.float32), "pixels")
            return FoundPoints((corners_N2 + shifts_N2) * size, np.dtype(np.float32), "angstrom")
        pty_chi = ("probe_position_y_m", "probe_position_x_m")  # Pty-Chi and Ptychodus
        if all(name in shapes for name in pty_chi):
            found = _of_arrays(path, pty_chi, [file.array(name) for name in pty_chi])
            return found._replace(unit="m", tells_rows=True)
        likely = [name for name, shape in shapes.items() if len(shape) == 2 and shape[1] == 2 and shape[0] > 2]
        if len(likely) != 1:
            raise file.missing(f"({_SETTING}) does not say which array holds positions; say it: positions = …")
        found = _of_arrays(path, likely, [file.array(likely[0])])
        return found._replace(unit=unit_named(file.units(likely[0]) or ""))


def _of_result(path: Path, file: HDF5File, names: Sequence[str], shapes: dict[str, tuple[int, ...]]) -> FoundPoints:
    """Return the positions of a result of ours, in the coordinates of its data."""
    if names:
        if len(names) != 1 or names[0] not in shapes:
            raise file.missing(f'({_SETTING}) has no array "{without_controls(" ".join(names))}"')
        name = names[0]
    else:
        name = "positions_angstrom" if "positions_angstrom" in shapes else "positions_px"
    points_N2 = as_points(file.array(name), f"{path}: {name}")
    unit: LengthUnit = "angstrom" if name.endswith("_angstrom") else "pixels"
    numbers_N = None
    if "points" in shapes:
        numbers_N = file.array("points").ravel()
        if numbers_N.dtype.kind not in "iu" or len(numbers_N) != len(points_N2) or numbers_N.min(initial=0) < 0:
            raise DataError(f"{path}: points must be the numbers of {len(points_N2)} patterns: the file is damaged")
        numbers_N = numbers_N.astype(np.int64)
    return FoundPoints(points_N2, points_N2.dtype, unit, numbers_N, is_oriented=True)


# ---- tables ---------------------------------------------------------------------------------------------------------


def _of_table(path: Path, names: Sequence[str]) -> FoundPoints:
    with guarded_reading(path, "a table of positions", _SETTING):
        size = path.stat().st_size
        if size > _LARGEST_TABLE:
            raise DataError(
                f"{path} ({_SETTING}) has {bytes_in_words(size)}, and tables of up to {bytes_in_words(_LARGEST_TABLE)} "
                "are read: save positions with numpy.save as .npy"
            )
        content = path.read_bytes()
        if b"\0" in content:
            raise DataError(f"{path} ({_SETTING}) is no text, and neither an HDF5 nor a NumPy file")
        heading, values_NC = _parsed(path, content.decode("utf-8-sig", "replace"))
    parts = [_without_unit(each) for each in heading]
    chosen = _chosen(path, names, heading, [name for name, _ in parts], values_NC.shape[1])
    units = {parts[each][1] for each in chosen} if heading else {None}
    if len(units) > 1:
        raise DataError(f"{path} ({_SETTING}): its columns of positions are in different units; convert one of them")
    return FoundPoints(values_NC[:, chosen], np.dtype(np.float64), units.pop(), tells_rows=not names)


def _parsed(path: Path, text: str) -> tuple[list[str], NDArray[np.float64]]:
    """Return the headings (empty: there are none), with units from a line of their own, and the numbers."""
    heading: list[str] = []
    rows: list[list[float]] = []
    delimiter: str | None = None
    for number, cells, mark in _lines(text):
        numbers = _numbers(cells, mark)
        if numbers is None:
            if rows:
                raise DataError(
                    f"{path} ({_SETTING}), line {number}: no row of numbers: {without_controls(' '.join(cells))[:80]}"
                )
            if heading and len(cells) == len(heading) and all(unit_named(each.strip("[]()")) for each in cells if each):
                cells = [
                    f"{name} ({unit.strip('[]()')})" if unit else name
                    for name, unit in zip(heading, cells, strict=True)
                ]
            heading, delimiter = cells, mark
            continue
        if rows and len(numbers) != len(rows[0]):
            raise DataError(
                f"{path} ({_SETTING}), line {number} has {len(numbers)} columns, but the first row has {len(rows[0])}"
            )
        rows.append(numbers)
    if not rows:
        raise DataError(f"{path} ({_SETTING}) holds no rows of numbers, so it is no table of positions")
    if heading and len(heading) != len(rows[0]):
        if delimiter is not None:
            raise DataError(
                f"{path} ({_SETTING}) has {len(heading)} headings, but its rows have {len(rows[0])} columns"
            )
        heading = []  # a sentence
    return heading, np.array(rows)


def _lines(text: str) -> Iterator[tuple[int, list[str], str | None]]:
    """Yield the lines that are not empty: number, cells, and what stands between them (None: spaces)."""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().lstrip("#%").strip()
        if not line:
            continue
        mark = next((each for each in (";", "\t", ",") if each in line), None)
        cells = [cell.strip().strip("\"'") for cell in line.split(mark)]
        yield number, cells[:-1] if mark and not cells[-1] else cells, mark


def _numbers(cells: Sequence[str], mark: str | None) -> list[float] | None:
    """Return a row's numbers, with a decimal comma where semicolons or tabs stand between them; None: it has others."""
    try:
        return [float(cell.replace(",", ".") if mark in (";", "\t") else cell) for cell in cells]
    except ValueError:
        return None


def _chosen(
    path: Path, names: Sequence[str], heading: Sequence[str], without_units: Sequence[str], num: int
) -> list[int]:
    """Return the columns of rows and columns."""
    if len(names) == 1:
        raise DataError(
            f"{path} ({_SETTING}) is a table: positions must name two of its columns, for example "
            f"positions = {_example(heading)}"
        )
    if names:
        return [_column(path, name, heading, without_units, num) for name in names]
    if not heading:
        raise DataError(
            f"{path} ({_SETTING}) has no headings, so that it does not say which column is which: say it by their "
            'numbers, positions = ["0", "1"] for (row, column), ["1", "0"] for (x, y)'
        )
    found = []
    for wanted in (_ROWS, _COLUMNS):
        places = [place for place, name in enumerate(without_units) if re.sub(r"[^a-z]", "", name.lower()) in wanted]
        if len(places) != 1:
            raise DataError(
                f"{path} ({_SETTING}) has the columns {without_controls(', '.join(heading))[:300]}: say which are "
                f"[rows, columns], for example positions = {_example(heading)}"
            )
        found += places
    return found


def _column(path: Path, name: str, heading: Sequence[str], without_units: Sequence[str], num: int) -> int:
    for names in (heading, without_units):
        if list(names).count(name) == 1:
            return list(names).index(name)
    if name.isdecimal() and int(name) < num:
        return int(name)
    known = [*heading] or [str(each) for each in range(num)]
    raise DataError(
        f'{path} ({_SETTING}) has no column "{name}"; {without_controls(did_you_mean(name, known))} It has '
        f"{without_controls(', '.join(known))[:300]}"
    )


def _example(heading: Sequence[str]) -> str:
    names = [without_controls(each).replace('"', "") for each in heading[:2]] or ["0", "1"]
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _without_unit(heading: str) -> tuple[str, LengthUnit | None]:
    """Return a heading's name and unit.

    Example:
        >>> _without_unit("y_nm"), _without_unit("x [µm]"), _without_unit("x")
        (('y', 'nm'), ('x', 'um'), ('x', None))
    """
    found = _HEADING.fullmatch(heading) if len(heading) <= _LONGEST_HEADING else None
    if found is None or not found["name"] or (unit := unit_named(found["unit"])) is None:
        return heading, None
    separated = found["open"] or heading[len(found["name"]) :][0] in " _\t"
    return (found["name"], unit) if separated else (heading, None)


def unit_named(text: str) -> LengthUnit | None:
    """Return the unit that a text such as "µm" names; None: none of length."""
    return _UNITS.get(text.strip().lower())
