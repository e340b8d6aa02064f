"""Headers and pixels of PNG, TIFF, JPEG and BMP files, by Pillow."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainkit import DataError
from trainkit_segmentation.files.header import Array, Header, ras_from_lps
from trainkit_segmentation.files.stored import StoredImage

_FORMATS = ("PNG", "TIFF", "JPEG", "BMP")  # and no others, whatever is in a file of such a name
_ORIENTATION = 0x0112  # the tag of EXIF; of TIFF files, Pillow itself applies it
_TURNED = (
    "the file says that the picture is turned or mirrored for display (EXIF orientation {}), but pixels are read as "
    "stored. If labels were drawn on the displayed picture, turn the pixels and remove the entry"
)
_DTYPE_OF = {
    **dict.fromkeys(("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"), "u1"),
    "I;16": "<u2",
    "I;16L": "<u2",
    "I;16B": ">u2",
    "I": "i4",
    "F": "f4",
}


def open_picture(path: Path) -> StoredImage:
    """Read and check the header of a file.

    Raises:
        DataError: The file is no picture, or its pixels are of another kind.
    """
    with Image.open(path, formats=_FORMATS) as picture:
        mode, (x, y), pages = picture.mode, picture.size, getattr(picture, "n_frames", 1)
        channels = len(picture.getbands())
        turned = picture.getexif().get(_ORIENTATION, 1) if "exif" in picture.info else 1
    if mode not in _DTYPE_OF:
        raise DataError(f"{path}: pixels must be integers or real numbers, got the mode {mode}")
    # As ITK has it: x to the left of the person, y to the back.
    header = Header(
        path,
        (x, y, pages),
        channels,
        ras_from_lps(np.eye(4)),
        open_question=_TURNED.format(turned) if turned != 1 else None,
        has_no_form=True,
        has_no_spacing=True,
    )
    return StoredImage(header, np.dtype(_DTYPE_OF[mode]), partial(_pixels, path, header, mode))


def _pixels(path: Path, header: Header, mode: str) -> Array:
    x, y, pages = header.shape
    voxels: Array = np.empty((x, y, pages, header.channels), dtype=np.dtype(_DTYPE_OF[mode]).newbyteorder("="))
    # Opened by its path, an unpacked TIFF file whose orientation swaps the sides comes out with mixed-up rows.
    with path.open("rb") as file, Image.open(file, formats=_FORMATS) as picture:
        for page in range(pages):
            if pages > 1:
                picture.seek(page)
            if picture.size != (x, y) or picture.mode != mode:
                raise DataError(
                    f"{path}: page {page + 1} is of {picture.size[0]}×{picture.size[1]} pixels ({picture.mode}), the "
                    f"first of {x}×{y} ({mode})"
                )
            pixels: Any = np.asarray(picture)
            voxels[:, :, page] = pixels.reshape(y, x, header.channels).swapaxes(0, 1)
    return voxels
