"""The scores of each case and class, and their means.

Shapes: N = cases, K = classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainkit import Batch, DataError, State
from trainkit_segmentation.spelling import safe_name

_LOGGER = logging.getLogger("trainkit")


class CasesOfProcess(NamedTuple):
    """The cases that one of several processes has scored.

    Attributes:
        cases: Their names.
        indices: Their numbers.
        scores_NK: Score of each class; None: there is no case.
        in_truth_NK: Whether the truth has the class; None: there is no case.
    """

    cases: list[str]
    indices: list[int]
    scores_NK: Tensor | None
    in_truth_NK: Tensor | None


class CaseScores:
    """Collects a value for each class, case by case. NaN: the class is in neither truth nor prediction.

    A class that is in the truth of no case has no value, even if the network finds it: such a value would be the same
    for a network that finds little of it and one that finds much, and a schedule that watches it would act on nothing.

    Args:
        name: Name of the mean over classes; the mean of one class is called ``<name>_<class>``.
        classes: The classes' names.
    """

    def __init__(self, name: str, classes: Sequence[str]) -> None:
        named: dict[str, str] = {}
        for each in classes:
            if (other := named.setdefault(safe_name(each), each)) != each:
                raise DataError(
                    f'the scores of the classes "{other}" and "{each}" would both be called {safe_name(each)}'
                )
        self._name = name
        self._classes = tuple(classes)
        self._cases: list[str] = []
        self._indices: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._in_truth: list[Tensor] = []
        self._left_out = self._logged = ""
        self._table: list[tuple[str, list[float]]] = []

    def add(self, batch: Batch, scores_K: Tensor, in_truth_K: Tensor | None = None) -> None:
        """Take in the scores of the case in a batch; nothing is read from the device yet.

        Args:
            batch: The batch. Classes that are not in its ``"annotated"`` (1, K), if it has one, get no score.
            scores_K: Score of each class.
            in_truth_K: Whether the truth has the class; None: where there is a score.
        """
        in_truth_K = ~scores_K.isnan() if in_truth_K is None else in_truth_K
        if "annotated" in batch:
            unknown_K = ~batch["annotated"][0].to(scores_K.device)
            scores_K = scores_K.masked_fill(unknown_K, float("nan"))
        self._cases.append(batch["case"])
        self._indices.append(batch["index"])
        self._scores.append(scores_K)
        self._in_truth.append(in_truth_K)

    def share(self) -> CasesOfProcess:
        """Return the cases that were added since the last means."""
        tensors = (torch.stack(each).cpu() if each else None for each in (self._scores, self._in_truth))
        indices = [int(each) for each in torch.cat(self._indices)] if self._indices else []
        return CasesOfProcess(list(self._cases), indices, *tensors)

    def merge(self, shares: Iterable[CasesOfProcess]) -> None:
        """Replace the cases by those of all processes."""
        self._cases, self._indices, self._scores, self._in_truth = [], [], [], []
        for cases, indices, scores_NK, in_truth_NK in shares:
            if scores_NK is None or in_truth_NK is None:
                continue
            self._cases += cases
            self._indices += [torch.tensor([each]) for each in indices]
            self._scores += list(scores_NK)
            self._in_truth += list(in_truth_NK)

    def means(self) -> dict[str, float]:
        """Return the mean of each class over the cases that have it, and the mean of these means; then start anew.

        Cases are added up in the order of their index, so that the bits of a mean do not depend on the order in which
        cases came. A class that is in the truth of no case is left out, and if no class is left, there is no mean.
        """
        self._table = []
        cases, self._cases, scores, self._scores = self._cases, [], self._scores, []
        indices, self._indices, in_truth, self._in_truth = self._indices, [], self._in_truth, []
        if not scores:
            return {}
        order = torch.cat(indices).cpu().argsort(stable=True)
        scores_NK = torch.stack(scores).double().cpu()[order]
        self._table = [(cases[n], row) for n, row in zip(order.tolist(), scores_NK.tolist(), strict=True)]
        scores_NK[:, ~torch.stack(in_truth).any(0).cpu()] = float("nan")
        self._left_out = _left_out([cases[n] for n in order.tolist()], self._classes, scores_NK.isnan())
        means = {
            f"{self._name}_{safe_name(each)}": mean
            for each, mean in zip(self._classes, scores_NK.nanmean(0).tolist(), strict=True)
            if mean == mean
        }
        return {self._name: sum(means.values()) / len(means)} | means if means else {}

    def rows(self, column: str) -> Iterator[dict[str, str | float | None]]:
        """Yield the score of each case and class behind the last means, as lines of a table.

        Args:
            column: Name of the column of the scores. A class that has none in a case has None in it.
        """
        for case, scores in self._table:
            for name, score in zip(self._classes, scores, strict=True):
                yield {"case": case, "class": name, column: None if score != score else score}

    def log_left_out(self, state: State) -> None:
        """Log which classes the last means leave out, unless the same was logged before."""
        if self._left_out != self._logged:
            self._logged = self._left_out
            if self._left_out:
                value = f"{state.split}/{self._name}"
                _LOGGER.info("%s leaves out classes that have nothing to compare: %s", value, self._left_out)


def _left_out(cases: Sequence[str], classes: Sequence[str], absent_NK: Tensor) -> str:
    parts = []
    for each, absent_N in zip(classes, absent_NK.T.tolist(), strict=True):
        where = [case for case, absent in zip(cases, absent_N, strict=True) if absent]
        if len(where) == len(cases):
            parts.append(f"{each} (all cases)")
        elif where:
            parts.append(f"{each} ({', '.join(where[:3])}{f', … {len(where)} cases' if len(where) > 3 else ''})")
    return "; ".join(parts)
