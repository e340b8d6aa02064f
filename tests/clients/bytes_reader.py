"""A reader of a made-up format, as another package would have it: each byte of a file is a voxel of one row."""

from pathlib import Path

import numpy as np

from trainkit import component
from trainkit_segmentation import Header, Reader, StoredImage


@component
class Bytes(Reader):
    """Files of bytes."""

    format = "bytes"
    endings = (".bytes",)

    def open(self, path: Path) -> StoredImage:
        row = np.fromfile(path, np.uint8)
        return StoredImage(Header(path, (row.size, 1, 1), 1, np.eye(4)), row.dtype, lambda: row.reshape(-1, 1, 1, 1))
