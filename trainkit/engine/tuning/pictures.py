"""Draws a search: its history, what decides, the values of all keys, and the Pareto front of several objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.contracts import Monitor
from trainkit.drawing.palette import SAFE_ON_WHITE
from trainkit.engine.command_settings import draw_picture
from trainkit.engine.tuning.records import TrialRecord, best_trials
from trainkit.engine.tuning.table import short_names
from trainkit.recipe.search import Parameter, shown_in_short

if TYPE_CHECKING:
    from trainkit.console import Console

_BLUE, _VERMILION, _GREEN, _SKY, _PURPLE, _ORANGE, _BLACK = SAFE_ON_WHITE
_DPI = 120
_WIDTH = 11.0  # inches: 1,320 pixels
_MAP = "cividis"  # looks nearly the same to people who see fewer colours
_DECADES = 30.0  # a ratio of values from which on an axis is logarithmic
_MOST_PANELS = 12
_SLANTED = {"rotation": 20, "ha": "right", "rotation_mode": "anchor"}  # of names below an axis
_BESIDE: dict[str, Any] = {
    "textcoords": "offset points",
    "fontsize": 8,
    "va": "center",
    "bbox": {"boxstyle": "square,pad=0.1", "facecolor": "white", "alpha": 0.75, "linewidth": 0},
}
_LONGEST = 22  # characters of a choice beside an axis


def draw_study(
    folder: Path,
    records: Sequence[TrialRecord],
    judged_by: Sequence[Monitor],
    parameters: Sequence[Parameter],
    importances: Sequence[Mapping[str, float]],
    console: Console,
) -> list[str]:
    """Draw the pictures of a search that its trials allow, and return their names.

    Args:
        folder: Where they are written.
        records: The trials.
        judged_by: The values by which they are judged.
        parameters: The searched keys.
        importances: For each of these values: searched key -> its share in what makes trials good.
        console: Says what cannot be drawn.
    """
    finished = [each for each in records if each.values is not None]
    if not finished:
        return []
    pictures = {"history.png": lambda path: _history(path, records, judged_by)}
    if any(importances):
        pictures["importances.png"] = lambda path: _importances(path, judged_by, parameters, importances)
    if len(finished) > 1:
        pictures["slices.png"] = lambda path: _slices(path, finished, judged_by, parameters)
        pictures["parallel.png"] = lambda path: _parallel(path, finished, judged_by, parameters)
    if len(judged_by) > 1:
        pictures["pareto.png"] = lambda path: _pareto(path, finished, judged_by)
    for name, draw in pictures.items():
        draw_picture(folder / name, draw, console)
    return [name for name in pictures if (folder / name).is_file()]


def _figure(height: float, **margins: float) -> Any:
    """Return a figure; margins are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
    inches = {"left": 0.9, "right": 0.3, "bottom": 0.6, "top": 0.4} | margins
    figure.subplots_adjust(
        left=inches["left"] / _WIDTH,
        right=1 - inches["right"] / _WIDTH,
        bottom=inches["bottom"] / height,
        top=1 - inches["top"] / height,
        hspace=inches.get("hspace", 0.3),
        wspace=inches.get("wspace", 0.25),
    )
    FigureCanvasAgg(figure)
    return figure


def _scale(axis: Any, values: Sequence[float]) -> None:
    """Make an axis logarithmic if its values span decades."""
    if min(values) > 0 and max(values) / min(values) >= _DECADES:
        axis("log")


def _better(judged: Monitor) -> str:
    return f"{judged.metric} ({'smaller' if judged.mode == 'min' else 'larger'} is better)"


# ---- history --------------------------------------------------------------------------------------------------------


