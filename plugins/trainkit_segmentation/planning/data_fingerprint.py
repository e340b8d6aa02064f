"""What a whole data set is like, and the spacing that nnU-Net resamples it to.

Shapes: N = cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from trainkit_segmentation.files.header import Array
from trainkit_segmentation.preparing.fingerprints import Fingerprint
from trainkit_segmentation.preparing.grid import orientation_of

_ANISOTROPIC = 3.0
_FINER = 10  # percentile of the spacing along a coarse axis
_KEPT = 0.75  # share of the voxels; where cropping leaves less, zeros are no part of the intensities


@attrs.frozen
class DataFingerprint:
    """What cases are like, along axes to the right, the front, and up.

    Attributes:
        spacings_N3: Size of a voxel of each case, in mm.
        sizes_N3: Voxels of each case, without planes of zeros around it.
        whole_sizes_N3: Voxels of each case.
        voxels_of_class: Class -> number of its voxels in all cases.
        cases_of_class: Class -> number of cases that have it.
    """

    spacings_N3: Array
    sizes_N3: Array
    whole_sizes_N3: Array
    voxels_of_class: Mapping[str, int]
    cases_of_class: Mapping[str, int]

    @property
    def kept(self) -> float:
        """The median share of voxels that remain when planes of zeros are cropped."""
        return float(np.median(self.sizes_N3.prod(axis=1) / self.whole_sizes_N3.prod(axis=1)))

    @property
    def zeros_are_outside(self) -> bool:
        """Whether so much is cropped that zeros are taken as no part of the image."""
        return self.kept < _KEPT

    def sizes_at(self, spacing_mm: Sequence[float]) -> Array:
        """Return the number of voxels of each case after resampling, (N, 3)."""
        sizes_N3: Array = np.maximum(np.rint(self.sizes_N3 * self.spacings_N3 / np.asarray(spacing_mm)), 1)
        return sizes_N3


def fingerprint_of(seen: Mapping[str, Fingerprint], classes: Sequence[str]) -> DataFingerprint:
    """Put together what was seen of all cases."""
    spacings, sizes, whole = [], [], []
    for each in seen.values():
        axes, _ = orientation_of(each.grid.affine, "RAS")
        own = each.grid.own_spacing_mm
        spacings.append([own[axis] for axis in axes])
        sizes.append([each.grid.box[axis][1] - each.grid.box[axis][0] for axis in axes])
        whole.append([each.grid.own_shape[axis] for axis in axes])
    voxels = np.array([each.own_voxels for each in seen.values()])
    return DataFingerprint(
        np.array(spacings),
        np.array(sizes),
        np.array(whole),
        dict(zip(classes, voxels.sum(axis=0).tolist(), strict=True)),
        dict(zip(classes, (voxels > 0).sum(axis=0).tolist(), strict=True)),
    )


def target_spacing(found: DataFingerprint) -> tuple[float, float, float]:
    """Return the spacing that nnU-Net resamples to: the median over the cases.

    Along an axis that is more than three times as coarse as the others and has less than a third of their voxels, it is
    the 10th percentile, but not finer than the others.
    """
    target = np.percentile(found.spacings_N3, 50, axis=0)
    size = np.percentile(found.sizes_N3, 50, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    coarse = target[worst] > _ANISOTROPIC * target[others].max()
    if coarse and size[worst] * _ANISOTROPIC < size[others].min():
        finer = float(np.percentile(found.spacings_N3[:, worst], _FINER))
        target[worst] = max(finer, float(target[others].max()))
    x, y, z = (round(float(mm), 6) for mm in target)
    return x, y, z
