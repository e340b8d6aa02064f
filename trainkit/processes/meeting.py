"""Where the processes of a run meet: the first one calls the others to a training, and each says why it failed.

They meet in a store that the first process opens: under MASTER_ADDR and MASTER_PORT, or, if torchrun started them, at a
place that it writes into torchrun's store. That one outlives the processes, and still holds what was said before when
torchrun starts all of them again; a store of the first process ends with it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from typing import Any

from trainkit.errors import LostProcessError
from trainkit.processes.exchange import Exchange
from trainkit.processes.place import Place, place_of_process

_FAILURE, _HEARD, _TASK, _END, _GONE = "failure", "heard", "task", "end", "gone"  # names in the store
_ADDRESS = "trainkit"  # name in torchrun's store of where the first process's store is
_TO_BE_HEARD = 3.0  # seconds that a process which failed waits for the first one, before its end tells that one
_TO_GO = 10.0  # seconds that the first process waits for the others at the end
_TO_COME = 60.0  # seconds that it waits for them there if they have not met before, such as after a mistake in a recipe
_TO_MEET = 1800.0  # seconds that a process waits for the others to start


@cache
def meeting() -> Meeting:
    """Return where this process meets the others that a launcher started with it.

    Raises:
        RecipeError: The launcher does not say all that is needed.
    """
    return Meeting(place_of_process())


class Meeting:
    """Where the processes of a run meet before, between and after the trainings that they take part in.

    The first process does everything that a command does. The others wait here for what they are to take part in.

    Args:
        place: Which of the processes this one is.

    Attributes:
        place: Which of the processes this one is.
        is_busy: Whether the others take part in something.
        is_waiting: Whether this process can do nothing until others come, or say something.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.is_busy, self.is_waiting = place, False, False
        self._store: Any = None
        self._number = 0
        self._is_open = self._is_gone = self._lacks_one = False

    def call(self, task: Any, timeout_seconds: float) -> None:
        """Tell all other processes what they are to take part in now.

        Args:
            task: What it is; it can be pickled.
            timeout_seconds: How long a process may wait for the others.
        """
        if self.place.world == 1:
            return
        self._connect()
        self.is_busy = True
        self._store.set(f"{_TASK}{self._number}", str(timeout_seconds))
        self._number += 1
        self._open(timeout_seconds)
        Exchange(self.place).from_first(task)

    def wait(self) -> Any:
        """Return what this process is to take part in next; None: nothing any more.

        Raises:
            LostProcessError: The first process is gone.
        """
        self._connect()
        name = f"{_TASK}{self._number}"
        try:
            with self._waiting():
                while not (self._has(name) or self._has(_END)):
                    time.sleep(0.02 if self._number else 0.2)
            if not self._has(name):
                return None
            self._number += 1
            self._open(float(self._store.get(name)))
        except RuntimeError as error:  # DistNetworkError among them: the store is gone
            raise LostProcessError(f"the first process ended without a word: {str(error).splitlines()[0]}") from error
        return Exchange(self.place).from_first(None)

    def end(self) -> None:
        """Let the other processes go; call it on the first process when its command ends, however it ends."""
        if self.place.world == 1:
            return
        with contextlib.suppress(Exception):
            self._connect(_TO_COME)  # there may be no others: variables of a launcher may be left from before
            self._store.set(_END, "")
            self._close()
            patience = _TO_GO if self._number else _TO_COME
            until = time.monotonic() + (0 if self._lacks_one else patience)  # the store may live in this process
            while self._store.add(_GONE, 0) < self.place.world - 1 and time.monotonic() < until:
                time.sleep(0.02)

    def go(self) -> None:
        """Say that this process is about to end; call it on the others."""
        if self._store is not None and not self._is_gone:
            self._is_gone = True
            with contextlib.suppress(Exception):
                self._close()
                self._store.add(_GONE, 1)

    def fail(self, message: str) -> bool:
        """Tell why this process failed, and return whether the first process can report it."""
        if self._store is None:
            return False
        with contextlib.suppress(Exception):
            self._store.set(_FAILURE, f"process {self.place.rank} of {self.place.world}: {message}")
            self._close()  # whoever waits for this process notices
            until = time.monotonic() + _TO_BE_HEARD
            while time.monotonic() < until:
                if self._has(_HEARD) or self._has(_END):
                    break
                time.sleep(0.05)
            return True
        return False

    def failure(self, patience: float = 2.0) -> str | None:
        """Return why another process failed; None: it did not say, for example because it was killed."""
        if self._store is None:
            return None
        until = time.monotonic() + patience
        with contextlib.suppress(Exception):
            while time.monotonic() < until:
                if self._has(_FAILURE):
                    self._store.set(_HEARD, "")
                    text: str = self._store.get(_FAILURE).decode()
                    return text
                time.sleep(0.05)
        self._lacks_one = True
        return None

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        self.is_waiting = True
        try:
            yield
        finally:
            self.is_waiting = False

    def _has(self, name: str) -> bool:
        found: bool = self._store.check([name])
        return found

    def _connect(self, seconds: float = _TO_MEET) -> None:
        if self._store is None:
            from torch.distributed.rendezvous import rendezvous

            with self._waiting():
                store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=seconds)))
                outlives = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
                self._store = self._store_of_first(store) if outlives else store

    def _store_of_first(self, of_launcher: Any) -> Any:
        """Return the store of the first process; the launcher's tells where it is, or where an earlier one was."""
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        machine, patience = os.environ["MASTER_ADDR"], timedelta(seconds=_TO_MEET)
        if self.place.is_first:
            own = TCPStore(machine, 0, is_master=True, wait_for_workers=False, timeout=patience)
            token = os.urandom(8).hex()
            own.set(token, "")
            of_launcher.set(_ADDRESS, f"{own.port} {token}")
            return own
        while True:
            if of_launcher.check([_ADDRESS]):
                port, token = of_launcher.get(_ADDRESS).decode().split()
                with contextlib.suppress(OSError, RuntimeError):
                    socket.create_connection((machine, int(port)), timeout=1).close()
                    own = TCPStore(machine, int(port), is_master=False, timeout=timedelta(seconds=30))
                    if own.check([token]):
                        own.set_timeout(patience)
                        return own
            time.sleep(0.1)

    def _open(self, timeout_seconds: float) -> None:
        """Connect the processes to each other, unless they are."""
        if self._is_open:
            return
        import torch
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore

        cuda = torch.cuda.is_available() and dist.is_nccl_available()
        with self._waiting():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=PrefixStore(f"group{self._number}", self._store),
                rank=self.place.rank,
                world_size=self.place.world,
                timeout=timedelta(seconds=timeout_seconds),
            )
        self._is_open = True

    def _close(self) -> None:
        if self._is_open:
            import torch.distributed as dist

            self._is_open = False
            dist.destroy_process_group()
