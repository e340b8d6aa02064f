"""Evaluates the held-out cases of a cross-validation, and chooses the post-processing that suits them.

Shapes: X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from trainkit import HeldOut, HeldOutEvaluation
from trainkit_segmentation.evaluation.mask_scores import Absent, mask_scores
from trainkit_segmentation.evaluation.post_processing import NOTHING, Choice, HeldOutMask, choose, held_out_mask
from trainkit_segmentation.evaluation.summary import Row, as_row, class_summary, mean_over_classes, summary_table
from trainkit_segmentation.files.header import voxel_volume_ml


def evaluate_held_out(held_out: Iterable[HeldOut], tolerance_mm: float, absent: Absent) -> HeldOutEvaluation:
    """Return the scores of every case, and the post-processing of each class that raises the mean Dice.

    Args:
        held_out: What each fold's network makes of the cases that it was not trained on.
        tolerance_mm: Distance up to which surfaces agree.
        absent: How a class counts that is missing from truth or prediction.
    """
    rows: list[Row] = []
    masks: dict[str, list[HeldOutMask]] = {}
    for data, batch, outputs in held_out:
        case = batch["case"]
        spacing_mm, voxel_ml = data.spacing_mm(case), voxel_volume_ml(data.affine(case))
        annotated = batch["annotated"][0].tolist() if "annotated" in batch else [True] * len(data.classes)
        each_found = data.masks(data.prediction(outputs, batch).cpu())
        each_true = data.masks(data.truth(case).cpu())
        ignored = data.ignored(case)
        ignored_XYZ = None if ignored is None else ignored.numpy()
        for name, is_known, found, true in zip(data.classes, annotated, each_found, each_true, strict=True):
            if is_known:
                found_XYZ, true_XYZ = found.numpy(), true.numpy()
                counted_XYZ = found_XYZ if ignored_XYZ is None else found_XYZ & ~ignored_XYZ
                scores = mask_scores(counted_XYZ, true_XYZ, spacing_mm, voxel_ml, tolerance_mm, absent, ignored_XYZ)
                rows.append(as_row(case, name, scores))
                masks.setdefault(name, []).append(held_out_mask(found_XYZ, true_XYZ, voxel_ml, ignored_XYZ))
    rows.sort(key=lambda row: str(row["case"]))
    classes = {name: class_summary(row for row in rows if row["class"] == name) for name in masks}
    choices = {name: choose(cases) for name, cases in masks.items()}
    chosen = {name: _settings(choice) for name, choice in choices.items() if choice.removal != NOTHING}
    summary: dict[str, Any] = {
        "num_cases": len({row["case"] for row in rows}),
        "classes": classes,
        "mean_over_classes": mean_over_classes(classes),
        "settings": {"tolerance_mm": tolerance_mm, "absent": absent},
        "post_processing": {
            name: {**_settings(choice), "mean_dice_before": choice.before, "mean_dice_after": choice.after}
            for name, choice in choices.items()
        },
    }
    lines = (*summary_table(classes, tolerance_mm), *_in_words(choices))
    return HeldOutEvaluation(tuple(rows), summary, lines, {"post_processing": chosen} if chosen else {})


def _settings(choice: Choice) -> dict[str, Any]:
    removal: Any = choice.removal
    return {name: value for name, value in attrs.asdict(removal).items() if value}


def _in_words(choices: Mapping[str, Choice]) -> Iterator[str]:
    for name, choice in choices.items():
        if choice.removal == NOTHING:
            yield f"post-processing of {name}: none; removing small parts does not raise the Dice of held-out cases"
            continue
        small = f"parts below {choice.removal.smallest_ml:g} ml are removed"
        what = "only the largest part is kept" if choice.removal.keep_largest else small
        yield f"post-processing of {name}: {what}; mean Dice {choice.before:.4f} -> {choice.after:.4f}"
