"""The split that the list of cases itself gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from trainkit import DataError, component, some_of
from trainkit_segmentation.splits.kind import Split

_NONE = (
    'the list of cases gives neither folds nor cases for validation: give each entry a "fold", or choose another '
    'split, for example split = { use = "folds", folds = 5, fold = 0 }'
)
_WORDS = ("train", "val")


@component
class Listed(Split):
    """Takes the division from the list of cases, such as the "fold" of each entry of a JSON list.

    If the list has folds, the cases of one fold are held out. Otherwise, the cases that it lists for validation are. If
    a list with folds gives none to a case, the case is trained on.

    Attributes:
        fold: The fold that is held out.
    """

    fold: int = attrs.field(default=0, validator=attrs.validators.ge(0))

    def divide(self, subjects: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
        """Refuse cases of which no list says more."""
        raise DataError(_NONE)

    def divide_listed(self, subjects: Mapping[str, str], folds: Mapping[str, int | str]) -> Mapping[str, Sequence[str]]:
        """Hold out the cases of the fold, or those for validation."""
        numbers = _numbers(folds)
        if odd := {case: folds[case] for case in subjects if str(folds.get(case, "val")) not in (*numbers, *_WORDS)}:
            given = some_of([f"{fold} ({case})" for case, fold in odd.items()])
            raise DataError(
                f'the list of cases has folds that are neither numbers from 0 nor "train" or "val": {given}; correct '
                "them, or take these cases from the list"
            )
        wanted = str(self.fold) if numbers else "val"
        if numbers and wanted not in numbers:
            raise DataError(f"the list of cases has the folds {', '.join(numbers)}; there is no fold {wanted}")
        held_out = sorted(case for case in subjects if str(folds.get(case)) in (wanted, "val"))
        train = sorted(case for case in subjects if case not in set(held_out))
        if not held_out:
            raise DataError(_NONE)
        if not train:
            raise DataError("the list of cases leaves none to train on")
        of_train = {subjects[case] for case in train}
        if both := [case for case in held_out if subjects[case] in of_train]:
            raise DataError(f"other cases of the same person as {some_of(both)} are trained on: mend the list's folds")
        return {"train": train, "val": held_out}

    def settings_of_fold(
        self, fold: int, number: int, listed: Callable[[], Mapping[str, int | str]]
    ) -> Mapping[str, Any]:
        """Take the folds of the list.

        Raises:
            DataError: It has another number of them.
        """
        names = _numbers(listed())
        if names != [str(each) for each in range(number)]:
            raise DataError(
                f"the list of cases has the folds {', '.join(names) or 'of no case'}, not {number} that are numbered "
                'from 0: give another number, or set data.split = { use = "folds" }'
            )
        return {"fold": fold}


def _numbers(folds: Mapping[str, int | str]) -> list[str]:
    """Return the folds that are numbers, in their order."""
    return sorted({str(fold) for fold in folds.values() if str(fold).isdigit()}, key=int)
