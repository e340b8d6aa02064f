"""What is not finite is found before it is saved, and what is only large is not taken for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from trainkit import NonFiniteError
from trainkit.engine.every_run.saving import check_finite

LARGEST = torch.finfo(torch.float32).max


def check(**tensors: Any) -> None:
    model = SimpleNamespace(state_dict=lambda: tensors)
    context = SimpleNamespace(device=torch.device("cpu"))
    check_finite(cast(Any, SimpleNamespace(state=SimpleNamespace(model=model, context=context))))


@pytest.mark.parametrize(
    "values",
    [
        [1.0, float("nan")],
        [float("inf"), 1.0],
        [float("inf"), float("-inf")],
        [complex(0, float("inf")), 1.0],
        [complex(float("nan"), 0)],
    ],
)
def test_a_value_that_is_not_finite_is_named(values):
    with pytest.raises(NonFiniteError, match='"b" of the model'):
        check(a=torch.ones(3), b=torch.tensor(values), c=torch.ones(2))


@pytest.mark.parametrize(
    "large",
    [
        torch.full((4,), LARGEST),
        torch.full((4,), 60000.0, dtype=torch.float16),
        torch.full((4,), 1e300, dtype=torch.float64),
        torch.full((4,), complex(LARGEST, LARGEST)),
    ],
)
def test_values_whose_sum_is_too_large_a_number_are_finite(large):
    check(a=large)


def test_what_has_no_fractions_is_not_looked_at():
    check(steps=torch.tensor(3), empty=torch.zeros(0), extra={"any": "thing"})
