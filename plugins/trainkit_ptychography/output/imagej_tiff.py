"""A map, or a stack, as a TIFF file that ImageJ, Fiji and Gwyddion open with its true values and pixel size.

ImageJ's convention: the description begins with "ImageJ=" and names the unit of length, and the resolution tags hold
pixels per that unit, with no unit of their own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainkit import written_whole

_DESCRIPTION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 270, 282, 283, 296
_NO_UNIT = 1


def write_imagej_tiff(
    path: Path,
    map_SHW: NDArray[np.floating],
    pixel_size_angstrom: float | None,
    spacing_angstrom: float | None = None,
    scanned_N2: NDArray[np.floating] | None = None,
) -> None:
    """Write 32-bit floating-point images, a page each: whole, or not at all.

    Args:
        path: The file.
        map_SHW: Values (H, W), or of a stack (S, H, W); the first row is at the top.
        pixel_size_angstrom: Size of a pixel; None if unknown: the file is then in pixels.
        spacing_angstrom: Distance from one page to the next; None if there is none, or if it is not known.
        scanned_N2: Scan points (row, column), in pixels of the map; the description says in which rows and columns they
            lie, because what is outside of them was hardly seen, or not at all. None: nothing is said.

    Source:
        ImageJ, ij/io/FileSaver.java (getDescriptionString) and TiffEncoder.java.
    """
    low, high = (float(each) for each in np.percentile(map_SHW, (0.5, 99.5)))  # the contrast that it opens with
    unit = "pixel" if pixel_size_angstrom is None else "angstrom"
    whole_SHW = np.asarray(map_SHW, dtype=np.float32)
    pages = [Image.fromarray(page_HW) for page_HW in (whole_SHW if whole_SHW.ndim == 3 else whole_SHW[None])]
    # No "images=…": with it, ImageJ expects the pages to lie one right after the other, which Pillow does not write.
    stack = f"slices={len(pages)}\n" if len(pages) > 1 else ""
    if spacing_angstrom is not None and pixel_size_angstrom is not None:
        stack += f"spacing={spacing_angstrom}\n"
    tags: dict[int, str | float] = {
        _DESCRIPTION: f"ImageJ=1.53t\n{stack}unit={unit}\nmin={low}\nmax={high}\n{_scanned(scanned_N2)}",
        _X_RESOLUTION: 1.0 / (pixel_size_angstrom or 1.0),
        _Y_RESOLUTION: 1.0 / (pixel_size_angstrom or 1.0),
        _RESOLUTION_UNIT: _NO_UNIT,
    }
    with written_whole(path) as new:
        first, *others = pages
        first.save(new, format="TIFF", tiffinfo=tags, save_all=True, append_images=others)


def _scanned(points_N2: NDArray[np.floating] | None) -> str:
    """Return what the description says of the scanned part; ImageJ shows it under Image > Show Info."""
    if points_N2 is None:
        return ""
    (top, left), (bottom, right) = points_N2.min(axis=0), points_N2.max(axis=0)
    return (
        f"scanned_rows_px={top:.1f} to {bottom:.1f}\nscanned_columns_px={left:.1f} to {right:.1f}\n"
        "not_scanned=values outside of these rows and columns are of no use\n"
    )
