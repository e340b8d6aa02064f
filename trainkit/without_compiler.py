"""Uses torch's optimizers without importing torch's compiler, which takes more than a second and is of no use to them.

Some of their methods are excluded from compilation when they are first called, and their step tells the compiler that
a graph ends there. For either, torch imports it, whether anything is compiled or not. And their step is noted for
torch's profiler, whether that runs or not, which takes a quarter of it where parameters are few.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch.optim import optimizer as of_all

_EXCLUDED = "__dynamo_disable"  # where `torch._compile` keeps the function that is excluded
_METHODS = ("add_param_group", "state_dict", "load_state_dict")


@contextlib.contextmanager
def no_compiler_imported() -> Iterator[None]:
    """Let methods of optimizers be excluded already if they are called in the block, to make, save or load them."""
    methods = [inspect.unwrap(getattr(torch.optim.Optimizer, name)) for name in _METHODS]
    marked = [each for each in methods if not hasattr(each, _EXCLUDED)]
    if "torch._dynamo" in sys.modules:
        marked = []
    for each in marked:
        setattr(each, _EXCLUDED, each)
    try:
        yield
    finally:
        for each in marked:
            delattr(each, _EXCLUDED)


def make_step(optimizer: torch.optim.Optimizer) -> None:
    """Call an optimizer's step, and its hooks."""
    if "step" in vars(optimizer) or optimizer.defaults.get("differentiable"):  # another one, or with gradients
        optimizer.step()
        return
    noted, alone = _ways_of(type(optimizer).step)
    is_seen = getattr(torch.autograd.profiler, "_is_profiler_enabled", True) or has_hooks(optimizer)
    (noted if is_seen else alone)(optimizer)


def has_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether torch calls anything before or after the steps of an optimizer, or of all."""
    return bool(
        getattr(optimizer, "_optimizer_step_pre_hooks", True)
        or getattr(optimizer, "_optimizer_step_post_hooks", True)
        or getattr(of_all, "_global_optimizer_pre_hooks", True)
        or getattr(of_all, "_global_optimizer_post_hooks", True)
    )


@cache
def _ways_of(step: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the step of a class with what calls hooks and the profiler around it, and without.

    Args:
        step: The class's step. Of those of torch, neither ends a graph.
    """
    if not getattr(step, "hooked", False):
        return step, step
    alone: Any = step.__wrapped__  # torch has put what calls hooks around it
    if getattr(getattr(alone, "__code__", None), "co_name", "") != "_use_grad":
        return step, alone
    alone = torch.no_grad()(alone.__wrapped__)
    return torch.optim.Optimizer.profile_hook_step(alone), alone