def _history(path: Path, records: Sequence[TrialRecord], judged_by: Sequence[Monitor]) -> None:
    height = 1.0 + 3.6 * len(judged_by)
    figure = _figure(height, hspace=0.12)
    axes = figure.subplots(len(judged_by), 1, sharex=True, squeeze=False)[:, 0]
    for index, (ax, judged) in enumerate(zip(axes, judged_by, strict=True)):
        good = [(each.number, each.values[index]) for each in records if each.values is not None]
        early = [
            (each.number, each.reached)
            for each in records
            if each.became == "ended early" and each.reached is not None and len(judged_by) == 1
        ]
        _scale(ax.set_yscale, [value for _, value in (*good, *early)])
        ax.plot(*zip(*good, strict=True), "o", color=_BLUE, label="finished", markersize=6)
        if early:
            marks = {"markerfacecolor": "white", "markersize": 6}
            ax.plot(*zip(*early, strict=True), "v", color=_ORANGE, label="ended early (its last value)", **marks)
        if len(judged_by) == 1:
            ax.plot(
                *_best_so_far(good, judged), drawstyle="steps-post", color=_BLACK, linewidth=1.2, label="best so far"
            )
        best = {each.number for each in best_trials(records, judged_by)}
        front = [each for each in good if each[0] in best]
        rings = {"markerfacecolor": "none", "markersize": 13, "markeredgewidth": 1.6}
        label = "best" if len(judged_by) == 1 else "on the Pareto front"
        ax.plot(*zip(*front, strict=True), "o", color=_VERMILION, label=label, **rings)
        if doubtful := [(e.number, e.values[index]) for e in records if e.values is not None and e.doubts]:
            ax.plot(*zip(*doubtful, strict=True), "s", color=_PURPLE, label="doubtful", **rings)
        if failed := [each.number for each in records if each.became == "failed"]:
            ax.plot(
                failed, [0.03] * len(failed), "x", color=_VERMILION, transform=ax.get_xaxis_transform(), label="failed"
            )
        ax.set_ylabel(_better(judged))
        ax.grid(alpha=0.3)
        ax.legend(fontsize=9)
        ax.margins(y=0.12)
    axes[-1].set_xlabel("trial")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_title(f"history of {len(records)} trials", fontsize=11, loc="left")
    figure.savefig(path, format="png")


def _best_so_far(good: Sequence[tuple[int, float]], judged: Monitor) -> tuple[list[int], list[float]]:
    numbers, values = [], []
    best: float | None = None
    for number, value in good:
        best = value if best is None or judged.better(value, best) else best
        numbers.append(number)
        values.append(best)
    return numbers, values


# ---- importances ----------------------------------------------------------------------------------------------------


def _importances(
    path: Path,
    judged_by: Sequence[Monitor],
    parameters: Sequence[Parameter],
    importances: Sequence[Mapping[str, float]],
) -> None:
    short = dict(zip([p.name for p in parameters], short_names([p.name for p in parameters]), strict=True))
    names = sorted(short, key=lambda name: sum(each.get(name, 0.0) for each in importances))
    figure = _figure(1.4 + 0.45 * len(names) * max(1, 0.7 * len(judged_by)), left=2.6)
    ax = figure.subplots()
    thick = 0.75 / len(judged_by)
    for index, (judged, found) in enumerate(zip(judged_by, importances, strict=True)):
        offsets = [place + (index - (len(judged_by) - 1) / 2) * thick for place in range(len(names))]
        shares = [found.get(name, 0.0) for name in names]
        colour = SAFE_ON_WHITE[index % len(SAFE_ON_WHITE)]
        ax.barh(offsets, shares, thick * 0.9, color=colour, label=judged.metric)
        for place, share in zip(offsets, shares, strict=True):
            ax.text(share + 0.01, place, f"{share:.0%}", va="center", fontsize=9)
    ax.set_yticks(range(len(names)), [_cut(short[name], 28) for name in names])
    ax.set_xlim(0, 1.1 * max(max(each.values(), default=0.0) for each in importances) + 0.03)
    ax.set_xlabel("share in what makes a trial good (PED-ANOVA)")
    ax.set_title("which keys decide", fontsize=11, loc="left")
    if len(judged_by) > 1:
        ax.legend(fontsize=9, loc="lower right")
    ax.grid(alpha=0.3, axis="x")
    figure.savefig(path, format="png")


# ---- values of keys -------------------------------------------------------------------------------------------------


