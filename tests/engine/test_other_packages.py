"""A checkpoint is resumed where the packages of its components are others than when it was written."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.toy_run import TOY, resume, run

from trainkit import RecipeError, registry

TEXT = TOY.replace("[hooks.recorder]", '[hooks.nap]\nuse = "nap"\nlength = 2.0\n[hooks.recorder]')
HOOK = """
from trainkit import Hook, component

@component
class Nap(Hook):
    \"\"\"Does nothing.

    Attributes:
        {setting}: Seconds.
    \"\"\"

    {setting}: float = 1.0

    def build(self, context):
        return object()
"""


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = before[0]
    for name in set(sys.modules) - before[1]:
        if name.startswith("napping_"):
            del sys.modules[name]
    registry.forget()
    importlib.invalidate_caches()


def install(package: str, version: str, setting: str = "length") -> Path:
    """Put a package with the hook ``nap`` on the path."""
    folder = Path(f"{package}-{version}").absolute()
    info = folder / f"{package}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    module = f"napping_{package}_{version.replace('.', '_')}"
    (info / "entry_points.txt").write_text(f"[trainkit.hooks]\nnap = {module}:Nap\n")
    (folder / f"{module}.py").write_text(HOOK.format(setting=setting))
    sys.path.insert(0, str(folder))
    _look_again()
    return folder


def remove(folder: Path) -> None:
    sys.path.remove(str(folder))
    _look_again()


def _look_again() -> None:
    importlib.invalidate_caches()
    registry.forget()


def test_a_renamed_setting_names_both_versions_and_the_run_continues_with_a_recipe_or_settings() -> None:
    old = install("sleepers", "0.1")
    first = run(text=TEXT).run.state
    remove(old)
    install("sleepers", "0.2", setting="seconds")
    with pytest.raises(RecipeError, match=r"with sleepers 0\.1; installed is sleepers 0\.2(.|\n)*hooks\.nap\.length"):
        resume(first.folder, "run.epochs=3")
    renamed = ('drop=["hooks.nap.length"]', "hooks.nap.seconds=2.0")
    assert resume(first.folder, "run.epochs=3", *renamed).run.state.epoch == 3
    Path("new.toml").write_text(TEXT.replace("length", "seconds").replace("epochs = 2", "epochs = 4"))
    assert resume(first.folder, recipe=Path("new.toml")).run.state.epoch == 4


def test_a_missing_package_is_named_with_its_version_and_another_recipe_continues_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = install("sleepers", "0.1")
    first = run("scheduler.use=cosine", text=TEXT).run.state
    remove(old)
    with pytest.raises(RecipeError, match=r"written with sleepers 0\.1, which is not installed: pip install sleepers"):
        resume(first.folder, "run.epochs=3")
    Path("new.toml").write_text(TOY.replace("epochs = 2", "epochs = 3") + '[scheduler]\nuse = "cosine"\n')
    with pytest.raises(RecipeError, match="--on-extend"):
        resume(first.folder, recipe=Path("new.toml"))
    outcome = resume(first.folder, recipe=Path("new.toml"), on_extend="stretch", quiet=False)
    assert outcome.run.state.epoch == 3
    assert "sleepers 0.1, which is not installed" in capsys.readouterr().out


def test_a_name_that_a_second_package_registers_too_is_that_of_the_package_that_was_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = install("sleepers", "0.1")
    first = run(text=TEXT).run.state
    install("dreamers", "1.0", setting="depth")
    outcome = resume(first.folder, "run.epochs=3", quiet=False)
    said = capsys.readouterr().out
    assert "changed: hooks" not in said
    assert "warning" not in said
    assert {used.use: used.package for used in outcome.run.resolved.used}["sleepers/nap"] == "sleepers"
    remove(old)
    with pytest.raises(RecipeError, match=r"sleepers 0\.1, which is not installed"):
        resume(outcome.run.state.folder, "run.epochs=4")


def test_a_mistake_on_the_command_line_does_not_blame_the_packages() -> None:
    install("sleepers", "0.1")
    first = run(text=TEXT).run.state
    with pytest.raises(RecipeError) as raised:
        resume(first.folder, "run.epoch=3")
    assert "written with" not in str(raised.value)
