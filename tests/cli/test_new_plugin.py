"""``trainkit new-plugin``: what it writes installs, and its tests pass at once; and it overwrites nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from clients.warm import Warm

from trainkit.cli.new_plugin import command
from trainkit.cli.plugin_template import PARTS, files_of
from trainkit.errors import RecipeError

EXAMPLE = Path(__file__).parents[2] / "examples" / "third_party"


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def new_plugin(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_template_is_the_example_whole() -> None:
    listed = subprocess.run(["git", "ls-files", "."], cwd=EXAMPLE, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout")
    files = files_of("trainkit-example", "trainkit_example", list(PARTS))
    assert sorted(map(str, files)) == sorted(listed.stdout.split())
    assert all(text == (EXAMPLE / path).read_text() for path, text in files.items())


def python(*arguments: str, site: Path | None = None, cwd: Path) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": str(site)} if site else {})
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_new_package_installs_passes_its_tests_which_train_it_and_is_listed(tmp_path: Path) -> None:
    pytest.importorskip("pip")
    assert new_plugin("My-Parts").exit_code == 0
    folder, site = Path("My-Parts").resolve(), tmp_path / "site"
    options = ["-q", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    python("-m", "pip", "install", *options, "--target", str(site), str(folder), cwd=folder)
    passed = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", site=site, cwd=folder)
    assert " passed" in passed
    assert "skipped" not in passed
    found = [
        json.loads(line)
        for line in python("-m", "trainkit", "plugins", "--json", site=site, cwd=folder).split("\n")[:-1]
    ]
    ours = {each["name"]: each for each in found if each["package"] == "My-Parts"}
    assert set(ours) == {part.name for parts in PARTS.values() for part in parts}
    assert all(each["error"] is None and each["text"] and not each["remarks"] for each in ours.values())
    python("-m", "ruff", "check", "-q", ".", cwd=folder)


@pytest.mark.parametrize("kind", PARTS)
def test_a_package_with_one_kind_alone_holds_nothing_of_the_others(kind: str) -> None:
    assert new_plugin("alone-here", "--only", kind).exit_code == 0
    folder = Path("alone-here").resolve()
    assert {path.stem for path in (folder / "alone_here").glob("[a-z]*.py")} == {each.name for each in PARTS[kind]}
    others = {part.name for other in PARTS if other != kind for part in PARTS[other]}
    written = tree(folder)
    assert not [each for each in others if any(f"{each}." in text or f'"{each}"' in text for text in written.values())]
    python("-m", "ruff", "check", "-q", ".", cwd=folder)
    python("-m", "ruff", "format", "-q", "--check", ".", cwd=folder)


@pytest.mark.slow
def test_a_package_without_data_of_its_own_passes_its_tests(warm: Warm) -> None:
    assert new_plugin("alone-here", "--only", "loss,metric,hook").exit_code == 0
    folder = Path("alone-here").resolve()
    python("-c", "from setuptools import setup; setup()", "-q", "egg_info", cwd=folder)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore:Module already imported"]
    code = f"import pytest; raise SystemExit(pytest.main({options}))"
    tests = warm.start("-c", code, folder=folder, environment={"PYTHONPATH": str(folder)})
    assert tests.wait() == 0, tests.stdout
    assert " passed" in tests.stdout


def test_kinds_are_named_in_the_singular_or_the_plural() -> None:
    said = json.loads(new_plugin("my-parts", "--only", "losses, Model", "--dir", "deep/er", "--json").output)
    assert (said["type"], said["name"], said["module"]) == ("new_plugin", "my-parts", "my_parts")
    assert said["folder"] == str(Path("deep/er").resolve())
    written = tree(Path("deep/er"))
    assert sorted(written) == said["files"]
    assert {name for name in written if name.startswith("my_parts/")} == {
        f"my_parts/{each}" for each in ("__init__.py", "py.typed", "line.py", "perceptron.py", "squares.py")
    }
    assert "halving" not in "".join(written.values())
    with pytest.raises(RecipeError, match='no kind "lossy" in the template; did you mean "loss"'):
        new_plugin("my-parts", "--only", "lossy")
    with pytest.raises(RecipeError, match="names no kind"):
        new_plugin("my-parts", "--only", ",")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my parts", "cannot be the name of a package.*try my-parts"),
        ("a/b", "try a-b"),
        ("-", "cannot be the name of a package"),
        ("3d", "begins with a digit"),
        ("class", "word of Python"),
        ("queue", 'hide the module "queue" of Python'),
        ("Py.Test", "hide a module|is installed"),
        ("PyTest", 'a package "pytest" is installed already'),
        ("tests", "folder of the tests"),
        ("trainkit", 'a package "trainkit" is installed already'),
        ("here-already", "hide a module that is there already: here_already"),
    ],
)
def test_a_name_that_cannot_be_taken_is_refused(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here_already.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    if name == "Py.Test":
        (tmp_path / "py_test.py").touch()
    with pytest.raises(RecipeError, match=said):
        new_plugin("--", name)
    assert {each.name for each in tmp_path.iterdir()} <= {"here_already.py", "py_test.py"}


def test_nothing_is_overwritten_and_an_empty_folder_is_filled(tmp_path: Path) -> None:
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    Path("file").write_text("mine")
    Path("lost").symlink_to(tmp_path / "nowhere")
    for folder, said in (("full", "mine.txt in it"), ("file", "is no folder"), ("lost", "is no folder")):
        with pytest.raises(RecipeError, match=said):
            new_plugin("my-parts", "--dir", folder)
    assert tree(tmp_path) == {"full/mine.txt": "mine", "file": "mine"}
    Path("empty").mkdir()
    assert new_plugin("my-parts", "--dir", "empty").exit_code == 0
    assert Path("empty/pyproject.toml").is_file()
    assert {each.name for each in tmp_path.iterdir()} == {"full", "file", "lost", "empty"}
    if os.geteuid():
        Path("closed").mkdir(mode=0o500)
        with pytest.raises(RecipeError, match="cannot be written: Permission denied"):
            new_plugin("my-parts", "--dir", "closed/parts")


def test_a_recipe_names_the_package_where_another_one_has_components_of_the_same_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from trainkit import registry

    there = registry.RegisteredComponent("line", "other.line:Line", "other", "1.0")
    monkeypatch.setattr(registry, "registered", lambda group: (there,) if group == "trainkit.data" else ())
    text = files_of("my-parts", "my_parts", list(PARTS))[Path("recipe.toml")]
    assert 'use = "my-parts/line"' in text
    assert 'use = "perceptron"' in text


def test_the_shell_completes_the_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    from click import Context, Option

    (only,) = (each for each in command.params if isinstance(each, Option) and each.name == "only")
    found = only.shell_complete(Context(command), "loss,m")
    assert [each.value for each in found] == ["loss,metric"]
