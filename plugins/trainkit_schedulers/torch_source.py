"""What the classes of ``torch.optim.lr_scheduler`` take, read from torch's source text, since importing it is slow."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from trainkit import RecipeError, did_you_mean

NOT_THE_RECIPES = ("optimizer", "last_epoch", "verbose")
"""Arguments that are never the recipe's to say."""

_INSTEAD = {
    "ReduceLROnPlateau": 'use = "reduce_on_plateau"',
    "SequentialLR": "the setting warmup, or groups with start_epoch and stop_epoch",
    "ChainedScheduler": "the setting warmup, or groups with start_epoch and stop_epoch",
}


class Argument(NamedTuple):
    """One argument of a class.

    Attributes:
        annotation: Its type as torch's source has it; None: it has none.
        required: Whether it has no default.
    """

    annotation: ast.expr | None
    required: bool


@cache
def signatures() -> Mapping[str, Mapping[str, Argument]]:
    """Return class -> argument -> what is known of it, for every scheduler class.

    Raises:
        RecipeError: Torch is not installed.
    """
    classes = _classes()

    def is_scheduler(name: str) -> bool:
        bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name) and base.id in classes]
        return any(base in ("LRScheduler", "_LRScheduler") or is_scheduler(base) for base in bases)

    return {
        name: _arguments(node, "__init__")
        for name, node in classes.items()
        if not name.startswith("_") and is_scheduler(name)
    }


def refusal(name: str) -> str | None:
    """Return why a class cannot be used as a function of the clock alone, and what to do instead; None: it can."""
    known = signatures()
    if name not in known:
        return f'torch.optim.lr_scheduler has no scheduler "{name}"; {did_you_mean(name, known)}'
    required = [each.annotation for each in known[name].values() if each.required and each.annotation is not None]
    if "metrics" in _arguments(_classes()[name], "step"):
        reason = "is driven by a metric, not by the clock alone"
    elif any("Callable" in ast.unparse(annotation) for annotation in required):
        reason = "is driven by a function, which a recipe cannot hold"
    elif "schedulers" in known[name]:
        reason = "is made of other scheduler objects, which a recipe cannot hold"
    else:
        return None
    return f"{name} {reason}; take {_INSTEAD.get(name, 'a scheduler component of your own (one class with `at`)')}"


def fits(value: object, annotation: ast.expr) -> bool:
    """Return whether a value of a recipe has the type of an annotation; one that is not understood takes everything."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return fits(value, left) or fits(value, right)
        case ast.Name(id="bool"):
            return isinstance(value, bool)
        case ast.Name(id="int"):
            return isinstance(value, int) and not isinstance(value, bool)
        case ast.Name(id="float"):
            return isinstance(value, int | float) and not isinstance(value, bool)
        case ast.Name(id="str"):
            return isinstance(value, str)
        case ast.Constant(value=None):
            return value is None
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return value in _choices(choices)
        case ast.Subscript(value=ast.Name(id="list" | "Iterable" | "Sequence"), slice=item):
            return isinstance(value, list | tuple) and all(fits(each, item) for each in value)
        case ast.Subscript(value=ast.Name(id="Callable")):
            return False
    return True


def in_words(annotation: ast.expr) -> str:
    """Return an annotation as a message to a person says it: "must be …"."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
            return in_words(left)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return f"{in_words(left)} or {in_words(right)}"
        case ast.Name(id="int"):
            return "a whole number"
        case ast.Name(id="float"):
            return "a number"
        case ast.Name(id="bool"):
            return "true or false"
        case ast.Name(id="str"):
            return "a string"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return " or ".join(json.dumps(each) for each in _choices(choices))
        case ast.Subscript(value=ast.Name(id="list" | "Iterable" | "Sequence"), slice=item):
            return f"a list, each {in_words(item)}"
        case ast.Subscript(value=ast.Name(id="Callable")):
            return "left out (a recipe holds no functions)"
    return ast.unparse(annotation)


@cache
def _classes() -> Mapping[str, ast.ClassDef]:
    spec = importlib.util.find_spec("torch")  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError("torch is not installed: pip install torch")
    path = Path(spec.submodule_search_locations[0], "optim", "lr_scheduler.py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _arguments(node: ast.ClassDef, method: str) -> Mapping[str, Argument]:
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == method:
            positional = each.args.args[1:]
            num_required = len(positional) - len(each.args.defaults)
            return {
                argument.arg: Argument(argument.annotation, i < num_required)
                for i, argument in enumerate(positional)
                if argument.arg not in NOT_THE_RECIPES
            }
    return {}


def _choices(node: ast.expr) -> tuple[object, ...]:
    choices = ast.literal_eval(node)
    return choices if isinstance(choices, tuple) else (choices,)
