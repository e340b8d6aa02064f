"""The pictures of a run, which notebooks show."""

from __future__ import annotations

from pathlib import Path

import attrs


@attrs.frozen
class Picture:
    """A picture that a run has written.

    Attributes:
        path: The file.
    """

    path: Path

    def __fspath__(self) -> str:
        """Return the path, so that a picture can be given wherever a path can."""
        return str(self.path)

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


def pictures_of(folder: Path) -> dict[str, Picture]:
    """Return the pictures of a run folder by name, such as "progress" or "figures/phase/epoch-0010"."""
    found = [*folder.glob("*.png"), *sorted((folder / "figures").rglob("*.png"))]
    return {path.relative_to(folder).with_suffix("").as_posix(): Picture(path) for path in found}
