"""Writes checkpoints in a thread, while the training goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from trainkit.memory import free_host_memory

if TYPE_CHECKING:
    from torch import Tensor

    from trainkit.checkpoint.file import Prepared

_ROOM = 1.5  # times the size of a copy that has to be free


class WriterInBackground:
    """Writes one checkpoint at a time, from a copy of its tensors; the memory of the copy is kept for the next one.

    Beginning the next one waits for the one before it. An error is raised where somebody waits for the writer.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._kept: list[Tensor] = []

    def has_room_for(self, prepared: Prepared) -> bool:
        """Return whether there is memory for a copy of a checkpoint."""
        more = prepared.num_bytes - sum(each.numel() * each.element_size() for each in self._kept)
        return more <= 0 or free_host_memory() > _ROOM * more

    def begin(self, prepared: Prepared, write: Callable[[Prepared], None]) -> None:
        """Begin to write a checkpoint; return when it is copied.

        Args:
            prepared: The checkpoint.
            write: Writes the copy; it is called in the thread.

        Raises:
            CheckpointError: The one before could not be written.
        """
        self.finish()
        copy = prepared.copied(self._kept)
        self._kept = copy.tensors
        self._thread = threading.Thread(target=self._work, args=(copy, write), name="checkpoint", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until everything is written.

        Raises:
            CheckpointError: It could not be written.
        """
        self.wait()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait until nothing is being written; an error is raised later."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def raise_error(self) -> None:
        """Raise an error that has occurred, without waiting.

        Raises:
            CheckpointError: What was begun could not be written.
        """
        if self._error is not None:
            self.finish()

    def _work(self, copy: Prepared, write: Callable[[Prepared], None]) -> None:
        try:
            write(copy)
        except BaseException as error:
            self._error = error
