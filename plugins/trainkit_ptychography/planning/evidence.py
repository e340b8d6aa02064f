"""What trials with a scan found, in the words of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class Evidence:
    """What trials found; as it is made, nothing was tried.

    Attributes:
        settings: Settings of [data] that take precedence.
        reasons: Of these, why.
        comments: What is said at the top of the recipe.
        table: Lines with figures, which follow.
    """

    settings: Mapping[str, Any] = attrs.Factory(dict)
    reasons: Mapping[str, str] = attrs.Factory(dict)
    comments: tuple[str, ...] = ()
    table: tuple[str, ...] = ()
