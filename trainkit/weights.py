"""Reads the initial weights of a model from a file, without running any code that is in the file.

Messages name the settings ``init_from`` and ``init_from_skip``; a model that loads weights should use these names.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trainkit.checkpoint.file import read as read_checkpoint
from trainkit.errors import DataError, did_you_mean
from trainkit.words import some_of

_WRAPPERS = ("state_dict", "model_state_dict", "network_weights", "model", "net")
"""Keys under which a torch file may hold the weights."""

_PREFIXES = ("module.", "network.", "model.network.")
"""Prefixes that all names may have: from DataParallel, or because the network is a part of the saved model."""

_some = partial(some_of, most=6)


def load_weights(network: nn.Module, path: Path, skip: tuple[str, ...], group_of: Callable[[str], str]) -> str:
    """Load the weights in a file into a network.

    Args:
        network: The network.
        path: A safetensors file, a checkpoint of trainkit, or a file written by ``torch.save``.
        skip: Patterns for ``<name>`` or ``<group>.<name>``; weights that match are not loaded.
        group_of: Returns the parameter group of a name.

    Returns:
        A sentence that says what was loaded.

    Raises:
        DataError: The file cannot be read, or its weights do not fit this network.
    """
    here = network.state_dict()
    there = _named_as(read_weights(path), here)

    def skips(name: str, pattern: str) -> bool:
        return fnmatchcase(name, pattern) or fnmatchcase(f"{group_of(name)}.{name}", pattern)

    names = {*here, *there}
    for pattern in skip:
        if not any(skips(name, pattern) for name in names):
            known = {*here, *(f"{group_of(name)}.*" for name in here)}
            raise DataError(f'init_from_skip: "{pattern}" matches no parameter; {did_you_mean(pattern, known)}')
    left = {name for name in names if any(skips(name, pattern) for pattern in skip)}
    missing = [name for name in here if name not in there and name not in left]
    unknown = [name for name in there if name not in here and name not in left]
    other = [name for name in here if name in there and name not in left and there[name].shape != here[name].shape]
    if other and not missing and not unknown:
        shapes = [f"{name} {tuple(there[name].shape)}, here {tuple(here[name].shape)}" for name in other]
        groups = ", ".join(f'"{group}.*"' for group in dict.fromkeys(map(group_of, other)))
        raise DataError(
            f"{path}: the weights belong to a network of other sizes (classes, channels): {_some(shapes)}; "
            f"set init_from_skip = [{groups}] to initialise these instead of loading them"
        )
    if missing or unknown:
        reasons = [f"it lacks {_some(missing)}"] * bool(missing) + [f"it has {_some(unknown)}"] * bool(unknown)
        raise DataError(
            f"{path}: the weights belong to another network: {' and '.join(reasons)}; "
            "use init_from_skip to leave weights out by patterns"
        )
    network.load_state_dict({name: here[name] if name in left else there[name] for name in here})
    loaded = [name for name in here if name not in left]
    rest = [name for name in here if name in left]
    summary = f"{len(loaded)} of {len(here)} weights were loaded from {path}"
    return f"{summary}; not loaded: {_some(rest)}" if rest else summary


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights in a file, by name.

    Args:
        path: A safetensors file, a checkpoint of trainkit, or a file written by ``torch.save``.

    Raises:
        DataError: The file cannot be read, or contains something other than weights.
    """
    if not path.is_file():
        raise DataError(f"init_from: there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            if "trainkit" not in (file.metadata() or {}):
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a mapping)
    except SafetensorError as error:
        if path.suffix == ".safetensors":
            raise DataError(f"{path} is damaged or not a safetensors file: {error}") from error
        return _read_torch(path)
    return _tensors(read_checkpoint(path).get("model"), path)


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # about the file's format; only whether it can be read matters
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} contains more than weights, and reading it would run code in it; if you trust the file, load it "
            "yourself and save only the weights with safetensors.torch.save_file(model.state_dict(), …)"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise DataError(f"{path} is damaged or not a file of weights: {error}") from error
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    return _tensors(found, path)


def _tensors(found: Any, path: Path) -> dict[str, Tensor]:
    weights = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not weights:
        raise DataError(f"{path} contains no weights with names")
    return weights


def _named_as(weights: dict[str, Tensor], here: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without a prefix of their names if more of the names are then known."""
    candidates = [weights] + [
        {name.removeprefix(prefix): tensor for name, tensor in weights.items()} for prefix in _PREFIXES
    ]
    return max(candidates, key=lambda named: len(named.keys() & here.keys()))
