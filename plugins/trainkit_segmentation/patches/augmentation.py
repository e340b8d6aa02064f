"""Random changes of training patches: the settings. A change without a table in the recipe is not applied."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import attrs
from attrs.validators import and_, deep_iterable, ge, gt, in_, le, optional

from trainkit import component, some_of
from trainkit_segmentation.cases.sides import sided_pairs

_probability = and_(ge(0.0), le(1.0))


def _range(instance: object, attribute: attrs.Attribute[tuple[float, float]], value: tuple[float, float]) -> None:
    if not 0 < value[0] <= value[1]:
        raise ValueError(f"{attribute.name} must be [lower, upper] with 0 < lower ≤ upper, got {list(value)}")


@component
class Flip:
    """Mirrors the patch.

    Attributes:
        probability: Probability for each axis, independent of the others.
        axes: The axes that may be mirrored: 0 is x, 1 is y, 2 is z. Leave out the left-right axis if classes differ in
            their side.
    """

    probability: float = attrs.field(default=0.5, validator=_probability)
    axes: tuple[int, ...] = attrs.field(default=(0, 1, 2), validator=deep_iterable(in_((0, 1, 2))))

    def mixed_sides(self, classes: Sequence[str], left_right: Collection[int]) -> str | None:
        """Return a doubt if mirroring makes a class look like its counterpart of the other side; None: it does not.

        Args:
            classes: Names of the classes.
            left_right: Axes of the patch that go from left to right, in some case at least.
        """
        mirrored = sorted({*self.axes} & {*left_right}) if self.probability > 0 else []
        pairs = sided_pairs(classes)
        if not mirrored or not pairs:
            return None
        others = [axis for axis in self.axes if axis not in mirrored]
        some = some_of([f"{one} and {other}" for one, other in pairs], most=3)
        return (
            f"axis {', '.join(map(str, mirrored))} goes from left to right, and mirroring along it shows {some} the "
            f"wrong way round; set data.augmentation.flip.axes = {others}"
        )


@component
class Affine:
    """Rotates and scales the patch about its centre, in mm; the border is filled from the volume around the patch.

    Attributes:
        probability: Probability that the change is applied to a patch.
        rotation_degrees: Largest angle about the x, y and z axis, in both directions.
        scale: Smallest and largest factor, the same along all axes; uniform in its logarithm.
        scale_probability: Probability that the patch is scaled, independent of whether it is rotated. Not given: it is
            scaled where it is rotated.
        scaled_axes: The axes that are scaled. Leave out the axis of thick slices.
    """

    probability: float = attrs.field(default=0.2, validator=_probability)
    rotation_degrees: tuple[float, float, float] = attrs.field(
        default=(15.0, 15.0, 15.0), validator=deep_iterable(and_(ge(0.0), le(180.0)))
    )
    scale: tuple[float, float] = attrs.field(default=(0.85, 1.15), validator=_range)
    scale_probability: float | None = attrs.field(default=None, validator=optional(_probability))
    scaled_axes: tuple[int, ...] = attrs.field(default=(0, 1, 2), validator=deep_iterable(in_((0, 1, 2))))


@component
class Elastic:
    """Bends the patch by a smooth random field of displacements.

    Attributes:
        probability: Probability that the change is applied to a patch.
        displacement_mm: Standard deviation of a displacement along each axis, at the nodes.
        node_distance_mm: Distance of the nodes between which the field is interpolated. It should be several times the
            displacement; otherwise the field folds over.
    """

    probability: float = attrs.field(default=0.2, validator=_probability)
    displacement_mm: float = attrs.field(default=2.0, validator=ge(0.0))
    node_distance_mm: float = attrs.field(default=24.0, validator=gt(0.0))


@component
class Noise:
    """Adds Gaussian noise.

    Attributes:
        probability: Probability that the change is applied to a patch.
        deviation: Largest standard deviation, in units of the normalised image; uniform from 0.
    """

    probability: float = attrs.field(default=0.15, validator=_probability)
    deviation: float = attrs.field(default=0.1, validator=ge(0.0))


@component
class Blur:
    """Blurs with a Gaussian, each channel by a width of its own.

    Attributes:
        probability: Probability that the change is applied to a patch.
        channel_probability: Probability for each channel, where it is applied.
        sigma_voxels: Smallest and largest standard deviation of the Gaussian; drawn for each axis.
    """

    probability: float = attrs.field(default=0.2, validator=_probability)
    channel_probability: float = attrs.field(default=0.5, validator=_probability)
    sigma_voxels: tuple[float, float] = attrs.field(default=(0.5, 1.0), validator=_range)


@component
class Brightness:
    """Multiplies each channel by a factor.

    Attributes:
        probability: Probability that the change is applied to a patch.
        factor: Smallest and largest factor.
    """

    probability: float = attrs.field(default=0.15, validator=_probability)
    factor: tuple[float, float] = attrs.field(default=(0.75, 1.25), validator=_range)


@component
class Contrast:
    """Multiplies the deviation of each channel from its mean over the patch; values are clipped to their former range.

    Attributes:
        probability: Probability that the change is applied to a patch.
        factor: Smallest and largest factor.
    """

    probability: float = attrs.field(default=0.15, validator=_probability)
    factor: tuple[float, float] = attrs.field(default=(0.75, 1.25), validator=_range)


@component
class LowResolution:
    """Simulates a coarser scan: takes the nearest voxels of a coarser grid, and interpolates between them linearly.

    Attributes:
        probability: Probability that the change is applied to a patch.
        channel_probability: Probability for each channel, where it is applied.
        scale: Smallest and largest ratio of the coarser grid's number of voxels along an axis; at most 1.
        axes: The axes that become coarser. Leave out the axis of thick slices.
    """

    probability: float = attrs.field(default=0.25, validator=_probability)
    channel_probability: float = attrs.field(default=0.5, validator=_probability)
    scale: tuple[float, float] = attrs.field(default=(0.5, 1.0), validator=[_range, deep_iterable(le(1.0))])
    axes: tuple[int, ...] = attrs.field(default=(0, 1, 2), validator=deep_iterable(in_((0, 1, 2))))


@component
class Gamma:
    """Raises each channel to a power, with its range over the patch taken as 0 … 1.

    Attributes:
        probability: Probability that the change is applied to a patch.
        exponent: Smallest and largest exponent.
        draw: "uniform" over the exponents; "balanced": below 1 as often as above, and uniform on each side.
        keep_mean_and_deviation: Whether each channel gets its former mean and standard deviation back.
    """

    probability: float = attrs.field(default=0.3, validator=_probability)
    exponent: tuple[float, float] = attrs.field(default=(0.7, 1.5), validator=_range)
    draw: Literal["uniform", "balanced"] = "uniform"
    keep_mean_and_deviation: bool = False


@component
class Augmentation:
    """Random changes of training patches, applied in the order of the attributes; affine and elastic in one resampling.

    What is drawn depends on the run's seed, the epoch and the number of the sample alone, wherever the changes are
    applied; the results differ only by rounding.

    Attributes:
        on: Where the changes are applied. "workers": where patches are cut, by ``data.workers``. "device": on the
            device of the run, to whole batches; workers only cut, which takes milliseconds. Choose this if a GPU waits
            for its data.
        affine: Rotation and scaling.
        elastic: Smooth bending.
        flip: Mirroring.
        noise: Gaussian noise.
        blur: A Gaussian blur.
        brightness: A factor.
        contrast: A factor about the mean.
        low_resolution: A coarser scan.
        inverted_gamma: A power of the inverted image: the bright end is stretched as ``gamma`` stretches the dark one.
        gamma: A power.
    """

    on: Literal["workers", "device"] = "workers"
    affine: Affine | None = None
    elastic: Elastic | None = None
    flip: Flip | None = None
    noise: Noise | None = None
    blur: Blur | None = None
    brightness: Brightness | None = None
    contrast: Contrast | None = None
    low_resolution: LowResolution | None = None
    inverted_gamma: Gamma | None = None
    gamma: Gamma | None = None

    def mirrored_axes(self) -> tuple[int, ...]:
        """Return the axes along which patches are mirrored."""
        return () if self.flip is None or self.flip.probability == 0 else tuple(sorted({*self.flip.axes}))
