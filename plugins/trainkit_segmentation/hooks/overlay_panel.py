"""Draws one plane: the image in grey, the truth as areas in the colours of the classes, the prediction as outlines.

Shapes: H, W = rows and columns of a plane, or of a picture in pixels, C = the three colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from trainkit import SAFE_ON_DARK
from trainkit_segmentation.hooks.views import View

OPACITY = 0.4  # of the truth
_VEIL = 0.55
_GREY = np.array([150.0, 150.0, 150.0])
_RGB = np.array([[int(each[place : place + 2], 16) for place in (1, 3, 5)] for each in SAFE_ON_DARK], dtype=float)

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@attrs.frozen
class Plane:
    """One plane of a case, as it is shown. Masks are packed, because planes of all cases are kept until one is drawn.

    Attributes:
        view: Which way round it is shown.
        position: Where it is, in words.
        image_HW: The image in shades of grey.
        true: Class -> its true mask, of classes that are in the plane; packed by `packed`.
        found: Class -> its predicted mask, in the same form.
        ignored_HW: Where voxels are ignored; None: nowhere.
    """

    view: View
    position: str
    image_HW: Image
    true: Mapping[int, NDArray[np.uint8]]
    found: Mapping[int, NDArray[np.uint8]]
    ignored_HW: Mask | None = None

    def mask(self, bits: NDArray[np.uint8]) -> Mask:
        """Return a packed mask as (H, W)."""
        return np.unpackbits(bits, count=self.image_HW.size).reshape(self.image_HW.shape).astype(bool)

    @property
    def classes(self) -> set[int]:
        """The classes that the plane has, true or predicted."""
        return {*self.true, *self.found}


def packed(masks_KHW: Iterator[Mask]) -> dict[int, NDArray[np.uint8]]:
    """Return the masks that are not empty, packed."""
    return {k: np.packbits(mask_HW) for k, mask_HW in enumerate(masks_KHW) if mask_HW.any()}


def colour_of(k: int) -> NDArray[np.float64]:
    """Return the colour of a class, 0 … 255; they recur where there are more classes than colours."""
    colour: NDArray[np.float64] = _RGB[k % len(_RGB)]
    return colour


def content(plane: Plane) -> tuple[slice, slice]:
    """Return the rows and columns of a plane in which anything is, and a little around them."""
    anything_HW = plane.image_HW > 0
    for bits in (*plane.true.values(), *plane.found.values()):
        anything_HW |= plane.mask(bits)
    if not anything_HW.any():
        return slice(0, anything_HW.shape[0]), slice(0, anything_HW.shape[1])
    slices = []
    for axis, length in enumerate(anything_HW.shape):
        inside = np.flatnonzero(anything_HW.any(axis=1 - axis))
        around = 1 + (inside[-1] - inside[0]) // 40
        slices.append(slice(max(0, int(inside[0] - around)), min(length, int(inside[-1] + around + 1))))
    return slices[0], slices[1]


def panel(
    plane: Plane, box: tuple[slice, slice], size: tuple[int, int]
) -> tuple[Image, dict[int, tuple[float, float]]]:
    """Return a plane as a picture of a size, and where in it the name of each class fits best."""
    from PIL import Image as Pillow

    grey = Pillow.fromarray(plane.image_HW[box]).resize(size[::-1], Pillow.Resampling.BILINEAR)
    picture_HWC = np.repeat(np.asarray(grey, dtype=float)[:, :, None], 3, axis=2)
    if plane.ignored_HW is not None:
        veiled_HW = _stretched(plane.ignored_HW[box], size)
        picture_HWC[veiled_HW] += _VEIL * (_GREY - picture_HWC[veiled_HW])
    true = {k: plane.mask(bits)[box] for k, bits in plane.true.items()}
    found = {k: plane.mask(bits)[box] for k, bits in plane.found.items()}
    painted_HWC = picture_HWC.copy()
    for k in sorted(true, key=lambda k: -int(true[k].sum())):  # what lies within another class is painted over it
        area_HW = _stretched(true[k], size)
        painted_HWC[area_HW] = picture_HWC[area_HW] + OPACITY * (colour_of(k) - picture_HWC[area_HW])
    outlines = {k: _outline(_stretched(found[k], size)) for k in sorted(found, key=lambda k: -int(found[k].sum()))}
    around_HW = np.zeros(size, bool)
    for outline_HW in outlines.values():
        around_HW |= _grown(outline_HW)
    painted_HWC[around_HW] *= 0.35
    for k, outline_HW in outlines.items():
        painted_HWC[outline_HW] = colour_of(k)
    names = {k: _middle(true[k] if k in true else found[k], size) for k in {**true, **found}}
    return np.rint(painted_HWC).astype(np.uint8), names


def _stretched(mask_HW: Mask, size: tuple[int, int]) -> Mask:
    """Return a mask of another size: each voxel as large as it is, and none lost if it is less than a pixel."""
    for axis, (old, new) in enumerate(zip(mask_HW.shape, size, strict=True)):
        if new >= old:
            mask_HW = mask_HW.take((2 * np.arange(new) + 1) * old // (2 * new), axis)
        else:
            mask_HW = np.logical_or.reduceat(mask_HW, np.arange(new) * old // new, axis)
    return mask_HW


def _outline(mask_HW: Mask) -> Mask:
    """Return the pixels of a mask that are at most two away from its outside."""
    padded = np.pad(mask_HW, 2)
    for _ in range(2):
        padded = padded & ~_grown(~padded)
    outline: Mask = mask_HW & ~padded[2:-2, 2:-2]
    return outline


def _grown(mask_HW: Mask) -> Mask:
    """Return a mask and its four neighbours."""
    grown = mask_HW.copy()
    grown[1:] |= mask_HW[:-1]
    grown[:-1] |= mask_HW[1:]
    grown[:, 1:] |= mask_HW[:, :-1]
    grown[:, :-1] |= mask_HW[:, 1:]
    return grown


def _middle(mask_HW: Mask, size: tuple[int, int]) -> tuple[float, float]:
    """Return the point (x, y) of a stretched mask that is furthest from its outside."""
    inside_HW = distance_transform_edt(np.pad(mask_HW, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(inside_HW.argmax()), mask_HW.shape)
    return float((column + 0.5) * size[1] / mask_HW.shape[1]), float((row + 0.5) * size[0] / mask_HW.shape[0])
