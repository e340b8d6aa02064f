"""Draws planes of a volume with truth and prediction in colours.

Shapes: K = classes, H, W = rows and columns of a plane, C = the three colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_OPACITY = 0.45
_IGNORED = (0.75, 0.75, 0.75)
_MOST_NAMED = 12  # classes in the legend


class Plane(NamedTuple):
    """One plane.

    Attributes:
        title: Title of the plane.
        image_HW: The image.
        found_KHW: Predicted mask of each class.
        true_KHW: True mask of each class.
        aspect: Height of a voxel over its width.
        grey: Values of the image for black and white.
        ignored_HW: Where voxels are ignored; None: nowhere.
    """

    title: str
    image_HW: NDArray[Any]
    found_KHW: NDArray[np.bool_]
    true_KHW: NDArray[np.bool_]
    aspect: float
    grey: tuple[float, float]
    ignored_HW: NDArray[np.bool_] | None = None


def draw(
    planes: Sequence[Plane],
    classes: Sequence[str],
    dice_K: Sequence[float],
    caption: str,
    annotated_K: Sequence[bool] | None = None,
) -> NDArray[np.uint8]:
    """Return a picture with a column for each plane, the truth above the prediction, and a legend.

    Args:
        planes: The planes.
        classes: K names.
        dice_K: Dice of each class over the whole volume; NaN if neither truth nor prediction has it.
        caption: Text above the planes.
        annotated_K: Whether each class was annotated in the case; None: all were.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours_KC = _colours(len(classes))
    figure = Figure(figsize=(3.2 * len(planes), 7.4), dpi=100, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    figure.suptitle(caption)
    axes = figure.subplots(2, len(planes), squeeze=False)
    for column, plane in enumerate(planes):
        for row, (what, masks_KHW) in enumerate((("truth", plane.true_KHW), ("prediction", plane.found_KHW))):
            ax = axes[row][column]
            ax.imshow(plane.image_HW, cmap="gray", vmin=plane.grey[0], vmax=plane.grey[1], aspect=plane.aspect)
            ax.imshow(_coloured(masks_KHW, colours_KC), aspect=plane.aspect, interpolation="nearest")
            if plane.ignored_HW is not None:
                veil_HW4 = plane.ignored_HW[..., None] * np.array([*_IGNORED, _OPACITY])
                ax.imshow(veil_HW4, aspect=plane.aspect, interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
            if row == 0:
                ax.set_title(plane.title, fontsize=10)
            if column == 0:
                ax.set_ylabel(what)
    named = [
        Patch(color=colour, label=f"{name}  {_score_in_words(score, annotated)}")
        for name, score, annotated, colour in zip(
            classes, dice_K, annotated_K or [True] * len(classes), colours_KC, strict=True
        )
    ][:_MOST_NAMED]
    if len(classes) > _MOST_NAMED:
        named.append(Patch(color="none", label=f"and {len(classes) - _MOST_NAMED} more"))
    if any(plane.ignored_HW is not None for plane in planes):
        named.append(Patch(color=(*_IGNORED, _OPACITY), label="ignored"))
    figure.legend(handles=named, loc="outside lower center", ncols=min(3, len(named)), fontsize=9, frameon=False)
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[:, :, :3]


def _score_in_words(dice: float, annotated: bool) -> str:
    if not annotated:
        return "not annotated"
    return f"Dice {dice:.3f}" if dice == dice else "absent"


def _colours(number: int) -> NDArray[np.float64]:
    """Return distinct colours for classes: ten well-known ones, or as many hues as needed."""
    from matplotlib import colormaps

    distinct = [3, 2, 0, 1, 4, 6, 8, 9, 5, 7]  # red and green first: they stand out from grey
    if number <= len(distinct):
        return np.asarray(colormaps["tab10"](distinct))[:number, :3]
    return np.asarray(colormaps["gist_rainbow"](np.linspace(0, 1, number)))[:, :3]


def _coloured(masks_KHW: NDArray[np.bool_], colours_KC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return classes as (H, W, 4), later ones over earlier ones, with an opaque edge around each."""
    layer_HW4 = np.zeros((*masks_KHW.shape[1:], 4))
    for mask_HW, colour in zip(masks_KHW, colours_KC, strict=True):
        layer_HW4[mask_HW] = (*colour, _OPACITY)
    for mask_HW, colour in zip(masks_KHW, colours_KC, strict=True):
        layer_HW4[_edge(mask_HW)] = (*colour, 1.0)
    return layer_HW4


def _edge(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a mask with a neighbour outside it."""
    padded = np.pad(mask_HW, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: NDArray[np.bool_] = mask_HW & ~inside
    return edge
