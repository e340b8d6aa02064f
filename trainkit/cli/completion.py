"""Completes what is typed in a shell: commands, options, and names of recipes, components and runs.

The shell calls ``trainkit`` for each completion, so nothing heavy may be imported: neither torch nor a plugin.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class, shell_complete

from trainkit.cli.output import echo

VARIABLE = "_TRAINKIT_COMPLETE"
_PROGRAM = "trainkit"
_SHELLS = ("bash", "zsh", "fish")
_MOST = 200  # of the files of a folder


def complete_if_asked(cli: click.Command) -> None:
    """Answer the shell, and end the program, if it is the shell that has called it."""
    if instruction := os.environ.get(VARIABLE):
        sys.exit(shell_complete(cli, {}, _PROGRAM, VARIABLE, instruction))


def recipes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the recipes that come with trainkit, and the TOML files."""
    from trainkit.recipe.shipped import shipped

    return _with_files([name for name in shipped() if name.startswith(incomplete)], incomplete, ".toml")


def components(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of the components that are installed, with their kinds if a kind is typed."""
    from trainkit import registry

    known: set[str] = set()
    for group in registry.entry_point_groups():
        kind = group.removeprefix("trainkit.")
        known |= {f"{kind}/{each.name}" if "/" in incomplete else each.name for each in registry.registered(group)}
    return [CompletionItem(name) for name in sorted(known) if name.startswith(incomplete)]


def runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of the runs in ``runs/``, and the checkpoints; the ids of runs, if no name begins so."""
    names = sorted(path.name for path in Path("runs").glob("[!.]*") if path.is_dir())
    found = [name for name in names if name.startswith(incomplete)]
    if incomplete and not found:
        folders = [path.name for path in (*Path("runs").glob("*/*-*"), *Path("runs").glob("*/*/*-*"))]
        ids = {word for name in folders for word in (name, name.rpartition("-")[2]) if word.startswith(incomplete)}
        found = sorted(ids)[:_MOST]
    return _with_files(found, incomplete, ".safetensors")


def _with_files(names: list[str], incomplete: str, suffix: str) -> list[CompletionItem]:
    """Return names, and the files of a kind beside them; what is no name is left to the shell, as a path."""
    if not names:
        return [CompletionItem(incomplete, type="file")]
    files = sorted(path.name for path in Path().glob(f"*{suffix}") if path.name.startswith(incomplete))
    return [CompletionItem(each) for each in (*names, *files[:_MOST])]


def show_script(context: click.Context, parameter: click.Parameter, shell: str | None) -> None:
    """Print the script that makes a shell complete."""
    if shell is None or context.resilient_parsing:
        return
    echo(_completer(context, shell).source().rstrip())
    context.exit(0)


def install_script(context: click.Context, parameter: click.Parameter, shell: str | None) -> None:
    """Write the script where the shell finds it, and say what was written."""
    if shell is None or context.resilient_parsing:
        return
    completer = _completer(context, shell)
    home = Path.home()
    if completer.name == "fish":
        script = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish/completions/trainkit.fish"
        start = None
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
        script = data / f"trainkit/completion.{completer.name}"
        start = (Path(os.environ.get("ZDOTDIR") or home) if completer.name == "zsh" else home) / f".{completer.name}rc"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(completer.source(), encoding="utf-8")
    echo(f"written: {script}")
    if start is not None:
        line = f'[ -f "{script}" ] && . "{script}"'
        if completer.name == "zsh":
            line = f"(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit; }}; {line}"
        before = start.read_text(encoding="utf-8") if start.is_file() else ""
        if str(script) not in before:
            gap = "" if before.endswith("\n") or not before else "\n"
            with start.open("a", encoding="utf-8") as file:
                file.write(f"{gap}{line}  # completion of trainkit\n")
            echo(f"one line is added to {start}")
    echo("it takes effect in shells that are started from now on")
    context.exit(0)


def _completer(context: click.Context, shell: str) -> ShellComplete:
    """Return what makes the script of a shell.

    Raises:
        click.UsageError: It is not known which shell is used, or the shell is not known.
    """
    name = Path(os.environ.get("SHELL", "")).name if shell == "auto" else shell
    if name not in _SHELLS:
        which = f'the shell "{name}" cannot be completed' if name else "the variable SHELL does not say which shell"
        raise click.UsageError(f"{which}; name one of {', '.join(_SHELLS)}", context)
    found = get_completion_class(name)
    assert found is not None
    return found(context.command, {}, _PROGRAM, VARIABLE)
