"""A command in several processes that meet, as those do that torchrun starts."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from clients.warm import Warm


class Together:
    """Starts a command in several processes.

    Args:
        warm: Starts each of them.
    """

    def __init__(self, warm: Warm) -> None:
        self._warm = warm

    def __call__(self, world: int, folder: Path, *command: str, code: int = 0, seconds: float = 120) -> str:
        """Start a command in several processes, wait for their ends, and return what all of them printed."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
        started = [
            self._warm.start(
                *command, folder=folder, environment=meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            )
            for rank in range(world)
        ]
        ended = -1
        try:
            ended = started[0].wait(seconds)
        finally:
            for each in started[1:] if ended != 0 else ():  # as torchrun does
                each.send_signal(signal.SIGKILL)
        for each in started[1:]:
            each.wait(seconds)
        said = [each.stdout for each in started]
        assert ended == code, said
        return "".join(said)
