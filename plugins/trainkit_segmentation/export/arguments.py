"""Finds out with which arguments a network was made, so that another program can make it again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from torch import nn

from trainkit_segmentation.data.facts import json_value


def arguments_of(cls: type[nn.Module], make: Callable[[], nn.Module]) -> dict[str, Any]:
    """Return the arguments with which a function calls a class, by name, as JSON values where they can be.

    Args:
        cls: The class of the network that the function makes.
        make: Makes the network, which is thrown away. (Settings hold no arguments: each kind of network has its own
            way from settings to arguments, those of third parties too.)

    Example:
        >>> arguments_of(nn.Linear, lambda: nn.Linear(2, out_features=3))
        {'in_features': 2, 'out_features': 3}
    """
    calls: list[dict[str, Any]] = []
    signature = inspect.signature(cls.__init__)
    original: Any = cls.__init__

    def record(self: nn.Module, *positional: Any, **named: Any) -> None:
        if type(self) is cls:
            given = signature.bind(self, *positional, **named).arguments
            calls.append({key: json_value(value) for key, value in list(given.items())[1:]})
        original(self, *positional, **named)

    with patch.object(cls, "__init__", record):
        make()
    return calls[0]
