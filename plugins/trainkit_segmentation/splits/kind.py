"""The kind "split": which cases are trained on, and which are held out. Other packages can add members."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, ClassVar

from trainkit import Component, component


@component
class Split(Component):
    """Which cases are trained on, and which are validated."""

    entry_points: ClassVar[str] = "trainkit.segmentation.splits"

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, "train" first."""
        return ("train", "val")

    @abstractmethod
    def divide(self, subjects: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
        """Return split -> names of its cases, in alphabetical order.

        Args:
            subjects: Name of each case -> the person that it is of. Cases of one person belong to the same split.

        Raises:
            DataError: These cases cannot be divided in this way.
        """

    def divide_listed(self, subjects: Mapping[str, str], folds: Mapping[str, int | str]) -> Mapping[str, Sequence[str]]:
        """Return the division of cases of which a list may say more; by default, what the list says is not used.

        Args:
            subjects: Name of each case -> the person that it is of.
            folds: Name of a case -> the fold that the list gives to it, or "train" or "val", where it gives any.

        Raises:
            DataError: These cases cannot be divided in this way.
        """
        return self.divide(subjects)

    def balance(
        self,
        division: Mapping[str, Sequence[str]],
        subjects: Mapping[str, str],
        present: Mapping[str, Mapping[str, int]],
    ) -> Mapping[str, Sequence[str]]:
        """Return a division that has been improved with knowledge of the labels; by default, the same division.

        Args:
            division: What `divide` returned.
            subjects: Name of each case -> the person that it is of.
            present: Case -> class -> number of voxels.
        """
        return division

    def settings_of_fold(
        self, fold: int, number: int, listed: Callable[[], Mapping[str, int | str]]
    ) -> Mapping[str, Any]:
        """Return the settings of the split that holds out one fold of a cross-validation.

        By default, the cases are divided by their names, whatever this split does.

        Args:
            fold: The fold, from 0.
            number: Number of folds.
            listed: Returns the folds that a list gives to the cases, see `divide_listed`.

        Raises:
            DataError: There are not so many folds.
        """
        return {"use": "folds", "folds": number, "fold": fold}


def shuffled_subjects(subjects: Mapping[str, str], seed: int) -> list[list[str]]:
    """Return the cases subject by subject; the order of subjects depends on their names and the seed alone.

    Which of two subjects comes first depends neither on the order of a folder's listing nor on other subjects.
    """
    cases: dict[str, list[str]] = {}
    for case, subject in sorted(subjects.items()):
        cases.setdefault(subject, []).append(case)

    def place(subject: str) -> bytes:
        return blake2b(f"{seed}:{subject}".encode(), digest_size=16).digest()

    return [cases[subject] for subject in sorted(cases, key=place)]
