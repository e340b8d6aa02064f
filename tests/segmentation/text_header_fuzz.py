"""Damages the text headers of NRRD and MetaImage files at random: a file is read or refused in one sentence, at once.

python -m segmentation.text_header_fuzz [NUMBER [SEED]]    from the folder tests; 10,000 files if no number is given
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import SimpleITK

from .nifti_fuzz import read_or_refused

_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
_WORDS = (
    *(b"", b"-1", b"0", b"2", b"4", b"nan", b"1e400", b"9" * 20, b"999999999"),
    *(b"none", b"(1,2", b"LIST", b"%d", b"gzip", b"raw", b"/dev/zero", b".", b"\xff", b"\n", b"=", b":"),
)
_HEADER = 480  # bytes: shorter than every header


def fuzz(number: int, seed: int, folder: Path) -> Counter[str]:
    """Read ``number`` damaged files.

    Returns:
        How many were read, and how many refused.

    Raises:
        AssertionError: A file led to another exception, took a second, or was refused in several lines.
    """
    rng = random.Random(seed)
    warnings.simplefilter("error")
    sources = [_source(folder, ending, packed) for ending in _ENDINGS for packed in (False, True)]
    outcome: Counter[str] = Counter()
    for n in range(number):
        ending, content = rng.choice(sources)
        path = folder / f"damaged{ending}"
        path.write_bytes(_damaged(content, rng))
        outcome[read_or_refused(path, rng, f"file {n} of seed {seed}")] += 1
    return outcome


def _source(folder: Path, ending: str, packed: bool) -> tuple[str, bytes]:
    path = folder / f"whole_{packed}{ending}"
    image = SimpleITK.GetImageFromArray(np.arange(120, dtype=np.int16).reshape(4, 5, 6))
    SimpleITK.WriteImage(image, str(path), packed)
    return ending, path.read_bytes()


def _damaged(content: bytes, rng: random.Random) -> bytes:
    """Return a file with a few wrong bytes or words in its header, or with its end cut off."""
    wrong = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        words = [match.span() for match in re.finditer(rb"[^\s,()=:]+", bytes(wrong[:_HEADER]))]
        if rng.random() < 0.5 or not words:
            wrong[rng.randrange(min(len(wrong), _HEADER))] = rng.randrange(256)
        else:
            begin, end = rng.choice(words)
            wrong[begin:end] = rng.choice(_WORDS)
    if rng.random() < 0.1:
        del wrong[rng.randrange(len(wrong)) :]
    return bytes(wrong)


if __name__ == "__main__":
    arguments = [int(each) for each in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as temporary:
        print(dict(fuzz(*(*arguments, *(10_000, 0)[len(arguments) :]), folder=Path(temporary))))
