"""The font of words in pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def picture_font(size: int) -> Any:
    """Return the font for Pillow's ``ImageDraw``: DejaVu Sans, which has most alphabets and signs such as µ and Å.

    Args:
        size: Height of a line in pixels, approximately.
    """
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
