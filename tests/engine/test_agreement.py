"""What processes make sure of together, seen by one of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainkit import DataError, Exchange, part_of
from trainkit.engine.agreement import check_divided
from trainkit.processes.place import Place


class OfThree(Exchange):
    """The first of three processes; it knows what the others send."""

    def __init__(self, *others: Any) -> None:
        super().__init__(Place(0, 3))
        self.others = others

    def gather(self, value: Any) -> list[Any]:
        return [value, *self.others]


def batch(*index: int) -> dict[str, Any]:
    return {"index": torch.tensor(index), "x": torch.tensor(index).float().sin(), "case": "a"}


def sent(*batches: dict[str, Any]) -> Any:
    kept: list[Any] = []

    class Keeping(OfThree):
        def gather(self, value: Any) -> list[Any]:
            kept.append(value)
            return [value, "b", "c"]

    check_divided(Keeping(), batches)
    return kept[0]


def test_processes_that_were_given_the_same_batches_are_told_apart_from_those_with_parts() -> None:
    mine, its, third = [batch(1, 2), batch(5)], [batch(1, 3), batch(5)], [batch(7)]
    check_divided(OfThree(sent(*its), sent(*third)), mine)
    check_divided(OfThree(sent(), sent()), mine)  # of a split with fewer items than processes
    with pytest.raises(DataError, match="processes 0 and 2 were given the same batches"):
        check_divided(OfThree(sent(*its), sent(*mine)), mine)


def test_one_number_that_was_taken_out_of_others_is_compared_too() -> None:
    of_several = part_of(torch.arange(4), 1, 4)
    assert of_several.stride() == (4,)
    assert sent({"index": of_several}) == sent({"index": torch.tensor([1])})
    assert sent({"index": of_several}) != sent({"index": torch.tensor([5])})
