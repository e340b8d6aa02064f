"""Help is in sections, what is mistyped gets a hint, and the shell completes names at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import trainkit.cli
from trainkit.cli import cli


def said_of(
    *words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int | str | None, str]:
    monkeypatch.setattr(trainkit.cli, "ignore_from_now_on", lambda: None)
    monkeypatch.setattr(sys, "argv", ["trainkit", *words])
    with pytest.raises(SystemExit) as ended:
        trainkit.cli.main()
    said = capsys.readouterr()
    return ended.value.code, said.out + said.err


def test_every_command_stands_in_one_section() -> None:
    text = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    sections = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert sections[1:] == ["Train:", "Look:", "Use and share:", "Build:"]
    begun = re.findall(r"^  (\S+)", text.partition("Train:")[2], re.M)  # lines of an epilog begin with other words
    listed = [name for name in begun if name in cli.list_commands(None)]  # type: ignore[arg-type]
    assert listed == cli.list_commands(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("train", "x.toml"), 'did you mean "run"?'),
        (("info", "runs/x"), 'did you mean "inspect"?'),
        (("pln",), 'did you mean "plan"?'),
        (("fly",), "known here: "),
        (("run", "--epochs", "60", "x.toml"), "--set run.epochs=…"),
        (("run", "--max_epochs=60", "x.toml"), "--set run.epochs=…"),
        (("run", "--seed", "1", "x.toml"), "--set run.seed=…"),
        (("run", "--batch-size", "1", "x.toml"), "--set data.batch_size=…"),
        (("run", "--scheduler", "cosine", "x.toml"), "--set scheduler.use=…"),
        (("run", "--save_every_epoch", "5", "x.toml"), "--set checkpoint.every_epochs=…"),
        (("run", "--resume_from", "x", "x.toml"), "trainkit resume RUN"),
        (("run", "--config", "x.toml"), "trainkit run RECIPE"),
        (("run", "--qiet", "x.toml"), "--quiet"),
        (("plugins", "--epochs", "3"), "No such option"),
    ],
)
def test_what_there_is_not_gets_a_hint(
    words: tuple[str, ...], hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = said_of(*words, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert hint in said


def test_the_settings_that_options_are_taken_for_exist() -> None:
    from trainkit.cli import suggestions
    from trainkit.recipe.fields import settings_fields
    from trainkit.recipe.root import Recipe, RunSettings

    tables = settings_fields(Recipe)
    for key in suggestions._SETTINGS.values():
        table, _, name = key.partition(".")
        assert table in tables
        assert table != "run" or name in settings_fields(RunSettings)
    assert set(suggestions._COMMANDS.values()) <= {*cli.list_commands(None), "runs", "compare"}  # type: ignore[arg-type]


def completed(*words: str, folder: Path) -> list[str]:
    """Return what the shell is offered for the last word, without torch being imported."""
    environment = {
        **os.environ,
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_TRAINKIT_COMPLETE": "bash_complete",
    }
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = None\n"
        "import trainkit.cli as c; c.ignore_from_now_on = lambda: None; c.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_the_shell_completes_commands_options_recipes_components_and_runs(tmp_path: Path) -> None:
    (tmp_path / "runs" / "ptycho_mine").mkdir(parents=True)
    (tmp_path / "ptycho_own.toml").touch()
    assert completed("trainkit", "re", folder=tmp_path) == ["resume", "report", "resolution", "reproduce", "recipes"]
    found = completed("trainkit", "run", "ptycho_", folder=tmp_path)
    assert {"ptycho_staged", "ptycho_own.toml"} <= set(found)
    assert completed("trainkit", "run", "x", "--qu", folder=tmp_path) == ["--quiet"]
    assert completed("trainkit", "show", "cosi", folder=tmp_path) == ["cosine"]
    assert completed("trainkit", "show", "losses/di", folder=tmp_path) == ["losses/dice", "losses/dice_ce"]
    assert completed("trainkit", "resume", "pty", folder=tmp_path) == ["ptycho_mine"]


@pytest.mark.slow
def test_the_script_is_installed_once_and_bash_obeys_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for _ in range(2):
        assert CliRunner().invoke(cli, ["--install-completion", "bash"]).exit_code == 0
    start = tmp_path / ".bashrc"
    assert start.read_text().count("\n") == 1
    program = tmp_path / "trainkit"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m trainkit "$@"\n')
    program.chmod(0o755)
    asked = (
        f'. {start}; COMP_WORDS=(trainkit pl); COMP_CWORD=1; _trainkit_completion {program}; echo "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plan", "plugins"], done.stderr


def test_a_shell_that_cannot_be_completed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    result = CliRunner().invoke(cli, ["--show-completion"])
    assert (result.exit_code, 'the shell "tcsh" cannot be completed; name one of bash' in result.output) == (2, True)
