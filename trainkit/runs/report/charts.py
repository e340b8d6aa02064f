"""Draws charts as SVG: curves over epochs, and the stages of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from trainkit.runs.report.markup import Markup, tag

_Place = Callable[[float], float]

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 14, 46
_NUM_COLOURS = 7
_MOST_POINTS = 800  # of a curve
_MOST_MARKED = 40
_ROW = 26
_NAMES = 130  # width of the names of groups


class Curve(NamedTuple):
    """A curve of a chart.

    Attributes:
        name: Its name.
        points: Place in epochs and value.
    """

    name: str
    points: Sequence[tuple[float, float]]


def chart(title: str, curves: Sequence[Curve], marks: Mapping[float, str], *, is_log: bool) -> Markup:
    """Return a chart with its legend.

    Args:
        title: What it shows.
        curves: Its curves; those without points are left out.
        marks: Epoch -> what begins there.
        is_log: Whether its axis is logarithmic; then what is not positive is left out.
    """
    shown = [Curve(each.name, _fewer([(x, y) for x, y in each.points if not is_log or y > 0])) for each in curves]
    shown = [each for each in shown if each.points]
    if not shown:
        return Markup("")
    values = [math.log10(y) if is_log else y for each in shown for _, y in each.points]
    low, high = _around(min(values), max(values))
    last = max(x for each in shown for x, _ in each.points)

    def place_x(epoch: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * epoch / max(last, 1e-9)

    def place_y(value: float) -> float:
        inside = ((math.log10(value) if is_log else value) - low) / (high - low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * inside

    parts: list[Markup] = []
    for tick in _log_ticks(low, high) if is_log else _ticks(low, high, 5):
        y = place_y(tick)
        parts.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"))
        parts.append(tag("text", f"{tick:.4g}", x=_LEFT - 6, y=f"{y + 4:.1f}", class_="end"))
    for tick in _ticks(0, last, 8, whole=True):
        x = place_x(tick)
        parts.append(tag("text", f"{tick:g}", x=f"{x:.1f}", y=_HEIGHT - _BOTTOM + 18, class_="middle"))
    lines, labels = _marks(marks, last, place_x)
    parts += lines
    for number, each in enumerate(shown):
        parts.append(_curve(each, number, place_x, place_y))
    parts += labels
    parts.append(tag("text", "finished epochs", x=(_LEFT + _WIDTH) / 2, y=_HEIGHT - 4, class_="middle"))
    drawing = tag(
        "svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=f"{title} over finished epochs"
    )
    return tag("figure", tag("figcaption", title), drawing, _legend(shown), class_="chart")


def _curve(curve: Curve, number: int, place_x: _Place, place_y: _Place) -> Markup:
    colour = f"c{number % _NUM_COLOURS}" + (" dashed" if number >= _NUM_COLOURS else "")
    points = [(f"{place_x(x):.1f}", f"{place_y(y):.1f}") for x, y in curve.points]
    parts = [tag("title", curve.name), tag("polyline", points=" ".join(f"{x},{y}" for x, y in points))]
    if len(points) <= _MOST_MARKED:
        for (x, y), (epoch, value) in zip(points, curve.points, strict=True):
            parts.append(tag("circle", tag("title", f"{curve.name}: {value:.6g} at {epoch:g}"), cx=x, cy=y, r=3))
    return tag("g", *parts, class_=f"curve {colour}")


def _marks(marks: Mapping[float, str], last: float, place_x: _Place) -> tuple[list[Markup], list[Markup]]:
    """Return a line for each mark, which is drawn below the curves, and its label, which is drawn above them."""
    lines, labels = [], []
    for number, (epoch, what) in enumerate(sorted(marks.items())):
        if 0 < epoch <= last:
            x = f"{place_x(epoch):.1f}"
            title = tag("title", f"{what}, after {epoch:g} epochs")
            line = tag("line", x1=x, x2=x, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="mark")
            lines.append(tag("g", title, line))
            labels.append(tag("text", title, what, x=float(x) + 3, y=_TOP + 9 + 11 * (number % 4), class_="mark"))
    return lines, labels


def _legend(curves: Sequence[Curve]) -> Markup:
    items = []
    for number, each in enumerate(curves):
        colour = f"c{number % _NUM_COLOURS}" + (" dashed" if number >= _NUM_COLOURS else "")
        swatch = tag("svg", tag("line", x1=0, x2=22, y1=6, y2=6), viewBox="0 0 22 12", class_=f"swatch curve {colour}")
        items.append(tag("li", swatch, f" {each.name} ", tag("span", f"{each.points[-1][1]:.5g}", class_="quiet")))
    return tag("ul", *items, class_="legend")


def timeline(groups: Mapping[str, Sequence[tuple[int, int]]], epochs: int) -> Markup:
    """Return a chart of when each parameter group trained.

    Args:
        groups: Name -> stretches in which it trained: finished epochs before, and after.
        epochs: Number of finished epochs.
    """
    if not groups or epochs == 0:
        return Markup("")
    height = _ROW * len(groups) + 24

    def place(epoch: float) -> float:
        return _NAMES + (_WIDTH - _NAMES - _RIGHT) * epoch / epochs

    parts: list[Markup] = []
    for number, (name, stretches) in enumerate(groups.items()):
        y = _ROW * number
        shown = name if len(name) <= 18 else f"{name[:17]}…"
        parts.append(tag("text", tag("title", name), shown, x=_NAMES - 8, y=y + 17, class_="end name"))
        parts.append(tag("rect", x=_NAMES, y=y + 4, width=_WIDTH - _NAMES - _RIGHT, height=_ROW - 8, class_="still"))
        for begin, end in stretches:
            title = tag("title", f"{name} trains from {begin} to {end} finished epochs")
            width = f"{place(end) - place(begin):.1f}"
            colour = f"trains f{number % _NUM_COLOURS}"
            parts.append(
                tag("rect", title, x=f"{place(begin):.1f}", y=y + 4, width=width, height=_ROW - 8, class_=colour)
            )
    for tick in _ticks(0, epochs, 8, whole=True):
        parts.append(tag("text", f"{tick:g}", x=f"{place(tick):.1f}", y=height - 6, class_="middle"))
    return tag("svg", *parts, viewBox=f"0 0 {_WIDTH} {height}", role="img", aria_label="when each group trained")


def _fewer(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most so many points that a curve looks the same: the least and the largest of each stretch."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    size = -(-len(points) // (_MOST_POINTS // 2))
    kept = []
    for begin in range(0, len(points), size):
        part = points[begin : begin + size]
        kept += sorted({min(part, key=lambda each: each[1]), max(part, key=lambda each: each[1])})
    return [*kept, points[-1]] if kept[-1] != points[-1] else kept


def _around(low: float, high: float) -> tuple[float, float]:
    if low == high:
        return low - (abs(low) or 1.0) * 0.1, high + (abs(high) or 1.0) * 0.1
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def _ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    rough = (high - low) / most
    if not rough > 0 or not math.isfinite(rough):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, step)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(low), math.ceil(high) + 1)
    factors = (1,) if high - low > 3 else (1, 2, 5) if high - low > 0.7 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    found = [factor * 10.0**power for power in powers for factor in factors]
    inside = [each for each in found if low <= math.log10(each) <= high]
    return inside if len(inside) >= 2 else [10**each for each in _ticks(low, high, 4)]
