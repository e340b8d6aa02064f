"""A share of the cases is held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from trainkit import DataError, component
from trainkit_segmentation.splits.balancing import balanced
from trainkit_segmentation.splits.kind import Split, shuffled_subjects


@component
class Fraction(Split):
    """Holds out a share of the cases, chosen by their names and a seed; the cases of one subject stay together.

    Attributes:
        validation_fraction: Share that is held out, at least one case; 0: nothing is validated.
        seed: Another seed holds out other cases. It is independent of the run's seed, so that runs with different seeds
            are compared on the same cases.
        balanced: Whether cases are exchanged if some class would be in training or in validation only, until it is on
            both sides, as far as possible. A class of a single subject stays in training.
    """

    validation_fraction: float = attrs.field(
        default=0.2, validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)]
    )
    seed: int = 0
    balanced: bool = True

    def splits(self) -> tuple[str, ...]:
        """Return "train", and "val" if cases are held out."""
        return ("train", "val") if self.validation_fraction > 0 else ("train",)

    def divide(self, subjects: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
        """Take the first subjects of the shuffled ones until there are enough cases."""
        if self.validation_fraction == 0:
            return {"train": sorted(subjects)}
        wanted = max(1, round(len(subjects) * self.validation_fraction))
        held_out: list[str] = []
        train: list[str] = []
        for cases in shuffled_subjects(subjects, self.seed):
            (held_out if len(held_out) < wanted else train).extend(cases)
        if not train:
            raise DataError(
                f"holding out {self.validation_fraction:g} of {len(subjects)} case{'s' * (len(subjects) != 1)} leaves "
                "none to train on: lower validation_fraction, or train and validate on the same cases with "
                'split = { use = "same_cases" }'
            )
        return {"train": sorted(train), "val": sorted(held_out)}

    def balance(
        self,
        division: Mapping[str, Sequence[str]],
        subjects: Mapping[str, str],
        present: Mapping[str, Mapping[str, int]],
    ) -> Mapping[str, Sequence[str]]:
        """Exchange subjects so that each class is on both sides."""
        if not self.balanced or "val" not in division:
            return division
        order = [subjects[cases[0]] for cases in shuffled_subjects(subjects, self.seed)]
        return balanced(division, subjects, present, order)

    def settings_of_fold(
        self, fold: int, number: int, listed: Callable[[], Mapping[str, int | str]]
    ) -> Mapping[str, Any]:
        """Divide the cases with the seed of this split."""
        return {"use": "folds", "folds": number, "fold": fold, "seed": self.seed}
