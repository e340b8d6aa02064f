"""The commands that need nothing but a recipe: check, plugins, show."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli
from click.testing import CliRunner, Result
from recipe_toys import GOOD, toys

from trainkit.cli.check import command as check
from trainkit.cli.plugins import command as plugins
from trainkit.cli.show import command as show
from trainkit.errors import RecipeError
from trainkit.recipe.resolve import resolve


@pytest.fixture(scope="module", autouse=True)
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with toys(tmp_path_factory.mktemp("toys")) as folder:
        yield folder


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.toml").write_text(GOOD)
    Path("bad.toml").write_text(GOOD.replace("epochs", "epoch"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(check, arguments)


def test_a_recipe_without_mistakes_is_fine() -> None:
    result = run("good.toml")
    assert (result.exit_code, result.output) == (0, "good.toml: fine\n")


def test_every_recipe_is_checked_and_one_mistake_decides() -> None:
    result = run("bad.toml", "good.toml", "none.toml")
    assert result.exit_code == 2
    assert result.output == (
        """\
bad.toml:2:2: error: run: "epochs" or "steps" is missing: how long the run lasts
    [run]
     ^^^
bad.toml:3:1: error: run.epoch: unknown key
    epoch = 10
    ^^^^^
    did you mean "epochs"?
bad.toml: 2 mistakes
good.toml: fine
none.toml: error: there is no such file
    did you mean "good.toml"?
none.toml: 1 mistake
"""
    )


def test_notes_are_shown_and_keep_nothing_from_being_fine() -> None:
    result = run("good.toml", "--set", "groups.head.lr=1e-3")
    assert result.exit_code == 0
    assert result.output == (
        "--set groups.head.lr=1e-3: note: groups.head: this group stays frozen, because it has no start_epoch\n"
        "good.toml: fine\n"
    )


def test_the_complete_recipe_is_printed_with_the_origin_of_each_value_and_can_be_used_again() -> None:
    result = run("good.toml", "--resolved", "--set", "run.seed=3", "--set", "model.layers=[1, 2]")
    text = result.output
    assert text.startswith("# good.toml: fine\n")
    lines = dict(line.split(" #", 1) for line in text.splitlines() if " #" in line)
    origins = {key.strip(): origin.strip() for key, origin in lines.items()}
    assert origins["epochs = 10"] == "good.toml:3"
    assert origins["seed = 3"] == "--set run.seed=3"
    assert origins['device = "auto"'] == "default"
    assert origins["layers = [1, 2]"] == "--set model.layers=[1, 2]"
    tree = tomli.loads(text)
    leaves = json.dumps(tree).count(": ") - json.dumps(tree).count(": {")
    assert len([line for line in text.splitlines() if "=" in line.split(" #")[0]]) == leaves
    Path("again.toml").write_text(text)
    assert resolve("again.toml").recipe == resolve("good.toml", ["run.seed=3", "model.layers=[1, 2]"]).recipe


def test_characters_that_only_some_call_a_line_end_do_not_break_the_complete_recipe() -> None:
    text = run("good.toml", "--resolved", "--set", 'data.extra.x="a\\u0085b\\u2028c"', "--set", "run.seed=3").output
    assert tomli.loads(text)["data"]["extra"]["x"] == "a\x85b\u2028c"
    assert "# --set run.seed=3" in text


def test_the_data_is_summed_up_and_one_that_cannot_be_read_is_a_message() -> None:
    assert run("good.toml", "--data").output == "good.toml: fine\n4 points, noise 0.5 m\n"
    Path("scan.h5").touch()
    result = run("good.toml", "--data", "--set", "data.path=scan.h5")
    assert tomli.loads(run("good.toml", "--data", "--resolved").output)["data"]["use"] == "points"
    assert (result.exit_code, result.output) == (1, "good.toml: error: data: scan.h5 is damaged\n")


def test_a_file_that_is_not_there_is_a_mistake_of_the_recipe_with_its_place_and_the_nearest_name() -> None:
    Path("scan_a.h5").touch()
    here = Path.cwd()
    Path("own.toml").write_text(GOOD.replace('use = "points"', 'use = "points"\npath = "scan_b.h5"'))
    result = run("own.toml")
    assert result.exit_code == 2
    assert f"error: data.path: there is no {here / 'scan_b.h5'}\n" in result.output
    assert result.output.startswith("own.toml:")
    assert 'did you mean "scan_a.h5"?' in result.output
    far = run("good.toml", "--set", "data.path=no_folder/deep/scan.h5")
    assert f"{here} has no no_folder\n" in far.output


def test_a_name_that_differs_in_the_unicode_form_of_its_accents_is_told_so() -> None:
    Path("Scha\u0308del.h5").touch()
    result = run("good.toml", "--set", "data.path=Sch\u00e4del.h5")
    assert result.exit_code == 2
    assert "with its accents in the other Unicode form" in result.output
    assert "did you mean" not in result.output


def test_data_is_fine_only_if_nothing_about_it_is_doubtful() -> None:
    result = run("good.toml", "--data", "--set", "data.noise=10.0")
    assert result.exit_code == 0
    assert result.output == (
        "--set data.noise=10.0: warning: data.noise: more noise than signal; set noise = 0.5\n"
        "good.toml: 1 doubt\n"
        "4 points, noise 10.0 m\n"
    )


def test_data_that_a_run_would_refuse_is_a_failed_check_with_the_place_of_the_setting() -> None:
    result = run("good.toml", "--data", "--set", "data.noise=100.0")
    assert result.exit_code == 1
    assert "--set data.noise=100.0: error: data.noise: nothing but noise\n" in result.output
    assert "good.toml: 1 reason to refuse the data, 1 doubt\n" in result.output


def test_a_look_at_headers_says_what_it_did_not_look_at_and_is_not_mistaken_for_a_recipe() -> None:
    result = run("--data=headers", "good.toml", "--set", "data.noise=10.0")
    assert result.exit_code == 0
    assert result.output == "good.toml: fine\n4 points, noise 10.0 m\nthe points themselves were not read\n"
    assert run("--data", "good.toml").output == "good.toml: fine\n4 points, noise 0.5 m\n"


def test_colour_is_only_for_terminals() -> None:
    assert "\x1b[" not in run("bad.toml").output
    assert "\x1b[31m" in CliRunner().invoke(check, ["bad.toml"], color=True).output


def test_checking_imports_no_heavy_module(toy_folder: Path) -> None:
    code = """
