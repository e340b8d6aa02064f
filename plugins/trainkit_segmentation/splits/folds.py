"""Cross-validation: the cases are divided into folds, and one fold is held out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from trainkit import DataError, Problem, component
from trainkit_segmentation.splits.kind import Split, shuffled_subjects

if TYPE_CHECKING:
    from trainkit import Recipe


@component
class Folds(Split):
    """Divides the cases into folds of about equal size, by their names and a seed, and holds one fold out.

    A cross-validation is ``folds`` runs that differ in ``fold``; together they validate each case once. All cases of a
    subject are in the same fold.

    Attributes:
        folds: Number of folds.
        fold: The fold that is held out, counted from 0.
        seed: Another seed gives other folds.
    """

    folds: int = attrs.field(default=5, validator=attrs.validators.ge(2))
    fold: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    seed: int = 0

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that the fold exists."""
        if self.fold >= self.folds:
            yield Problem(f"must be below folds = {self.folds}, got {self.fold}", "fold")

    def divide(self, subjects: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
        """Give each subject to the fold that has the fewest cases so far."""
        dealt: list[list[str]] = [[] for _ in range(self.folds)]
        groups = shuffled_subjects(subjects, self.seed)
        if len(groups) < self.folds:
            whose = "" if len(groups) == len(subjects) else f" of {len(groups)} subjects"
            raise DataError(f"{len(subjects)} cases{whose} are too few for {self.folds} folds: lower split.folds")
        for cases in groups:
            min(dealt, key=len).extend(cases)
        train = [case for number, cases in enumerate(dealt) if number != self.fold for case in cases]
        return {"train": sorted(train), "val": sorted(dealt[self.fold])}

    def settings_of_fold(
        self, fold: int, number: int, listed: Callable[[], Mapping[str, int | str]]
    ) -> Mapping[str, Any]:
        """Divide the cases with the seed of this split."""
        return {"use": "folds", "folds": number, "fold": fold, "seed": self.seed}
