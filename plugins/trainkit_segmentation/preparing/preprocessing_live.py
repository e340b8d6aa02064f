"""Preprocessing of each case: from its files to the arrays in the cache.

Shapes: C = channels, K = classes, X, Y, Z = voxels.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import torch

from trainkit import DataError, bytes_in_words, free_host_memory, shape_in_words
from trainkit_segmentation.cases.case import Volume
from trainkit_segmentation.cases.labels import ignored_voxels, voxels_of_class
from trainkit_segmentation.files.header import Array
from trainkit_segmentation.preparing.cubic import stretch_cubic
from trainkit_segmentation.preparing.foreground import normalise_by_foreground
from trainkit_segmentation.preparing.grid import Grid, nonzero_box, stretch, whole_grid
from trainkit_segmentation.preparing.label_votes import resample_label_codes
from trainkit_segmentation.preparing.preprocessing import Preprocessing

_BYTES_WHILE_RESAMPLED = 10  # for each channel of a voxel: as float32, resampled, and as it is stored
_MOST_HALF = 6e4  # magnitude up to which intensities are kept as float16, whose range ends at 65,504
_MOST_PLACES = 10_000  # voxels kept for each class, to centre patches on; evenly spread over all voxels of the class


@attrs.frozen
class Prepared:
    """A case on the grid that the network works on.

    Attributes:
        image_CXYZ: Intensities: float16 if they are normalised and in its range, else float32.
        label_codes_XYZ: Label codes.
        own_label_codes_XYZ: Label codes on the case's own grid; None if that grid is the same.
        class_table: (codes, K) uint8; None where classes exclude each other.
        places: int32, voxels of class 0, then of class 1, …, as positions in the flattened ``label_codes_XYZ``.
        place_counts: int64 (K,), number of voxels of each class in ``places``.
        counted_places: int32, voxels that are not ignored, in the same form; None if none is ignored.
        grid: Position of the grid in the case's own.
        own_voxels: For each class, its number of voxels on the case's own grid.
        own_ignored: Number of ignored voxels on the case's own grid.
        ranges: Lowest and highest intensity of each channel, as read.
        label_off: How far a label value was off a whole number at most, before it was rounded.
        has_form: Whether the image's header says how its axes lie in space.
        has_spacing: Whether the image's header, or the recipe, says how large a voxel is.
    """

    image_CXYZ: Array
    label_codes_XYZ: Array
    own_label_codes_XYZ: Array | None
    class_table: Array | None
    places: Array
    place_counts: Array
    counted_places: Array | None
    grid: Grid
    own_voxels: tuple[int, ...]
    own_ignored: int
    ranges: tuple[tuple[float, float], ...]
    label_off: float
    has_form: bool
    has_spacing: bool


def prepare(volume: Volume, settings: Preprocessing, num_classes: int) -> Prepared:
    """Bring a case onto the grid that the network works on.

    Raises:
        DataError: ``crop_to_nonzero`` would leave nothing of the case.
    """
    ranges = tuple((float(channel.min()), float(channel.max())) for channel in volume.image_CXYZ)
    image_CXYZ, grid = prepare_image(volume.image_CXYZ, volume.affine, settings)
    label_codes_XYZ = np.ascontiguousarray(grid.cut(grid.turn(volume.label_codes_XYZ[None]))[0])
    label_codes_XYZ = resample_label_codes(label_codes_XYZ, volume.class_table, grid.shape)
    places = places_of_classes(label_codes_XYZ, volume.class_table, num_classes)
    return Prepared(
        image_CXYZ=image_CXYZ,
        label_codes_XYZ=label_codes_XYZ,
        own_label_codes_XYZ=None if grid.is_own else np.ascontiguousarray(volume.label_codes_XYZ),
        class_table=volume.class_table,
        places=np.concatenate([np.zeros(0, np.int32), *places]),
        place_counts=np.array([len(each) for each in places], dtype=np.int64),
        counted_places=counted_places(label_codes_XYZ, volume.class_table, num_classes),
        grid=grid,
        own_voxels=voxels_of_classes(volume, num_classes),
        own_ignored=int(ignored_voxels(volume.label_codes_XYZ, volume.class_table, num_classes).sum()),
        ranges=ranges,
        label_off=volume.label_off,
        has_form=volume.has_form,
        has_spacing=volume.has_spacing,
    )


def prepare_image(image_CXYZ: Array, affine: Array, settings: Preprocessing) -> tuple[Array, Grid]:
    """Bring an image onto the grid that the network works on.

    Args:
        image_CXYZ: Intensities on the case's own grid, float32; they may be changed in place.
        affine: (4, 4) of the case's files, from voxels to mm.
        settings: What is done.

    Returns:
        Intensities: float16 if they are normalised and in its range, else float32; and the position of their grid.

    Raises:
        DataError: ``crop_to_nonzero`` would leave nothing of the image, or it becomes too large.
    """
    x, y, z = image_CXYZ.shape[1:]
    own_shape = (x, y, z)
    grid = whole_grid(own_shape, affine, settings.orientation)
    image_CXYZ = grid.turn(image_CXYZ)
    if settings.crop_to_nonzero:
        if (box := nonzero_box(image_CXYZ)) is None:
            raise DataError("all voxels of the image are 0, so crop_to_nonzero leaves nothing")
        grid = attrs.evolve(grid, box=box)
    x, y, z = (stop - start for start, stop in grid.box)
    grid = attrs.evolve(grid, shape=(x, y, z))
    if settings.spacing_mm is not None:
        x, y, z = (
            max(1, round(n * now / wanted))
            for n, now, wanted in zip(grid.shape, grid.spacing_mm, settings.spacing_mm, strict=True)
        )
        grid = attrs.evolve(grid, shape=(x, y, z))
        _check_memory(grid, len(image_CXYZ))
    image_CXYZ = normalise(np.ascontiguousarray(grid.cut(image_CXYZ), dtype=np.float32), settings)
    if settings.resampling == "cubic":
        own = grid.own_spacing_mm
        image_CXYZ = stretch_cubic(image_CXYZ, grid.shape, [own[axis] for axis in grid.axes], grid.spacing_mm)
    else:
        image_CXYZ = stretch(torch.from_numpy(image_CXYZ), grid.shape).numpy()
    # Not by an array of magnitudes, which takes a quarter of the time of a whole case.
    is_small = image_CXYZ.min() > -_MOST_HALF and image_CXYZ.max() < _MOST_HALF
    dtype = np.float16 if settings.normalization != "none" and is_small else np.float32
    return image_CXYZ.astype(dtype, copy=False), grid


def normalise(image_CXYZ: Array, settings: Preprocessing) -> Array:
    """Normalise the intensities of a float32 image in place, and return the image.

    Means and deviations are computed in float64 by one thread, so that they have the same bits everywhere.
    """
    if settings.normalization == "window":
        lower, upper = settings.window
        np.clip(image_CXYZ, lower, upper, out=image_CXYZ)
        image_CXYZ -= np.float32(lower)
        image_CXYZ /= np.float32(upper - lower)
    elif settings.normalization == "foreground":
        normalise_by_foreground(image_CXYZ, settings.intensities or ())
    elif settings.normalization != "none":
        for channel in image_CXYZ:
            inside = channel != 0 if settings.normalization == "zscore_nonzero" else np.ones(channel.shape, dtype=bool)
            values = channel[inside].astype(np.float64)
            if values.size:
                deviation = values.std()
                values -= values.mean()
                channel[inside] = values / deviation if deviation > 0 else 0.0
    return image_CXYZ


def places_of_classes(label_codes_XYZ: Array, class_table: Array | None, num_classes: int) -> list[Array]:
    """Return for each class the positions of its voxels; of many voxels, an evenly spread selection."""
    found = []
    for k in range(num_classes):
        found.append(_some_places(voxels_of_class(label_codes_XYZ, class_table, k)))
    return found


def counted_places(label_codes_XYZ: Array, class_table: Array | None, num_classes: int) -> Array | None:
    """Return the positions of voxels that are not ignored, of many an evenly spread selection; None: no one is."""
    ignored_XYZ = ignored_voxels(label_codes_XYZ, class_table, num_classes)
    return _some_places(~ignored_XYZ) if ignored_XYZ.any() else None


def _some_places(inside_XYZ: Array) -> Array:
    places = np.flatnonzero(inside_XYZ)
    if len(places) > _MOST_PLACES:
        places = places[np.linspace(0, len(places) - 1, _MOST_PLACES).astype(np.int64)]
    return places.astype(np.int32)


def _check_memory(grid: Grid, channels: int) -> None:
    needed = math.prod(grid.shape) * channels * _BYTES_WHILE_RESAMPLED
    if needed > (free := free_host_memory()):
        raise DataError(
            f"with data.preprocessing.spacing_mm, the case has {shape_in_words(grid.shape)} voxels; resampling takes "
            f"{bytes_in_words(needed)} of memory, and {bytes_in_words(free)} are free"
        )


def voxels_of_classes(volume: Volume, num_classes: int) -> tuple[int, ...]:
    """Return for each class its number of voxels."""
    table = volume.class_table
    numbers = np.bincount(volume.label_codes_XYZ.ravel(), minlength=num_classes + 1 if table is None else len(table))
    if table is None:
        return tuple(int(number) for number in numbers[1 : num_classes + 1])
    return tuple(int(number) for number in numbers @ table[:, :num_classes].astype(np.int64))


def to_tensors(prepared: Prepared) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the content of a cache entry: arrays by name, and JSON values."""
    arrays = {
        "image": prepared.image_CXYZ,
        "label_codes": prepared.label_codes_XYZ,
        "own_label_codes": prepared.own_label_codes_XYZ,
        "class_table": prepared.class_table,
        "places": prepared.places,
        "place_counts": prepared.place_counts,
        "counted_places": prepared.counted_places,
    }
    about: dict[str, Any] = {
        "grid": prepared.grid.to_json(),
        "own_voxels": prepared.own_voxels,
        "own_ignored": prepared.own_ignored,
        "ranges": prepared.ranges,
        "label_off": prepared.label_off,
        "has_form": prepared.has_form,
        "has_spacing": prepared.has_spacing,
    }
    return {name: array for name, array in arrays.items() if array is not None}, about
