"""The kind "split": which cases are trained on, and which are held out. Other packages add ways of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import ClassVar

from trainkit import Component, component


@component
class Split(Component):
    """Which cases are trained on, and which are validated."""

    entry_points: ClassVar[str] = "trainkit.segmentation.splits"

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits there are, "train" first."""
        return ("train", "val")

    @abstractmethod
    def divide(self, subjects: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
        """Return split -> names of its cases, in alphabetical order.

        Args:
            subjects: Name of each case -> who it is of. Cases of one subject belong together.

        Raises:
            DataError: It cannot be done with these cases.
        """


def shuffled_subjects(subjects: Mapping[str, str], seed: int) -> list[list[str]]:
    """Return the cases subject by subject, the subjects in an order that depends on their names and the seed alone.

    Neither the order in which a folder lists them nor the presence of other subjects changes which of two comes first.
    """
    cases: dict[str, list[str]] = {}
    for case, subject in sorted(subjects.items()):
        cases.setdefault(subject, []).append(case)

    def place(subject: str) -> bytes:
        return blake2b(f"{seed}:{subject}".encode(), digest_size=16).digest()

    return [cases[subject] for subject in sorted(cases, key=place)]
