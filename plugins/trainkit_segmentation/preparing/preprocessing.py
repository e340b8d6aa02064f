"""Preprocessing of each case, once, before training: the settings."""

from __future__ import annotations

from math import inf, isfinite
from typing import Any, Literal

import attrs

from trainkit import component


def _increasing(instance: object, attribute: attrs.Attribute[tuple[float, float]], value: tuple[float, float]) -> None:
    if not -inf < value[0] < value[1] < inf:
        raise ValueError(f"{attribute.name} must be [lower, upper], two finite numbers, got {list(value)}")


def _is_orientation(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    axes = ("LR", "PA", "IS")
    if value is not None and (len(value) != 3 or any(sum(letter in pair for letter in value) != 1 for pair in axes)):
        letters = "one letter each of L/R, P/A and I/S"
        raise ValueError(f'{attribute.name} must have {letters}, for example "RAS"; got "{value}"')


def _are_positive(instance: object, attribute: attrs.Attribute[Any], value: tuple[float, ...] | None) -> None:
    if value is not None and not all(0 < each < inf for each in value):
        raise ValueError(f"{attribute.name} must be positive, got {list(value)}")


def _are_intensities(
    instance: object, attribute: attrs.Attribute[Any], value: tuple[tuple[float, float, float, float], ...] | None
) -> None:
    for each in value or ():
        lower, upper, _, deviation = each
        if not (all(map(isfinite, each)) and lower < upper and deviation > 0):
            raise ValueError(
                f"{attribute.name} must be [lower, upper, mean, deviation] for each channel, finite numbers with lower "
                f"< upper and a positive deviation; got {list(each)}"
            )


@component
class Preprocessing:
    """From files to the grid on which the network works.

    In this order: axes are flipped and permuted; zeros around the head are cropped; intensities are normalised;
    the image is resampled, and the label by the votes of the same voxels, such that each class keeps its
    place and its volume.

    Attributes:
        orientation: Where the axes point; "RAS": x to the right, y to the front, z up. Not given: as in the files,
            which is right only if all files agree.
        spacing_mm: Size of a voxel along these axes. A volume keeps its extent, so the size is exact to within half a
            voxel over the whole volume. Not given: as in the files.
        resampling: How the image is resampled. "cubic": by splines as in nnU-Net, and linearly across slices that are
            more than three times as thick as a pixel is wide; sharper, and slower once. "linear": along all axes.
        crop_to_nonzero: Whether to remove the planes around the image in which all channels are 0.
        normalization: "zscore": each channel of each case gets mean 0 and standard deviation 1. "zscore_nonzero": the
            same over the voxels that are not 0; the others stay 0. "window": ``window`` is mapped to 0 … 1, and values
            outside it are clipped. "foreground", for CT, as in nnU-Net: each channel is clipped to the percentiles 0.5
            and 99.5 of all voxels that belong to a class, and these get mean 0 and standard deviation 1, with the same
            numbers in all cases. "none": as in the files.
        intensities: For "foreground", of each channel: lower and upper percentile, mean, and standard deviation, in the
            files' units. Not given: those of the training cases, which every checkpoint then contains.
        window: Lower and upper intensity for "window", in the files' units; for CT these are HU.
        nan_as_zero: Whether voxels of an image that are NaN are taken as 0. Registration leaves such voxels outside of
            the field of view. Otherwise such images are refused; images with infinite values always are.
    """

    orientation: str | None = attrs.field(default="RAS", validator=_is_orientation)
    spacing_mm: tuple[float, float, float] | None = attrs.field(default=None, validator=_are_positive)
    resampling: Literal["linear", "cubic"] = "linear"
    crop_to_nonzero: bool = False
    normalization: Literal["zscore", "zscore_nonzero", "window", "foreground", "none"] = "zscore"
    intensities: tuple[tuple[float, float, float, float], ...] | None = attrs.field(
        default=None, validator=_are_intensities
    )
    window: tuple[float, float] = attrs.field(default=(-1000.0, 1000.0), validator=_increasing)
    nan_as_zero: bool = False
