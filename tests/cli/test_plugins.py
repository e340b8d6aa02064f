"""``trainkit plugins`` where installed packages misbehave: the list goes on, and says which of them does what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from recipe_toys import distribution

from trainkit import registry
from trainkit.cli import plugin_inspection
from trainkit.cli.plugins import command as plugins
from trainkit.recipe.resolve import resolve_text

GOOD = '''
from trainkit import Point, Scheduler, component

@component
class S(Scheduler):
    """Keeps the rate. And nothing else."""

    def at(self, t, horizon, lr, memory):
        return Point(lr)
'''
ZOO = {
    "good": GOOD,
    "prints": "print('HELLO')" + GOOD,
    "defaults": "import torch; torch.set_default_dtype(torch.float64)" + GOOD,
    "random": "import random; random.seed(3)" + GOOD,
    "interrupts": "raise KeyboardInterrupt" + GOOD,
    "hardexit": "import os; os._exit(9)" + GOOD,
    "nocomponent": "class S: pass",
    "typo": GOOD,
    "novalue": GOOD,
}


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with a package for each kind of misbehaviour, and one without any."""
    for name, code in ZOO.items():
        (tmp_path / f"zoo_{name}.py").write_text(code)
        group = "trainkit.schedulerz" if name == "typo" else "trainkit.schedulers"
        line = "z" if name == "novalue" else f"z{name} = zoo_{name}:S"
        distribution(tmp_path, f"zoo-{name}", "1.0", f"[{group}]\n{line}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.forget()
    yield tmp_path
    registry.forget()


@pytest.mark.slow
def test_a_package_that_misbehaves_is_named_and_the_list_goes_on(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_inspection, "TIME_LIMIT", 60.0)  # one of them imports torch
    result = CliRunner().invoke(plugins, ["--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "HELLO" not in result.output
    said = {each.get("name") or each["package"]: each for each in map(json.loads, result.output.splitlines())}
    assert said["zgood"]["text"] == "Keeps the rate."
    assert (said["zgood"]["error"], said["zgood"]["remarks"]) == (None, [])
    assert said["zprints"]["remarks"] == ["the import of zoo_prints prints something, which is left out here"]
    (changed,) = said["zdefaults"]["remarks"]
    assert "the import of zoo_defaults changes torch's default dtype from torch.float32 to torch.float64" in changed
    (changed,) = said["zrandom"]["remarks"]
    assert "the state of Python's random numbers" in changed
    assert "KeyboardInterrupt" in said["zinterrupts"]["error"]
    assert "ends with exit code 9" in said["zhardexit"]["error"]
    assert "is no component" in said["znocomponent"]["error"]
    assert "its kind is looked for in trainkit.schedulers" in said["ztypo"]["error"]
    assert 'did you mean "trainkit.schedulers"' in said["ztypo"]["error"]
    assert said["zoo-novalue"]["type"] == "damaged_package"
    assert 'the line "z" has no "="' in said["zoo-novalue"]["error"]
    assert said["cosine"]["error"] is None
    text = CliRunner().invoke(plugins, [], catch_exceptions=False).output
    assert "zoo-novalue 1.0: its entry_points.txt cannot be read" in text


def test_an_import_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_inspection, "TIME_LIMIT", 1.5)
    (tmp_path / "zoo_hangs.py").write_text("import time\nwhile True: time.sleep(1)" + GOOD)
    monkeypatch.syspath_prepend(str(tmp_path))
    component = registry.RegisteredComponent("zhangs", "zoo_hangs:S", "zoo-hangs", "1.0")
    (seen,) = plugin_inspection.look_at([("trainkit.schedulers", component)]).values()
    assert seen.error == "zoo_hangs:S cannot be imported: its import takes longer than 1.5 s"


def test_a_component_that_ends_the_process_does_not_hide_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mixed_bad.py").write_text("import os; os._exit(3)")
    (tmp_path / "mixed_good.py").write_text(GOOD)
    points = "a = mixed_good:S\nb = mixed_bad:S\nc = mixed_good:S\n"
    distribution(tmp_path, "mixed", "1.0", f"[trainkit.schedulers]\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.forget()
    found = [("trainkit.schedulers", each) for each in registry.registered("trainkit.schedulers")]
    seen = plugin_inspection.look_at(each for each in found if each[1].package == "mixed")
    registry.forget()
    assert [(each.text, each.error is None) for each in seen.values()] == [
        ("Keeps the rate.", True),
        ("", False),
        ("Keeps the rate.", True),
    ]


RECIPE = """trainkit = 1
[run]
epochs = 1
[data]
use = "diffraction_simulated"
[model]
use = "single_slice_ptychography"
probe = { use = "aperture" }
[losses.data]
use = "amplitude"
"""


def test_recipes_that_do_not_use_a_damaged_package_are_not_touched_by_it(zoo: Path) -> None:
    assert resolve_text(RECIPE, zoo).recipe.scheduler.warmup == 0
    assert [each.package for each in registry.damaged()] == ["zoo-novalue"]


def test_check_points_out_what_the_import_of_a_used_component_does_to_all(
    zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    try:
        notes = resolve_text(RECIPE + '[scheduler]\nuse = "zprints"\n', zoo).notes
        assert [each.message for each in notes] == ["the import of zoo_prints prints something, which is left out here"]
        assert capsys.readouterr().out == ""
        (note,) = resolve_text(RECIPE + '[scheduler]\nuse = "zdefaults"\n', zoo).notes
        assert "changes torch's default dtype from torch.float32 to torch.float64" in note.message
        assert not resolve_text(RECIPE + '[scheduler]\nuse = "zgood"\n', zoo).notes
    finally:
        torch.set_default_dtype(torch.float32)
