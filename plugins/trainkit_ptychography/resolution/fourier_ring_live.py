"""Resolution by Fourier ring correlation between two halves: the comparison.

Shapes: N = scan points, M = probe modes, Y, X = rows and columns of the detector, H, W = those of the object, R =
rings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import Agreement, DataError, Problem
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.output import resolution_picture
from trainkit_ptychography.output.illumination import illumination, typical_light
from trainkit_ptychography.output.resolution_picture import Curve
from trainkit_ptychography.physics.fourier_ring import (
    HALF_BIT,
    MOST_SHIFT,
    ONE_BIT,
    Alignment,
    Crossing,
    RingCorrelation,
    against_truth,
    aligned,
    crossing,
    ring_correlation,
    tapered,
    threshold,
)
from trainkit_ptychography.physics.quality import truth_at
from trainkit_ptychography.preflight.ending import Ending, GeometryJudge, Verdict
from trainkit_ptychography.preflight.images import inspect_images
from trainkit_ptychography.preflight.inspection import pixel_doubts, trains_probe
from trainkit_ptychography.scans.few_counts import MORE_THAN_NOISE
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    import h5py

    from trainkit import Recipe
    from trainkit_ptychography.output.frame import Image as Picture
    from trainkit_ptychography.resolution.fourier_ring import FourierRing
    from trainkit_ptychography.scans.scan import Recording

_SMALLEST = 16  # pixels along each side of the part that is compared
_LIT = 0.5  # of the light of a typical scan point: what has less counts less
_WHAT = {"points": "scan points", "counts": "counts"}
_TRUE = sqrt(0.5)  # the correlation with the truth of what holds one bit in a Fourier pixel
_NAMES = {ONE_BIT: "1 bit", HALF_BIT: "1/2 bit"}


@attrs.frozen(kw_only=True, eq=False)
class Half:
    """What ``result.h5`` of a half holds.

    Attributes:
        object_HW: Complex transmission.
        probe_MYX: Complex modes.
        positions_N2: Where the probe was, in pixels of the object.
        nominal_N2: Where it was said to be.
        origin_2: Position of the object's pixel [0, 0] in the data, in pixels.
        pixel_size_angstrom: None if unknown.
        over_noise: Σ(√measured − √modelled)² / Σ measured of a pattern, on average, over what counting noise makes of
            it; None: the file does not say it, or patterns are no counts.
    """

    object_HW: NDArray[np.complexfloating]
    probe_MYX: NDArray[np.complexfloating]
    positions_N2: NDArray[np.float64]
    nominal_N2: NDArray[np.float64]
    origin_2: NDArray[np.float64]
    pixel_size_angstrom: float | None
    over_noise: float | None = None


@attrs.frozen(kw_only=True, eq=False)
class Measured:
    """How far two objects agree.

    Attributes:
        rings: The correlation.
        limits: Bits -> the threshold of each ring.
        crossings: Bits -> where the correlation falls below it.
        alignment: What made the second object fit the first.
        parts: The part of either object that was compared.
        window_HW: How much each of its pixels counts.
        corner: Its first row and column in the object.
    """

    rings: RingCorrelation
    limits: dict[float, NDArray[np.float64]]
    crossings: dict[float, Crossing]
    alignment: Alignment
    parts: tuple[NDArray[np.complexfloating], NDArray[np.complexfloating]]
    window_HW: NDArray[np.float64]
    corner: tuple[int, int]


def compare(settings: FourierRing, recipe: Recipe, one: Path, other: Path) -> Agreement:
    """Compare the objects of both halves.

    Raises:
        DataError: A result cannot be read, or too little was scanned.
    """
    first, second = (read_half(folder / "result.h5") for folder in (one, other))
    found = measure(first, second)
    size = first.pixel_size_angstrom
    true, times, verdicts = None, None, list[Verdict]()
    if isinstance(recipe.data, DiffractionData):
        recording = recipe.data.read()
        verdicts = list(_verdicts(recipe, recipe.data, recording, (first, second)))
        truth = recording.scan.truth
        true = None if truth is None else with_truth(found, first, truth.phase_KL)
        of_halves = [each.over_noise for each in (first, second) if each.over_noise is not None]
        times = float(np.mean(of_halves)) if of_halves else None
    unit = "pixels" if size is None else "Å"
    resolutions = {bits: _period(each, size) for bits, each in found.crossings.items()}
    title = f"Fourier ring correlation between halves of the {_WHAT[settings.of]}"
    shared = "of their own" if settings.begin == "nothing" else "of the run"
    draw = partial(
        resolution_picture.resolution,
        _curve(found, true, size),
        {_NAMES[bits]: period for bits, period in resolutions.items()},
        tuple(np.angle(part_HW) for part_HW in found.parts),
        size,
        title,
        f"{recipe.run.name}, probe and positions {shared}",
    )
    return Agreement(
        name=settings.of,
        results=_results(settings, found, resolutions, unit, (one, other))
        | {"misfit_over_noise": times, "geometry": [each.line for each in verdicts]},
        rows=tuple(_rows(found, true, size)),
        lines=(
            *_lines(settings, found, true, resolutions, unit, size),
            *misfit_in_words(times),
            *(f"  geometry {each.line}" for each in verdicts),
        ),
        doubts=(*doubts(found), *doubts_of_geometry(verdicts)),
        pictures={f"{settings.of}.png": partial(_write, draw)},
    )


def measure(one: Half, other: Half) -> Measured:
    """Return how far two objects agree over the scanned part.

    Raises:
        DataError: They are not of the same scan, or too little was scanned.
    """
    if one.object_HW.shape != other.object_HW.shape or not np.allclose(one.nominal_N2, other.nominal_N2, atol=1e-3):
        raise DataError("the two results are not of the same scan: objects or nominal positions differ")
    corner, size = compared_part(one.nominal_N2)
    shape = (one.object_HW.shape[0], one.object_HW.shape[1])
    light_HW = illumination(one.probe_MYX, one.positions_N2, shape)
    typical = typical_light(light_HW, one.positions_N2)
    part = (slice(corner[0], corner[0] + size[0]), slice(corner[1], corner[1] + size[1]))
    window_HW = tapered(size) * np.minimum(light_HW[part] / (_LIT * typical), 1.0)
    target_HW = one.object_HW[part]
    fitted_HW, alignment = aligned(target_HW, other.object_HW, window_HW, corner)
    parts = (target_HW, fitted_HW)
    rings = ring_correlation(*parts, window_HW)
    limits = {bits: threshold(rings.number_R, bits) for bits in _NAMES}
    crossings = {bits: crossing(rings, limit_R) for bits, limit_R in limits.items()}
    return Measured(
        rings=rings,
        limits=limits,
        crossings=crossings,
        alignment=alignment,
        parts=parts,
        window_HW=window_HW,
        corner=corner,
    )


def compared_part(nominal_N2: NDArray[np.float64]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the first row and column of the part of an object that is compared, and its numbers of rows and columns.

    Args:
        nominal_N2: Where the probe was said to be, in pixels.

    Raises:
        DataError: The part is too small.
    """
    low_2, high_2 = np.ceil(nominal_N2.min(axis=0)), np.floor(nominal_N2.max(axis=0))
    corner = (int(low_2[0]), int(low_2[1]))
    size = (int(high_2[0]) - corner[0] + 1, int(high_2[1]) - corner[1] + 1)
    if min(size) < _SMALLEST:
        raise DataError(
            f"the scanned part of the object has {size[0]} × {size[1]} pixels; for a Fourier ring correlation it needs "
            f"{_SMALLEST} along each side"
        )
    return corner, size


