"""Writes tables and JSON for people and other programs, completely or not at all."""

from __future__ import annotations

import csv
import io
import json
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
        new.write_text(text.getvalue(), encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON; the file is on the disk when this returns."""
    with written_whole(path) as new:
        new.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
