"""Loads the weights that a model begins with from a file, without running any code that is in the file."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trainkit.checkpoint.content import read_run, trained_weights
from trainkit.errors import DataError, did_you_mean
from trainkit.words import some_of

if TYPE_CHECKING:
    from trainkit.recipe.root import InitialWeights

_WRAPPERS = ("state_dict", "model_state_dict", "network_weights", "model", "net", "network", "model_state")
"""Keys under which a torch file may hold the weights."""

_PREFIXES = ("module.", "_orig_mod.", "network.", "model.network.", "model.", "net.")
"""Prefixes that all names may have: from DataParallel, torch.compile, or because the network is a part of a model."""

_NUMPY = [np.dtype, np.ndarray, np._core.multiarray.scalar, np._core.multiarray._reconstruct]  # type: ignore[attr-defined]
_NUMPY += [type(np.dtype(each)) for each in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")]
"""What NumPy's numbers in a torch file are made of. None of it runs code."""

_FEW = 4
"""So many names of weights are listed in the advice to leave them out; for more, their groups are."""

_some = partial(some_of, most=6)


class Weights(NamedTuple):
    """Weights that were read from a file.

    Attributes:
        file: The file.
        tensors: The weights by name.
        facts: What the file says of the data that they were trained with: the facts in a checkpoint of trainkit, or the
            other values of a torch file. Empty if it says nothing.
    """

    file: Path
    tensors: dict[str, Tensor]
    facts: Mapping[str, Any]


class Loaded(NamedTuple):
    """What was loaded into a model.

    Attributes:
        lines: Sentences that say what was loaded, and what was not.
        anew: Names of the weights that are not, or not wholly, from the file.
    """

    lines: list[str]
    anew: tuple[str, ...]


Adapt = Callable[[Mapping[str, Tensor], Mapping[str, Any]], tuple[Mapping[str, Tensor], Sequence[str]]]
"""Fits weights to a model of other sizes, see `Model.adapt_weights`."""


