"""The checksum is that of RFC 3720 and that of TensorBoard, which reads it."""

from __future__ import annotations

import numpy as np
import pytest
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from trainkit.loggers.crc32c import crc32c


@pytest.mark.parametrize(
    ("content", "checksum"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (bytes([255] * 32), 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_it_is_that_of_the_standard(content: bytes, checksum: int) -> None:
    assert crc32c(content) == checksum


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 5119, 5120, 5121, 100_000])
def test_it_is_that_of_tensorboard(length: int) -> None:
    generator = np.random.default_rng(length)
    for content in (generator.bytes(length), bytes(length), b"\xff" * length):
        assert crc32c(content) == pywrap_tensorflow.crc32c(content)
