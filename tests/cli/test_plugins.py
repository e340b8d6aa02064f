"""``trainkit plugins`` where installed packages misbehave: the list goes on, and says which of them does what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from recipe_toys import distribution

from trainkit import registry
from trainkit.cli import plugin_inspection
from trainkit.cli.init import command as init
from trainkit.cli.plugins import command as plugins
from trainkit.cli.schema import command as schema
from trainkit.cli.show import command as show
from trainkit.errors import ComponentError, RecipeError
from trainkit.import_effects import watched_import
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
    seen: dict[Any, plugin_inspection.Seen] = {}
    look_at = plugin_inspection.look_at
    monkeypatch.setattr(plugin_inspection, "look_at", lambda components: seen.update(look_at(components)) or seen)
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
    monkeypatch.setattr(plugin_inspection, "look_at", lambda components: seen)  # each of them took a process
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


@pytest.fixture
def harmful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with packages that end or interrupt the process which imports them, and a misspelt group."""
    for kind, group, code in (
        ("ends", "trainkit.schedulers", "import os; os._exit(9)"),
        ("interrupts", "trainkit.data", "raise KeyboardInterrupt"),
        ("plans", "trainkit.planners", "import os; os._exit(9)"),
        ("typo", "trainkit.scheduler", GOOD),
    ):
        (tmp_path / f"harm_{kind}.py").write_text(code)
        distribution(tmp_path, f"harm-{kind}", "1.0", f"[{group}]\nh{kind} = harm_{kind}:S\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugin_inspection, "TIME_LIMIT", 60.0)
    monkeypatch.setattr(registry, "_REFUSED", {})
    registry.forget()
    yield tmp_path
    registry.forget()


@pytest.mark.slow
def test_commands_that_import_all_components_outlive_a_harmful_one_and_name_it(harmful: Path) -> None:
    found = CliRunner().invoke(schema, [], catch_exceptions=False)
    assert found.exit_code == 0
    assert "harm-ends 1.0 (harm_ends:S) cannot be imported: the process that imports it ends with" in found.stderr
    assert "harm-interrupts 1.0 (harm_interrupts:S) cannot be imported: its import raises Keyboard" in found.stderr
    assert (
        '"htypo" of harm-typo is registered in trainkit.scheduler; did you mean "trainkit.schedulers"?' in found.stderr
    )
    assert '"cosine"' in found.stdout
    found = CliRunner().invoke(show, ["scheduler"], catch_exceptions=False)
    assert "Half a cosine" in found.output
    assert "hends       " in found.output
    assert "ends with exit code 9" in found.output
    with pytest.raises(ComponentError, match="of harm-ends"):
        CliRunner().invoke(show, ["hends"], catch_exceptions=False)
    (harmful / "empty").mkdir()
    with pytest.raises(RecipeError, match=r"(?s)recognised by no component of data.*hinterrupts: .*KeyboardInterrupt"):
        CliRunner().invoke(init, [str(harmful / "empty")], catch_exceptions=False)


@pytest.mark.slow
def test_what_an_import_changes_for_all_is_seen_and_what_libraries_do_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HERS", "1")
    effects = {
        "import os; os.chdir('/')": "the working directory",
        "import os; os.environ['KEY_OF_MINE'] = 'a secret'": "the environment variables KEY_OF_MINE,",
        "import os; del os.environ['HERS']": "the environment variables HERS,",
        "import warnings; warnings.simplefilter('ignore')": "which warnings are shown",
        "import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN)": "what SIGUSR1 does from SIG_DFL to SIG_IGN",
        "import sys; sys.path.append('/nowhere')": "the search path",
        "import gc; gc.disable()": "whether garbage is collected from True to False",
        "import logging; logging.basicConfig(force=True)": "the handlers of the root logger",
        "import numpy; numpy.set_printoptions(precision=2)": "how numpy prints",
        "import numpy; numpy.seterr(all='raise')": "what numpy does about floating-point errors",
        "import numpy; numpy.random.seed(1)": "the state of numpy's random numbers",
        "import torch; torch.manual_seed(1)": "the state of torch's random numbers",
        "import torch; torch.set_num_threads(3)": "torch's number of threads",
        "import torch; torch.use_deterministic_algorithms(True)": "whether torch is deterministic from False to True",
        "import torch; torch.set_default_device('meta')": "torch's default device from cpu to meta",
        "import torch; torch.set_float32_matmul_precision('medium')": "the precision of torch's matrix products",
    }
    quiet = [
        "import torch, numpy, logging, warnings, matplotlib",
        "import warnings; warnings.filterwarnings('ignore', 'of mine')",
    ]
    codes = [*effects, *quiet]
    for number, code in enumerate(codes):
        (tmp_path / f"effect_{number}.py").write_text(code)
    # Each in a process of its own would take long: all are in one, and what matters is undone.
    program = (
        "import json, os, sys, warnings, gc, signal, logging\n"
        "from trainkit.import_effects import watched_import\n"
        f"for number in {[len(effects), *range(len(codes))]}:\n"  # what libraries do comes first
        "    found, path, filters = [], list(sys.path), list(warnings.filters)\n"
        "    with watched_import(f'effect_{number}', found):\n"
        "        sys.modules.pop(f'effect_{number}', None); __import__(f'effect_{number}')\n"
        "    print(json.dumps([number, found])); gc.enable(); sys.path[:] = path; warnings.filters[:] = filters\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    said = dict(json.loads(line) for line in done.stdout.splitlines())
    for number, (code, effect) in enumerate(effects.items()):
        assert len(said[number]) == 1, (code, said[number])
        assert f"effect_{number} changes {effect}" in said[number][0]
    assert "a secret" not in done.stdout
    assert [said[len(effects) + place] for place in range(len(quiet))] == [[], []]


def test_what_a_module_prints_after_its_import_is_not_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: list[str] = []
    with watched_import("a_module", found):
        stream = sys.stdout
        stream.write("at import\n")
    stream.write("later\n")
    assert capsys.readouterr().out == "later\n"
    assert found == ["the import of a_module prints something, which is left out here"]
