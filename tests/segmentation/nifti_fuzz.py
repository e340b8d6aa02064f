"""Damages the headers of NIfTI files at random: whatever they say, a file is read or refused in one sentence, at once.

python tests/segmentation/nifti_fuzz.py [NUMBER [SEED]]    # 10,000 files if no number is given
"""

from __future__ import annotations

import bz2
import gzip
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np

from trainkit import DataError
from trainkit_segmentation.files.images import read_integers, read_voxels

_PACKERS = {".nii": bytes, ".nii.gz": gzip.compress, ".nii.bz2": bz2.compress}
_ODD = (0, 1, 0x7F, 0x80, 0xFF)
_MOST_SECONDS = 1.0  # of CPU time, so that other processes do not count


def fuzz(number: int, seed: int, folder: Path) -> Counter[str]:
    """Read ``number`` damaged files.

    Returns:
        How many were read, and how many refused.

    Raises:
        AssertionError: A file led to another exception, took a second of CPU time, or was refused in several lines.
    """
    rng = random.Random(seed)
    warnings.simplefilter("error")
    sources = [_source(folder, kind) for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image)]
    outcome: Counter[str] = Counter()
    for n in range(number):
        content, length = rng.choice(sources)
        ending = rng.choice(list(_PACKERS))
        path = folder / f"damaged{ending}"
        path.write_bytes(_PACKERS[ending](_damaged(content, length, rng)))
        outcome[read_or_refused(path, rng, f"file {n} of seed {seed}")] += 1
    return outcome


def read_or_refused(path: Path, rng: random.Random, what: str) -> Literal["read", "refused"]:
    """Read a file, and return what became of it.

    Raises:
        AssertionError: It led to an exception other than DataError, was refused in several lines, or took a second of
            CPU time.
    """
    began = time.process_time()
    outcome: Literal["read", "refused"] = "read"
    try:
        rng.choice((read_integers, read_voxels))(path)
    except DataError as error:
        told = str(error)
        assert told.startswith(f"{path.parent}/"), told
        assert "\n" not in told, told
        outcome = "refused"
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert time.process_time() - began < _MOST_SECONDS, f"{what} took a second"
    return outcome


def _source(folder: Path, kind: type) -> tuple[bytes, int]:
    path = folder / "whole.nii"
    image = kind(np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4), np.diag([1.0, 2.0, 3.0, 1.0]))
    nibabel.save(image, path)
    return path.read_bytes(), image.header.sizeof_hdr + 4


def _damaged(content: bytes, header: int, rng: random.Random) -> bytes:
    """Return a file with a few wrong bytes in its header, or a wrong number, or its end cut off."""
    wrong = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(header)
        if rng.random() < 0.5:
            wrong[at] = rng.choice((*_ODD, rng.randrange(256)))
        else:
            width = rng.choice((2, 4, 8))
            wrong[at : at + width] = bytes([rng.choice(_ODD)]) * width
    if rng.random() < 0.1:
        del wrong[rng.randrange(len(wrong)) :]
    return bytes(wrong[: len(content)])


if __name__ == "__main__":
    arguments = [int(each) for each in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as temporary:
        print(dict(fuzz(*(*arguments, *(10_000, 0)[len(arguments) :]), folder=Path(temporary))))
