"""What it means if a case has no file for a mask that other cases have."""

from __future__ import annotations

from typing import Literal

MissingMasks = Literal["error", "not_annotated", "empty"]
"""The case is refused, nobody looked for the structure in it, or somebody did and it is not there."""
