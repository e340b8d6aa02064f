"""Writes what commands say as JSON, one object a line, for programs that read along (``--json``)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainkit.printable import printable


def json_line(type_: str, fields: Mapping[str, Any]) -> str:
    r"""Return one line of JSON: an object whose first key, "type", says what the others mean.

    JSON has no NaN and no infinity: a number that is not finite is null. Text is as safe as elsewhere (`printable`).

    Args:
        type_: What the object is about, for example "epoch".
        fields: Key -> a value of JSON, or a path, or any iterable of such values.

    Example:
        >>> json_line("epoch", {"epoch": 3, "values": {"val/loss": float("nan")}})
        '{"type": "epoch", "epoch": 3, "values": {"val/loss": null}}'
    """
    return json.dumps({"type": type_, **{key: _as_json(value) for key, value in fields.items()}})


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | Path):
        return printable(str(value))
    if isinstance(value, Mapping):
        return {printable(str(key)): _as_json(each) for key, each in value.items()}
    if isinstance(value, Iterable):
        return [_as_json(each) for each in value]
    raise TypeError(f"{value!r} is no value of JSON")
