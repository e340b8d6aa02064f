"""Finds what torch calls in a step beside its operations: a step that is repeated would not call it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules import module as of_all

from trainkit.without_compiler import has_hooks

_OF_ALL = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks", "_global_backward_pre_hooks")
_OF_MODULE = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OF_PARAMETER = ("_backward_hooks", "_post_accumulate_grad_hooks")


def are_hooked(model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> bool:
    """Return whether somebody has registered a hook, put another ``forward`` into a module, or looks for anomalies."""
    return (
        torch.is_anomaly_enabled()
        or _has_any(of_all, _OF_ALL)
        or any("forward" in vars(each) or _has_any(each, _OF_MODULE) for each in model.modules())
        or any(_has_any(each, _OF_PARAMETER) for each in model.parameters())
        or any(has_hooks(each) for each in optimizers)
    )


def _has_any(whose: object, names: Iterable[str]) -> bool:
    return any(getattr(whose, name, None) for name in names)
