"""Writes every picture that a live part shows to ``figures/<name>-<epoch>.png``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainkit.state import State


class Figures:
    """Part of every run; the number in a file's name is that of finished epochs, as in the checkpoints' names."""

    def on_epoch_end(self, state: State) -> None:
        """Write the pictures of the epoch that ends."""
        self._write(state, state.epoch + 1)

    def on_run_end(self, state: State) -> None:
        """Write pictures that came with the end of the run."""
        self._write(state, state.epoch)

    def _write(self, state: State, epochs: int) -> None:
        if not state.pictures:
            return
        from PIL import Image

        folder = state.folder / "figures"
        folder.mkdir(exist_ok=True)
        for name, image_HWC in state.pictures.items():
            Image.fromarray(image_HWC).save(folder / f"{name}-{epochs:04d}.png")
