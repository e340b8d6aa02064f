"""Reads the arguments of an installed package's classes from its source, because importing torch takes seconds.

A component that lets a recipe name a class of another package, and its arguments, can check both this way at once.
"""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from trainkit.contracts import Problem
from trainkit.errors import RecipeError, did_you_mean


class Argument(NamedTuple):
    """One argument of a class or method.

    Attributes:
        annotation: Its type annotation in the source; None: it has none.
        required: Whether it has no default.
    """

    annotation: ast.expr | None
    required: bool


@cache
def read_classes(module: str) -> Mapping[str, ast.ClassDef]:
    """Return the classes that a module defines, by name; for a package, also those imported from its own modules.

    Args:
        module: Its full name, for example "torch.optim".

    Raises:
        RecipeError: The package is not installed, or has no such module.
    """
    path = _path(module)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body if path.name == "__init__.py" else ():
        if isinstance(node, ast.ImportFrom):
            origin = f"{module}.{node.module}" if node.level == 1 else str(node.module)
            if node.level <= 1 and origin.startswith(f"{module}."):
                there = read_classes(origin)
                found |= {each.asname or each.name: there[each.name] for each in node.names if each.name in there}
    return found


def read_arguments(name: str, classes: Mapping[str, ast.ClassDef], method: str = "__init__") -> Mapping[str, Argument]:
    """Return the arguments of a class's own or inherited method by name, without ``self``.

    Args:
        name: Name of the class.
        classes: Classes by name; base classes are looked up among them.
        method: Name of the method.
    """
    node = classes[name]
    for each in reversed(node.body):  # of overloads, the last is the function itself
        if isinstance(each, ast.FunctionDef) and each.name == method:
            positional = each.args.args[1:]
            num_required = len(positional) - len(each.args.defaults)
            found = {arg.arg: Argument(arg.annotation, i < num_required) for i, arg in enumerate(positional)}
            by_keyword = zip(each.args.kwonlyargs, each.args.kw_defaults, strict=True)
            return found | {arg.arg: Argument(arg.annotation, default is None) for arg, default in by_keyword}
    for base in _bases(node):
        if base in classes and base != name:
            return read_arguments(base, classes, method)
    return {}


def derives_from(name: str, ancestor: str, classes: Mapping[str, ast.ClassDef]) -> bool:
    """Return whether a class derives from another, directly or through classes among ``classes``."""
    bases = _bases(classes[name])
    return ancestor in bases or any(
        derives_from(base, ancestor, classes) for base in bases if base in classes and base != name
    )


def argument_problems(
    name: str, given: Mapping[str, object], known: Mapping[str, Argument], elsewhere: Mapping[str, str]
) -> Iterator[Problem]:
    """Yield what is wrong with the arguments that a recipe gives for a class: unknown, of a wrong type, or missing.

    Args:
        name: The class, for messages.
        given: The setting ``arguments`` of a component.
        known: The arguments of the class.
        elsewhere: Arguments that a recipe must not give -> why, for example "is set by trainkit".
    """
    for key, value in given.items():
        where = f"arguments.{key}"
        if key in elsewhere:
            yield Problem(f'"{key}" {elsewhere[key]}; leave it out', where)
        elif key not in known:
            yield Problem(
                f'{name} has no argument "{key}"; {did_you_mean(key, known.keys() - elsewhere.keys())}', where
            )
        elif (annotation := known[key].annotation) is not None and not _fits(value, annotation):
            yield Problem(f'"{key}" must be {_type_in_words(annotation)}, got {value!r}', where)
    for key, argument in known.items():
        if argument.required and key not in given and key not in elsewhere:
            yield Problem(f'{name} needs the argument "{key}"', "arguments")


def _fits(value: object, annotation: ast.expr) -> bool:
    """Return whether a value of a recipe has the type of an annotation; True if the annotation is not understood."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _fits(value, left) or _fits(value, right)
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=choices)):
            return any(_fits(value, each) for each in choices)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return _fits(value, inner)  # no value of a recipe is None
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
            return value in _literals(choices)
        case ast.Subscript(value=ast.Name(id="list" | "Iterable" | "Sequence"), slice=item):
            return isinstance(value, list | tuple) and all(_fits(each, item) for each in value)
        case ast.Subscript(value=ast.Name(id="tuple" | "Tuple"), slice=ast.Tuple(elts=items)):
            if not isinstance(value, list | tuple) or len(value) != len(items):
                return False
            return all(_fits(each, item) for each, item in zip(value, items, strict=True))
        case ast.Name(id="Tensor") | ast.Subscript(value=ast.Name(id="Callable")):
            return False
    return True


def _type_in_words(annotation: ast.expr) -> str:
    """Return the words for an annotation in a message that begins with "must be"."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None) | ast.Name(id="Tensor")):
            return _type_in_words(left)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return f"{_type_in_words(left)} or {_type_in_words(right)}"
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=choices)):
            return " or ".join(dict.fromkeys(_type_in_words(each) for each in choices if not _is_tensor(each)))
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return _type_in_words(inner)
        case ast.Name(id="int"):
            return "a whole number"
        case ast.Name(id="float"):
            return "a number"
        case ast.Name(id="bool"):
            return "true or false"
        case ast.Name(id="str"):
            return "a string"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return " or ".join(json.dumps(each) for each in _literals(choices))
        case ast.Subscript(value=ast.Name(id="list" | "Iterable" | "Sequence"), slice=item):
            return f"a list, each {_type_in_words(item)}"
        case ast.Subscript(value=ast.Name(id="tuple" | "Tuple"), slice=ast.Tuple(elts=items)):
            return f"a list of {len(items)}: {', '.join(map(_type_in_words, items))}"
        case ast.Subscript(value=ast.Name(id="Callable")):
            return "left out (a recipe holds no functions)"
    return ast.unparse(annotation)


def _is_tensor(annotation: ast.expr) -> bool:
    return isinstance(annotation, ast.Name) and annotation.id == "Tensor"


def _literals(node: ast.expr) -> tuple[object, ...]:
    choices = ast.literal_eval(node)
    return choices if isinstance(choices, tuple) else (choices,)


def _bases(node: ast.ClassDef) -> list[str]:
    return [base.id for base in node.bases if isinstance(base, ast.Name)]


def _path(module: str) -> Path:
    package, *inner = module.split(".")
    spec = importlib.util.find_spec(package)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError(f"{package} is not installed: pip install {package}")
    path = Path(spec.submodule_search_locations[0], *inner)
    for each in (path.with_suffix(".py"), path / "__init__.py"):
        if each.is_file():
            return each
    raise RecipeError(f"the installed version of {package} has no module {module}; install another version")
