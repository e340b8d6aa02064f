"""Finds the geometry of a scan by trials, and puts the evidence into words.

Shapes: N = scan points.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, Figures, Problem, Progress, RecipeError, written_whole
from trainkit_ptychography.output.calibration_picture import Panel, calibration_picture
from trainkit_ptychography.planning.evidence import Evidence
from trainkit_ptychography.preflight.advice import VARIED, combined
from trainkit_ptychography.preflight.calibration import PATTERNS, SURE, Calibrated, Cell, calibrated
from trainkit_ptychography.preflight.geometry import BOTH_AXES, Geometry
from trainkit_ptychography.preflight.inspection import pixel_doubts
from trainkit_ptychography.preflight.place import place_of_specimen
from trainkit_ptychography.preflight.sample import Sample, middle_points, sample
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.from_data import ProbeFromData
from trainkit_ptychography.scans.descan import doubt_of_descan
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.sampling import bright_radius, disc_radius, mirrored_where_hidden
from trainkit_ptychography.scans.scan import Recording

_FEWEST = 25
_NOT_THE_DISC = 0.06  # by which the measured radius of the bright disc may be off
_MORE_VARIED = 2.0  # times as much as in the middle of the scan: then patterns are taken elsewhere
_SEED = 0
_PROPERTIES = {
    "defocus_change_angstrom": ("defocus", "Å"),
    "rotation_deg": ("rotation", "°"),
    "step_factor": ("step (and defocus), over the told one", ""),
}


def calibrate(data: FileDiffraction, picture: Path | None) -> Iterator[Progress | Problem | Figures | Evidence]:
    """Yield progress, then what is doubtful, and what was found.

    Args:
        data: The settings that read the scan.
        picture: Where to draw the evidence; None: nowhere.

    Raises:
        DataError: The scan cannot be read, or trials with it would tell nothing.
        RecipeError: The settings are wrong.
    """
    recording = data.read()
    source = recording.scan.source
    _refuse(recording, source)
    probe = ProbeFromData() if data.probe is not None else Aperture(defocus_angstrom=0.0)
    place_2: NDArray[np.float64] | None = None

    def taken(num: int, binned: int) -> Sample:
        points_N = middle_points(recording, num, place_2)
        return sample(recording, points_N, probe, _SEED, binned=binned, about_2=place_2)

    whole = taken(PATTERNS, 1)
    if (place_2 := place_of_specimen(recording)) is not None:
        middle, whole = whole, taken(PATTERNS, 1)
        if whole.variation() < _MORE_VARIED * middle.variation():
            place_2, whole = None, middle
    _refuse_another_disc(whole, source)
    if of_descan := doubt_of_descan(*recording):
        yield Problem(of_descan, severity="warning")
    found: Calibrated | None = None
    for each in calibrated(taken, data.defocus_angstrom or 0.0):
        if isinstance(each, Calibrated):
            found = each
        else:
            yield each
    assert found is not None
    if picture is not None:
        yield from _drawn(found, source, picture)
    yield Figures(_figures(found, data))
    if found.fits_nothing:
        yield from _of_nothing(found, whole)
        return
    evidence = _evidence(found, data)
    for comment in evidence.comments:
        if "annot tell" in comment:
            yield Problem(comment, severity="warning")
    yield evidence


def _refuse(recording: Recording, source: str) -> None:
    if recording.scan.num_scans > 1:
        raise RecipeError(f"--calibrate: {source} joins {recording.scan.num_scans} scans: calibrate one of them")
    if len(recording.intensities_NYX) < _FEWEST:
        raise DataError(
            f"{source}: {len(recording.intensities_NYX)} patterns tell too little to calibrate by; {_FEWEST} are the "
            "least"
        )
    if doubts := list(pixel_doubts(recording)):
        raise DataError(
            f"{source}: some pixels did not measure, and trials would take them for light: {doubts[0]}; say it as "
            "--set data.prepare.…"
        )


def _refuse_another_disc(large: Sample, source: str) -> None:
    """Refuse a scan whose bright disc is not as large as energy, aperture and detector say: nothing would fit.

    Raises:
        DataError: Says what would agree.
    """
    scan, semiangle = large.scan, large.told_semiangle()
    if not large.has_aperture() or semiangle is None:
        return
    if scan.wavelength_angstrom is None or scan.pixel_size_angstrom is None:
        raise RecipeError(
            f"{source}: --calibrate needs the energy (--set data.energy_kev=…) and the size of a detector pixel (--set "
            "data.dk_per_angstrom=…)"
        )
    mean_YX = mirrored_where_hidden(large.part.survey.mean_YX, scan.mask_YX)
    told = disc_radius(mean_YX.shape, scan.pixel_size_angstrom, scan.wavelength_angstrom, semiangle)
    measured = bright_radius(mean_YX) / told
    if abs(measured - 1) > _NOT_THE_DISC:
        size = scan.pixel_size_angstrom * measured
        raise DataError(
            f"{source}: the bright disc of the patterns is {measured:.3g} times as large as energy, aperture "
            f"({semiangle:.4g} mrad) and detector say, so one of them is wrong: with --set data.semiangle_mrad="
            f"{semiangle * measured:.4g}, with an object pixel of {size:.4g} Å (of the detector as it is trained on), "
            "or with another energy all would agree"
        )


def _of_nothing(found: Calibrated, large: Sample) -> Iterator[Problem | Evidence]:
    times = large.variation()
    causes = "Check that there is a specimen, the order of the scan points (raster, snake, pattern_axes), and energy, "
    causes += "aperture and detector"
    if times < VARIED:
        causes = (
            f"These patterns differ from each other hardly more than by noise ({times:.3g} times as much), so either "
            "there are too few counts in them to tell, or there is no specimen"
        )
    text = (
        f"nothing fits: {found.num_trials} trials with orientations, defoci, rotations and steps explain the patterns "
        f"no better than no specimen does (misfit of held-out patterns {found.best.misfit:.4g}, "
        f"{found.best.empty:.4g} of an empty object). {causes}; what could not be found out is left open"
    )
    yield Problem(text, severity="warning")
    yield Evidence(comments=(f"Not calibrated: {text}.",))


# ---- words ----------------------------------------------------------------------------------------------------------


def _orientation(geometry: Geometry, data: FileDiffraction) -> tuple[str, tuple[str, ...], float]:
    """Return positions_order, positions_flip and positions_rotation_deg for a geometry."""
    told = (data.positions_order == "column_row", frozenset(data.positions_flip), data.positions_rotation_deg)
    swapped, flips, angle = combined(told, geometry)
    return (
        "column_row" if swapped else "row_column",
        tuple(each for each in BOTH_AXES if each in flips),
        round(angle, 1) + 0.0,
    )


def _evidence(found: Calibrated, data: FileDiffraction) -> Evidence:
    geometry = found.geometry
    order, flips, angle = _orientation(geometry, data)
    settings: dict[str, Any] = {
        "positions_order": order,
        "positions_flip": list(flips),
        "positions_rotation_deg": angle,
    }
    around = _between(found.profiles["rotation_deg"].excluded(), angle - geometry.rotation_deg)
    reasons = {
        "positions_order": "calibrated, see above: how the scan lies against the detector",
        "positions_flip": "calibrated",
        "positions_rotation_deg": f"calibrated{around}",
    }
    if found.defocus_angstrom is not None:
        settings["defocus_angstrom"] = round(found.defocus_angstrom, 1) + 0.0
        reasons["defocus_angstrom"] = f"underfocus; calibrated, {_plus_minus(found)}, see above"
        why = f"as told, which the patterns do not contradict{_fitted_step(found)}"
        if geometry.step_factor != 1.0:
            settings |= _step(found, data)
            why = (
                f"calibrated: {geometry.step_factor:.4g} times the step that is told, ± {100 * found.step.error:.2g} %"
            )
        reasons |= {"raster": why, "positions_scale": why}
    comments = [
        f"Calibrated with {found.num_patterns} patterns and {found.num_trials} trials. The figures are misfits of "
        f"patterns that were held out; that of an empty object is {found.best.empty:.4g}.",
        *_how_certain(found),
        *_cannot_tell(found, data),
    ]
    return Evidence(settings, reasons, tuple(comments), tuple(_table(found, data)))


def _step(found: Calibrated, data: FileDiffraction) -> dict[str, Any]:
    factor = found.geometry.step_factor
    if data.raster is None:
        return {"positions_scale": float(f"{data.positions_scale * factor:.4g}")}
    table = {key: value for key, value in attrs.asdict(data.raster).items() if value is not None}  # type: ignore[arg-type]
    step = table["step"]
    scaled = [float(f"{each * factor:.4g}") for each in (step if isinstance(step, tuple) else (step,))]
    return {"raster": {**table, "step": scaled if isinstance(step, tuple) else scaled[0]}}


def _between(excluded: tuple[float | None, float | None], offset: float) -> str:
    """Return between which values a property is, as a comment goes on."""
    ends = [f"{each + offset:.4g}" for each in excluded if each is not None]
    return f"; patterns fit worse beyond doubt at {' and '.join(ends)}" if ends else ""


def _plus_minus(found: Calibrated) -> str:
    return f"± {found.defocus_error_angstrom:.1f} Å"


def _fitted_step(found: Calibrated) -> str:
    """Return what a fit says of the step, as a comment goes on."""
    if found.step.factor is None:
        return "; they do not tell it"
    return f"; fitted: {found.step.factor:.3f} times as told, ± {100 * found.step.error:.2g} %"


def _how_certain(found: Calibrated) -> Iterator[str]:
    """Yield how certain the defocus is, and of what that consists."""
    if found.defocus_angstrom is None:
        return
    error, of_step = found.defocus_error_angstrom, abs(found.defocus_angstrom) / 100
    yield (
        f"Defocus: {found.defocus_angstrom:.1f} Å, {_plus_minus(found)} (two standard errors, from fits to quarters of "
        "the patterns, from how far fits and trials disagree, from how few electrons there are, and from what the "
        f"step leaves open: {of_step:.2g} Å for each percent that it is wrong"
        f"{_fitted_step(found)})."
    )
    if error is not None and found.resolved_angstrom is not None and error > found.resolved_angstrom:
        yield (
            f"Cannot tell the defocus: that is more than the {found.resolved_angstrom:.2g} Å for which a trained probe "
            "makes up."
        )


def _cannot_tell(found: Calibrated, data: FileDiffraction) -> Iterator[str]:
    defocus = found.defocus_angstrom
    if defocus is not None:
        flips = tuple(each for each in BOTH_AXES if each not in found.geometry.flips)
        order, other, _ = _orientation(attrs.evolve(found.geometry, flips=flips), data)
        lines = f'positions_order = "{order}", positions_flip = {_listed(other)}, defocus_angstrom = {-defocus:.1f}'
        same = f"{lines} fits the same, with the phase negated: no misfit tells these two apart"
        yield f"{same}; {found.reason}." if not found.undecided else f"Cannot tell: {same}, and {found.undecided}."
    if ties := found.equal():
        named = [_named(each, data) for each in ties]
        yield (
            f"Cannot tell: {'; '.join(named)} {'fits' if len(named) == 1 else 'fit'} as well as what is written: no "
            f"more than {SURE} standard errors worse."
        )
    flat = [
        _PROPERTIES[name][0].split(",")[0] for name, each in found.profiles.items() if each.excluded() == (None, None)
    ]
    if flat:
        yield f"Cannot tell: patterns say next to nothing about {' and '.join(flat)}, all that was tried fits alike."


def _named(cell: Cell, data: FileDiffraction) -> str:
    order, flips, _ = _orientation(cell.geometry, data)
    return f"{order} with positions_flip = {_listed(flips)}"


def _listed(flips: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{each}"' for each in flips) + "]"


def _table(found: Calibrated, data: FileDiffraction) -> Iterator[str]:
    heads = ["misfit"]
    if found.defocus_angstrom is not None:
        heads = [f"defocus {sign * found.defocus_angstrom:+.1f} Å" for sign in (1, -1)]
    yield f"{'positions_order':<17}{'positions_flip':<21}{''.join(f'{each:<20}' for each in heads)}"
    for number in range(8):
        order, flips, _ = _orientation(found.cells[number].geometry, data)
        cells = found.cells[number::8]
        figures = [f"{each.trial.misfit:.5f}{_mark(each, found)}" for each in cells]
        yield f"{order:<17}{_listed(flips):<21}{''.join(f'{each:<20}' for each in figures)}"
    for name, profile in found.profiles.items():
        title, unit = _PROPERTIES[name]
        offset = 0.0
        if name == "defocus_change_angstrom" and found.defocus_angstrom is not None:
            offset = found.defocus_angstrom - found.geometry.defocus_change_angstrom
        yield ""
        yield f"{title}{f' ({unit})' if unit else ''}:"
        yield "".join(f"{value + offset:>10.4g}" for value in profile.values)
        yield "".join(f"{each.misfit:>10.5f}" for each in profile.trials)


def _mark(cell: Cell, found: Calibrated) -> str:
    if cell.worse_by != float("inf"):
        return " ?" if cell.worse_by <= SURE else ""
    is_it = cell.geometry == found.geometry
    return " <- written" if is_it else " = the same"


def _figures(found: Calibrated, data: FileDiffraction) -> dict[str, Any]:
    """Return what was found, for programs."""
    order, flips, angle = _orientation(found.geometry, data)
    return {
        "fits_nothing": bool(found.fits_nothing),
        "positions_order": order,
        "positions_flip": list(flips),
        "positions_rotation_deg": angle,
        "defocus_angstrom": found.defocus_angstrom,
        "defocus_error_angstrom": found.defocus_error_angstrom,
        "pair_is_decided": not found.undecided,
        "step_factor": found.geometry.step_factor,
        "fitted_step_factor": found.step.factor,
        "fitted_step_error": found.step.error,
        "misfit": found.best.misfit,
        "misfit_of_empty_object": found.best.empty,
        "num_patterns": found.num_patterns,
        "num_trials": found.num_trials,
    }


# ---- picture --------------------------------------------------------------------------------------------------------


def _drawn(found: Calibrated, source: str, picture: Path) -> Iterator[Problem]:
    """Draw the evidence; that it fails is a doubt about nothing but the picture."""
    names = []
    for cell in found.cells[:8]:
        flips = " ".join(each for each in BOTH_AXES if each in cell.geometry.flips)
        names.append(f"{'exchanged' if cell.geometry.swapped else 'as told'}{', flip ' + flips if flips else ''}")
    columns = ["misfit"]
    if found.defocus_angstrom is not None:
        columns = [f"{sign * found.defocus_angstrom:+.1f} Å" for sign in (1, -1)]
    cells_CO = np.array([each.trial.misfit for each in found.cells]).reshape(len(columns), 8)
    panels = []
    for name, profile in found.profiles.items():
        title, unit = _PROPERTIES[name]
        offset = 0.0
        if name == "defocus_change_angstrom" and found.defocus_angstrom is not None:
            offset = found.defocus_angstrom - found.geometry.defocus_change_angstrom
        misfits = [each.misfit for each in profile.trials]
        values = [each + offset for each in profile.values]
        panels.append(Panel(f"{title}{f' / {unit}' if unit else ''}", values, misfits, profile.found + offset))
    title = "Nothing fits" if found.fits_nothing else "How the scan was taken"
    try:
        pixels_HWC = calibration_picture(
            cells_CO.T, names, columns, panels, found.best.empty, title, f"{source}: {found.num_patterns} patterns"
        )
        from PIL import Image

        picture.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(picture) as new:
            Image.fromarray(pixels_HWC).save(new, format="PNG")
    except Exception as error:
        yield Problem(f"{picture} cannot be drawn: {type(error).__name__}: {error}", severity="warning")
