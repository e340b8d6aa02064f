"""Reads lines of shell as far as the documentation uses it, and parses each call of trainkit as the program does."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from trainkit.cli import cli

_TRAINKIT = re.compile(r"(.*/)?trainkit")
_APART = {"&&", "||", "|", ";", "&"}


@attrs.frozen
class Line:
    """A line of shell.

    Attributes:
        number: Its number in the block, from 0.
        text: The line, or what its continuations join to.
        calls: The words of each program that it starts.
        out: The file into which the first one's output goes, or "".
    """

    number: int
    text: str
    calls: tuple[tuple[str, ...], ...]
    out: str = ""


def lines(text: str) -> Iterator[Line]:
    """Yield the lines of a block of shell that hold commands."""
    gathered, first = "", 0
    for number, raw in enumerate(text.splitlines()):
        first = first if gathered else number
        gathered += raw
        if gathered.endswith("\\"):
            gathered = gathered[:-1]
            continue
        line, gathered = gathered, ""
        reader = shlex.shlex(line, posix=True, punctuation_chars=True)
        reader.whitespace_split = True
        words = list(reader)
        calls: list[list[str]] = [[]]
        out = ""
        following = iter(words)
        for word in following:
            if word in _APART:
                calls.append([])
            elif word == ">":
                out = next(following)
            else:
                calls[-1].append(word)
        if words:
            yield Line(first, line, tuple(tuple(each) for each in calls), out)


def arguments_of(call: Sequence[str]) -> tuple[str, ...] | None:
    """Return the arguments of a call of trainkit, also within torchrun or srun; None: it is another program."""
    for place, word in enumerate(call):
        if _TRAINKIT.fullmatch(word) and (place == 0 or call[place - 1] == "-m" or call[0] == "srun"):
            return tuple(call[place + 1 :])
    return None


def mistake_in(arguments: Sequence[str], whole: bool = True) -> str:
    """Return what the program would say of a command line, or "".

    Args:
        arguments: The words after ``trainkit``.
        whole: Whether arguments that are required have to be there; if not, words in capitals may stand for a value.
    """
    name, *rest = arguments
    context = click.Context(cli, info_name="trainkit")
    if name.startswith("-"):
        known = {option for parameter in cli.get_params(context) for option in parameter.opts}
        return "" if name in known else f"no such option {name}"
    command = cli.get_command(context, name)
    if command is None:
        return f"no such command {name}"
    own = command.make_context(name, [], parent=context, resilient_parsing=True)
    try:
        given = _given(command, own, rest)
        for parameter in command.get_params(own):
            if parameter.name not in given:
                if parameter.required and whole:
                    return f"{parameter.human_readable_name} is missing"
            elif not isinstance(parameter.type, click.Path) and (whole or not str(given[parameter.name]).isupper()):
                parameter.type_cast_value(own, given[parameter.name])
    except click.UsageError as error:
        return error.format_message()
    return ""


def _given(command: click.Command, context: click.Context, words: list[str]) -> dict[str, Any]:
    """Return what the words give to the parameters of a command."""
    found, _, _ = command.make_parser(context).parse_args(words)
    empty = (None, ())
    return {name: value for name, value in found.items() if value not in empty and type(value).__name__ != "Sentinel"}


def recipes_and_sets(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the recipes that a command line names, and its values of ``--set``."""
    name, *rest = arguments
    context = click.Context(cli, info_name="trainkit")
    command = cli.get_command(context, name)
    assert command is not None
    own = command.make_context(name, [], parent=context, resilient_parsing=True)
    given = _given(command, own, rest)
    named = given.get("recipes") or given.get("recipe") or ()
    recipes = [named] if isinstance(named, str) else list(named)
    return [Path(each) for each in recipes], list(given.get("sets") or ())
