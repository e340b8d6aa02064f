"""What a logger writes to, when it writes in a thread of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    import numpy as np

    from trainkit.loggers.recorder import Place
    from trainkit.state import About


@attrs.frozen
class Start:
    """Where a start of a run begins.

    Attributes:
        about: What is known of the run.
        name: The run's name, ``[run] name``.
        folder: The run folder.
        epoch: Number of finished epochs.
        step: Number of finished optimizer steps.
    """

    about: About
    name: str
    folder: Path
    epoch: int
    step: int

    def keeps(self, values: Mapping[str, float], place: Place) -> bool:
        """Return whether values that an earlier start wrote belong to what is finished; the others are written again.

        Args:
            values: The values, of which the names are looked at.
            place: Their place.
        """
        if place.by == "step":
            return place.at <= self.step
        return place.at < self.epoch or (place.at == self.epoch and not any(is_mark(name) for name in values))


def is_mark(name: str) -> bool:
    """Return whether a value marks the beginning of a stage: it is written when an epoch begins, not when it ends."""
    return name.startswith("stages/")


class Sink(ABC):
    """What a logger writes to: a file, or a client of a server. All methods are called in one thread, in order.

    They may raise: the message is shown once, the values of the call count as lost, and the run goes on.

    Attributes:
        name: Its name in messages.
        wait_seconds: How long a checkpoint may wait until everything before it is written, so that a killed process
            loses nothing; 0: it does not wait.
    """

    name: str = "logger"
    wait_seconds: float = 0.0

    def open(self, start: Start) -> None:  # noqa: B027 (it may have nothing to do)
        """Open it. If the run continues, remove what does not belong to it (`Start.keeps`), or write none of it again.

        If this fails, nothing is written.
        """

    @abstractmethod
    def write(self, values: Mapping[str, float], place: Place) -> None:
        """Write values under their full names."""

    def write_text(self, name: str, markdown: str, place: Place) -> None:  # noqa: B027
        """Write a text: "recipe", or "resume"."""

    def write_picture(self, name: str, image_HWC: np.ndarray[Any, Any], place: Place) -> None:  # noqa: B027
        """Write a picture (height, width, 3) uint8."""

    def flush(self) -> None:  # noqa: B027
        """Bring what was written to where it survives this process."""

    def close(self, ended: str) -> None:  # noqa: B027
        """Close it; ``ended`` is "finished", "stopped: …" or "failed: …"."""
