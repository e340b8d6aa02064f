"""Compiles the model of a run with ``torch.compile``, and says what is not compiled."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from trainkit.events import Live

if TYPE_CHECKING:
    from collections import Counter

    from torch import nn

    from trainkit.state import State

_LOGGER = logging.getLogger("trainkit")

_MOST_VARIANTS = 64
"""How often a piece of code may be compiled: for each shape of batch, and each stage of parameter groups."""


def compile_model(model: nn.Module) -> None:
    """Let the model be compiled when it is called. The names in its state stay as they are.

    Each shape is compiled by itself, and one too many is an error. Otherwise torch would make kernels for any shape,
    and later none at all. When it does so depends on which shapes came before, so a resumed run would not be the same
    bit for bit.
    """
    from torch._dynamo import config  # it takes a second to import

    config.recompile_limit = _MOST_VARIANTS
    config.fail_on_recompile_limit_hit = True
    model.compile(dynamic=False)


class Compilation(Live):
    """Part of runs with ``compile = true``: says once what runs without being compiled, and why."""

    def __init__(self) -> None:
        from torch._dynamo.utils import counters

        self._breaks: Counter[str] = counters["graph_break"]
        self._said = set(self._breaks)  # by other runs of this process

    def on_step_end(self, state: State) -> None:
        """Say what is new since the last step."""
        for reason in self._breaks:
            if reason not in self._said:
                self._said.add(reason)
                _LOGGER.warning("compile: a part of the model is not compiled, and runs as it is: %s", _short(reason))


def _short(reason: str) -> str:
    return " ".join(line.strip() for line in reason.split("\n")[:2])


def compiler_trouble(error: BaseException) -> tuple[str, str] | None:
    """Return what is wrong and what to do, for an error of ``torch.compile``; None: it is another error."""
    from torch._dynamo.exc import FailOnRecompileLimitHit

    if isinstance(error, FailOnRecompileLimitHit):
        what = f"the model was compiled {_MOST_VARIANTS} times, for as many shapes of batches or stages of groups"
        return what, "give batches of one shape, or set run.compile = false"
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        what = f"the model cannot be compiled: {(str(error).splitlines() or [''])[0]}"
        return what, (
            "set run.compile = false; for the CPU, torch.compile needs a C++ compiler (g++, clang++, or the one that "
            "the environment variable CXX names), for CUDA the package triton"
        )
    return None
