"""Names and defaults of arguments, read from source, against what Python itself says of the imported classes."""

from __future__ import annotations

import inspect
import sys

import pytest
import torch

from trainkit import Problem, RecipeError, argument_problems, derives_from, read_arguments, read_classes


@pytest.mark.parametrize("module", ["torch.optim", "torch.optim.lr_scheduler"])
def test_what_is_read_of_a_module_is_what_python_finds_in_it(module):
    classes = read_classes(module)
    imported = sys.modules[module]
    here = {name for name, cls in vars(imported).items() if inspect.isclass(cls) and cls.__module__.startswith(module)}
    assert {name for name in here if not name.startswith("_")} <= classes.keys()
    for name in here & classes.keys() - {"Optimizer"}:
        signature = inspect.signature(getattr(imported, name).__init__)
        expected = {key: each.default is each.empty for key, each in signature.parameters.items() if key != "self"}
        if set(expected) & {"args", "kwargs"}:  # it inherits object's
            continue
        assert {key: each.required for key, each in read_arguments(name, classes).items()} == expected, name


def test_whether_a_class_derives_from_another_is_pythons_answer():
    classes = read_classes("torch.optim")
    for name in classes:
        cls = getattr(torch.optim, name)
        assert derives_from(name, "Optimizer", classes) == (cls is not torch.optim.Optimizer)
    assert derives_from("AdamW", "Adam", classes) == issubclass(torch.optim.AdamW, torch.optim.Adam)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that would fail if it were imported."""
    folder = tmp_path / "made_up"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError")
    (folder / "inner" / "__init__.py").write_text("from .shapes import Circle as Round, area\nfrom os import PathLike")
    (folder / "inner" / "shapes.py").write_text(
        "from typing import Callable, Literal, Optional, Tuple, Union, overload\n"
        "def area(): ...\n"
        "class Shape:\n"
        "    def __init__(self, size: float, *, name: str, tags: 'x' = ()): ...\n"
        "class Circle(Shape):\n"
        "    @overload\n"
        "    def move(self, x: str): ...\n"
        "    def move(self, x: Union[float, Tensor], by: Optional[int] = None): ...\n"
        "class Typed:\n"
        "    def __init__(self, a: int | None = 1, b: Tuple[float, float] = (0, 1), c: Literal['x', 'y'] = 'x',\n"
        "                 d: Union[float, Tensor] = 0, e: Optional[bool] = None, f: list[int] = (), g: Odd[int] = 0,\n"
        "                 h: Callable[[int], int] = print, i=0): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "made_up"
    read_classes.cache_clear()


def test_a_package_hands_out_what_it_imports_of_its_own_under_the_names_it_gives(package):
    assert set(read_classes(f"{package}.inner")) == {"Round"}
    assert set(read_classes(f"{package}.inner.shapes")) == {"Shape", "Circle", "Typed"}


def test_arguments_are_inherited_keyword_only_ones_count_and_the_last_overload_is_read(package):
    classes = read_classes(f"{package}.inner.shapes")
    required = {key: each.required for key, each in read_arguments("Circle", classes).items()}
    assert required == {"size": True, "name": True, "tags": False}
    assert {key: each.required for key, each in read_arguments("Circle", classes, "move").items()} == {
        "x": True,
        "by": False,
    }
    assert read_arguments("Circle", classes, "no_such_method") == {}


def test_what_is_missing_is_said(package):
    with pytest.raises(RecipeError, match=r"^surely_not_installed is not installed: pip install surely_not_installed$"):
        read_classes("surely_not_installed.inner")
    with pytest.raises(RecipeError, match=r"the installed version of made_up has no module made_up\.outer"):
        read_classes(f"{package}.outer")


@pytest.mark.parametrize(
    ("key", "good", "bad", "words"),
    [
        ("a", [3], [3.5, True, "3"], "a whole number"),
        ("b", [[0.5, 1], (0.5, 1.0)], [[0.5], [0.5, "x"], 0.5], "a list of 2: a number, a number"),
        ("c", ["x"], ["z", 1], '"x" or "y"'),
        ("d", [1, 0.5], ["x", True], "a number"),
        ("e", [True], [1, "x"], "true or false"),
        ("f", [[], [1, 2]], [1, [0.5]], "a list, each a whole number"),
        ("g", [1, "x", [None]], [], ""),
        ("h", [], [1, "print"], "left out (a recipe holds no functions)"),
        ("i", [1, "x"], [], ""),
    ],
)
def test_values_are_held_to_annotations_that_are_understood(package, key, good, bad, words):
    known = read_arguments("Typed", read_classes(f"{package}.inner.shapes"))
    for value in good:
        assert list(argument_problems("Typed", {key: value}, known, {})) == []
    for value in bad:
        expected = Problem(f'"{key}" must be {words}, got {value!r}', f"arguments.{key}")
        assert list(argument_problems("Typed", {key: value}, known, {})) == [expected]


def test_unknown_missing_and_misplaced_arguments_are_each_a_problem(package):
    known = read_arguments("Shape", read_classes(f"{package}.inner.shapes"))
    found = list(argument_problems("Shape", {"size": 1, "nmae": "x"}, known, {"size": "comes from the data"}))
    assert found == [
        Problem('"size" comes from the data; leave it out', "arguments.size"),
        Problem('Shape has no argument "nmae"; did you mean "name"?', "arguments.nmae"),
        Problem('Shape needs the argument "name"', "arguments"),
    ]
