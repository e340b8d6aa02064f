"""What is done to each training patch, anew each time: the settings. What has no table is not done."""

from __future__ import annotations

import attrs
from attrs.validators import and_, deep_iterable, ge, gt, in_, le

from trainkit import component

_probability = and_(ge(0.0), le(1.0))


def _range(instance: object, attribute: attrs.Attribute[tuple[float, float]], value: tuple[float, float]) -> None:
    if not 0 < value[0] <= value[1]:
        raise ValueError(f"{attribute.name} must be [lower, upper] with 0 < lower ≤ upper, got {list(value)}")


@component
class Flip:
    """Mirrors the patch.

    Attributes:
        probability: How often, for each axis by itself.
        axes: The axes that may be mirrored: 0 is x, 1 is y, 2 is z. Leave out the one from left to right where classes
            differ in their side.
    """

    probability: float = attrs.field(default=0.5, validator=_probability)
    axes: tuple[int, ...] = attrs.field(default=(0, 1, 2), validator=deep_iterable(in_((0, 1, 2))))


@component
class Affine:
    """Rotates and scales the patch about its centre, in mm; what comes in at its border is of the volume itself.

    Attributes:
        probability: How often.
        rotation_degrees: Largest angle about the x, y and z axis, in both directions.
        scale: Smallest and largest factor by which things grow, the same along all axes; drawn evenly in its logarithm.
    """

    probability: float = attrs.field(default=0.2, validator=_probability)
    rotation_degrees: tuple[float, float, float] = attrs.field(
        default=(15.0, 15.0, 15.0), validator=deep_iterable(and_(ge(0.0), le(180.0)))
    )
    scale: tuple[float, float] = attrs.field(default=(0.85, 1.15), validator=_range)


@component
class Elastic:
    """Bends the patch by a smooth random field of displacements.

    Attributes:
        probability: How often.
        displacement_mm: Standard deviation of a displacement along each axis, at the nodes.
        node_distance_mm: Distance of the nodes between which the field is interpolated. Several times the displacement,
            or things fold over.
    """

    probability: float = attrs.field(default=0.2, validator=_probability)
    displacement_mm: float = attrs.field(default=2.0, validator=ge(0.0))
    node_distance_mm: float = attrs.field(default=24.0, validator=gt(0.0))


@component
class Noise:
    """Adds Gaussian noise.

    Attributes:
        probability: How often.
        deviation: Largest standard deviation, in units of the normalised image; drawn evenly from 0 on.
    """

    probability: float = attrs.field(default=0.15, validator=_probability)
    deviation: float = attrs.field(default=0.1, validator=ge(0.0))


@component
class Brightness:
    """Multiplies each channel by a factor.

    Attributes:
        probability: How often.
        factor: Smallest and largest.
    """

    probability: float = attrs.field(default=0.15, validator=_probability)
    factor: tuple[float, float] = attrs.field(default=(0.75, 1.25), validator=_range)


@component
class Contrast:
    """Stretches each channel about its mean over the patch; the range of its values is kept.

    Attributes:
        probability: How often.
        factor: Smallest and largest.
    """

    probability: float = attrs.field(default=0.15, validator=_probability)
    factor: tuple[float, float] = attrs.field(default=(0.75, 1.25), validator=_range)


@component
class Gamma:
    """Raises each channel, its range over the patch taken as 0 … 1, to a power.

    Attributes:
        probability: How often.
        exponent: Smallest and largest.
    """

    probability: float = attrs.field(default=0.3, validator=_probability)
    exponent: tuple[float, float] = attrs.field(default=(0.7, 1.5), validator=_range)


@component
class Augmentation:
    """Random changes of training patches. Applied in the order of the attributes; affine and elastic in one resampling.

    Attributes:
        affine: Rotation and scaling.
        elastic: Smooth bending.
        flip: Mirroring.
        noise: Gaussian noise.
        brightness: A factor.
        contrast: A factor about the mean.
        gamma: A power.
    """

    affine: Affine | None = None
    elastic: Elastic | None = None
    flip: Flip | None = None
    noise: Noise | None = None
    brightness: Brightness | None = None
    contrast: Contrast | None = None
    gamma: Gamma | None = None
