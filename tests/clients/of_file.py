"""The third party's points, but with a file that has to be there."""

from __future__ import annotations

from pathlib import Path

import attrs

from clients.toy import Line
from trainkit import INPUT_PATH, component


@component
class LineOfFile(Line):
    """Points about a line, and a file that is named for nothing.

    Attributes:
        path: The file.
    """

    path: Path = attrs.field(metadata=INPUT_PATH)
