"""Draws where a prediction is uncertain, before and after calibration, beside what is true and what was found.

Shapes: K = scores, L = 1 or classes, U, V = voxels of a plane.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from trainkit_segmentation.calibration.labellings import ScoredCase
from trainkit_segmentation.data.label_maps import most_likely
from trainkit_segmentation.files.header import Array
from trainkit_segmentation.prediction.confidence import entropy_of, most_entropy, probabilities_at

_BARS_MM = (1, 2, 5, 10, 20, 50, 100)


@attrs.frozen
class UncertainPlane:
    """The plane of a case that has the most of its true classes.

    Attributes:
        entropy_UV: Name of a column -> entropy in nats.
        most: The highest entropy that there can be.
        true_LUV: True labels, as `LiveSegmentation.truth` has them.
        found_LUV: Labels that were found, in the same form.
        spacing_mm: Size of a pixel along both axes.
    """

    entropy_UV: Mapping[str, Array]
    most: float
    true_LUV: Array
    found_LUV: Array
    spacing_mm: tuple[float, float]


def uncertain_plane(case: ScoredCase, temperatures: Mapping[str, float]) -> UncertainPlane:
    """Return where a case is uncertain at each temperature.

    Args:
        case: The case.
        temperatures: Name of a column -> temperature.
    """
    true_LPUV = case.true_LPUV[(slice(None), *case.box)]
    number = int(true_LPUV.any(axis=0).sum(axis=(1, 2)).argmax())
    scores_1KUV = torch.from_numpy(np.array(case.scores_PKUV[number : number + 1]))
    entropy_UV = {}
    for name, temperature in temperatures.items():
        probabilities_1KUV = probabilities_at(
            scores_1KUV, temperature, exclusive=case.exclusive, are_logits=case.are_logits
        )
        entropy_UV[name] = entropy_of(probabilities_1KUV, exclusive=case.exclusive)[0].numpy()
    if case.exclusive:
        found_LUV = most_likely(scores_1KUV.unbind(1), exclusive=True).numpy()
    else:
        found_LUV = (scores_1KUV[0] > (0 if case.are_logits else 0.5)).numpy()
    num_classes = scores_1KUV.shape[1] - case.exclusive
    most = most_entropy(num_classes, exclusive=case.exclusive)
    u, v = case.spacing_mm[1:]
    return UncertainPlane(entropy_UV, most, true_LPUV[:, number], found_LUV, (u, v))


def draw_uncertainty(planes: Mapping[str, UncertainPlane], path: Path) -> None:
    """Draw planes into a PNG file: a row for each, a column for each temperature.

    Args:
        planes: Title of a row -> the plane; at least one.
        path: The file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    columns = len(next(iter(planes.values())).entropy_UV)
    figure = Figure(figsize=(3.6 * columns + 0.8, 3.8 * len(planes) + 0.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(planes), columns, squeeze=False)
    scale = ScalarMappable(Normalize(0, max(plane.most for plane in planes.values())), "cividis")
    for row, (title, plane) in zip(panels, planes.items(), strict=True):
        for axes, (name, entropy_UV) in zip(row, plane.entropy_UV.items(), strict=True):
            axes.imshow(
                entropy_UV.T,
                cmap=scale.cmap,
                norm=scale.norm,
                origin="lower",
                aspect=plane.spacing_mm[1] / plane.spacing_mm[0],
                interpolation="nearest",
            )
            _outline(axes, plane.true_LUV, colors="white", linestyles="solid")
            _outline(axes, plane.found_LUV, colors="#D55E00", linestyles="dashed")
            axes.set_title(f"{title}\n{name.replace('_', ' ')}", fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
        _scale_bar(row[0], plane)
    figure.colorbar(scale, ax=panels, label="entropy (nats)", shrink=0.8)
    figure.supxlabel("white: truth, dashed: prediction", fontsize=9)
    figure.savefig(path, format="png")


def _outline(axes: Any, labels_LUV: Array, **style: Any) -> None:
    masks = labels_LUV if labels_LUV.dtype == bool else [labels_LUV[0] == k for k in np.unique(labels_LUV) if k]
    for mask_UV in masks:
        if mask_UV.any() and not mask_UV.all() and min(mask_UV.shape) > 1:
            axes.contour(mask_UV.T.astype(float), levels=[0.5], linewidths=1, **style)


def _scale_bar(axes: Any, plane: UncertainPlane) -> None:
    """Draw a bar of a round length of up to a third of the width."""
    width_mm = plane.true_LUV.shape[1] * plane.spacing_mm[0]
    length_mm = max((each for each in _BARS_MM if each <= width_mm / 3), default=0)
    if not length_mm:
        return
    length, height = length_mm / plane.spacing_mm[0], plane.true_LUV.shape[2]
    at = 0.04 * plane.true_LUV.shape[1], 0.04 * height
    axes.plot([at[0], at[0] + length], [at[1], at[1]], color="white", linewidth=3, solid_capstyle="butt")
    axes.text(at[0], at[1] + math.ceil(0.02 * height), f"{length_mm} mm", color="white", fontsize=8, va="bottom")
