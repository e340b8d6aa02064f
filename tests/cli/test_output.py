"""Nothing in a name from a file is obeyed by a terminal, and no secret is shown."""

import ast
import logging
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from clients import toy_run

import trainkit
from trainkit.checkpoint import file as checkpoint
from trainkit.cli.check import command as check
from trainkit.cli.inspect import command as inspect
from trainkit.cli.output import echo, echo_list, fitted, styled
from trainkit.console import Console
from trainkit.printable import hide, printable

EVIL = "a\x1b[2J\x1b]8;;http://x\x07\x9b31m\u202eb\u2066\x7f\r\b"


def is_safe(text: str) -> bool:
    return all(char in "\n\t" or (char.isprintable() and not "\x80" <= char <= "\x9f") for char in text)


def test_characters_that_a_terminal_obeys_are_escapes_and_others_stay() -> None:
    assert is_safe(printable(EVIL))
    assert printable("a\x1bb") == "a\\u001bb"
    plain = "Größe 3 Å × 4\n\t✓ 日本語 é e\u0301 👩\u200d🔬"
    assert printable(plain) == plain


def test_no_command_prints_past_the_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(trainkit.__file__).parent
    for path in (root / "cli").glob("*.py"):
        names = {f"{each.value.id}.{each.attr}" for each in ast.walk(ast.parse(path.read_text()))
                 if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name)}  # fmt: skip
        assert path.name == "output.py" or not names & {"click.echo", "click.secho", "click.style", "sys.stdout"}, path
    echo(styled(EVIL, fg="red"), EVIL)
    said = capsys.readouterr().out
    assert is_safe(said)


def test_the_output_of_a_run_and_its_log_are_safe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hide("s3cret-value", "${env.KEY}")
    console = Console()
    console.log_to(tmp_path / "log.txt")
    with console.capture_logging():
        console.say(EVIL)
        logging.getLogger("trainkit").warning("401 for s3cret-value %s", EVIL)
    for text in (capsys.readouterr().out, (tmp_path / "log.txt").read_text()):
        assert is_safe(text)
        assert "s3cret" not in text
        assert "401 for ${env.KEY}" in text


def test_names_from_a_recipe_and_a_checkpoint_are_shown_as_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_text('trainkit = 1\n"\\u001b]0;x\\u0007" = 1\n[losses."\\u202ea"]\nuse = "\\u009bx"\n')
    assert is_safe(CliRunner().invoke(check, ["x.toml"]).output)
    outcome = toy_run.run("run.epochs=1")
    assert outcome.newest is not None
    content = checkpoint.read(outcome.newest)
    for each in content["components"]:
        each["version"] = EVIL
    content["conditions"]["torch"] = EVIL
    checkpoint.write(outcome.newest, content)
    assert is_safe(CliRunner().invoke(inspect, [str(outcome.newest)]).output)
    capsys.readouterr()
    toy_run.resume(outcome.newest, "run.epochs=2", quiet=False)
    said = capsys.readouterr().out
    assert "u001b" in said
    assert is_safe(said)


def test_the_line_that_continues_a_run_names_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = toy_run.run("run.epochs=1")
    assert outcome.run.resolved.resume_options == " --allow-code"


def test_check_imports_no_class_of_a_module_if_it_is_told_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("acts.py").write_text("open('executed', 'w')\n")
    Path("x.toml").write_text(toy_run.TOY + '[hooks.x]\nuse = "acts:Hook"\n')
    result = CliRunner().invoke(check, ["x.toml", "--no-code"])
    assert (result.exit_code, Path("executed").exists()) == (2, False)
    assert '"acts:Hook" is not a registered component, and --no-code is given' in result.output


def test_text_is_broken_between_words_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "Half a cosine down.\n\n    "
        + "sixteen letters, " * 4
        + "\n  lr/<group>"
        + " " * 30
        + "in two columns, as they are"
    )
    assert fitted(text) == text.replace(", \n", ",\n")
    rows = {"name": "word " * 20, "other": ""}
    echo_list(rows)
    assert capsys.readouterr().out == "name   " + ("word " * 20).strip() + "\nother  \n"
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = fitted(text).split("\n")
    assert lines[:2] == ["Half a cosine down.", ""]
    assert lines[2:4] == ["    sixteen letters, sixteen letters, sixteen", "    letters, sixteen letters,"]
    assert lines[4] == text.split("\n")[3]
    echo_list(rows)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "name   " + " ".join(["word"] * 8)
    assert all(
        len(line) <= 50 and (number == 0 or line.startswith((" " * 7 + "word", "other")))
        for number, line in enumerate(shown)
    )
