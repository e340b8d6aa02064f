"""Metadata of exported files: every format keeps texts by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def as_text(about: Mapping[str, Any]) -> dict[str, str]:
    """Return texts as they are, and all other values as JSON.

    Example:
        >>> as_text({"run": "liver", "channels": ["CT"]})
        {'run': 'liver', 'channels': '["CT"]'}
    """
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for key, value in about.items()
    }
