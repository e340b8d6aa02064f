"""Uses torch's optimizers without importing torch's compiler, which takes more than a second and is of no use to them.

Some of their methods are excluded from compilation when they are first called, and their step tells the compiler that
a graph ends there. For either, torch imports it, whether anything is compiled or not.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch

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
    else:
        _without_end_of_graph(type(optimizer).step)(optimizer)


@cache
def _without_end_of_graph(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the step of a class without what torch puts around it, apart from hooks; another step as it is."""
    wrapped: Any = getattr(step, "__wrapped__", None)  # in what calls hooks
    if getattr(getattr(wrapped, "__code__", None), "co_name", "") != "_use_grad":
        return step
    return torch.optim.Optimizer.profile_hook_step(torch.no_grad()(wrapped.__wrapped__))
