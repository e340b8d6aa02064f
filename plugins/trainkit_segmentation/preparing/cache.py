"""Where preprocessed cases are kept: the settings."""

from __future__ import annotations

from pathlib import Path

import attrs

from trainkit import component


@component
class Cache:
    """A folder of preprocessed cases, shared by all runs, and safe when several use it at once.

    An entry is found by the content of the case's files and by the settings that it was made with, so it can never be
    out of date; whatever changes makes another entry. What was not used for longest is removed when there is too much;
    what a run is using never is.

    Attributes:
        folder: Where; None: ``trainkit/segmentation`` in the user's cache folder (``$XDG_CACHE_HOME``, ``~/.cache``).
        limit_gb: How large it may grow, in 10⁹ bytes; None: without limit.
    """

    folder: Path | None = None
    limit_gb: float | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.gt(0.0)))
