"""A third party's distribution, installed: found like our own.

It is what ``trainkit new-plugin`` writes, whose tests (cli/test_new_plugin.py) install, test and run it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

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
    wanted = {"data": "line", "models": "perceptron", "losses": "squares", "metrics": "largest_error"}
    wanted |= {"schedulers": "halving", "hooks": "count"}
    command = [sys.executable, "-c", FIND, *[f"trainkit.{kind}={name}" for kind, name in wanted.items()]]
    environment = os.environ | {"PYTHONPATH": str(toy_site)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *found, torch_was_imported = done.stdout.splitlines()
    assert [line.split()[1:] for line in found] == [
        ["trainkit-example", "0.1", name]
        for name in ("Line", "Perceptron", "Squares", "LargestError", "Halving", "Count")
    ]
    assert torch_was_imported == "False"


def test_each_part_of_the_third_party_is_one_small_file() -> None:
    files = [*(ROOT / "examples" / "third_party" / "trainkit_example").glob("*.py")]
    assert len(files) == 7
    assert max(len(each.read_text().splitlines()) for each in files) <= 60


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
