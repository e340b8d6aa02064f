"""Refuses files that are small and unpack to gigabytes of nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from numpy.typing import NDArray

from trainkit import DataError, bytes_in_words

SUSPICIOUS_BYTES = 2**27
"""Unpacked, below which nothing is suspicious."""
SUSPICIOUS_RATIO = 200
"""Unpacked to packed bytes. Patterns of few electrons reach it too, so what is in them decides."""


def refuse_one_value(where: str, unpacked: int, packed: int, parts: Callable[[], Iterable[NDArray[Any]]]) -> None:
    """Refuse an array that packs too well, if parts of it hold one value only.

    Args:
        where: What messages call it.
        unpacked: Bytes of the array.
        packed: Bytes that it takes in the file.
        parts: Reads parts of the array; called only for one that packs too well.

    Raises:
        DataError: It holds one value.
    """
    if unpacked < SUSPICIOUS_BYTES or unpacked < SUSPICIOUS_RATIO * packed:
        return
    first: Any = None
    for part in parts():
        if part.size == 0:
            continue
        first = part.flat[0] if first is None else first
        if not (part == first).all():
            return
    raise DataError(
        f"{where} takes {bytes_in_words(packed)} in the file and {bytes_in_words(unpacked)} unpacked, and wherever it "
        f"was looked at it is {'nothing' if first is None else first}: it was never written, or is made to do harm"
    )
