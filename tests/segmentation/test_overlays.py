"""Pictures of predictions show what was scored."""

from __future__ import annotations

import numpy as np

from trainkit_segmentation.hooks.overlay_picture import Plane, draw


def test_a_class_that_was_not_annotated_shows_no_score() -> None:
    masks = np.zeros((1, 8, 8), bool)
    plane = Plane("axial", np.zeros((8, 8)), masks, masks, 1.0, (0.0, 1.0))

    def picture(dice: float, annotated: list[bool] | None) -> np.ndarray:
        return draw([plane], ["tumour"], [dice], "case", annotated)

    np.testing.assert_array_equal(picture(0.0, [False]), picture(0.75, [False]))
    np.testing.assert_array_equal(picture(0.75, [True]), picture(0.75, None))
    assert (picture(0.0, [False]) != picture(0.0, [True])).any()
    assert (picture(0.0, [False]) != picture(float("nan"), None)).any()  # nor is it called absent


def test_what_is_ignored_is_veiled_in_truth_and_prediction_and_named() -> None:
    masks, nowhere = np.zeros((1, 8, 8), bool), np.zeros((8, 8), bool)
    lower = nowhere.copy()
    lower[4:] = True

    def picture(ignored: np.ndarray | None) -> np.ndarray:
        return draw([Plane("axial", np.zeros((8, 8)), masks, masks, 1.0, (0.0, 1.0), ignored)], ["a"], [1.0], "case")

    plain, named, veiled = (picture(each).astype(int) for each in (None, nowhere, lower))
    assert (plain != named).any()  # the legend
    brighter = (veiled - named).sum(-1).sum(1) > 0
    starts = np.flatnonzero(np.diff(np.concatenate([[False], brighter, [False]]).astype(int)) == 1)
    assert len(starts) == 2
    assert (veiled >= named).all()
