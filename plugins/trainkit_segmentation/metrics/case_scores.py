"""A figure of merit for each case and class, and its means.

Shapes: N = cases, K = classes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from trainkit import State

_LOGGER = logging.getLogger("trainkit")


class CaseScores:
    """Collects a value for each class, case by case. NaN: the class is in neither truth nor prediction.

    Args:
        name: Of the mean over classes; that of a class is called ``<name>_<class>``.
        classes: The classes' names.
    """

    def __init__(self, name: str, classes: Sequence[str]) -> None:
        self._name = name
        self._classes = tuple(classes)
        self._cases: list[str] = []
        self._scores: list[Tensor] = []
        self._left_out = self._said = ""

    def add(self, case: str, scores_K: Tensor) -> None:
        """Take in a case; nothing is read from the device yet."""
        self._cases.append(case)
        self._scores.append(scores_K)

    def means(self) -> dict[str, float]:
        """Return the mean of each class over the cases that have it, and the mean of these; then start anew.

        A class that no case has is left out, and so is the mean where there is none.
        """
        cases, self._cases, scores, self._scores = self._cases, [], self._scores, []
        if not scores:
            return {}
        scores_NK = torch.stack(scores).double().cpu()
        self._left_out = _left_out(cases, self._classes, scores_NK.isnan())
        means = {
            f"{self._name}_{in_a_name(each)}": mean
            for each, mean in zip(self._classes, scores_NK.nanmean(0).tolist(), strict=True)
            if mean == mean
        }
        return {self._name: sum(means.values()) / len(means)} | means if means else {}

    def say_left_out(self, state: State) -> None:
        """Say which classes were left out of the means last taken, if it was not just that which was said last."""
        if self._left_out != self._said:
            self._said = self._left_out
            if self._left_out:
                value = f"{state.split}/{self._name}"
                _LOGGER.info("%s leaves out what no truth and no prediction has: %s", value, self._left_out)


def in_a_name(label: str) -> str:
    """Return a class as it stands in the name of a value.

    Example:
        >>> in_a_name("Left lung (upper)")
        'Left_lung_upper'
    """
    return re.sub(r"[^\w.-]+", "_", label).strip("_")


def _left_out(cases: Sequence[str], classes: Sequence[str], absent_NK: Tensor) -> str:
    told = []
    for each, absent_N in zip(classes, absent_NK.T.tolist(), strict=True):
        where = [case for case, absent in zip(cases, absent_N, strict=True) if absent]
        if len(where) == len(cases):
            told.append(f"{each} (all cases)")
        elif where:
            told.append(f"{each} ({', '.join(where[:3])}{f', … {len(where)} cases' if len(where) > 3 else ''})")
    return "; ".join(told)
