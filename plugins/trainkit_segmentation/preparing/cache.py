"""The cache of preprocessed cases: the settings."""

from __future__ import annotations

from pathlib import Path

import attrs

from trainkit import HARMLESS, component


@component
class Cache:
    """A folder of preprocessed cases. All runs share it, and several can use it at the same time.

    The key of an entry is a digest of the case's files and of the settings and code that made it, so an entry is never
    out of date: any change gives another entry. When the folder exceeds its limit, the least recently used entries are
    removed, but never those that a run is using.

    Attributes:
        folder: The folder. Not given: ``trainkit/segmentation`` in the user's cache folder (``$XDG_CACHE_HOME``, or
            ``~/.cache``).
        limit_gb: Largest size of all entries in 10⁹ bytes. Not given: no limit.
    """

    folder: Path | None = attrs.field(default=None, metadata=HARMLESS)
    limit_gb: float | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.gt(0.0)))
