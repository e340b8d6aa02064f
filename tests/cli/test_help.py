"""What ``--help`` prints, on a terminal of 80 columns."""

import re
import shlex
from functools import cache
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from trainkit.cli import cli

COMMANDS = list(cli.list_commands(click.Context(cli)))


def shown(*command: str) -> str:
    result = CliRunner().invoke(cli, [*command, "--help"], terminal_width=80)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("command", [(), *((each,) for each in COMMANDS)])
def test_help_fits_the_terminal_and_holds_no_marks(command: tuple[str, ...]) -> None:
    text = shown(*command)
    assert "\b" not in text
    assert "\\b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_exit_codes_are_listed() -> None:
    assert (
        "Exit codes: 0 success, 1 a run failed, 2 the recipe or the command line is wrong, 3 finished with "
        "a doubtful result, 75 stopped and saved, 130 stopped at once." in " ".join(shown().split())
    )


@pytest.mark.parametrize("name", [each for each in COMMANDS if each != "plugins"])
def test_each_example_stands_on_a_line_of_its_own_and_is_a_command_that_can_be_parsed(name: str) -> None:
    examples = [line.strip() for line in shown(name).partition("Examples:\n")[2].partition("\n\n")[0].splitlines()]
    assert examples
    for example in examples:
        program, command, *arguments = shlex.split(example.partition(" > ")[0])
        assert (program, command) == ("trainkit", name)
        found = cli.get_command(click.Context(cli), name)
        assert found is not None
        found.make_context(name, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_used_in_a_test(name: str) -> None:
    """Looks for calls of it in the tests: as a list of arguments, as a line for a shell, or as the command itself."""
    module = name.replace("-", "_")
    called = re.compile(
        rf"\[?\"{name}\",\s|\"{name}\"\]|(trainkit|-m trainkit) {name}\b|trainkit\.cli\.{module} import command"
        rf"|(cli|main|invoke|say|said|objects|run)\(\[?f?\"{name}[ \"]|f?\"{name} \{{"
    )
    assert any(called.search(text) for text in other_tests())


@cache
def other_tests() -> list[str]:
    here = Path(__file__).resolve()
    files = [path for path in here.parents[1].rglob("*.py") if path != here and path.name != "test_finding.py"]
    return [path.read_text(encoding="utf-8") for path in files]
