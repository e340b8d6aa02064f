"""How often a confidence is right: sums over voxels, from which NLL, Brier score and ECE follow.

Shapes: N = voxels, C = scores of a labelling, B = bins of confidence, of equal width from 0 to 1.

Source:
    Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017, section 2. Brier, "Verification
    of forecasts expressed in terms of probability", Monthly Weather Review 78 (1950): the sum over all labels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Reliability:
    """Sums over voxels.

    Args:
        bins: Number of bins.

    Attributes:
        number_B: Number of voxels in each bin.
        confidence_B: Sum of their confidences, the probabilities of the label that is the most likely.
        right_B: Number of them of which that label is the true one.
    """

    def __init__(self, bins: int) -> None:
        self.number_B, self.confidence_B, self.right_B = (np.zeros(bins) for _ in range(3))
        self._nll = self._brier = 0.0

    def add(self, log_NC: Tensor, label_N: Tensor) -> None:
        """Take in voxels.

        Args:
            log_NC: Logarithms of the probabilities of each label.
            label_N: The true labels.
        """
        if not len(label_N):
            return
        probability_NC = log_NC.exp()
        confidence_N, found_N = probability_NC.max(1)
        bins = len(self.number_B)
        place_N = (confidence_N * bins).long().clamp(max=bins - 1)
        right_N = (found_N == label_N).double()
        for sums_B, weights_N in ((self.confidence_B, confidence_N.double()), (self.right_B, right_N)):
            sums_B += torch.bincount(place_N, weights_N, minlength=bins).cpu().numpy()
        self.number_B += torch.bincount(place_N, minlength=bins).cpu().numpy()
        self._nll -= float(log_NC.gather(1, label_N[:, None]).double().sum())
        true_N = probability_NC.gather(1, label_N[:, None])[:, 0].double()
        self._brier += float((probability_NC.double().square().sum(1) - 2 * true_N + 1).sum())

    def add_certain(self, number: int, right: int, nll_if_wrong: float = math.inf) -> None:
        """Take in voxels of whose label a predictor is certain.

        Args:
            number: Their number.
            right: Number of them of which it is the true one.
            nll_if_wrong: The negative log-likelihood of each of the others.
        """
        self.number_B[-1] += number
        self.confidence_B[-1] += number
        self.right_B[-1] += right
        self._nll += nll_if_wrong * (number - right) if right < number else 0.0
        self._brier += 2.0 * (number - right)

    def take_in(self, other: Reliability) -> None:
        """Add the sums of other voxels."""
        for mine_B, theirs_B in zip(self._sums, other._sums, strict=True):
            mine_B += theirs_B
        self._nll += other._nll
        self._brier += other._brier

    @property
    def _sums(self) -> tuple[NDArray[np.float64], ...]:
        return self.number_B, self.confidence_B, self.right_B

    @property
    def number(self) -> int:
        """Number of voxels; of labellings, if classes overlap."""
        return int(self.number_B.sum())

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood of the true label, in nats; NaN: there are no voxels."""
        return self._nll / self.number if self.number else math.nan

    @property
    def brier(self) -> float:
        """Mean Brier score, 0 … 2; NaN: there are no voxels."""
        return self._brier / self.number if self.number else math.nan

    @property
    def ece(self) -> float:
        """Expected calibration error, 0 … 1; NaN: there are no voxels."""
        return float(np.abs(self.right_B - self.confidence_B).sum()) / self.number if self.number else math.nan

    @property
    def accuracy(self) -> float:
        """Share of voxels of which the most likely label is the true one; NaN: there are no voxels."""
        return float(self.right_B.sum()) / self.number if self.number else math.nan

    @property
    def confidence(self) -> float:
        """Mean confidence; NaN: there are no voxels."""
        return float(self.confidence_B.sum()) / self.number if self.number else math.nan

    def certain(self) -> Reliability:
        """Return what a predictor has that is certain of the same labels."""
        other = Reliability(len(self.number_B))
        other.add_certain(self.number, int(self.right_B.sum()))
        return other

    def to_json(self) -> dict[str, Any]:
        """Return the measures and the bins as JSON values."""
        return {
            "num_voxels": self.number,
            **self.measures(),
            "bins": [
                {"num_voxels": int(n), "mean_confidence": c / n, "accuracy": r / n} if n else {"num_voxels": 0}
                for n, c, r in zip(self.number_B, self.confidence_B, self.right_B, strict=True)
            ],
        }

    def measures(self) -> dict[str, float]:
        """Return the measures, by name."""
        return {each: getattr(self, each) for each in ("nll", "brier", "ece", "accuracy", "confidence")}
