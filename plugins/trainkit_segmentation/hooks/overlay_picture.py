"""Draws cases below each other: the planes of each to one scale, a scale bar, letters of the sides, and a legend.

Shapes: K = classes, C = the three colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import attrs
import numpy as np

from trainkit import SAFE_ON_DARK, picture_font, scale_bar
from trainkit_segmentation.hooks.overlay_panel import OPACITY, Image, Plane, colour_of, content, panel
from trainkit_segmentation.hooks.views import View

# All in pixels.
_WIDTH, _HEIGHT = 1260, 440  # of the planes of a case: their widths together, and the height of the tallest
_MOST = 1024  # of the longest edge of a plane, where it is enlarged until no voxel is less than a pixel
_NARROWEST = 180  # of a plane and what stands above it
_GAP, _LINE, _SMALL_LINE = 14, 22, 18
_LEGEND, _MOST_COLUMNS = 250, 3  # of the legend: width of a column, and number of columns


@attrs.frozen
class ShownCase:
    """A case in the picture.

    Attributes:
        name: Its name.
        standing: What it is shown for, for example "the worst of 16"; "" if it was asked for.
        planes: Its planes.
        dice_K: Dice of each class over the whole volume; NaN if neither truth nor prediction has it.
        annotated_K: Whether each class was annotated in the case; None: all were.
        has_spacing: Whether the size of a voxel is known.
        in_truth_K: Whether the truth has each class; None: it is not known.
    """

    name: str
    standing: str
    planes: Sequence[Plane]
    dice_K: Sequence[float]
    annotated_K: Sequence[bool] | None = None
    has_spacing: bool = True
    in_truth_K: Sequence[bool] | None = None

    def has_truth_of(self, k: int) -> bool:
        """Return whether class k was annotated, and found by whoever did."""
        return (self.annotated_K is None or self.annotated_K[k]) and (self.in_truth_K is None or self.in_truth_K[k])

    @property
    def score(self) -> float:
        """Mean Dice over the annotated classes that truth or prediction has; 1 if there is none: nothing is wrong."""
        known = self.annotated_K or [True] * len(self.dice_K)
        scores = [dice for dice, annotated in zip(self.dice_K, known, strict=True) if annotated and dice == dice]
        return sum(scores) / len(scores) if scores else 1.0


def draw(cases: Sequence[ShownCase], classes: Sequence[str], title: str) -> Image:
    """Return a picture with a row for each case.

    Args:
        cases: The cases.
        classes: K names.
        title: What stands above.
    """
    layouts = [_layout(case) for case in cases]
    legend_left = max(layout.width for layout in layouts) + _GAP
    rows = [_row(case, layout, classes, legend_left) for case, layout in zip(cases, layouts, strict=True)]
    width = max(row.shape[1] for row in rows)
    parts = [_words([title], width, 18), *rows, _words(_key(cases), width, 14)]
    height = sum(len(part) + _GAP for part in parts) + _GAP
    picture_HWC = np.zeros((height, width + 2 * _GAP, 3), np.uint8)
    top = _GAP
    for part in parts:
        picture_HWC[top : top + len(part), _GAP : _GAP + part.shape[1]] = part
        top += len(part) + _GAP
    return picture_HWC


class _Layout(NamedTuple):
    """Where the planes of a case are in its row.

    Attributes:
        boxes: Rows and columns of each plane that are shown.
        sizes: Height and width of each plane as shown.
        scale: Pixels per mm.
        width: Width of all planes.
        height: Height of the tallest.
    """

    boxes: list[tuple[slice, slice]]
    sizes: list[tuple[int, int]]
    scale: float
    width: int
    height: int


def _layout(case: ShownCase) -> _Layout:
    boxes = [content(plane) for plane in case.planes]
    heights_mm = [
        p.view.spacing_mm[1] * (rows.stop - rows.start) for p, (rows, _) in zip(case.planes, boxes, strict=True)
    ]
    widths_mm = [p.view.spacing_mm[0] * (box[1].stop - box[1].start) for p, box in zip(case.planes, boxes, strict=True)]
    scale = min(_WIDTH / sum(widths_mm), _HEIGHT / max(heights_mm))
    smallest_mm = min(min(plane.view.spacing_mm) for plane in case.planes)
    scale = max(scale, min(1 / smallest_mm, _MOST / max(heights_mm + widths_mm)))
    sizes = [(max(1, round(h * scale)), max(1, round(w * scale))) for h, w in zip(heights_mm, widths_mm, strict=True)]
    width = sum(max(width, _NARROWEST) + _GAP for _, width in sizes)
    return _Layout(boxes, sizes, scale, width, max(height for height, _ in sizes))


def _row(case: ShownCase, layout: _Layout, classes: Sequence[str], legend_left: int) -> Image:
    """Return the planes of a case beside each other, with the legend to their right."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    numbered = len(classes) > len(SAFE_ON_DARK)
    top, lines = 2 * _LINE, _legend(case, classes)
    in_column = max(layout.height // _SMALL_LINE, 8)
    columns = min(-(-len(lines) // in_column), _MOST_COLUMNS)
    if len(lines) > in_column * columns:
        named = in_column * columns - 1
        lines = [*lines[:named], (None, f"and {len(lines) - named} more")]
    height = top + max(layout.height + _LINE, in_column * _SMALL_LINE)
    canvas = Pillow.new("RGB", (legend_left + columns * _LEGEND, height))
    pen = ImageDraw.Draw(canvas)

    standing = f"{case.standing}, " if case.standing else ""
    pen.text((0, 0), f"{case.name}   ({standing}mean Dice {case.score:.3f})", fill="white", font=picture_font(16))
    small, left = picture_font(13), 0
    for plane, box, size in zip(case.planes, layout.boxes, layout.sizes, strict=True):
        pen.text((left, _LINE), f"{plane.view.name}: {plane.position}", fill="#c0c0c0", font=small)
        shown_HWC, middles = panel(plane, box, size)
        canvas.paste(Pillow.fromarray(shown_HWC), (left, top))
        for which, (x, y) in middles.items() if numbered else ():
            _outlined(pen, (left + x, top + y), str(which + 1), 13, "mm")
        _mark_sides(pen, plane.view, left, top, size)
        left += max(size[1], _NARROWEST) + _GAP
    _draw_bar(pen, layout, top + layout.height + 5, case.has_spacing)
    for number, (k, text) in enumerate(lines):
        x, y = legend_left + number // in_column * _LEGEND, top + number % in_column * _SMALL_LINE
        if k is not None:
            colour = colour_of(k)
            fill, outline = (tuple(int(value) for value in each) for each in (OPACITY * colour, colour))
            pen.rectangle((x, y + 2, x + 20, y + 14), fill=fill, outline=outline)
            text = f"{k + 1} {text}" if numbered else text
        pen.text((x + 28, y), _fitting(text, small), fill="white", font=small)
    return np.array(canvas, dtype=np.uint8)


def _legend(case: ShownCase, classes: Sequence[str]) -> list[tuple[int | None, str]]:
    """Return class and text of each line: all classes if these are few, else those that the case has."""
    few = len(classes) <= len(SAFE_ON_DARK)
    shown = [k for k, dice in enumerate(case.dice_K) if few or dice == dice]
    annotated_K = case.annotated_K or [True] * len(classes)
    lines: list[tuple[int | None, str]] = [
        (k, f"{classes[k]}  {_score_in_words(case.dice_K[k], annotated_K[k])}") for k in shown
    ]
    return lines if len(lines) == len(classes) else [*lines, (None, f"{len(classes) - len(lines)} others are absent")]


def _score_in_words(dice: float, annotated: bool) -> str:
    if not annotated:
        return "not annotated"
    return f"{dice:.3f}" if dice == dice else "absent"


def _fitting(text: str, font: Any) -> str:
    """Return the text of a line of the legend, with a shorter name if there is no room for the whole one."""
    room = _LEGEND - 40
    if font.getlength(text) <= room:
        return text
    name, _, score = text.rpartition("  ")
    while name and font.getlength(f"{name}…  {score}") > room:
        name = name[:-1]
    return f"{name}…  {score}"


def _mark_sides(pen: Any, view: View, left: int, top: int, size: tuple[int, int]) -> None:
    height, width = size
    _outlined(pen, (left + 5, top + height // 2), view.left, 18, "lm")
    _outlined(pen, (left + width - 5, top + height // 2), view.right, 18, "rm")
    _outlined(pen, (left + width // 2, top + 4), view.top, 18, "mt")
    _outlined(pen, (left + width // 2, top + height - 5), view.bottom, 18, "mb")


def _outlined(pen: Any, place: tuple[float, float], text: str, size: int, anchor: str) -> None:
    pen.text(place, text, fill="white", font=picture_font(size), anchor=anchor, stroke_width=2, stroke_fill="black")


def _draw_bar(pen: Any, layout: _Layout, top: int, has_spacing: bool) -> None:
    """Draw the scale bar of all planes of a case; in voxels, if their size is unknown."""
    width = layout.sizes[0][1]
    if has_spacing:
        length, label = scale_bar(width, 1e-3 / layout.scale)
    else:  # a voxel counts as 1 mm
        voxels, label = scale_bar(width / layout.scale, None)
        length, label = voxels * layout.scale, label.replace("pixel", "voxel")
    pen.rectangle((0, top + 2, round(length) - 1, top + 7), fill="white")
    pen.text((round(length) + 8, top + 5), label, fill="white", font=picture_font(14), anchor="lm")


def _key(cases: Sequence[ShownCase]) -> list[str]:
    """Return what is drawn how, in words."""
    planes = [plane for case in cases for plane in case.planes]
    veil = ";  grey veil: ignored" if any(plane.ignored_HW is not None for plane in planes) else ""
    lines = [f"filled: truth;  line: prediction;  number: Dice of the case{veil}"]
    if any(plane.view.left for plane in planes):
        lines.append(
            "R, L, A, P, S, I: the patient's right, left, front, back, head, feet; right is on the left (radiological)"
        )
    if not all(plane.view.left for plane in planes):
        lines.append("no letters: the file does not say how its axes lie")
    return lines


def _words(lines: Sequence[str], width: int, size: int) -> Image:
    from PIL import Image as Pillow
    from PIL import ImageDraw

    canvas = Pillow.new("RGB", (width, (size + 6) * len(lines)))
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        pen.text((0, (size + 6) * number), line, fill="white", font=picture_font(size))
    return np.array(canvas, dtype=np.uint8)
