"""How the files of a case's image are named, so that the channels of a new case are found in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs


@attrs.frozen
class ImageNames:
    """Names of the files of an image. A file with all channels may always have any name.

    Attributes:
        endings: For each channel, how the name of its file may end, before ``.nii.gz``; empty: as `numbered` says.
        whole: Names of the file, without its ending, in a folder that is a case; empty: cases are no folders.
    """

    endings: tuple[tuple[str, ...], ...] = ()
    whole: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the names as JSON values."""
        return {"endings": [list(each) for each in self.endings], "whole": list(self.whole)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ImageNames:
        """Read what `to_json` returned.

        Raises:
            TypeError: It is something else.
        """
        if not isinstance(content, Mapping):
            raise TypeError(f"expected a table, got {content!r}")
        return cls(tuple(_texts(each) for each in content.get("endings", [])), _texts(content.get("whole", [])))


def numbered(channels: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the usual endings: the number of the channel, as in nnU-Net, or its name where there are several.

    Example:
        >>> numbered(["T1", "FLAIR"])
        (('_0000', '_T1', '-T1'), ('_0001', '_FLAIR', '-FLAIR'))
    """
    if len(channels) == 1:
        return (("_0000",),)
    return tuple((f"_{k:04d}", f"_{name}", f"-{name}") for k, name in enumerate(channels))


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise TypeError(f"expected a list of texts, got {values!r}")
    return tuple(values)
