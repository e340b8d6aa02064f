"""Means and standard deviations over cases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean, stdev
from typing import Any

from trainkit_segmentation.evaluation.mask_scores import MaskScores

Row = dict[str, Any]
"""A line of ``cases.csv``: case, class, and the fields of `MaskScores`; None: no value."""

_SCORES = ("dice", "hd95_mm", "surface_dice")
_VOLUMES = ("true_ml", "predicted_ml")


def as_row(case: str, name: str, scores: MaskScores) -> Row:
    """Return the line of a case and a class."""
    return {"case": case, "class": name} | {
        key: None if math.isnan(value) else value for key, value in scores._asdict().items()
    }


def class_summary(rows: Iterable[Row]) -> dict[str, Any]:
    """Return name of a score -> mean, standard deviation and number of cases, of one class.

    ``volume_error_ml`` is the predicted volume minus the true one. The standard deviation is that of a sample, with
    n - 1; None: there are less than two cases.
    """
    cases = list(rows)
    values = {name: [row[name] for row in cases if row[name] is not None] for name in (*_SCORES, *_VOLUMES)}
    values["volume_error_ml"] = [row["predicted_ml"] - row["true_ml"] for row in cases]
    return {name: mean_and_sd(each) for name, each in values.items()}


def mean_and_sd(values: list[float]) -> dict[str, Any]:
    """Return the mean, the standard deviation of a sample, and the number of values."""
    return {
        "mean": fmean(values) if values else None,
        "sd": stdev(values) if len(values) > 1 else None,
        "num_cases": len(values),
    }


def mean_over_classes(classes: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the mean of the classes' means of each score, over the classes that have one."""
    means = {name: [of[name]["mean"] for of in classes.values() if of[name]["mean"] is not None] for name in _SCORES}
    return {name: fmean(each) if each else None for name, each in means.items()}


def summary_table(classes: Mapping[str, Mapping[str, Any]], tolerance_mm: float) -> Iterator[str]:
    """Yield the lines of a table: mean ± standard deviation of each class."""
    titles = (
        "class",
        "cases",
        "Dice",
        "HD95 (mm)",
        f"surface Dice ({tolerance_mm:g} mm)",
        "truth (ml)",
        "predicted (ml)",
    )
    lines: list[tuple[str, ...]] = [titles]
    for name, of in classes.items():
        scores = [_shown(of[each], 1 if each == "hd95_mm" else 3) for each in _SCORES]
        volumes = [_shown(of[each], None) for each in _VOLUMES]
        lines.append((name, str(of["dice"]["num_cases"]), *scores, *volumes))
    if len(classes) > 1:
        means = mean_over_classes(classes)
        shown = ["-" if means[each] is None else f"{means[each]:.{1 if each == 'hd95_mm' else 3}f}" for each in _SCORES]
        lines.append(("mean of classes", "", *shown, "", ""))
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _shown(found: Mapping[str, Any], digits: int | None) -> str:
    if found["mean"] is None:
        return "-"
    if digits is None:
        digits = 0 if abs(found["mean"]) >= 100 else 2
    spread = "" if found["sd"] is None else f" ± {found['sd']:.{digits}f}"
    return f"{found['mean']:.{digits}f}{spread}"
