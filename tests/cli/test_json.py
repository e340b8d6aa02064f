"""With ``--json``, each line of the output is one object, with the keys that docs/json.md names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import tomli
from click.testing import CliRunner
from clients.toy_run import TOY, lines

import trainkit.cli
from trainkit.cli import cli
from trainkit.cli.output import styled
from trainkit.cli.run import report
from trainkit.console import Console
from trainkit.engine.every_run import progress
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve_text

DOCUMENT = Path(__file__).parents[2] / "docs" / "json.md"


def documented(heading: str) -> dict[str, set[str]]:
    """Return type -> keys, as the tables below a heading of the document say."""
    (text,) = re.findall(rf"^## `{re.escape(heading)}`\n(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.M | re.S)
    found: dict[str, set[str]] = {}
    name = ""
    for type_, keys in re.findall(r"^\| (?:`(\w+)`)? *\| (`[^|]*`) \|", text, re.M):
        name = type_ or name
        found.setdefault(name, set()).update(re.findall(r"`(\w+)`", keys))
    return found


def objects(*words: str, code: int = 0) -> list[dict[str, Any]]:
    result = CliRunner().invoke(cli, [*words, "--json"])
    assert result.exit_code == code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def assert_as_documented(heading: str, said: Sequence[dict[str, Any]]) -> None:
    known = documented(heading)
    for each in said:
        assert set(each) == known[each["type"]] | {"type"}, each["type"]


def test_plugins_are_an_object_each() -> None:
    said = objects("plugins")
    assert_as_documented("trainkit plugins --json", said)
    assert {"kind": "trainkit.optimizers", "name": "adam", "error": None}.items() <= next(
        each for each in said if each["name"] == "adam"
    ).items()


def test_a_component_is_shown_with_its_settings() -> None:
    (said,) = objects("show", "cosine")
    assert_as_documented("trainkit show NAME --json", [said])
    factor = next(each for each in said["settings"] if each["key"] == "final_factor")
    assert (factor["value_type"], factor["required"], factor["default"]) == ("float", False, 0.01)
    assert all(each["text"] for each in said["settings"])


@pytest.mark.parametrize("name", ["run", "groups", "extends", "search", "losses", "ptychography.objects"])
def test_a_table_or_a_kind_is_shown(name: str) -> None:
    (said,) = objects("show", name)
    assert_as_documented("trainkit show NAME --json", [said])


def test_all_tables_are_listed() -> None:
    said = objects("show")
    assert_as_documented("trainkit show --json", said)
    assert {each["name"]: each["components_of"] for each in said}["losses"] == "trainkit.losses"


def test_a_planned_recipe_is_an_object(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", np.ones((9, 8, 8), np.float32))
    (said,) = objects("init", str(tmp_path / "scan.npy"))
    assert_as_documented("trainkit init PATH --json", [said])
    assert tomli.loads(said["text"])["trainkit"] == 1
    assert (said["out"], said["figures"]) == (None, {})


@pytest.mark.parametrize("words", [("show", "cosin"), ("show", "cosine", "--bad")])
def test_a_mistake_is_an_object_too(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainkit.cli, "ignore_from_now_on", lambda: None)
    monkeypatch.setattr(sys, "argv", ["trainkit", *words, "--json"])
    with pytest.raises(SystemExit) as ended:
        trainkit.cli.main()
    said = capsys.readouterr()
    (line,) = said.out.splitlines()
    assert json.loads(line) == {"type": "error", "message": said.err.rstrip("\n"), "exit_code": ended.value.code}
    assert ended.value.code == 2


def test_no_colours_are_printed_for_who_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert styled("x", fg="red") == click.style("x", fg="red") != "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert styled("x", fg="red") == "x"


def test_torch_is_not_imported_for_it() -> None:
    code = "import sys; from trainkit.cli import cli; cli(['show', 'adam', '--json'], standalone_mode=False); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_run_says_what_is_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    start(resolve_text(TOY, tmp_path, ("run.epochs=2",)), Console(as_json=True), report=report)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [each["type"] for each in said]
    assert (kinds[0], kinds[-1], kinds.count("epoch")) == ("start", "end", 2)
    assert "progress" in kinds
    heading = "trainkit run RECIPE --json"
    known = documented(heading)
    steps = known["progress"] - {"split", "batch"}
    for each in said:
        if each["type"] == "progress":
            assert set(each) - {"type"} in (steps, known["progress"] - {"loss", "share_of_waiting"})
        else:
            assert_as_documented(heading, [each])
    folder = Path(said[0]["run_folder"])
    for line, epoch in zip(lines(folder), (each for each in said if each["type"] == "epoch"), strict=True):
        assert epoch["epoch"] == line["finished_epochs"]
        assert epoch["values"]["train/loss"] == line["train/loss"]


def test_each_mistake_of_a_recipe_is_an_object_with_its_place(tmp_path: Path) -> None:
    wrong, right = tmp_path / "wrong.toml", tmp_path / "right.toml"
    wrong.write_text(TOY.replace("epochs = 2", "epochs = 2.5"))
    right.write_text(TOY)
    said = objects("check", str(wrong), str(right), "--resolved", code=2)
    assert_as_documented("trainkit check RECIPE… --json", said)
    finding = next(each for each in said if each["severity" if "severity" in each else "type"] == "error")
    line = TOY.splitlines().index("epochs = 2") + 1
    assert (finding["key"], finding["file"], finding["line"], finding["column"]) == ("run.epochs", str(wrong), line, 10)
    verdicts = [each for each in said if each["type"] == "recipe"]
    assert [(each["recipe"], each["errors"], each["runs"]) for each in verdicts] == [
        (str(wrong), 1, []),
        (str(right), 0, ["toy"]),
    ]
    (text,) = verdicts[1]["resolved"]
    assert tomli.loads(text)["run"]["epochs"] == 2


def test_a_plan_is_an_object_for_each_epoch_in_which_something_changes() -> None:
    said = objects("plan", "ptycho_staged")
    assert_as_documented("trainkit plan RECIPE --json", said)
    plan = said[0]
    assert {name: group["start_epoch"] for name, group in plan["groups"].items()} == {
        "object": 0, "probe": 10, "dr": 20, "scan": None, "other": None
    }  # fmt: skip
    rates = {each["epoch"]: each["lr"] for each in said if each["type"] == "epoch"}
    assert rates[9]["probe"] is None
    assert rates[10]["probe"] == 1.0
    assert rates[30]["object"] == 3e-3
