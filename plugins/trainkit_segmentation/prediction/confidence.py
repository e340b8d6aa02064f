"""Probabilities that scores stand for, with a temperature, and their entropy.

A temperature divides logits. It acts on what was averaged over networks, mirrored and overlapping windows, so it does
not change which class is the most likely, nor whether a probability is above one half. Where probabilities were
averaged, their logarithms are divided.

Shapes: B = anything, K = scores.

Source:
    Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017, section 4.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainkit_segmentation.prediction.members import probabilities_of

LEAST = 1e-7  # a probability is taken to be at least this far from 0 and 1
_SMALLEST = torch.finfo(torch.float32).tiny


def logits_of(scores_BK: Tensor, *, exclusive: bool, are_logits: bool) -> Tensor:
    """Return the logits (B, K, …) that scores stand for, up to a constant where classes exclude each other.

    Args:
        scores_BK: Logits or probabilities (B, K, …).
        exclusive: Whether classes exclude each other.
        are_logits: Which of the two scores are.
    """
    if are_logits:
        return scores_BK
    return scores_BK.clamp_min(_SMALLEST).log() if exclusive else scores_BK.clamp(LEAST, 1 - LEAST).logit()


def probabilities_at(scores_BK: Tensor, temperature: float, *, exclusive: bool, are_logits: bool) -> Tensor:
    """Return the probabilities (B, K, …) that scores stand for at a temperature; at 1, they are the network's own."""
    if temperature == 1 and not are_logits:
        return scores_BK
    return probabilities_of(logits_of(scores_BK, exclusive=exclusive, are_logits=are_logits) / temperature, exclusive)


def entropy_of(probabilities_BK: Tensor, *, exclusive: bool) -> Tensor:
    """Return the entropy (B, …) in nats; where classes overlap, the sum over classes of being it or not.

    Args:
        probabilities_BK: Probabilities (B, K, …).
        exclusive: Whether classes exclude each other.
    """
    nats_BK: Tensor = torch.special.entr(probabilities_BK)
    if not exclusive:
        nats_BK = nats_BK + torch.special.entr(1 - probabilities_BK)
    return nats_BK.sum(1)


def most_entropy(num_classes: int, *, exclusive: bool) -> float:
    """Return the highest entropy that there can be, in nats.

    Args:
        num_classes: Number of foreground classes.
        exclusive: Whether classes exclude each other.
    """
    return math.log(num_classes + 1) if exclusive else num_classes * math.log(2)