def load_weights(
    model: nn.Module,
    found: Weights,
    settings: InitialWeights,
    group_of: Callable[[str], str],
    adapt: Adapt = lambda weights, facts: (weights, ()),
) -> Loaded:
    """Load weights that were read from a file into a model.

    Args:
        model: The model.
        found: The weights.
        settings: Which weights are taken, and how they are called here.
        group_of: Returns the parameter group of a name.
        adapt: Fits weights to the sizes of this model.

    Raises:
        DataError: The weights do not fit this model.
    """
    here, path = model.state_dict(), found.file
    there = _renamed(found.tensors, settings.rename) if settings.rename else _named_as(found.tensors, here)

    def matches(name: str, pattern: str) -> bool:
        group = group_of(name)
        return pattern == group or fnmatchcase(name, pattern) or fnmatchcase(f"{group}.{name}", pattern)

    names = {*here, *there}
    for key, patterns in (("take", settings.take), ("skip", settings.skip)):
        for pattern in patterns:
            if not any(matches(name, pattern) for name in names):
                known = {*here, *(group_of(name) for name in here)} - {""}
                raise DataError(f'initial_weights.{key}: "{pattern}" matches nothing; {did_you_mean(pattern, known)}')
    taken = {
        name
        for name in names
        if any(matches(name, each) for each in settings.take) and not any(matches(name, each) for each in settings.skip)
    }
    missing = [name for name in here if name not in there and name in taken]
    unknown = [name for name in there if name not in here and name in taken]
    if missing or unknown:
        reasons = [f"it lacks {_some(missing)}"] * bool(missing) + [f"it has {_some(unknown)}"] * bool(unknown)
        raise DataError(
            f"{path}: the weights belong to another model: {' and '.join(reasons)}; leave weights out with "
            "initial_weights.take or .skip, or say with initial_weights.rename how they are called here"
        )
    facts = {**found.facts, **settings.facts}
    chosen, lines = adapt({name: there[name] for name in here if name in taken}, facts)
    other = [name for name in chosen if chosen[name].shape != here[name].shape]
    if other:
        shapes = [f"{name} {tuple(chosen[name].shape)}, here {tuple(here[name].shape)}" for name in other]
        if 2 * len(other) > len(chosen):
            hint = "give the model the settings with which the weights were trained"
        else:
            left_out = other if len(other) <= _FEW else [each for each in dict.fromkeys(map(group_of, other)) if each]
            skip = ", ".join(f'"{each}"' for each in left_out)
            hint = f"set initial_weights.skip = [{skip}] to initialise these anew instead of loading them"
        raise DataError(
            f"{path}: the weights belong to a model of other sizes (classes, channels): {_some(shapes)}; {hint}"
        )
    broken = [name for name, tensor in chosen.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise DataError(f"{path}: the weights hold values that are not finite: {_some(broken)}")
    rest = [name for name in here if name not in chosen]
    adapted = [name for name in chosen if chosen[name] is not there[name]]
    partly = [name for name in adapted if (chosen[name] == here[name].to(chosen[name])).any()]
    model.load_state_dict({name: chosen.get(name, here[name]) for name in here})
    summary = f"{len(chosen)} of {len(here)} weights were loaded from {path}"
    summary += f", {len(partly)} of them in part" if partly else ""
    return Loaded([f"{summary}; not loaded: {_some(rest)}" if rest else summary, *lines], (*rest, *partly))


def read_weights(path: Path) -> Weights:
    """Return the weights in a file.

    Args:
        path: A safetensors file, a checkpoint of trainkit, or a file written by ``torch.save``.

    Raises:
        DataError: The file cannot be read, or contains something other than weights.
        CheckpointError: A checkpoint of trainkit is damaged.
    """
    if not path.is_file():
        raise DataError(f"initial_weights.path: there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            if "trainkit" not in (file.metadata() or {}):
                return Weights(path, {name: file.get_tensor(name) for name in file.keys()}, {})  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        if path.suffix == ".safetensors":
            raise DataError(f"{path} is damaged or not a safetensors file: {error}") from error
        return _read_torch(path)
    return weights_of(path, read_run(path))


def weights_of(path: Path, content: Mapping[str, Any]) -> Weights:
    """Return the weights in a checkpoint of trainkit.

    Args:
        path: The checkpoint.
        content: Its content.
    """
    return Weights(path, _tensors(trained_weights(content), path), content.get("facts") or {})


def _read_torch(path: Path) -> Weights:
    if _is_program(path):
        raise DataError(
            f"{path} is a program (TorchScript or torch.export), and trainkit runs no code from a file; where it was "
            "made, save the weights alone: torch.save(model.state_dict(), …)"
        )
    try:
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_NUMPY):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} contains more than weights, and reading it would run code in it; if you trust the file, load it "
            "yourself and save only the weights with safetensors.torch.save_file(model.state_dict(), …)"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise DataError(f"{path} is damaged or not a file of weights: {error}") from error
    facts: Mapping[str, Any] = {}
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            facts = {str(name): value for name, value in found.items() if name != key}
            found = found[key]
            break
    return Weights(path, _tensors(found, path), facts)


def _is_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            names = [name.partition("/")[2] for name in file.namelist()]
    except (OSError, zipfile.BadZipFile, ValueError):
        return False
    return any(name.startswith("code/") or name.startswith("models/") for name in names)


def _tensors(found: Any, path: Path) -> dict[str, Tensor]:
    weights = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not weights:
        what = (
            f"a mapping with {_some([str(key) for key in found])}"
            if isinstance(found, Mapping) and found
            else (f"a {type(found).__name__}")
        )
        raise DataError(f"{path} contains no weights with names, but {what}")
    return weights


def _named_as(weights: dict[str, Tensor], here: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with prefixes of their names taken away or added if more of the names are then known."""
    added = {"", *(name[: name.index(".") + 1] for name in here if "." in name)}
    shared = [prefix for prefix in sorted(added) if all(name.startswith(prefix) for name in here)]
    candidates = [weights]
    for before in ("", *_PREFIXES):
        candidates += [{after + name.removeprefix(before): each for name, each in weights.items()} for after in shared]
    return max(candidates, key=lambda named: len(named.keys() & here.keys()))


def _renamed(weights: Mapping[str, Tensor], rename: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the weights with the beginnings of their names replaced; the longest beginning that fits counts.

    Raises:
        DataError: A beginning fits no name, or two weights get one name.
    """
    for beginning in rename:
        if not any(name.startswith(beginning) for name in weights):
            raise DataError(
                f'initial_weights.rename: no weight begins with "{beginning}"; {did_you_mean(beginning, weights)}'
            )
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        fitting = max((each for each in rename if name.startswith(each)), key=len, default=None)
        new = name if fitting is None else rename[fitting] + name.removeprefix(fitting)
        if new in found:
            raise DataError(f'initial_weights.rename gives two weights the name "{new}"')
        found[new] = tensor
    return found
