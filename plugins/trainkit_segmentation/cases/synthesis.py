"""Made-up cases, each a function of its number and a seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from trainkit import random_seed
from trainkit_segmentation.cases.case import CaseList, CaseReport, Volume
from trainkit_segmentation.cases.labels import Labels, encode_values

if TYPE_CHECKING:
    from trainkit_segmentation.data.synthetic import SyntheticSegmentation


@attrs.frozen
class SyntheticCase:
    """An ellipsoid with a smaller, brighter one in it, in a background of other ellipsoids and noise.

    Attributes:
        number: Number of the case.
        size: Voxels of the volume along x, y, z.
        seed: Another seed gives other cases.
    """

    number: int
    size: tuple[int, int, int]
    seed: int

    @property
    def name(self) -> str:
        """Name of the case."""
        return f"synthetic_{self.number:03d}"

    @property
    def subject(self) -> str:
        """Each case is of another person."""
        return self.name

    @property
    def files(self) -> tuple[Path, ...]:
        """No files."""
        return ()

    def describe(self) -> Mapping[str, Any]:
        """Return everything that the case depends on."""
        return attrs.asdict(self)

    def inspect(self) -> CaseReport:
        """Return the grid of the case."""
        return CaseReport(self.size, np.eye(4))

    def read(self, labels: Labels, *, nan_as_zero: bool = False) -> Volume:
        """Make the case."""
        rng = np.random.default_rng(random_seed(self.seed, self.number))
        extent = np.array(self.size)
        image = rng.normal(0.0, 0.25, self.size)
        codes = np.zeros(self.size, dtype=np.uint8)
        for _ in range(3):  # distractors that are as bright as the organ, but flat
            centre, radii = extent * rng.uniform(0.1, 0.9, 3), extent * rng.uniform(0.05, 0.2, 3)
            radii[rng.integers(3)] *= 0.2
            image[_ellipsoid(self.size, centre, radii)] += 1.0
        centre, radii = extent * rng.uniform(0.35, 0.65, 3), extent * rng.uniform(0.18, 0.28, 3)
        organ = _ellipsoid(self.size, centre, radii)
        lesion = _ellipsoid(self.size, centre + radii * rng.uniform(-0.3, 0.3, 3), radii * rng.uniform(0.35, 0.5, 3))
        codes[organ], codes[organ & lesion] = 1, 2
        image[organ] += 1.0
        image[organ & lesion] += 1.0
        return Volume(image[None].astype(np.float32), *encode_values(codes, labels), np.eye(4), has_form=False)


def find(settings: SyntheticSegmentation) -> CaseList:
    """List the cases."""
    return CaseList(
        source="synthetic cases",
        cases=tuple(SyntheticCase(number, settings.size, settings.seed) for number in range(settings.num_cases)),
        channels=("intensity",),
        labels=Labels(("organ", "lesion"), exclusive=True, members={0: (), 1: (0,), 2: (1,)}),
    )


def _ellipsoid(size: tuple[int, int, int], centre: Any, radii: Any) -> Any:
    x, y, z = np.ogrid[: size[0], : size[1], : size[2]]
    return sum(((each - c) / r) ** 2 for each, c, r in zip((x, y, z), centre, radii, strict=True)) < 1
