"""Worker processes that prepare batches before the training needs them."""

from __future__ import annotations

import atexit
import contextlib
import signal
import weakref
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info

from trainkit.errors import DataError, TrainkitError
from trainkit.freed_memory import keep_freed_memory, keep_large_arrays
from trainkit.loading.kept_memory import ArrivedBatch, KeptMemory, SentBatch

_LEFT_TO_THE_MAIN_PROCESS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_Place = TypeVar("_Place", bound=Hashable)
_Place_contra = TypeVar("_Place_contra", bound=Hashable, contravariant=True)


class Batches(Protocol[_Place_contra]):
    """Makes the batch for a place, for example for (epoch, step)."""

    def __getitem__(self, place: _Place_contra, /) -> dict[str, Any]:
        """Return the batch, which depends on the place alone."""
        ...


class Workers(Generic[_Place]):
    """Prepares batches in worker processes, which live as long as this object.

    The worker processes ignore signals: the training process handles them, finishes its step and saves, and the workers
    end with it. Neither creating nor using them draws from a global random generator.

    Args:
        batches: Makes a batch; each process has a copy.
        num: Number of processes.
        pin: Whether to put batches into page-locked memory, from which copies to a GPU are fast.
        advice: What a user should do if a process was killed, most likely because memory was short.
    """

    def __init__(
        self, batches: Batches[_Place], num: int, pin: bool, advice: str = "lower the number of workers"
    ) -> None:
        self._advice = advice
        self._places = _Places[_Place]()
        self._is_ended_at_exit = False
        self._sender = _Sender(batches, num)
        self._loader: DataLoader[Any] = DataLoader(
            self._sender,  # type: ignore[arg-type]  # whatever has __getitem__ serves
            batch_size=None,
            sampler=self._places,
            num_workers=num,
            pin_memory=pin,
            persistent_workers=True,
            worker_init_fn=_begin,
            generator=torch.Generator().manual_seed(0),
        )

    def __call__(self, places: Iterable[_Place]) -> Iterator[dict[str, Any]]:
        """Yield the batches for these places, in this order. There may be places without end.

        Raises:
            DataError: A batch cannot be made, or a process was killed.
        """
        self._places.places = places
        with _signals_held_back():
            batches = iter(self._loader)  # returns the same iterator every time
        if not self._is_ended_at_exit:
            # At exit, Python would end such processes by SIGTERM, which they ignore, and then wait for them forever.
            atexit.register(_end, weakref.ref(batches))
            self._is_ended_at_exit = True
        try:
            for arrived in batches:
                batch = arrived.opened() if isinstance(arrived, ArrivedBatch) else arrived
                if isinstance(batch, TrainkitError):
                    raise batch
                yield batch
        except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            # The other exceptions occur if a process dies while its batch is being fetched.
            raise DataError(
                f"a process that prepares batches died ({str(error).strip()}); if memory is short, {self._advice}"
            ) from error

    def end(self) -> None:
        """End the processes; they are started again for the next batches."""
        running, self._loader._iterator = self._loader._iterator, None
        self._is_ended_at_exit = False
        if running is not None:
            running._shutdown_workers()  # type: ignore[attr-defined]
            self._sender.start_anew()


class _Places(Sampler[_Place]):
    """The places of the next pass over the loader; changed between two passes."""

    def __init__(self) -> None:
        self.places: Iterable[_Place] = ()

    def __iter__(self) -> Iterator[_Place]:
        return iter(self.places)


class _Sender:
    """Makes batches in a worker, and sends them through memory that is kept.

    An error is returned as a value: if a worker raised it, its message would contain the worker's traceback.
    """

    def __init__(self, batches: Batches[Any], num_workers: int) -> None:
        self._batches, self._num_workers = batches, num_workers
        self.start_anew()

    def start_anew(self) -> None:
        """Forget the memory of processes that ended: some of it may never be handed back."""
        self._memory = KeptMemory(self._num_workers)

    def __getitem__(self, place: Hashable) -> SentBatch:
        worker = get_worker_info()
        assert worker is not None
        try:
            made: Any = self._batches[place]
        except TrainkitError as error:
            made = error
        return self._memory.sent(made, worker.id)


def _end(batches: weakref.ref[Any]) -> None:
    running = batches()
    if running is not None:
        running._shutdown_workers()


def _begin(_: int) -> None:
    """Let a worker ignore signals, and keep the memory of one batch for the next."""
    for number in _LEFT_TO_THE_MAIN_PROCESS:
        signal.signal(number, signal.SIG_IGN)
    keep_freed_memory()
    keep_large_arrays(keep=True)


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Block signals while forking: a child would otherwise run the parent's handlers until it installs its own.

    The loader also installs a handler for the death of its processes, which could raise an error at any point of the
    training. This handler is removed again: the loader also detects a dead process when it waits for a batch, where the
    error is expected.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_MAIN_PROCESS)
    on_death = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGCHLD) is not on_death:
            signal.signal(signal.SIGCHLD, on_death)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
