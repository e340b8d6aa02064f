"""Exchanges cases between training and validation until each class is on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

_TRIED = 50  # subjects of a side that are tried for an exchange


def balanced(
    division: Mapping[str, Sequence[str]],
    subjects: Mapping[str, str],
    present: Mapping[str, Mapping[str, int]],
    order: Sequence[str],
) -> Mapping[str, Sequence[str]]:
    """Return a division in which each class is on both sides, as far as exchanging subjects can do it.

    A class of a single subject belongs to training. A division that is right already stays as it is.

    Args:
        division: "train" and "val" -> names of cases. Each case is on one side.
        subjects: Name of each case -> the person that it is of.
        present: Case -> class -> number of voxels.
        order: The subjects in the order in which they are tried.
    """
    classes: dict[str, set[str]] = {}
    for case, subject in subjects.items():
        classes.setdefault(subject, set()).update(k for k, number in present[case].items() if number)
    sides = {side: {subjects[case] for case in cases} for side, cases in division.items()}
    train, val = ([subject for subject in order if subject in sides[side]] for side in ("train", "val"))
    num_subjects = Counter(k for of in classes.values() for k in of)

    def lacking(held_out: Sequence[str]) -> set[tuple[str, str]]:
        in_val = Counter(k for subject in held_out for k in classes[subject])
        found = {(k, "val") for k, num in num_subjects.items() if num > 1 and not in_val[k]}
        return found | {(k, "train") for k, num in num_subjects.items() if in_val[k] == num}

    def exchanges() -> Iterator[tuple[int, int]]:
        lacked = lacking(val)
        wanted = {side: {k for k, where in lacked if where == side} for side in ("train", "val")}
        to_val = [i for i, subject in enumerate(train) if classes[subject] & wanted["val"]] or range(len(train))
        to_train = [j for j, subject in enumerate(val) if classes[subject] & wanted["train"]] or range(len(val))
        for i in to_val[:_TRIED]:
            for j in list(to_train)[::-1][:_TRIED]:
                yield i, j

    def after(exchange: tuple[int, int]) -> int:
        i, j = exchange
        return len(lacking([*val[:j], train[i], *val[j + 1 :]]))

    changed = False
    while len(lacking(val)) and (best := min(exchanges(), key=after, default=None)) is not None:
        if after(best) >= len(lacking(val)):
            break
        i, j = best
        train[i], val[j] = val[j], train[i]
        changed = True
    if not changed:
        return division
    chosen = {"train": set(train), "val": set(val)}
    return {side: sorted(case for case, of in subjects.items() if of in chosen[side]) for side in division}
