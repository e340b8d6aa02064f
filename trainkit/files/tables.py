r"""Writes tables and JSON for people and other programs, completely or not at all.

A name of a file may hold bytes that are no UTF-8, which Python reads as halves of surrogate pairs. They are written as
their escapes, such as ``\udcff``, which JSON has too.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainkit.files.writing import written_whole


def write_table(path: Path, rows: Sequence[Mapping[str, str | float | None]]) -> None:
    """Write rows as CSV; None becomes an empty cell. The file is on the disk when this returns.

    Args:
        path: The file.
        rows: The rows, with the same columns; there is at least one.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: format(value, ".10g") if isinstance(value, float) else value for key, value in row.items()}
        )
    with written_whole(path) as new:
        new.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: Any) -> None:
    """Write JSON, with null for a number that is not finite. The file is on the disk when this returns."""
    text = json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with written_whole(path) as new:
        new.write_text(text, encoding="utf-8", errors="backslashreplace")


def finite(value: Any) -> Any:
    """Return a value that any reader of JSON takes: null in place of NaN and infinities."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
