"""Takes a run's pictures into a page: smaller, and no more than it can hold."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import attrs

from trainkit.words import after_epochs, number_of

_NAME = re.compile(r"(.+)-(?:step-(\d{1,12})|(\d{1,9}))\.png")
_LONGEST_SIDE = 720  # pixels
_MOST_BYTES = 12_000_000  # of all pictures, before base64
_MOST_OF_ONE = 40  # times at which a picture is shown
_MOST_PIXELS = 100_000_000  # a larger picture is not opened


@attrs.frozen
class Picture:
    """A picture of the run at one time.

    Attributes:
        when: When it was made, for example "after 10 epochs".
        source: A data URL.
        width: Its width in pixels, as it is shown.
        height: Its height.
    """

    when: str
    source: str
    width: int
    height: int


@attrs.define
class Pictures:
    """The pictures of a run.

    Attributes:
        series: Name -> the picture at all times that are shown.
        notes: What was left out or cannot be read: a sentence each.
    """

    series: dict[str, list[Picture]] = attrs.Factory(dict)
    notes: list[str] = attrs.Factory(list)


def pictures_of(folder: Path, most_bytes: int = _MOST_BYTES) -> Pictures:
    """Return the pictures in ``figures/`` of a run folder.

    The last time of each comes first, and then as many others as there is room for, evenly spread.

    Args:
        folder: The run folder.
        most_bytes: Size of all pictures, as they are shown.
    """
    from PIL.Image import DecompressionBombError

    files: dict[str, list[tuple[tuple[int, int], str, Path]]] = {}
    for path in sorted((folder / "figures").glob("*.png")):
        if (known := _NAME.fullmatch(path.name)) and path.is_file():
            place = (0, int(known[2])) if known[2] else (1, int(known[3]))
            when = f"after {number_of(int(known[2]), 'step')}" if known[2] else after_epochs(int(known[3]))
            files.setdefault(known[1], []).append((place, when, path))
    found = Pictures()
    size, left_out = 0, 0
    wanted: list[tuple[int, str, int, str, Path]] = []
    for name, times in files.items():
        times.sort()
        chosen = _spread(len(times), _MOST_OF_ONE)
        left_out += len(times) - len(chosen)
        for rank, index in enumerate(reversed(chosen)):
            wanted.append((rank, name, index, times[index][1], times[index][2]))
    taken: dict[str, list[tuple[int, Picture]]] = {name: [] for name in files}
    for _, name, index, when, path in sorted(wanted, key=lambda each: each[0]):
        if size >= most_bytes:
            left_out += 1
            continue
        try:
            data, mime, width, height = _small(path)
        except (OSError, ValueError, SyntaxError, Warning, DecompressionBombError) as error:
            found.notes.append(f"{path.name} cannot be read ({error})")
            continue
        if size + len(data) > most_bytes:
            left_out += 1
            size = most_bytes
            continue
        size += len(data)
        source = f"data:{mime};base64,{base64.b64encode(data).decode()}"
        taken[name].append((index, Picture(when, source, width, height)))
    found.series = {name: [picture for _, picture in sorted(each, key=lambda e: e[0])] for name, each in taken.items()}
    found.series = {name: each for name, each in found.series.items() if each}
    if left_out:
        number = sum(map(len, files.values()))
        where = folder / "figures"
        found.notes.append(f"{left_out} of {number} pictures are left out, to keep this page small; all are in {where}")
    return found


def _spread(number: int, most: int) -> Sequence[int]:
    if number <= most:
        return range(number)
    return sorted({round(i * (number - 1) / (most - 1)) for i in range(most)})


def _small(path: Path) -> tuple[bytes, str, int, int]:
    from PIL import Image, features

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Image.open(path) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise ValueError(f"it has {opened.width} x {opened.height} pixels")
            image = opened.convert("RGBA" if "A" in opened.getbands() or "transparency" in opened.info else "RGB")
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    written = io.BytesIO()
    is_webp = features.check("webp")
    if is_webp:
        image.save(written, format="webp", quality=82, method=4)
    else:
        image.save(written, format="png", optimize=True)
    return written.getvalue(), "image/webp" if is_webp else "image/png", image.width, image.height
