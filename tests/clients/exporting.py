"""A form of export that is a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from trainkit import DataError, Exporter, TrainedModel, component


@component
class Folder(Exporter):
    """A folder with a note; for a folder called "full", the disk is full."""

    def export(self, trained: TrainedModel, path: Path) -> Iterable[str]:
        (path / "inner").mkdir()
        (path / "inner" / "note.txt").write_text(trained.about["run"])
        if path.name.startswith("full"):
            raise DataError("no space")
        return ["a note"]
