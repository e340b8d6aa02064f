"""Processes that prepare batches before the training asks for them."""

from __future__ import annotations

import atexit
import contextlib
import signal
import weakref
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Sampler

from trainkit.errors import DataError, TrainkitError

_LEFT_TO_THE_MAIN_PROCESS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_Place = TypeVar("_Place", bound=Hashable)
_Place_contra = TypeVar("_Place_contra", bound=Hashable, contravariant=True)


class Batches(Protocol[_Place_contra]):
    """Makes the batch of a place, for example of (epoch, step)."""

    def __getitem__(self, place: _Place_contra, /) -> dict[str, Any]:
        """Return the batch, a function of the place alone."""
        ...


class Workers(Generic[_Place]):
    """Prepares batches in processes of its own, which live as long as it does.

    The processes leave signals to the training process, which finishes its step and saves; they end when it does.
    Neither creating nor using them draws from a global random generator.

    Args:
        batches: Makes a batch; each process has a copy.
        num: How many processes.
        pin: Whether to put batches into memory from which a GPU copies fast (page-locked memory).
        advice: What to do if a process was killed, most likely because memory was short.
    """

    def __init__(
        self, batches: Batches[_Place], num: int, pin: bool, advice: str = "lower the number of workers"
    ) -> None:
        self._advice = advice
        self._places = _Places[_Place]()
        self._is_ended_at_exit = False
        self._loader: DataLoader[Any] = DataLoader(
            _Quiet(batches),  # type: ignore[arg-type]  # whatever has __getitem__ serves
            batch_size=None,
            sampler=self._places,
            num_workers=num,
            pin_memory=pin,
            persistent_workers=True,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator().manual_seed(0),
        )

    def __call__(self, places: Sequence[_Place]) -> Iterator[dict[str, Any]]:
        """Yield the batches of these places, in this order.

        Raises:
            DataError: A batch cannot be made, or a process was killed.
        """
        self._places.places = places
        with _signals_held_back():
            batches = iter(self._loader)  # after the first time, the same again
        if not self._is_ended_at_exit:
            # At exit Python asks such processes to end by SIGTERM, which they ignore, and would wait for ever.
            atexit.register(_end, weakref.ref(batches))
            self._is_ended_at_exit = True
        try:
            for batch in batches:
                if isinstance(batch, TrainkitError):
                    raise batch
                yield batch
        except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            # The others come from fetching what a process had ready when it died.
            raise DataError(
                f"a process that prepares batches died ({str(error).strip()}); if memory is short, {self._advice}"
            ) from error

    def end(self) -> None:
        """End the processes; the next batches would start new ones."""
        running, self._loader._iterator = self._loader._iterator, None
        self._is_ended_at_exit = False
        if running is not None:
            running._shutdown_workers()  # type: ignore[attr-defined]


class _Places(Sampler[_Place]):
    """What the loader asks for next; changed between two passes."""

    def __init__(self) -> None:
        self.places: Sequence[_Place] = ()

    def __iter__(self) -> Iterator[_Place]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


class _Quiet:
    """Returns an error as a value: raised in a worker, its text would hold the traceback of that process."""

    def __init__(self, batches: Batches[Any]) -> None:
        self._batches = batches

    def __getitem__(self, place: Hashable) -> Any:
        try:
            return self._batches[place]
        except TrainkitError as error:
            return error


def _end(batches: weakref.ref[Any]) -> None:
    running = batches()
    if running is not None:
        running._shutdown_workers()


def _ignore_signals(_: int) -> None:
    for number in _LEFT_TO_THE_MAIN_PROCESS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Block signals while forking: a child would otherwise run the parent's handlers until it installs its own.

    The loader also installs a handler for the death of its processes, which would raise an error at any point of the
    training. That is undone: the loader still finds a dead process when it waits for a batch, where the error is
    expected.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_MAIN_PROCESS)
    on_death = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGCHLD) is not on_death:
            signal.signal(signal.SIGCHLD, on_death)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
