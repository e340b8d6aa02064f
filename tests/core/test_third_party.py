"""A third party's distribution, installed: found, tested and run like our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[2]
FIND = """
import sys
from trainkit import registry
for group, name in [each.split("=") for each in sys.argv[1:]]:
    found = registry.locate(group, name)
    print(group, found.package, found.version, found.load().__name__)
print("torch" in sys.modules)
"""


def test_an_installed_third_party_is_found_through_its_entry_points(toy_site: Path) -> None:
    wanted = {"data": "line", "models": "perceptron", "losses": "squares", "schedulers": "halving", "hooks": "count"}
    command = [sys.executable, "-c", FIND, *[f"trainkit.{kind}={name}" for kind, name in wanted.items()]]
    environment = os.environ | {"PYTHONPATH": str(toy_site)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *found, torch_was_imported = done.stdout.splitlines()
    assert [line.split()[1:] for line in found] == [
        ["trainkit-example", "0.1", name] for name in ("Line", "Perceptron", "Squares", "Halving", "Count")
    ]
    assert torch_was_imported == "False"


@pytest.mark.slow
def test_the_third_partys_own_tests_pass_where_it_is_installed(toy_site: Path) -> None:
    tests = ROOT / "examples" / "third_party" / "tests"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tests)]
    environment = os.environ | {"PYTHONPATH": str(toy_site)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_third_partys_recipe_learns_what_it_is_to_learn(toy_site: Path, tmp_path: Path) -> None:
    recipe = ROOT / "examples" / "third_party" / "recipe.toml"
    environment = os.environ | {"PYTHONPATH": str(toy_site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trainkit", "run", str(recipe), "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (written,) = tmp_path.glob("runs/line/*/metrics.jsonl")
    first, *_, last = (json.loads(line) for line in written.read_text().splitlines())
    assert last["val/loss"] < first["val/loss"] / 5


def test_the_third_party_is_one_file_of_some_hundred_lines() -> None:
    example = ROOT / "examples" / "third_party" / "trainkit_example.py"
    assert len(example.read_text().splitlines()) <= 110


def test_a_package_under_another_licence_is_in_no_wheel_of_trainkit() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    for folder in settings["where"]:
        found = setuptools.find_namespace_packages(str(ROOT / folder), settings["exclude"], settings["include"])
        assert found
        assert not [name for name in found if "rosettasciio" in name]
    own = tomllib.loads((ROOT / "plugins" / "trainkit_rosettasciio" / "pyproject.toml").read_text())["project"]
    assert own["license"] == "GPL-3.0-or-later"
    whole = (ROOT / "plugins" / "trainkit_rosettasciio" / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in whole
