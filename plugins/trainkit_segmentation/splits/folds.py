"""Cross-validation: the cases are dealt into folds, and one fold is held out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from trainkit import DataError, Problem, component
from trainkit_segmentation.splits.kind import Split, shuffled_subjects

if TYPE_CHECKING:
    from trainkit import Recipe


@component
class Folds(Split):
    """Deals the cases into folds of about one size, by their names and a seed, and holds one of them out.

    A cross-validation is ``folds`` runs that differ in ``fold``; together they validate each case once. The cases of
    one subject are in one fold.

    Attributes:
        folds: How many there are.
        fold: The one that is held out, from 0.
        seed: Another one deals otherwise.
    """

    folds: int = attrs.field(default=5, validator=attrs.validators.ge(2))
    fold: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    seed: int = 0

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that there is such a fold."""
        if self.fold >= self.folds:
            yield Problem(f"of {self.folds} folds the last is {self.folds - 1}", "fold")

    def divide(self, subjects: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
        """Give each subject to the fold that has the fewest cases so far."""
        dealt: list[list[str]] = [[] for _ in range(self.folds)]
        groups = shuffled_subjects(subjects, self.seed)
        if len(groups) < self.folds:
            whose = "" if len(groups) == len(subjects) else f" of {len(groups)} subjects"
            raise DataError(f"{len(subjects)} cases{whose} cannot be dealt into {self.folds} folds: lower split.folds")
        for cases in groups:
            min(dealt, key=len).extend(cases)
        train = [case for number, cases in enumerate(dealt) if number != self.fold for case in cases]
        return {"train": sorted(train), "val": sorted(dealt[self.fold])}
