"""The norm of a group's gradients is that of all their values, however these are put together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from trainkit.loggers import gradient_norms
from trainkit.loggers.gradient_norms import GradientNorms


@pytest.mark.parametrize("few", [0, 100_000])
@pytest.mark.parametrize(
    "dtypes", [(torch.float32,), (torch.float32,) * 3, (torch.float32, torch.complex64, torch.float64)]
)
def test_a_norm_is_that_of_all_values(
    few: int, dtypes: tuple[torch.dtype, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_norms, "_FEW", few)
    generator = torch.Generator().manual_seed(1)
    parameters = {}
    for number, dtype in enumerate(dtypes):
        parameter = torch.nn.Parameter(torch.zeros(5, 3 + number, dtype=dtype))
        parameter.grad = torch.randn(parameter.shape, dtype=dtype, generator=generator).T.contiguous().T
        parameters[str(number)] = parameter
    parameters["none"] = torch.nn.Parameter(torch.zeros(2))
    norms = GradientNorms()
    groups = {"all": SimpleNamespace(active=True, parameters=parameters)}
    norms.add(cast(Any, SimpleNamespace(groups=groups)))
    values = [each.grad.numpy().ravel() for each in parameters.values() if each.grad is not None]
    expected = np.sqrt(sum((np.abs(each.astype(complex)) ** 2).sum() for each in values))
    for each in parameters.values():  # as a hook that clips them would, after this
        if each.grad is not None:
            each.grad.zero_()
    assert norms.means()["all"] == pytest.approx(expected, rel=1e-6)
