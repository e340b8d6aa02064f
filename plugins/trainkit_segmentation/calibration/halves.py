"""Deals held-out cases into two halves: one to fit on, one to measure on."""

from __future__ import annotations

from collections.abc import Mapping

from trainkit import DataError, shuffled

_PLACE = 0xCA11B  # so that the order is not related to that of other uses of the same seed


def deal(subjects: Mapping[str, str], seed: int) -> tuple[list[str], list[str]]:
    """Return the cases to fit on and those to measure on, each in alphabetical order.

    The cases of one subject stay together, and the halves are as even as that allows.

    Args:
        subjects: Case -> its subject.
        seed: Another seed deals them otherwise.

    Raises:
        DataError: There are fewer than two subjects.
    """
    names = sorted(set(subjects.values()))
    if len(names) < 2:
        held_out = f"{len(subjects)} case{'s' * (len(subjects) != 1)} of {len(names)} subject{'s' * (len(names) != 1)}"
        raise DataError(
            f"{held_out} held out, and a calibration needs two subjects at least: one half to fit on, one to measure "
            "on. Hold out more with data.split, or calibrate an ensemble of `trainkit run --folds`"
        )
    order = [names[number] for number in shuffled(len(names), seed, _PLACE).tolist()]
    of_subject = {name: sorted(case for case, of in subjects.items() if of == name) for name in order}
    halves: tuple[list[str], list[str]] = ([], [])
    for name in sorted(order, key=lambda name: -len(of_subject[name])):  # stable: large subjects first, else shuffled
        min(halves, key=len).extend(of_subject[name])
    return sorted(halves[0]), sorted(halves[1])
