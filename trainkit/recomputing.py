"""Computes activations within blocks of a model again in the backward pass, so that they need not be kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(blocks: Iterable[nn.Module]) -> int:
    """Let the activations within blocks of a model be computed again in the backward pass.

    The names in the model's state stay as they are.

    Args:
        blocks: Parts of the model, none of which holds another one.

    Returns:
        The number of blocks.
    """
    number = 0
    for number, block in enumerate(blocks, start=1):  # noqa: B007 (the last one is the result)
        block.forward = _Recomputed(block, block.forward)
    return number


class _Recomputed:
    """A block's ``forward`` that keeps its inputs alone. Random numbers are the same both times.

    Args:
        block: The block.
        forward: Its own ``forward``.
    """

    def __init__(self, block: nn.Module, forward: Callable[..., Any]) -> None:
        self._block, self._forward = block, forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        return checkpoint(self._forward, *args, use_reentrant=False, context_fn=self._contexts, **kwargs)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return what surrounds the first computation, and the second one."""
        return contextlib.nullcontext(), _with_copied_buffers(self._block)


@contextlib.contextmanager
def _with_copied_buffers(block: nn.Module) -> Iterator[None]:
    """Let a block change copies of its buffers: BatchNorm would take the same batch into its statistics twice."""
    kept = [(module, dict(module._buffers)) for module in block.modules() if module._buffers]
    for module, buffers in kept:
        module._buffers.update({name: None if each is None else each.clone() for name, each in buffers.items()})
    try:
        yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)
