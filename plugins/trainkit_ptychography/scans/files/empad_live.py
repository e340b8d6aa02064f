"""Reads the files of the EMPAD detector: raw frames, and an XML file that says how they were taken."""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from xml.etree import ElementTree

import attrs

from trainkit import DataError, guarded_reading, without_controls
from trainkit_ptychography.scans.files.raw_live import RawFile, RawLayout, read_raw
from trainkit_ptychography.scans.positions import ANGSTROM

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction
    from trainkit_ptychography.scans.scan import Recording

_LAYOUT = RawLayout((128, 128), "float32", gap_bytes=2 * 128 * 4)
_MOST_XML = 2**20  # bytes; real ones have a few kB
_MOST_POINTS = 2**16  # along an axis
_KEV = (5.0, 1000.0)  # what a microscope can have
_VOLTS = ("high_voltage", "source.get_voltage", "ColumnSourceHighVoltage")
_NAME = re.compile(r"_x(\d{1,5})_y(\d{1,5})(?:\D|$)")


class _Told(NamedTuple):
    """What is known besides the frames.

    Attributes:
        by: The file that says it.
        shape: Rows and columns of the scan; None: not said.
        energy_kev: None: not said.
        step_angstrom: None: not said.
    """

    by: str
    shape: tuple[int, int] | None = None
    energy_kev: float | None = None
    step_angstrom: float | None = None


def read_empad(settings: FileDiffraction) -> Recording:
    """Read a scan. Settings take precedence over the XML file, and what differs is doubted.

    Raises:
        DataError: A file is missing or damaged, or the scan's shape does not fit.
    """
    raw, xml = _paths(settings.path)
    told, doubts = _Told(raw.name), []
    try:
        told = told if xml is None else _from_xml(xml)
    except DataError as error:
        if xml == settings.path:
            raise
        doubts.append(f"what lies beside the patterns is not used: {error}")
    if told.shape is None and (named := _NAME.search(raw.stem)):
        told = told._replace(shape=(int(named[2]), int(named[1])))
    file = RawFile(raw, _LAYOUT)
    changes, found = _taken(settings, told, file.num_frames)
    changed: Any = attrs.evolve(cast(Any, settings), path=raw, **changes)
    return read_raw(changed, file).with_doubts([*doubts, *found])


def recognised(path: Path) -> dict[str, Any] | None:
    """Return what these files say themselves, as settings; None: they are none of this detector.

    Their step is not taken: its scale differs from microscope to microscope.
    """
    if path.suffix.lower() not in (".raw", ".xml"):
        return None
    try:
        raw, xml = _paths(path)
        RawFile(raw, _LAYOUT)  # or its size is not that of whole frames
        told = _Told(raw.name) if xml is None else _from_xml(xml)
    except DataError:
        return None
    return {"path": path} | ({} if told.energy_kev is None else {"energy_kev": told.energy_kev})


def _taken(settings: FileDiffraction, told: _Told, num_frames: int) -> tuple[dict[str, Any], list[str]]:
    """Return what the recipe leaves to the files, and where it differs from them."""
    changes: dict[str, Any] = {}
    doubts: list[str] = []
    if told.energy_kev is not None and settings.wavelength_angstrom is None and settings.radiation == "electrons":
        if settings.energy_kev is None:
            changes["energy_kev"] = told.energy_kev
        elif abs(settings.energy_kev / told.energy_kev - 1) > 0.02:
            doubts.append(f"energy_kev is {settings.energy_kev:g}, but {told.by} says {told.energy_kev:.6g}")
    raster = settings.raster
    if told.shape is not None and (raster is None or raster.shape != told.shape):
        rows, columns = told.shape
        if rows * columns != num_frames:
            what = f"{told.by} says {rows} rows of {columns} points, but there are {num_frames} patterns"
            doubt = f"{what}: is it that of another scan, or was this one cut off?"
            if raster is not None and raster.shape is None:
                raise DataError(f"{doubt} Say what is right, raster.shape = [rows, columns]")
            doubts.append(doubt)
        elif raster is not None and raster.shape is None:
            changes["raster"] = attrs.evolve(cast(Any, raster), shape=told.shape)
        elif raster is not None and raster.shape is not None:
            doubts.append(
                f"raster.shape is {list(raster.shape)} (rows, columns), but {told.by} says {rows} rows of {columns} "
                f"points: shape = {list(told.shape)}"
            )
    if raster is None:
        return changes, doubts
    unit = ANGSTROM.get(settings.unit)
    steps = raster.step if isinstance(raster.step, tuple) else (raster.step, raster.step)
    if told.step_angstrom is not None and unit is not None:
        said = abs(steps[1]) * unit
        if not 0.5 < said / told.step_angstrom < 2:  # scan scales are off by up to that in practice
            doubts.append(
                f"raster.step is {said:.4g} Å, but {told.by} says {told.step_angstrom:.4g} Å: check it, and "
                "positions_unit"
            )
    return changes, doubts


def _paths(path: Path) -> tuple[Path, Path | None]:
    """Return the raw file, and the XML file if there is one; either may be named."""
    if path.suffix.lower() != ".xml":
        beside = (path.with_suffix(".xml"), path.with_suffix(".XML"), path.parent / f"{path.name}.xml")
        return path, next((each for each in beside if each.is_file()), None)
    tree = _tree(path)
    named = tree.find("raw_file")
    name = None if named is None else named.get("filename") or named.findtext("filename")
    # The name alone: the microscope's own folders are not here, and a file must not name any other on this machine.
    raw = path.parent / re.split(r"[/\\]", name or path.with_suffix(".raw").name)[-1]
    if not raw.is_file():
        raise DataError(f'{path} is beside no file "{without_controls(raw.name)}", which it describes (data.path)')
    return raw, path


def _from_xml(path: Path) -> _Told:
    tree = _tree(path)
    columns, rows = (
        _count(_first(tree, f"pix_{each}", f"scan_parameters[@mode='acquire']/scan_resolution_{each}")) for each in "xy"
    )
    volts = _number(_first(tree, *(f"iom_measurements/{name}" for name in _VOLTS)))
    kev = None if volts is None else volts / 1e3
    view = "iom_measurements/full_scan_field_of_view"
    field, scale = (_number(_first(tree, f"{view}/{each}")) for each in ("x", "scale_factor"))
    step = None
    if field and scale and rows and columns:  # the longer side of the scan, in m, times a factor
        step = field / scale / max(rows, columns) * 1e10
    return _Told(
        path.name,
        (rows, columns) if rows and columns else None,
        kev if kev is not None and _KEV[0] <= kev <= _KEV[1] else None,
        step if step is not None and 0 < step < 1e6 else None,
    )


def _tree(path: Path) -> ElementTree.Element:
    with guarded_reading(path, "the XML file of an EMPAD"):
        with path.open("rb") as file:
            content = file.read(_MOST_XML + 1)
        if len(content) > _MOST_XML or b"<!DOCTYPE" in content or b"<!ENTITY" in content:
            raise DataError(f"{path} is no XML file of an EMPAD: it is too long, or defines entities")
        return ElementTree.fromstring(content)


def _first(tree: ElementTree.Element, *places: str) -> str | None:
    """Return the text at the first of these places that has one; None: none has."""
    texts = [(tree.findtext(place) or "").strip() for place in places]
    return next((text for text in texts if text), None)


def _count(text: str | None) -> int | None:
    number = _number(text)
    return int(number) if number is not None and number.is_integer() and 1 <= number <= _MOST_POINTS else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if isfinite(number) else None