import sys
from trainkit.cli.check import command
try:
    command(["good.toml", "bad.toml", "--resolved"])
except SystemExit as end:
    assert end.code == 2, end.code
heavy = {"torch", "numpy", "matplotlib", "h5py", "monai", "rich", "tensorboard"} & set(sys.modules)
assert not heavy, heavy
"""
    path = os.pathsep.join([str(toy_folder), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "# good.toml: fine" in done.stdout


# ---- plugins and show -----------------------------------------------------------------------------------------------


def test_plugins_lists_all_components_and_why_one_cannot_be_used() -> None:
    result = CliRunner().invoke(plugins, [])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert "trainkit.toy.shapes" in lines
    words = [line.split()[:3] for line in lines]
    assert ["square", "toy", "1.0"] in words
    assert any(line.split() == ["points", "toy", "1.0", "Points", "on", "a", "line."] for line in lines)
    broken = words.index(["broken", "toy", "1.0"])
    assert lines[broken + 1].strip() == (
        '"broken" of toy 1.0 (toy_broken:Loss) cannot be imported: RuntimeError: no licence'
    )


def test_show_prints_what_a_component_does_and_its_settings() -> None:
    result = CliRunner().invoke(show, ["points"])
    assert result.exit_code == 0
    assert result.output == (
        """\
trainkit.data/points  (toy 1.0, toy:Points)
Points on a line.

They are made up.

Settings
  path: Path | None, optional
      Where they are.
  batch_size: int = 4, ≥ 1
      So many at once.
  noise: float = 0.5
      Standard deviation, in metres.
  validated: bool = True
      Whether some are held out.
  extra: Mapping[str, Any] = {}
"""
    )


def test_show_names_the_components_that_a_setting_takes_and_inherited_meanings() -> None:
    assert "      components of trainkit.toy.shapes: pair, round" in CliRunner().invoke(show, ["models/line"]).output
    assert (
        "Learning rate of each group that sets none of its own."
        in CliRunner().invoke(show, ["trainkit.optimizers/steep"]).output
    )


def test_show_of_an_unknown_component_names_the_nearest() -> None:
    for name, near in (("squar", '"square"'), ("losses/squar", '"losses/square"')):
        error = CliRunner().invoke(show, [name]).exception
        assert isinstance(error, RecipeError)
        assert f"did you mean {near}?" in str(error)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("run", ["[run]", "  epochs: int | None, optional, ≥ 1 and ≤ 1e+06", "  name: str"]),
        ("[groups]", ["  start_epoch: int | None, optional, ≥ 0", "  then.NAME.start_epoch: int, required, ≥ 1"]),
        ("checkpoint", ["  keep_last: int = 3, ≥ 1", "      Number of newest checkpoints to keep."]),
        ("extends", ["extends, drop", "  drop: tuple[str, ...] = ()"]),
        ("sweep", ["[sweep]"]),
        ("search", ["  trials: int = 40, ≥ 1 and ≤ 100000"]),
        ("losses", ['[losses]  a table with "use": a component of trainkit.losses', "Components"]),
        ("toy.shapes", ['trainkit.toy.shapes  a table with "use": a component of trainkit.toy.shapes']),
    ],
)
def test_show_explains_tables_and_kinds(name: str, shown: list[str]) -> None:
    result = CliRunner().invoke(show, [name], catch_exceptions=False)
    assert result.exit_code == 0
    for line in shown:
        assert line in result.output.splitlines(), line


def test_show_without_a_name_lists_all_tables_of_a_recipe() -> None:
    listed = [line.split()[0] for line in CliRunner().invoke(show, [], catch_exceptions=False).output.splitlines()]
    assert {"run", "monitor", "validation", "pictures", "checkpoint", "groups", "ema", "initial_weights"} <= {*listed}
    assert {"extends", "drop", "sweep", "search", "data", "losses", "predict", "loggers"} <= {*listed}
    assert len(listed) == len(set(listed))
    for name in listed:
        assert CliRunner().invoke(show, [name]).exit_code == 0
