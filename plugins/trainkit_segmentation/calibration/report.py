"""What a calibration found, in words and as JSON values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from trainkit_segmentation.calibration.likelihood import HIGHEST, LOWEST
from trainkit_segmentation.calibration.reliability import Reliability

if TYPE_CHECKING:
    from trainkit_segmentation.calibration.segmentation import SegmentationCalibrator

NEAR, ALL = "near_boundaries", "whole_volume"
BEFORE, AFTER, CERTAIN = "uncalibrated", "calibrated", "certain_of_everything"
_SLACK = 1e-3  # a likelihood that is worse by less than this share is not worse

Measures = dict[tuple[str, str], Reliability]
"""(NEAR or ALL, BEFORE or AFTER) -> what was measured there."""


@attrs.frozen
class Report:
    """What was found.

    Attributes:
        settings: The settings.
        temperature: The temperature that was fitted.
        at_end: Whether it is at an end of the range that was looked at.
        other: The one that would have been fitted on the other half.
        measures: What was measured on the half that was not fitted to.
        fitted: The cases that were fitted to.
        measured: The others.
        num_networks: Case -> number of networks that were not trained on it.
        of: Number of networks that predict a new case.
    """

    settings: SegmentationCalibrator
    temperature: float
    at_end: bool
    other: float
    measures: Measures
    fitted: Sequence[str]
    measured: Sequence[str]
    num_networks: Mapping[str, int]
    of: int

    @property
    def is_better(self) -> bool:
        """Whether, near boundaries, the temperature makes true labels that were not fitted to no less likely."""
        before, after = (self.measures[NEAR, variant].nll for variant in (BEFORE, AFTER))
        return not self.at_end and after <= before * (1 + _SLACK)

    def doubts(self) -> Iterator[str]:
        """Yield a sentence for each reason why the result is doubtful."""
        if self.at_end:
            yield (
                f"the temperature {self.temperature:.3g} is at an end of the range from {LOWEST:g} to {HIGHEST:g}, so "
                "it is not applied: the probabilities of this network have little to do with what is right"
            )
        elif not self.is_better:
            before, after = (self.measures[NEAR, variant].nll for variant in (BEFORE, AFTER))
            yield (
                f"at the temperature {self.temperature:.3g} the NLL of the cases that were not fitted to does not fall "
                f"within {self._mm} mm of a boundary ({before:.4f} -> {after:.4f}), so it is not applied; without it, "
                f"the ECE there is {self.measures[NEAR, BEFORE].ece:.3f}"
            )
        ece = self.measures[NEAR, AFTER].ece
        if ece > self.settings.largest_ece:
            yield (
                f"within {self._mm} mm of a boundary the ECE is {ece:.3f} after calibration, more than "
                f"{self.settings.largest_ece:g}"
            )

    def lines(self) -> Iterator[str]:
        """Yield what is printed."""
        yield (
            f"temperature {self.temperature:.3f}, fitted on {_cases(self.fitted)} and measured on "
            f"{_cases(self.measured)} (fitted on these, it is {self.other:.3f})"
        )
        if min(self.num_networks.values()) < self.of:
            some = sorted(set(self.num_networks.values()))
            yield (
                f"each held-out case is predicted by {' or '.join(map(str, some))} of the {self.of} networks, those "
                f"not trained on it; a new case is predicted by all {self.of}, whose mean is less certain, so that the "
                "temperature is a little too high for it; by how much was not measured"
            )
        titles = ("", "NLL", "Brier", "ECE", "accuracy", "confidence")
        rows: list[tuple[str, ...]] = [titles]
        for region, title in ((NEAR, f"within {self._mm} mm of a boundary"), (ALL, "everywhere")):
            rows.append((f"{title}, {self.measures[region, BEFORE].number} voxels", *[""] * 5))
            for variant, found in self._variants(region):
                values = [f"{value:.4f}" for value in found.measures().values()]
                rows.append((f"  {variant.replace('_', ' ')}", *values))
        widths = [max(len(row[column]) for row in rows if column == 0 or row[1]) for column in range(len(titles))]
        for row in rows:
            first, *others = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
            yield "  ".join([first, *others]).rstrip()
        before, after = (self.measures[NEAR, variant].ece for variant in (BEFORE, AFTER))
        if before > 0:
            yield f"within {self._mm} mm of a boundary the ECE is {after / before:.2f} of what it was"
        before, after = (self.measures[ALL, variant].nll for variant in (BEFORE, AFTER))
        if self.is_better and round(after, 4) > round(before, 4):
            yield (
                f"everywhere the NLL rises ({before:.4f} -> {after:.4f}): far from boundaries the network is certain "
                "and right, and the temperature takes some of that certainty away"
            )

    def to_json(self) -> dict[str, Any]:
        """Return all as JSON values."""
        return {
            "temperature": self.temperature,
            "temperature_of_the_other_half": self.other,
            "boundary_mm": self.settings.boundary_mm,
            "bins": f"{self.settings.bins} of equal width, of the confidence in the most likely label",
            "fitted_on": list(self.fitted),
            "measured_on": list(self.measured),
            **{
                region: {variant: found.to_json() for variant, found in self._variants(region)}
                for region in (NEAR, ALL)
            },
        }

    @property
    def _mm(self) -> str:
        return f"{self.settings.boundary_mm:g}"

    def _variants(self, region: str) -> Iterator[tuple[str, Reliability]]:
        for variant in (BEFORE, AFTER):
            yield variant, self.measures[region, variant]
        yield CERTAIN, self.measures[region, BEFORE].certain()


def case_row(case: str, half: str, num_networks: int, measures: Measures) -> dict[str, Any]:
    """Return the line of a case in ``cases.csv``."""
    row: dict[str, Any] = {"case": case, "half": half, "num_networks": num_networks}
    for region in (NEAR, ALL):
        row[f"{region}_voxels"] = measures[region, BEFORE].number
        row[f"{region}_accuracy"] = _finite(measures[region, BEFORE].accuracy)
        for measure in ("nll", "brier", "ece"):
            for variant in (BEFORE, AFTER):
                found = measures.get((region, variant))
                row[f"{region}_{measure}_{variant}"] = None if found is None else _finite(getattr(found, measure))
    return row


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cases(names: Sequence[str]) -> str:
    return f"{len(names)} held-out case{'s' * (len(names) != 1)}"