def with_truth(found: Measured, half: Half, truth_KL: NDArray[np.floating]) -> RingCorrelation:
    """Return the correlation of the mean of both halves with the truth.

    Args:
        found: What the halves have in common.
        half: The first half.
        truth_KL: The true phase in rad, periodic; its pixel [i, j] is at position (i, j) of the data.
    """
    rows_H, columns_W = (
        np.arange(size) + origin for size, origin in zip(half.object_HW.shape, half.origin_2, strict=True)
    )
    true_HW = np.exp(1j * truth_at(truth_KL, rows_H, columns_W))
    mean_HW: NDArray[np.complexfloating] = np.mean(found.parts, axis=0)
    fitted_HW, _ = aligned(mean_HW, true_HW, found.window_HW, found.corner)
    return ring_correlation(mean_HW, fitted_HW, found.window_HW)


def read_half(path: Path) -> Half:
    """Read what a run left.

    Raises:
        DataError: The file cannot be read.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            size = file.attrs.get("pixel_size_angstrom")
            return Half(
                object_HW=file["object"][()],
                probe_MYX=file["probe"][()],
                positions_N2=file["positions_px"][()],
                nominal_N2=file["positions_nominal_px"][()],
                origin_2=np.asarray(file.attrs["object_origin_px"]),
                pixel_size_angstrom=None if size is None else float(size),
                over_noise=_over_noise(file),
            )
    except (OSError, KeyError) as error:
        raise DataError(f"{path} cannot be read as the result of a reconstruction: {error}") from error


def _period(found: Crossing, size: float | None) -> float | None:
    return None if found.frequency is None else (size or 1.0) / found.frequency


def _lines(
    settings: FourierRing,
    found: Measured,
    true: RingCorrelation | None,
    resolutions: dict[float, float | None],
    unit: str,
    size: float | None,
) -> Iterator[str]:
    finest = f"{2.0 * (size or 1.0):.3g} {unit} or finer: above the threshold up to the finest period of these pixels"
    yield f"resolution by Fourier ring correlation between halves of the {_WHAT[settings.of]}:"
    for bits, period in resolutions.items():
        if period is not None:
            shown = f"{period:.3g} {unit}"
            if (again := found.crossings[bits].again) is not None:
                shown += f", and above it again at {(size or 1.0) / again:.3g} {unit}, as beyond a gap of a crystal"
        elif found.crossings[bits].is_above:
            shown = finest
        else:
            shown = "none: the correlation is below the threshold everywhere"
        yield f"  {_NAMES[bits]:8} {shown}"
    down, right = found.alignment.shift_2
    yield (
        f"  aligned by ({down:.2f}, {right:.2f}) pixels, {found.alignment.offset_rad:.3f} rad, and a ramp of "
        f"({found.alignment.turns_2[0]:.2f}, {found.alignment.turns_2[1]:.2f}) turns"
    )
    if true is not None:
        reached = crossing(true, np.full(len(true.frequency_R), _TRUE))
        period = _period(reached, size)
        shown = f"{period:.3g} {unit}" if period is not None else finest if reached.is_above else "none"
        yield f"  truth    {shown} (where the mean of both halves correlates with the truth by {_TRUE:.2f}: 1 bit)"
    if settings.begin == "finished":
        yield "  both halves have the probe and positions of the run, which were fitted to the noise of both: with few"
        yield "  electrons the figure is too good (docs/resolution.md); resolution.begin=nothing does without them"


def doubts(found: Measured) -> Iterator[str]:
    """Yield why the figure is doubtful."""
    if max(map(abs, found.alignment.shift_2)) >= MOST_SHIFT:
        yield (
            f"the halves are shifted against each other by {MOST_SHIFT:g} pixels or more, and no larger shift is "
            "looked for, so they may agree better than this says; look at the positions of both, or let them share "
            "those of the run, --set resolution.begin=finished"
        )
    if found.crossings[ONE_BIT] == Crossing(None, False):
        yield (
            "the halves agree at no period: each has too little data to be reconstructed alone; give them the probe "
            "and positions of the run, --set resolution.begin=finished, or more epochs, --set resolution.epochs=N"
        )


def _verdicts(
    recipe: Recipe, data: DiffractionData, recording: Recording, halves: tuple[Half, Half]
) -> Iterator[Verdict]:
    """Yield what patterns say of the geometry with which each half ended."""
    if data.propagation_to_detector().patterns_are_images:
        for seen in inspect_images(data):
            if isinstance(seen, Problem):
                yield Verdict(True, "not as told, by the images", seen.message)
            else:
                yield Verdict(True, " ".join(seen.split()[1:]))
        return
    model = recipe.model
    if not isinstance(model, Ptychography):
        return
    if any(pixel_doubts(recording)):
        yield Verdict(False, "not judged: some pixels did not measure")
        return
    geometry = GeometryJudge(
        recording,
        data,
        model.probe,
        recipe.run.seed,
        depth_angstrom=0.5 * (model.thickness_angstrom or 0.0),
        tilts_differ=bool(model.scan_tilts_mrad),
        probe_is_trained=trains_probe(recipe),
    )
    for number, half in enumerate(halves, 1):
        for each in geometry.judge(Ending(half.probe_MYX, half.positions_N2)):
            yield each._replace(line=f"of half {number}: {each.line}")


def doubts_of_geometry(verdicts: list[Verdict]) -> Iterator[str]:
    """Yield one doubt if halves have a wrong geometry: they share it, and so they agree on a wrong object."""
    wrong = [each.doubt for each in verdicts if each.doubt is not None]
    if wrong:
        yield f"both halves share a geometry, so they can agree on a wrong object, and {wrong[0]}"


def _over_noise(file: h5py.File) -> float | None:
    """Return how many times worse a half fits its patterns than counting noise does; None: these are no counts."""
    if "residual_of_noise" not in file:
        return None
    of_all, of_noise = (float(np.nanmean(np.square(file[name][()]))) for name in ("residual", "residual_of_noise"))
    return of_all / of_noise if of_noise > 0 else None


def misfit_in_words(times: float | None) -> Iterator[str]:
    """Yield how well halves fit their patterns, and what follows if that is worse than noise.

    Args:
        times: How many times worse than counting noise does; None: it is not known.
    """
    if times is None:
        return
    yield f"  fit      {times:.2f} times the misfit that counting noise alone makes"
    if times > MORE_THAN_NOISE:
        yield "  what the model lacks or has wrong, or has not reached yet, may be in both halves alike: the object"
        yield "  can be less true than it is reproducible (docs/resolution.md)"


def _results(
    settings: FourierRing,
    found: Measured,
    resolutions: dict[float, float | None],
    unit: str,
    folders: tuple[Path, Path],
) -> dict[str, Any]:
    return {
        "halves_of": settings.of,
        "begin": settings.begin,
        "unit": unit,
        "resolution_1_bit": resolutions[ONE_BIT],
        "resolution_half_bit": resolutions[HALF_BIT],
        "above_1_bit_up_to_the_pixels": found.crossings[ONE_BIT].is_above,
        "above_half_bit_up_to_the_pixels": found.crossings[HALF_BIT].is_above,
        "shift_px": list(found.alignment.shift_2),
        "ramp_turns": list(found.alignment.turns_2),
        "offset_rad": found.alignment.offset_rad,
        "compared_px": list(found.window_HW.shape),
        "halves": [each.name for each in folders],
    }


def _rows(found: Measured, true: RingCorrelation | None, size: float | None) -> Iterator[dict[str, str | float | None]]:
    name = "frequency_per_px" if size is None else "frequency_per_angstrom"
    rings = found.rings
    for ring in range(len(rings.frequency_R)):
        yield {
            name: float(rings.frequency_R[ring]) / (size or 1.0),
            "correlation": float(rings.correlation_R[ring]),
            "threshold_1_bit": float(found.limits[ONE_BIT][ring]),
            "threshold_half_bit": float(found.limits[HALF_BIT][ring]),
            "independent_pixels": float(rings.number_R[ring]),
            "with_truth_expected": float(against_truth(rings.correlation_R)[ring]),
            "with_truth": None if true is None else float(true.correlation_R[ring]),
        }


def _curve(found: Measured, true: RingCorrelation | None, size: float | None) -> Curve:
    return Curve(
        found.rings.frequency_R / (size or 1.0),
        found.rings.correlation_R,
        {_NAMES[bits]: limit_R for bits, limit_R in found.limits.items()},
        None if true is None else (against_truth(found.rings.correlation_R), true.correlation_R),
    )


def _write(draw: Callable[[], Picture], path: Path) -> None:
    from PIL import Image

    Image.fromarray(draw()).save(path, format="png")
