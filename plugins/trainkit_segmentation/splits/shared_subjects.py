"""Says which cases are held out although other cases of the same person are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from trainkit import some_of


def doubts_about_subjects(division: Mapping[str, Sequence[str]], subjects: Mapping[str, str]) -> Iterator[str]:
    """Yield the cases of persons who are on both sides. A case that is itself on both sides is meant to be.

    Args:
        division: Split -> names of its cases.
        subjects: Name of each case -> the person that it is of.
    """
    train = set(division.get("train", ()))
    of_train = {subjects[case] for case in train}
    held_out = {case for split, cases in division.items() if split != "train" for case in cases} - train
    if both := sorted(case for case in held_out if subjects[case] in of_train):
        yield f"other cases of the same persons are trained on, which makes their validation too good: {some_of(both)}"
