from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

HEAVY = ("torch", "numpy", "h5py", "monai", "nibabel", "matplotlib", "rich", "tensorboard", "scipy")
FACES = ["trainkit", "trainkit_ptychography", "trainkit_schedulers", "trainkit_segmentation"]


def names_imported(statements: list[ast.stmt]) -> set[str]:
    imports = [each for each in statements if isinstance(each, ast.ImportFrom) and each.module != "__future__"]
    return {alias.asname or alias.name for each in imports for alias in each.names}


@pytest.mark.parametrize("package", FACES)
def test_all_that_a_package_hands_out_is_public_sorted_documented_and_there(package):
    face = importlib.import_module(package)
    assert len(face.__all__) == len(set(face.__all__))  # ruff keeps the order
    assert set(face.__all__) <= set(dir(face))
    for name in face.__all__:
        value = getattr(face, name)
        assert not isinstance(value, ModuleType)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = face.nonsense


@pytest.mark.parametrize("package", FACES)
def test_what_type_checkers_see_of_a_face_is_what_there_is(package):
    face = importlib.import_module(package)
    tree = ast.parse(Path(face.__file__ or "").read_text(encoding="utf-8"))
    checked = [each for each in tree.body if isinstance(each, ast.If) and ast.unparse(each.test) == "TYPE_CHECKING"]
    seen = names_imported(tree.body) | {name for each in checked for name in names_imported(each.body)}
    assert seen - {"TYPE_CHECKING", "lazy_names"} == set(face.__all__) - {"lazy_names"}


@pytest.mark.parametrize("package", FACES)
def test_importing_a_face_imports_no_heavy_module(package):
    code = f"import sys, {package}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_that_of_the_installed_distribution():
    from importlib.metadata import version

    import trainkit

    assert trainkit.__version__ == version("trainkit")
