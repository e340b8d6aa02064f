"""Sees what an import prints, and what it changes for the whole process, which a well-behaved import leaves alone.

Libraries come to their own defaults when they are imported: what numpy and torch are like is therefore compared with
how they were right after their own import, if the module that is watched is the first to import them.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import locale
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TextIO

_SET_BY_TORCH = frozenset({"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"})  # when its compiler is imported


@contextlib.contextmanager
def watched_import(module: str, found: list[str]) -> Iterator[None]:
    """Watch the import of a module in the block. What it prints on standard output is kept from it.

    Args:
        module: The name of the module, for messages.
        found: A sentence for each effect is added to it when the block ends.
    """
    before, environment = _state(), dict(os.environ)
    printed = _Held(sys.stdout)
    watch = _Libraries(before)
    sys.meta_path.insert(0, watch)
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        sys.meta_path.remove(watch)
        if printed.release().strip():  # the text itself may be anything: it stays out of lists and messages
            found.append(f"the import of {module} prints something, which is left out here")
        for what, value in _state().items():
            if value != before.get(what, value):
                shown = "" if what.startswith("the state of") else f" from {before[what]} to {value}"
                found.append(f"the import of {module} changes {what}{shown}, for all parts of a run")
        if names := sorted(_changed(environment, os.environ) - _SET_BY_TORCH):
            found.append(f"the import of {module} changes the environment variables {', '.join(names)}, for all parts")


class _Held:
    """A stream that keeps what is written to it, and hands on what is written after it was released.

    A module may keep the stream, for example in a handler of `logging`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._kept: list[str] | None = []

    def write(self, text: str) -> int:
        """Keep a text, or hand it on."""
        if self._kept is None:
            return self._stream.write(text)
        self._kept.append(text)
        return len(text)

    def release(self) -> str:
        """Return what was kept, and keep nothing from now on."""
        kept, self._kept = self._kept or [], None
        return "".join(kept)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Libraries:
    """Notes how numpy and torch are right after their own import; a finder that finds what others find."""

    def __init__(self, state: dict[str, str]) -> None:
        self._state = state
        self._looking = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find one of the libraries as all others would, and be told when it is imported."""
        if name not in _STATES or self._looking:
            return None
        self._looking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking = False
        loader: Any = spec.loader if spec is not None else None
        if loader is None:
            return spec
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            del loader.exec_module
            self._state.update(_STATES[name](module))

        with contextlib.suppress(AttributeError):  # a loader of another kind: nothing is noted
            loader.exec_module = exec_module
        return spec


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


def _state() -> dict[str, str]:
    """Return what can be changed for all: what it is -> how it is now."""
    found = {
        "the working directory": os.getcwd(),
        "the locale": locale.setlocale(locale.LC_ALL),
        "the search path of modules": "\n".join(sys.path),
        "the recursion limit": str(sys.getrecursionlimit()),
        "what is done with exceptions that nobody catches": repr(sys.excepthook),
        "whether garbage is collected": str(gc.isenabled()),
        "the state of Python's random numbers": _digest(repr(random.getstate()).encode()),
        "which warnings are shown": ", ".join(_blanket_filters()) or "the defaults",
        "the handlers of the root logger": str(logging.root.handlers),
        "the level of the root logger": logging.getLevelName(logging.root.level),
        "the level below which no logger logs": str(logging.root.manager.disable),
    }
    for number in signal.valid_signals():
        with contextlib.suppress(ValueError):  # a real-time signal may have no name
            handler = signal.getsignal(number)
            known = handler.name if isinstance(handler, signal.Handlers) else repr(handler)
            found[f"what {signal.Signals(number).name} does"] = known
    for name, library in _STATES.items():
        module = sys.modules.get(name)
        if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
            found |= library(module)
    return found


def _blanket_filters() -> list[str]:
    """Return the filters for any message of a general kind; libraries rightly add some for messages of their own."""
    general = (Warning, UserWarning, DeprecationWarning, FutureWarning, RuntimeWarning)
    return [
        f"{action} {category.__name__}"
        for action, message, category, module, line in warnings.filters
        if message is None and module is None and not line and category in general
    ]


def _of_numpy(numpy: Any) -> dict[str, str]:
    return {
        "how numpy prints": str(numpy.get_printoptions()),
        "what numpy does about floating-point errors": str(numpy.geterr()),
    }


def _of_numpy_random(random_of_numpy: Any) -> dict[str, str]:
    return {"the state of numpy's random numbers": _digest(repr(random_of_numpy.get_state(legacy=False)).encode())}


def _of_torch(torch: Any) -> dict[str, str]:
    return {
        "torch's default dtype": str(torch.get_default_dtype()),
        "torch's default device": str(torch.get_default_device()),
        "torch's number of threads": str(torch.get_num_threads()),
        "whether torch computes gradients": str(torch.is_grad_enabled()),
        "whether torch is deterministic": str(torch.are_deterministic_algorithms_enabled()),
        "whether torch looks for anomalies": str(torch.is_anomaly_enabled()),
        "the precision of torch's matrix products": torch.get_float32_matmul_precision(),
        "whether cuDNN tries algorithms": str(torch.backends.cudnn.benchmark),
        "how torch prints": str(vars(torch._tensor_str.PRINT_OPTS)),
        "the state of torch's random numbers": _digest(torch.get_rng_state().numpy().tobytes()),
    }


_STATES = {"numpy": _of_numpy, "numpy.random": _of_numpy_random, "torch": _of_torch}


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:8]