def _slices(
    path: Path, finished: Sequence[TrialRecord], judged_by: Sequence[Monitor], parameters: Sequence[Parameter]
) -> None:
    """Draw the values of trials over each key; colours tell the order of the trials."""
    shown_keys = list(parameters)[:_MOST_PANELS]
    columns = min(4 if len(shown_keys) > 3 else 3, len(shown_keys))
    rows = math.ceil(len(shown_keys) / columns) * len(judged_by)
    figure = _figure(1.1 + 2.9 * rows, right=1.1, hspace=0.55, wspace=0.12, bottom=0.9)
    axes = figure.subplots(rows, columns, squeeze=False, sharey="row")
    names = short_names([each.name for each in parameters])
    best = {each.number for each in best_trials(finished, judged_by)}
    used, points = set(), None
    for index, judged in enumerate(judged_by):
        for number, parameter in enumerate(shown_keys):
            row, column = divmod(number, columns)
            ax = axes[row + index * (rows // len(judged_by)), column]
            used.add(ax)
            some = [each for each in finished if parameter.name in each.parameters]
            xs = [_place(parameter, each) for each in some]
            ys = [each.values[index] for each in some if each.values is not None]
            if ys:
                _scale(ax.set_yscale, [each.values[index] for each in finished if each.values is not None])
                order = [each.number for each in some]
                limits = {"vmin": 0, "vmax": max(finished[-1].number, 1)}
                points = ax.scatter(xs, ys, c=order, cmap=_MAP, s=38, edgecolors=_BLACK, linewidths=0.5, **limits)
                rings = [(x, y) for x, y, each in zip(xs, ys, some, strict=True) if each.number in best]
                if rings:
                    ring: dict[str, Any] = {"facecolors": "none", "edgecolors": _VERMILION, "linewidths": 1.8}
                    ax.scatter(*zip(*rings, strict=True), s=150, **ring)
            _axis_of(ax, parameter, names[number])
            if column == 0:
                ax.set_ylabel(judged.metric)
            ax.grid(alpha=0.3)
    for ax in axes.flat:
        if ax not in used:
            ax.set_axis_off()
    if points is not None:
        height = figure.get_figheight()
        bar = figure.add_axes((1 - 0.85 / _WIDTH, 0.9 / height, 0.15 / _WIDTH, 1 - 1.3 / height))
        figure.colorbar(points, cax=bar, label="trial")
    ringed = "the best one" if len(judged_by) == 1 else "those on the Pareto front"
    more = f"; {len(parameters) - _MOST_PANELS} keys more" if len(parameters) > _MOST_PANELS else ""
    figure.suptitle(f"finished trials over each key; ringed: {ringed}{more}", fontsize=11, x=0.9 / _WIDTH, ha="left")
    figure.savefig(path, format="png")


def _axis_of(ax: Any, parameter: Parameter, name: str) -> None:
    """Give an axis the range of a key."""
    if parameter.kind == "choice":
        labels = [_cut(shown_in_short(each), _LONGEST) for each in parameter.labels]
        style: dict[str, Any] = _SLANTED if sum(map(len, labels)) > 24 else {}
        ax.set_xticks(range(len(labels)), labels, fontsize=8, **style)
        ax.set_xlim(-0.5, len(labels) - 0.5)
    elif parameter.log:
        ax.set_xscale("log")
        wider = (parameter.high / parameter.low) ** 0.05
        ax.set_xlim(parameter.low / wider, parameter.high * wider)
    else:
        wider = 0.05 * (parameter.high - parameter.low)
        ax.set_xlim(parameter.low - wider, parameter.high + wider)
    ax.set_xlabel(_cut(name, 34))


def _place(parameter: Parameter, trial: TrialRecord) -> float:
    value = trial.parameters[parameter.name]
    return float(parameter.labels.index(value)) if parameter.kind == "choice" else float(value)


def _parallel(
    path: Path, finished: Sequence[TrialRecord], judged_by: Sequence[Monitor], parameters: Sequence[Parameter]
) -> None:
    """Draw each trial as a line through its values on parallel axes; colours tell its rank."""
    from matplotlib import colormaps

    figure = _figure(5.2, left=0.9, right=1.0, bottom=0.9, top=0.7)
    ax = figure.subplots()
    best = {each.number for each in best_trials(finished, judged_by)}
    spans = [_span([each.values[i] for each in finished if each.values is not None]) for i in range(len(judged_by))]
    sign = 1.0 if judged_by[0].mode == "min" else -1.0
    ranked = sorted(finished, key=lambda each: sign * each.values[0] if each.values is not None else 0.0, reverse=True)
    for rank, each in enumerate(ranked):
        assert each.values is not None
        ys = [_height(p, each) for p in parameters]
        ys += [_on_axis(value, *span) for value, span in zip(each.values, spans, strict=True)]
        is_best = each.number in best
        colour = _VERMILION if is_best else colormaps[_MAP](0.9 * (1 - rank / max(len(ranked) - 1, 1)))
        ax.plot(range(len(ys)), ys, color=colour, linewidth=2.6 if is_best else 1.3, zorder=3 if is_best else 2)
    names = [_cut(name, 24) for name in short_names([p.name for p in parameters])] + [each.metric for each in judged_by]
    for place, parameter in enumerate(parameters):
        ax.axvline(place, color="grey", linewidth=0.8, zorder=1)
        for height, label in _ticks(parameter):
            ax.annotate(label, (place, height), (4, 0), zorder=4, **_BESIDE)
    for place, (low, high, is_log) in enumerate(spans, start=len(parameters)):
        ax.axvline(place, color=_BLACK, linewidth=1.2, zorder=1)
        middle = math.sqrt(low * high) if is_log else (low + high) / 2
        for height, value in ((0.0, low), (0.5, middle), (1.0, high)):
            ax.annotate(f"{value:.4g}", (place, height), (4, 0), **_BESIDE)
    slanted: dict[str, Any] = _SLANTED if len(names) > 4 else {}
    ax.set_xticks(range(len(names)), names, fontsize=9, **slanted)
    ax.set_yticks([])
    ax.set_ylim(-0.06, 1.06)
    ax.set_xlim(-0.15, len(names) - 0.75)
    for side in ("left", "right", "top", "bottom"):
        ax.spines[side].set_visible(False)
    which = "the best trial" if len(judged_by) == 1 else "those on the Pareto front"
    title = f"values of the finished trials: the yellower, the worse in {judged_by[0].metric}; thick: {which}"
    if any(parameter.name not in each.parameters for parameter in parameters for each in finished):
        title += "; below an axis: not searched"
    ax.set_title(title, fontsize=11, loc="left", pad=14)
    figure.savefig(path, format="png")


def _span(values: Sequence[float]) -> tuple[float, float, bool]:
    """Return the ends of an axis, and whether it is logarithmic."""
    low, high = min(values), max(values)
    return low, high, low > 0 and high / low >= _DECADES


def _on_axis(value: float, low: float, high: float, is_log: bool) -> float:
    if low == high:
        return 0.5
    if is_log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _height(parameter: Parameter, trial: TrialRecord) -> float:
    """Return where a trial crosses the axis of a key, from 0 to 1; below it if the key was not searched."""
    if parameter.name not in trial.parameters:
        return -0.06
    if parameter.kind == "choice":
        return _on_axis(_place(parameter, trial), 0, len(parameter.labels) - 1, False)
    return _on_axis(_place(parameter, trial), parameter.low, parameter.high, parameter.log)


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    if parameter.kind == "choice":
        most = len(parameter.labels) - 1
        return [(number / most, _cut(shown_in_short(each), _LONGEST)) for number, each in enumerate(parameter.labels)]
    low, high = parameter.low, parameter.high
    middle = math.sqrt(low * high) if parameter.log else (low + high) / 2
    return [(0.0, f"{low:g}"), (0.5, f"{middle:.3g}"), (1.0, f"{high:g}")]


# ---- several objectives ---------------------------------------------------------------------------------------------


def _pareto(path: Path, finished: Sequence[TrialRecord], judged_by: Sequence[Monitor]) -> None:
    pairs = list(combinations(range(len(judged_by)), 2))[:6]
    columns = min(len(pairs), 3)
    rows = math.ceil(len(pairs) / columns)
    figure = _figure(1.1 + (5.2 if columns == 1 else 3.6) * rows, wspace=0.3)
    axes = figure.subplots(rows, columns, squeeze=False)
    best = {each.number for each in best_trials(finished, judged_by)}
    for ax in axes.flat[len(pairs) :]:
        ax.set_axis_off()
    for ax, (one, other) in zip(axes.flat, pairs, strict=False):
        points = {each.number: (each.values[one], each.values[other]) for each in finished if each.values is not None}
        for axis, values in (
            (ax.set_xscale, [x for x, _ in points.values()]),
            (ax.set_yscale, [y for _, y in points.values()]),
        ):
            _scale(axis, values)
        others = [point for number, point in points.items() if number not in best]
        if others:
            ax.plot(*zip(*others, strict=True), "o", color=_SKY, markersize=6, label="beaten by another trial")
        front = sorted(point for number, point in points.items() if number in best)
        line = {"drawstyle": "default", "linestyle": "-" if len(judged_by) == 2 else "none"}
        ax.plot(*zip(*front, strict=True), "o", color=_VERMILION, markersize=8, label="on the Pareto front", **line)
        for number in best:
            ax.annotate(str(number), points[number], (6, 6), textcoords="offset points", fontsize=9)
        ax.set_xlabel(_better(judged_by[one]))
        ax.set_ylabel(_better(judged_by[other]))
        ax.grid(alpha=0.3)
        ax.legend(fontsize=9)
    axes.flat[0].set_title("numbers are those of trials", fontsize=11, loc="left")
    figure.savefig(path, format="png")


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
