"""The log-probabilities of labels at a temperature, and the temperature that makes held-out labels the most likely.

Where classes overlap, each is a labelling with two scores, of not being it (0) and of being it.

Shapes: N = voxels, C = scores of a labelling, the first of which is that of the background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures that are tried. One at an end of this range is no minimum."""


class Voxels(NamedTuple):
    """Voxels of a labelling.

    Attributes:
        logits_NC: Logits.
        label_N: The true labels, int64.
        weight: How many voxels each one stands for.
        merged: Scores that are those of the background too, since these classes were not annotated.
    """

    logits_NC: Tensor
    label_N: Tensor
    weight: float = 1.0
    merged: tuple[int, ...] = ()


def log_probabilities(logits_NC: Tensor, temperature: float, merged: Sequence[int] = ()) -> Tensor:
    """Return the logarithms (N, C) of the probabilities of labels.

    Args:
        logits_NC: Logits.
        temperature: What they are divided by.
        merged: Scores whose probabilities are added to that of the background; their own are 0.
    """
    log_NC = torch.log_softmax(logits_NC / temperature, 1)
    if merged:
        together = [0, *merged]
        background_N = torch.logsumexp(log_NC[:, together], 1)
        log_NC = log_NC.clone()
        log_NC[:, together] = -math.inf
        log_NC[:, 0] = background_N
    return log_NC


class Temperature(NamedTuple):
    """A temperature that was fitted.

    Attributes:
        value: The temperature.
        at_end: Whether it is at an end of the range that was looked at.
    """

    value: float
    at_end: bool


def fit_temperature(samples: Sequence[Voxels]) -> Temperature:
    """Return the temperature with the lowest mean negative log-likelihood of the true labels.

    Args:
        samples: The voxels.
    """
    total = math.fsum(each.weight * len(each.label_N) for each in samples)

    def loss(log_temperature: float) -> float:
        losses = []
        for each in samples:
            log_NC = log_probabilities(each.logits_NC.double(), math.exp(log_temperature), each.merged)
            losses.append(-each.weight * float(log_NC.gather(1, each.label_N[:, None]).sum()))
        return math.fsum(losses) / total

    ends = math.log(LOWEST), math.log(HIGHEST)
    found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6})
    at_end = min(abs(found.x - end) for end in ends) < 1e-3
    return Temperature(math.exp(float(found.x)), at_end)
