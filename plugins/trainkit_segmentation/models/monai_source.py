"""What the networks of ``monai.networks.nets`` take, read from MONAI's source, since importing it takes seconds."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from trainkit import RecipeError, did_you_mean


class Network(NamedTuple):
    """One network class.

    Attributes:
        module: Where it is.
        arguments: Name of an argument -> whether it has no default.
    """

    module: str
    arguments: Mapping[str, bool]


@cache
def networks() -> Mapping[str, Network]:
    """Return every network class that MONAI hands out, by name.

    Raises:
        RecipeError: MONAI is not installed.
    """
    found = {}
    for module, names in _handed_out():
        tree = ast.parse((_folder() / f"{module}.py").read_text(encoding="utf-8"))
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        for name in names:
            if name in classes and (arguments := _arguments(name, classes)):
                found[name] = Network(f"monai.networks.nets.{module}", arguments)
    return found


def refusal(name: str) -> str | None:
    """Return why a name is no network that gives a score for each voxel and class; None: it may be one."""
    known = {each for each, network in networks().items() if _segments(network)}
    if name in known:
        return None
    if name in networks():
        return f"{name} is told no number of channels or of classes: it is no network for segmentation"
    return f'monai.networks.nets has no network "{name}"; {did_you_mean(name, known)}'


def _segments(network: Network) -> bool:
    return "in_channels" in network.arguments and bool({"out_channels", "num_classes"} & network.arguments.keys())


def _handed_out() -> Iterator[tuple[str, list[str]]]:
    tree = ast.parse((_folder() / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module is not None:
            yield node.module, [alias.name for alias in node.names]


def _arguments(name: str, classes: Mapping[str, ast.ClassDef]) -> dict[str, bool]:
    """Return the arguments of a class, its own or those of the class that it derives from in the same file."""
    node = classes[name]
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            positional = each.args.args[1:]
            num_required = len(positional) - len(each.args.defaults)
            found = {argument.arg: i < num_required for i, argument in enumerate(positional)}
            only_by_name = zip(each.args.kwonlyargs, each.args.kw_defaults, strict=True)
            return found | {argument.arg: default is None for argument, default in only_by_name}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            return _arguments(base.id, classes)
    return {}


@cache
def _folder() -> Path:
    spec = importlib.util.find_spec("monai")  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError("MONAI is not installed: pip install monai")
    return Path(spec.submodule_search_locations[0], "networks", "nets")
