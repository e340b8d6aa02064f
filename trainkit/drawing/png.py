"""Pictures as PNG files. Figures and loggers show the same ones, so each is encoded once.

The package Pillow tries out five filters for each row, which takes three times as long, for files as large as with the
one filter that suits drawings.

Source:
    Portable Network Graphics (PNG) Specification (Third Edition), W3C 2025.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import xxhash

if TYPE_CHECKING:
    import numpy as np

_LEVEL = 3  # of compression: half the time of 6, for files that are a fifth larger
_MOST_KEPT = 16  # files, which are small
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB = (8, 2, 0, 0, 0)  # bits of a value, its kind, and the only methods of compression, filters and order
_UP = 2  # the filter: differences from the row above

_encoded: dict[tuple[tuple[int, ...], bytes], bytes] = {}  # shape and digest of a picture -> its file


def png(image_HWC: np.ndarray[Any, Any]) -> bytes:
    """Return a picture as the content of a PNG file.

    Args:
        image_HWC: (height, width, 3) uint8.
    """
    import numpy as np

    image_HWC = np.ascontiguousarray(image_HWC, dtype=np.uint8)
    key = image_HWC.shape, xxhash.xxh3_128_digest(image_HWC.data)
    if key not in _encoded:
        while len(_encoded) >= _MOST_KEPT:
            del _encoded[next(iter(_encoded))]  # the oldest one
        _encoded[key] = _file(image_HWC)
    return _encoded[key]


def _file(image_HWC: np.ndarray[Any, Any]) -> bytes:
    import numpy as np

    height, width, colours = image_HWC.shape
    assert colours == 3
    values_HV = image_HWC.reshape(height, 3 * width)
    rows_HV = np.empty((height, 1 + 3 * width), np.uint8)
    rows_HV[:, 0] = _UP
    rows_HV[0, 1:] = values_HV[0]
    np.subtract(values_HV[1:], values_HV[:-1], out=rows_HV[1:, 1:])  # modulo 256
    header = struct.pack(">II5B", width, height, *_RGB)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows_HV.data, _LEVEL), b"IEND": b""}
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks.items())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
