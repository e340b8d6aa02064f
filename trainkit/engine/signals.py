"""Decides what a signal does to this process: before, while and after a run trains."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

from trainkit.engine.launched import is_launched

_swallowed: list[str] = []  # signals whose exception something has swallowed, such as a bare except in a library

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")  # SIGHUP and the last two do not exist on Windows


class StoppedEarly(BaseException):  # not an Exception, so that nothing mistakes it for a failure of a part
    """A signal arrived while nothing was being trained; the program ends, and leaves nothing half done."""


class StoppedAtOnce(KeyboardInterrupt):
    """A second signal arrived while a run trained; its last checkpoint is complete."""


@contextlib.contextmanager
def handled(act: Callable[[str], None]) -> Iterator[None]:
    """Call a function with the name of each signal that arrives, instead of what signals did before.

    Signals that were blocked, as the launcher does for its processes until they can act on them, are not any more; one
    that has arrived meanwhile is acted on at once.

    Python handles signals only in the main thread; in others this does nothing. A SIGHUP that is ignored, as under
    ``nohup``, stays ignored.
    """

    def handle(number: int, _: object) -> None:
        act(signal.Signals(number).name)

    before = {}
    try:
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is not None and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                before[number] = signal.signal(number, handle)
    except ValueError:
        yield
        return
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, before)
        if _swallowed:
            act(_swallowed.pop())
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Let signals wait for the end of the block. In a process that is started in it, they wait for `handled`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in _NAMES})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class KeptSignals:
    """Keeps a signal of a process beside the first one for the training that it is called to.

    The first process may be in that training already, and wait for this one: ending now would make the training fail.
    If there is none, the first process has got the signal too, or has ended, and this one ends when it sees that.
    """

    def __init__(self) -> None:
        self._name: str | None = None
        self._act: Callable[[str], None] | None = None

    def on_signal(self, name: str) -> None:
        """Act on a signal, or keep it.

        Raises:
            StoppedEarly: It is the second one, nothing is being trained, and no launcher kills at a second one.
        """
        is_second, self._name = self._name is not None, self._name or name
        if self._act is not None:
            self._act(name)
        elif is_second and not is_launched():
            raise StoppedEarly(name)

    @contextlib.contextmanager
    def given_to(self, act: Callable[[str], None]) -> Iterator[None]:
        """In the block, call a function with the name of each signal, and of one that was kept."""
        self._act = act
        try:
            if self._name is not None:
                act(self._name)
            yield
        finally:
            self._act = None


def ignore_from_now_on() -> None:
    """Ignore the signals of queues and terminals while the program ends, so that its exit code is that of the run."""
    for name in _NAMES[1:]:
        if hasattr(signal, name):
            with contextlib.suppress(ValueError):
                signal.signal(getattr(signal, name), signal.SIG_IGN)


@contextlib.contextmanager
def ending_the_program() -> Iterator[None]:
    """Until training starts, make a signal end the program.

    Raises:
        StoppedEarly: A signal arrived that a queue or the system sends.
        KeyboardInterrupt: Ctrl-C was pressed.
    """

    def end(name: str) -> None:
        _swallowed[:] = [name]
        if name == "SIGINT":
            raise KeyboardInterrupt
        raise StoppedEarly(name)

    try:
        with handled(end):
            yield
    finally:
        _swallowed.clear()
