"""The files of a new distribution with parts for trainkit: those of ``examples/third_party``, under another name.

So the example, which is tested, is the template. A part that is left out takes with it its file, its test, its line of
entry points, its table of the recipe and its line of the README.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
import sysconfig
from collections.abc import Collection
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

from trainkit import registry
from trainkit.errors import RecipeError

_DISTRIBUTION, _MODULE = "trainkit-example", "trainkit_example"
_FILES = (".gitignore", "*.md", "*.toml", f"{_MODULE}/*.py", f"{_MODULE}/py.typed", "tests/*.py")


class Part(NamedTuple):
    """A part that the template has.

    Attributes:
        group: The entry-point group of its component.
        name: The component's name, and that of its file.
    """

    group: str
    name: str


PARTS = {
    "data": (Part("trainkit.data", "line"), Part("trainkit.models", "perceptron")),
    "loss": (Part("trainkit.losses", "squares"),),
    "metric": (Part("trainkit.metrics", "largest_error"),),
    "scheduler": (Part("trainkit.schedulers", "halving"),),
    "hook": (Part("trainkit.hooks", "count"),),
}
"""What ``--only`` may name -> the parts that come with it. Data come with the model that takes them."""

_NEEDED_TO_TRAIN = {"data", "loss"}
_OF_THE_DATA = re.compile(rf"^\nfrom {_MODULE}\.line import Line\n|^    accepts = Line\n\n", re.MULTILINE)


def module_of(name: str) -> str:
    """Return the name of the module of a distribution that can be made here.

    Args:
        name: Name of the distribution.

    Raises:
        RecipeError: No distribution can have the name, or it is taken.

    Example:
        >>> module_of("my-new-losses")
        'my_new_losses'
    """
    if re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", name) is None:
        raise RecipeError(
            f'"{name}" cannot be the name of a package: it must have letters, digits, "-", "_" and "." alone, and '
            f"begin and end with a letter or a digit{_instead(name)}"
        )
    module = re.sub(r"[-_.]+", "_", name).lower()
    if not module.isidentifier() or keyword.iskeyword(module) or keyword.issoftkeyword(module):
        why = "begins with a digit" if module[0].isdigit() else "is a word of Python"
        raise RecipeError(f'"{name}" would be imported as "{module}", which {why}; try my-{name}')
    if module in sys.stdlib_module_names:
        raise RecipeError(f'"{name}" would hide the module "{module}" of Python; try my-{name}')
    if module in ("test", "tests"):
        raise RecipeError(f'"{name}" is the name of the folder of the tests; try my-{name}')
    normal = module.replace("_", "-")
    for each in distributions():
        installed = each.metadata["Name"] if each.metadata is not None else None
        if installed and re.sub(r"[-_.]+", "-", installed).lower() == normal:
            raise RecipeError(f'a package "{installed}" is installed already ({each.version}); choose another name')
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is not None:
        where = found.origin or next(iter(found.submodule_search_locations or ()), "built in")
        raise RecipeError(
            f'"{name}" would hide a module that is there already: {module} ({where}); choose another name'
        )
    return module


def _instead(name: str) -> str:
    near = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")
    return f"; try {near}" if near else ""


def files_of(name: str, module: str, kinds: Collection[str]) -> dict[Path, str]:
    """Return the files of a new distribution: path in its folder -> content.

    Args:
        name: Name of the distribution.
        module: Name of its module, see `module_of`.
        kinds: The keys of `PARTS` that it has.

    Raises:
        RecipeError: The template is not there.
    """
    template = _template()
    without = [part for kind, parts in PARTS.items() if kind not in kinds for part in parts]
    trains = set(kinds) >= _NEEDED_TO_TRAIN
    dropped = {file for part in without for file in (f"{part.name}.py", f"test_{part.name}.py")}
    dropped |= set() if trains else {"recipe.toml", "test_recipe.py"}
    found: dict[Path, str] = {}
    for path in sorted(path for pattern in _FILES for path in template.glob(pattern)):
        if path.name in dropped:
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            text = _without_paragraphs(text, without)
        elif path.suffix == ".md":
            words = [f"/{part.name}.py`" for part in without] + ([] if trains else ["recipe.toml"])
            text = "".join(line for line in text.splitlines(keepends=True) if not any(each in line for each in words))
        elif "data" not in kinds:
            text = _OF_THE_DATA.sub("", text)
        if path.name == "recipe.toml":
            text = _with_whole_names(text, name)
        target = Path(str(path.relative_to(template)).replace(_MODULE, module))
        found[target] = text.replace(_DISTRIBUTION, name).replace(_MODULE, module)
    return found


def _template() -> Path:
    checkout = Path(__file__).parents[2]
    installed = Path(sysconfig.get_path("data")) / "share" / "trainkit" / "third_party"
    folder = checkout / "examples" / "third_party" if (checkout / "pyproject.toml").is_file() else installed
    if not (folder / "pyproject.toml").is_file():
        raise RecipeError(f"the template is not there: {folder}; install trainkit again")
    return folder


def _without_paragraphs(text: str, without: list[Part]) -> str:
    """Drop the paragraphs about parts that are left out: their entry points, or their tables of a recipe."""
    words = [word for part in without for word in (f'"{_MODULE}.{part.name}:', f'use = "{part.name}"')]
    return "\n\n".join(each for each in text.split("\n\n") if not any(word in each for word in words))


def _with_whole_names(text: str, name: str) -> str:
    """Write ``package/name`` for components whose names another installed package has too."""
    for part in (part for parts in PARTS.values() for part in parts):
        if any(each.name == part.name for each in registry.registered(part.group)):
            text = text.replace(f'use = "{part.name}"', f'use = "{name}/{part.name}"')
    return text
