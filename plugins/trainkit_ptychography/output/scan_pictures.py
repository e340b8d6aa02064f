"""Pictures about the scan points: how far they moved, how well each pattern is fitted, and some of the patterns.

Shapes: N = scan points, K = chosen points, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit import SAFE_ON_WHITE, ScaleBar
from trainkit_ptychography.output.frame import FOOT, HEAD, MARGIN, TITLE, WIDTH, Box, Frame, Image, fitted
from trainkit_ptychography.scans.sampling import neighbour_distances

_BLUE, _VERMILION, _GREEN = SAFE_ON_WHITE[:3]
_LONGER = 10  # times, so that arrows can be seen; or a further power of ten
_VISIBLE = 0.2  # of the distance between points: the median arrow is as long at least
_LONGEST = 100_000  # times
_MOST_ARROWS = 1500
_CROWDED = 0.8  # of their median length: arrows stand no nearer than this on average, so that each can be followed
_FAR = 3.0  # times their median length: the map has room for arrows up to that
_GOLDEN = (5**0.5 - 1) / 2
_MOST_NAMED = 12  # points whose number is written beside them
_GAMMA = 0.35
_HIDDEN = "0.6"  # grey, of pixels that do not count
_BINS = 41
_OF_COUNTS = 0.5  # inches for the numbers of a histogram
# Unit in Å, its name, and from which width of a map on it is taken.
_UNITS = ((1e4, "µm", 2e4), (10.0, "nm", 2e3), (1.0, "Å", 0.0))
_SILHOUETTE: dict[str, Any] = {"histtype": "stepfilled"}  # of a histogram: bars take ten times as long
_MOST_OPR = 3
_COURSE = 2.2  # inches
_MAP = 7.0  # inches across, of a map of the scan


def displacements(
    nominal_N2: NDArray[np.float64],
    now_N2: NDArray[np.float64],
    true_N2: NDArray[np.float64] | None,
    train_index: NDArray[np.int64],
    pixel_size_angstrom: float | None,
    subtitle: str,
) -> Image:
    """Return a picture of how far scan points have moved: arrows ten times as long, and a histogram.

    Where such arrows would be too short to be seen, they are a hundred times as long, or a thousand; the picture says
    it. If the true positions are known, a second histogram shows the errors before and now. A mean over all points is
    not shown: nothing can tell it from a shift of the object.

    Args:
        nominal_N2: Where the points were said to be, (row, column) in pixels.
        now_N2: Where they are now.
        true_N2: Where they were, if that is known.
        train_index: Points that are trained on; the others are drawn in another colour.
        pixel_size_angstrom: Size of a pixel; None if unknown: everything is in pixels.
        subtitle: Of which run it is, and when.
    """
    size, unit = _pixel(nominal_N2, pixel_size_angstrom)
    places_N2 = size * (nominal_N2 - nominal_N2.mean(axis=0))
    moved_N2 = size * (now_N2 - nominal_N2)
    moved_N2 = moved_N2 - moved_N2.mean(axis=0)
    length_N = np.hypot(*moved_N2.T)
    small_size, small_unit = _pixel(now_N2 - nominal_N2, pixel_size_angstrom)  # of displacements, beside a map in µm
    frame = Frame(HEAD + _MAP + 0.8, "Displacements of the scan points", subtitle)
    typical = float(np.median(length_N))
    longer = _times_longer(typical, places_N2)
    shown_N = _few(places_N2, longer * typical)
    within_N = shown_N & (length_N <= _FAR * typical)  # a point that moved far must not make the map small
    axes = _map_axes(frame, np.concatenate([places_N2, (places_N2 + longer * moved_N2)[within_N]]), unit)
    trained_N = np.isin(np.arange(len(places_N2)), train_index)
    for chosen_N, colour, label in ((trained_N, _BLUE, "trained on"), (~trained_N, _VERMILION, "not trained on")):
        if not chosen_N.any():
            continue
        at_K2, from_K2, by_K2 = (
            each_N2[mask_N]
            for each_N2, mask_N in (
                (places_N2, chosen_N),
                (places_N2, chosen_N & shown_N),
                (moved_N2, chosen_N & shown_N),
            )
        )
        axes.plot(at_K2[:, 1], at_K2[:, 0], ".", color=colour, markersize=2.5, label=f"{label} ({len(at_K2)})")
        axes.quiver(
            from_K2[:, 1],
            from_K2[:, 0],
            longer * by_K2[:, 1],
            longer * by_K2[:, 0],
            angles="xy",
            scale_units="xy",
            scale=1.0,
            color=colour,
            width=0.003,
        )
    share = "" if shown_N.all() else f", drawn at {shown_N.sum()} of {len(shown_N)} points"
    axes.set_title(f"arrows are {longer:,} times as long as the displacements{share}", **TITLE)
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.09), ncols=2, fontsize=10, frameon=False, borderaxespad=0.0)

    both = true_N2 is not None
    left, height = MARGIN + 0.7 + _MAP + 0.75, (_MAP - 0.9) / 2 if both else _MAP
    upper = frame.axes(Box(left, HEAD + 0.3, WIDTH - MARGIN - left, height - 0.3), _OF_COUNTS)
    moved_N2, length_N = (small_size / size * each for each in (moved_N2, length_N))
    rms = float(np.sqrt((moved_N2**2).mean()))
    edge = max(float(np.percentile(np.abs(moved_N2), 99.5)) * 1.1, 1e-6)
    upper.hist(np.clip(length_N, 0, 1.5 * edge), bins=np.linspace(0, 1.5 * edge, _BINS), color=_BLUE, **_SILHOUETTE)
    upper.set_title(f"rms of a coordinate {rms:.3g} {small_unit}", **TITLE)
    upper.set_xlabel(f"displacement / {small_unit}", fontsize=11)
    upper.set_ylabel("scan points", fontsize=11)
    if true_N2 is not None:
        lower = frame.axes(Box(left, HEAD + 0.9 + height + 0.3, WIDTH - MARGIN - left, height - 0.3), _OF_COUNTS)
        errors = [small_size * (each_N2 - true_N2)[trained_N] for each_N2 in (nominal_N2, now_N2)]
        errors = [(each_N2 - each_N2.mean(axis=0)).ravel() for each_N2 in errors]
        edge = max(float(np.percentile(np.abs(np.concatenate(errors)), 99.5)) * 1.1, 1e-6)
        for values, label, colour in zip(errors, ("as given", "now"), ("0.7", _GREEN), strict=True):
            named = f"{label}: rms {np.sqrt((values**2).mean()):.3g} {small_unit}"
            style = _SILHOUETTE | ({"alpha": 0.85} if label == "now" else {})
            lower.hist(
                np.clip(values, -edge, edge), bins=np.linspace(-edge, edge, _BINS), color=colour, label=named, **style
            )
        lower.set_title("trained on, against the true positions", **TITLE)
        lower.set_xlabel(f"error of a coordinate / {small_unit}", fontsize=11)
        lower.set_ylabel("coordinates", fontsize=11)
        lower.set_ylim(0, 1.3 * lower.get_ylim()[1])
        lower.legend(fontsize=9, loc="upper left")
    return frame.pixels()


def residuals(
    positions_N2: NDArray[np.float64],
    residual_N: NDArray[np.float64],
    poor_index: Sequence[int],
    numbers_N: NDArray[np.int64] | None,
    pixel_size_angstrom: float | None,
    subtitle: str,
) -> Image:
    """Return a map of how far each modelled pattern is from the measured one, and a histogram.

    Args:
        positions_N2: Where the points were said to be, (row, column) in pixels.
        residual_N: The residual of each pattern, 0 for a perfect fit; NaN where there is none.
        poor_index: Points that are fitted much worse than the others, the worst first; they are ringed.
        numbers_N: Numbers of the patterns in their file; None: 0, 1, 2, …
        pixel_size_angstrom: Size of a pixel; None if unknown.
        subtitle: Of which run it is, and when.
    """
    from matplotlib import colormaps

    size, unit = _pixel(positions_N2, pixel_size_angstrom)
    places_N2 = size * (positions_N2 - positions_N2.mean(axis=0))
    known_N = np.isfinite(residual_N)
    low, high = np.percentile(residual_N[known_N], (1, 99)) if known_N.any() else (0.0, 1.0)
    frame = Frame(HEAD + _MAP + 0.8, "Residual of each pattern", subtitle)
    axes = _map_axes(frame, places_N2, unit, _MAP - 0.9)
    edge = 72 * min(max(0.97 * _inches_apart(axes, places_N2), 0.03), 0.5)  # in points
    order_N = np.argsort(np.where(known_N, residual_N, -np.inf), kind="stable")  # the worst on top
    points = axes.scatter(
        places_N2[order_N, 1],
        places_N2[order_N, 0],
        c=residual_N[order_N],
        s=edge**2,
        marker="s",
        linewidths=0,
        cmap=colormaps["viridis"].with_extremes(bad=_VERMILION),
        vmin=low,
        vmax=max(high, low + 1e-12),
        plotnonfinite=True,
    )
    for place in poor_index[:_MOST_ARROWS]:
        axes.plot(*places_N2[place, ::-1], "o", color=_VERMILION, markersize=10, fillstyle="none", markeredgewidth=1.6)
    for place in poor_index[:_MOST_NAMED]:
        number = place if numbers_N is None else int(numbers_N[place])
        style = {"xytext": (6, 6), "textcoords": "offset points", "fontsize": 9, "color": _VERMILION, "weight": "bold"}
        axes.annotate(str(number), places_N2[place, ::-1], **style)
    poor = len(poor_index)
    ringed = (
        f"{poor} far above the others {'is' if poor == 1 else 'are'} ringed" if poor else "none is far above the others"
    )
    dark = f"; {np.count_nonzero(~known_N)} without light are red" if not known_N.all() else ""
    axes.set_title(ringed + dark, **TITLE)
    frame.colours(
        Box(MARGIN + 0.7, HEAD + 0.3, _MAP - 0.9, _MAP - 0.3),
        points,
        "√( Σ(√measured − √modelled)² / Σ measured )",
        extend="both",
    )
    left = MARGIN + 0.7 + _MAP + 1.15
    right = frame.axes(Box(left, HEAD + 0.3, WIDTH - MARGIN - left, _MAP - 0.3), _OF_COUNTS)
    if known_N.any():
        right.hist(residual_N[known_N], bins=_BINS, color=_BLUE, **_SILHOUETTE)
        median = float(np.median(residual_N[known_N]))
        right.axvline(median, color="black", linewidth=1)
        right.set_title(f"median {median:.3g}", **TITLE)
    right.set_xlabel("residual", fontsize=11)
    right.set_ylabel("patterns", fontsize=11)
    right.yaxis.get_major_locator().set_params(integer=True)
    return frame.pixels()


def opr_weights(
    positions_N2: NDArray[np.float64],
    weights_NK: NDArray[np.floating],
    train_index: NDArray[np.int64],
    pixel_size_angstrom: float | None,
    subtitle: str,
    scan_N: NDArray[np.int64] | None = None,
) -> Image:
    """Return how the probe changes over the scan: a map of the weights of each OPR mode, and their course.

    Args:
        positions_N2: Where the points were said to be, (row, column) in pixels.
        weights_NK: The weights; of the modes, the first three are shown.
        train_index: Points that are trained on; weights of the others are interpolated, and not drawn.
        pixel_size_angstrom: Size of a pixel; None if unknown.
        subtitle: Of which run it is, and when.
        scan_N: Which scan each point belongs to, if scans have modes of their own, each of which has maps of its own;
            None: there is one.
    """
    trained = np.sort(train_index)
    scans = [trained] if scan_N is None else [trained[scan_N[trained] == scan] for scan in range(int(scan_N.max()) + 1)]
    num = min(weights_NK.shape[1], max(_MOST_OPR // len(scans), 1))
    shown = [(scan, mode) for scan in range(len(scans)) for mode in range(num)][:_MOST_OPR]
    panels = []
    for scan, mode in shown:
        weights_P = weights_NK[scans[scan], mode]
        name = f"mode {mode + 1}" if len(scans) == 1 else f"scan {scan + 1}, mode {mode + 1}"
        rms = float(np.sqrt((weights_P**2).mean()))
        panels.append(_Panel(scans[scan], weights_P, f"{name}: rms {100 * rms:.3g} % of the probe", name))
    return _over_scan(
        panels, positions_N2, pixel_size_angstrom, ("Change of the probe over the scan (OPR)", subtitle), "weight"
    )


def intensities(
    positions_N2: NDArray[np.float64],
    factors_N: NDArray[np.floating],
    train_index: NDArray[np.int64],
    pixel_size_angstrom: float | None,
    subtitle: str,
) -> Image:
    """Return how the light of patterns varies: a map, and its course.

    Args:
        positions_N2: Where the points were said to be, (row, column) in pixels.
        factors_N: Factor of the light of each pattern.
        train_index: Points that are trained on; the others are not drawn.
        pixel_size_angstrom: Size of a pixel; None if unknown.
        subtitle: Of which run it is, and when.
    """
    trained = np.sort(train_index)
    percent_P = 100 * (factors_N[trained] - 1)
    rms = float(np.sqrt((percent_P**2).mean()))
    panel = _Panel(trained, percent_P, f"rms {rms:.3g} %", "")
    headings = ("Light of the patterns against their mean", subtitle)
    return _over_scan([panel], positions_N2, pixel_size_angstrom, headings, "difference in %")


class _Panel(NamedTuple):
    """Values of some scan points, what is written over their map, and beside the line of their course."""

    points_P: NDArray[np.int64]
    values_P: NDArray[np.floating]
    title: str
    name: str


def _over_scan(
    panels: Sequence[_Panel],
    positions_N2: NDArray[np.float64],
    pixel_size_angstrom: float | None,
    headings: tuple[str, str],
    label: str,
) -> Image:
    """Return maps of values about 0 beside each other, and below them their course."""
    size, unit = _pixel(positions_N2, pixel_size_angstrom)
    places_N2 = size * (positions_N2 - positions_N2.mean(axis=0))
    across = (WIDTH - 2 * MARGIN - 0.7) / max(len(panels), 2)
    frame = Frame(HEAD + across + _COURSE + 1.2, *headings)
    below = frame.axes(Box(MARGIN + 0.7, HEAD + across + 0.1, WIDTH - 2 * MARGIN - 0.7, _COURSE))
    for number, panel in enumerate(panels):
        left, wide = MARGIN + 0.7 + number * across, across - 1.4
        axes = _map_axes(frame, places_N2, unit, wide, left, wide)
        if number:
            axes.set_ylabel("")  # that of the first map holds for all, and the label of a colour bar stands there
        edge = 72 * min(max(0.97 * _inches_apart(axes, places_N2[panel.points_P]), 0.03), 0.5)  # in points
        most = max(float(np.percentile(np.abs(panel.values_P), 99)), 1e-12)
        points = axes.scatter(
            places_N2[panel.points_P, 1],
            places_N2[panel.points_P, 0],
            c=panel.values_P,
            s=edge**2,
            marker="s",
            linewidths=0,
            cmap="RdBu_r",
            vmin=-most,
            vmax=most,
        )
        axes.set_title(panel.title, **TITLE)
        frame.colours(Box(left, HEAD + 0.3, wide, wide), points, label, extend="both")
        below.plot(panel.points_P, panel.values_P, color=SAFE_ON_WHITE[number], linewidth=0.9, label=panel.name or None)
    below.set_xlabel("pattern, in the order of the measurement", fontsize=11)
    below.set_ylabel(label, fontsize=11)
    if any(panel.name for panel in panels):
        below.legend(loc="best", fontsize=10, frameon=False, ncols=len(panels))
    return frame.pixels()


def patterns(
    measured_KYX: NDArray[np.floating],
    modelled_KYX: NDArray[np.floating],
    mask_KYX: NDArray[np.bool_] | None,
    captions: Sequence[str],
    bar: ScaleBar,
    subtitle: str,
) -> Image:
    """Return a picture of measured patterns over modelled ones, with one scale of colours.

    Colours follow the 0.35th power of an intensity, so that the dark field is seen beside the bright one. Below is the
    difference of the square roots, whose noise has the standard deviation 0.5 where intensities are counts above 3.

    Args:
        measured_KYX: Measured intensities, zero frequency at [0, 0].
        modelled_KYX: Modelled ones.
        mask_KYX: Which pixels count; None: all.
        captions: What is written over each pattern.
        bar: The scale bar of a pattern.
        subtitle: Of which run it is, and when.
    """
    from matplotlib.colors import PowerNorm

    columns, side, gap, over = len(captions), 0.95, 0.12, 0.35
    room = (WIDTH - 2 * MARGIN - side - 1.25 - (columns - 1) * gap) / columns
    width, height = fitted(measured_KYX.shape[1:], room, 3.2)
    frame = Frame(
        HEAD + over + 3 * (height + gap) + FOOT, f"Measured and modelled patterns (gamma {_GAMMA:g})", subtitle
    )
    counted_KYX = np.ones(measured_KYX.shape, dtype=bool) if mask_KYX is None else mask_KYX
    difference_KYX = np.sqrt(measured_KYX) - np.sqrt(np.maximum(modelled_KYX, 0.0))
    full = max(float(np.percentile(measured_KYX[counted_KYX], 99.9)), 1e-12) if counted_KYX.any() else 1.0
    edge = max(float(np.percentile(np.abs(difference_KYX[counted_KYX]), 99.5)), 1e-12) if counted_KYX.any() else 1.0
    norm = PowerNorm(_GAMMA, vmin=0.0, vmax=full)
    for row, (name, values_KYX) in enumerate(
        (("measured", measured_KYX), ("modelled", modelled_KYX), ("√measured\n− √modelled", difference_KYX))
    ):
        top = HEAD + over + row * (height + gap)
        frame.text(MARGIN + side - 0.12, top + height / 2, name, fontsize=10, ha="right", va="center")
        for place, caption in enumerate(captions):
            box = Box(MARGIN + side + place * (width + gap), top, width, height)
            values_YX, hidden_YX = np.fft.fftshift(values_KYX[place]), np.fft.fftshift(~counted_KYX[place])
            if row == 0:
                frame.text(box.left, top - 0.08, caption, fontsize=10)
            style: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -edge, "vmax": edge}
            if row < 2:
                style = {"cmap": "magma", "norm": norm}
            shown = frame.image(box, np.ma.array(values_YX, mask=hidden_YX), bad=_HIDDEN, **style)
        last = Box(MARGIN + side + (columns - 1) * (width + gap), top, width, height)
        frame.colours(last, shown, "intensity" if row < 2 else "√intensity", extend="max" if row < 2 else "both")
    frame.bar(Box(MARGIN + side, top, width, height), measured_KYX.shape[2], bar)
    return frame.pixels()


def _pixel(positions_N2: NDArray[np.float64], pixel_size_angstrom: float | None) -> tuple[float, str]:
    """Return the size of a pixel in the unit that suits positions, or displacements (in pixels), and the unit."""
    if pixel_size_angstrom is None:
        return 1.0, "pixels"
    extent = float(np.ptp(positions_N2, axis=0).max()) * pixel_size_angstrom
    scale, unit = next((scale, unit) for scale, unit, least in _UNITS if extent >= least)
    return pixel_size_angstrom / scale, unit


def _times_longer(length: float, places_N2: NDArray[np.float64]) -> int:
    """Return how many times arrows of a typical length are drawn longer."""
    apart = float(np.median(neighbour_distances(places_N2)))
    longer = _LONGER
    while np.isfinite(apart) and 0 < longer * length < _VISIBLE * apart and longer < _LONGEST:
        longer *= 10
    return longer


def _few(places_N2: NDArray[np.float64], length: float) -> NDArray[np.bool_]:
    """Return at which points arrows of a length are drawn: evenly spread, so few that they do not hide each other."""
    num = len(places_N2)
    room = float(np.ptp(places_N2, axis=0).prod()) / max((_CROWDED * length) ** 2, 1e-30)
    most = min(_MOST_ARROWS, room if room > 0 else num)
    chosen_N: NDArray[np.bool_] = (np.arange(num) * _GOLDEN) % 1.0 < most / num
    return chosen_N


def _map_axes(
    frame: Frame,
    places_N2: NDArray[np.float64],
    unit: str,
    width: float = _MAP,
    left: float = MARGIN + 0.7,
    height: float = _MAP - 0.3,
) -> Any:
    """Return axes for a map of the scan, of the same scale along both."""
    box = Box(left, HEAD + 0.3, width, height)
    axes = frame.axes(box)
    axes.set_xlabel(f"column / {unit}", fontsize=11)
    axes.set_ylabel(f"row / {unit}", fontsize=11)
    low_2, high_2 = places_N2.min(axis=0), places_N2.max(axis=0)
    scale = max(float(((high_2 - low_2) / (box.height, box.width)).max()), 1e-9) * 1.12  # units in an inch
    down, across = scale * box.height / 2, scale * box.width / 2
    row, column = (low_2 + high_2) / 2
    axes.set_xlim(column - across, column + across)
    axes.set_ylim(row + down, row - down)
    return axes


def _inches_apart(axes: Any, places_N2: NDArray[np.float64]) -> float:
    """Return the typical distance from one point of a map to the nearest other, in inches."""
    inches_a_unit = axes.get_window_extent().width / axes.figure.dpi / abs(np.subtract(*axes.get_xlim()))
    distances = neighbour_distances(places_N2)
    return float(np.median(distances) * inches_a_unit) if np.isfinite(distances).all() else _MAP
