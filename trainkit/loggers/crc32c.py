"""The checksum of TensorBoard's records, CRC-32C, of long contents such as pictures.

TensorBoard computes it in Python, byte by byte: a tenth of a second for the pictures of one epoch. A checksum is
linear: that of a whole is that of its first part, taken on through as many zeros as the second part has bytes, XOR that
of the second part. So the parts of a content are taken through their bytes side by side.

Source: R. N. Williams, "A Painless Guide to CRC Error Detection Algorithms" (1993); the polynomial is that of RFC 3720.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import CRC_TABLE
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c as of_short

_PARTS = 1024  # a power of two
_LONG = 4 * _PARTS  # bytes from which on the parts are worth it
_BITS = np.arange(32, dtype=np.uint32)


def crc32c(content: bytes) -> int:
    """Return the CRC-32C of a content."""
    if len(content) < _LONG:
        return int(of_short(content))
    length = -(-len(content) // _PARTS)
    whole = np.zeros(_PARTS * length, np.uint8)  # zeros before the content change nothing
    whole[-len(content) :] = np.frombuffer(content, np.uint8)
    whole[len(whole) - len(content) :][:4] ^= 255  # where a checksum begins
    # Each single bit is taken through zeros as well, which tells what becomes of any register.
    columns = np.zeros((length, _PARTS + 32), np.uint8)
    columns[:, :_PARTS] = whole.reshape(_PARTS, length).T
    table = np.array(CRC_TABLE, np.uint32)
    registers = np.concatenate([np.zeros(_PARTS, np.uint32), np.uint32(1) << _BITS])
    for column in columns:
        registers = table[(registers ^ column) & 255] ^ (registers >> 8)
    parts, through_zeros = registers[:_PARTS], registers[_PARTS:]
    while len(parts) > 1:
        parts = _applied(through_zeros, parts[::2]) ^ parts[1::2]
        through_zeros = _applied(through_zeros, through_zeros)
    return int(parts[0]) ^ 0xFFFFFFFF


def _applied(images: NDArray[np.uint32], registers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return what becomes of registers (N,), if ``images`` (32,) says what becomes of each of their bits."""
    is_set = (registers[:, None] >> _BITS & 1).astype(bool)
    applied: NDArray[np.uint32] = np.bitwise_xor.reduce(np.where(is_set, images, np.uint32(0)), axis=1)
    return applied
