"""Writes every picture of a live part to ``figures/<name>-<finished epochs>.png``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainkit.drawing.png import png
from trainkit.events import Live
from trainkit.files.writing import make_folder, written_whole

if TYPE_CHECKING:
    from trainkit.state import State


class Figures(Live):
    """Part of every run. As for a checkpoint, a file's name has the number of finished epochs or steps."""

    takes_late_values: ClassVar[bool] = True

    def on_picture(self, state: State) -> None:
        """Write pictures that were made inside an epoch."""
        if not state.closing:
            self._write(state, f"step-{state.step:08d}")

    def on_epoch_end(self, state: State) -> None:
        """Write the pictures of the epoch that ends."""
        self._write(state, f"{state.epoch + 1:04d}")

    def on_run_end(self, state: State) -> None:
        """Write pictures that were made at the end of the run."""
        self._write(state, f"{state.epoch:04d}")

    def _write(self, state: State, when: str) -> None:
        if not state.pictures:
            return
        folder = state.folder / "figures"
        make_folder(folder)
        for name, image_HWC in state.pictures.items():
            with written_whole(folder / f"{name}-{when}.png") as new:
                new.write_bytes(png(image_HWC))
