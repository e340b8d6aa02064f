"""A map as a TIFF file that ImageJ, Fiji and Gwyddion open with its true values and pixel size.

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


def write_imagej_tiff(path: Path, map_HW: NDArray[np.floating], pixel_size_angstrom: float | None) -> None:
    """Write one 32-bit floating-point image: whole, or not at all.

    Args:
        path: The file.
        map_HW: Values; the first row is at the top.
        pixel_size_angstrom: None where nothing tells: the file then is in pixels.

    Source:
        ImageJ, ij/io/FileSaver.java (getDescriptionString) and TiffEncoder.java.
    """
    low, high = (float(each) for each in np.percentile(map_HW, (0.5, 99.5)))  # the contrast that it opens with
    unit = "pixel" if pixel_size_angstrom is None else "angstrom"
    tags: dict[int, str | float] = {
        _DESCRIPTION: f"ImageJ=1.53t\nunit={unit}\nmin={low}\nmax={high}\n",
        _X_RESOLUTION: 1.0 / (pixel_size_angstrom or 1.0),
        _Y_RESOLUTION: 1.0 / (pixel_size_angstrom or 1.0),
        _RESOLUTION_UNIT: _NO_UNIT,
    }
    with written_whole(path) as new:
        Image.fromarray(np.asarray(map_HW, dtype=np.float32)).save(new, format="TIFF", tiffinfo=tags)
