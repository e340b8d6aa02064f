"""The command line. Each command is a file of its own, which is imported when the command is called."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import os
import signal
import sys
from traceback import format_exc
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from trainkit.cli.completion import complete_if_asked, install_script, show_script
from trainkit.cli.openmp import spin_less
from trainkit.cli.output import echo, echo_json, let_output_through
from trainkit.cli.several import is_first_process, is_one_of_several, is_reported, let_others_go
from trainkit.cli.suggestions import command_meant, option_meant
from trainkit.console import discard_output
from trainkit.engine.signals import StoppedAtOnce, StoppedEarly, ignore_from_now_on
from trainkit.errors import PartError, TrainkitError
from trainkit.slow_imports import Watcher, watched_by

_SECTIONS = {
    "Train": {
        "init": "Look at data, and write a recipe for it.",
        "run": "Train what one or more recipes describe.",
        "resume": "Continue a run from its folder or from a checkpoint.",
        "branch": "Continue a run in a new folder, from any checkpoint, with other settings.",
        "edit": "Change settings of a run while it trains.",
        "save": "Let a run that trains write a checkpoint.",
        "picture": "Let a run that trains make its pictures at the end of the epoch.",
        "stop": "End a run that trains, with all its results.",
        "tune": "Search the best values of a recipe's keys, in many trials.",
        "slurm": "Write the batch script of a Slurm job that trains recipes, and submit it.",
        "verify-resume": "Test that a resumed run ends with the same bits.",
    },
    "Look": {
        "check": "Find every mistake in recipes without running them.",
        "plan": "Show when each parameter group trains, and its learning rate.",
        "runs": "List runs, with their state, best value and what differs.",
        "compare": "Compare runs: settings, values, and where they begin to differ.",
        "report": "Write a page about a run: curves, pictures, recipe, environment.",
        "inspect": "Show what a checkpoint or a run holds, and whether it is whole.",
    },
    "Use and share": {
        "predict": "Apply the model of a run to new inputs.",
        "evaluate": "Compare predictions with the truth.",
        "calibrate": "Fit the confidence of a trained model to held-out items.",
        "resolution": "Repeat a run with each half of its data, and say how far both agree.",
        "export": "Write a trained model for another program, such as ONNX Runtime.",
        "archive": "Pack a run into one file, from which others can look at it and repeat it.",
        "reproduce": "Repeat the run of an archive, and compare it bit for bit.",
    },
    "Build": {
        "recipes": "List the recipes that come with trainkit, or print one.",
        "schema": "Write the JSON Schema with which editors complete and check recipes.",
        "plugins": "List all installed components.",
        "show": "Explain a component and its settings.",
        "new-plugin": "Write a package with parts of your own, to begin from.",
    },
}
"""Commands by what they are for, each with what it does."""

_COMMANDS = {name: text for commands in _SECTIONS.values() for name, text in commands.items()}


class _Lazy(click.Group):
    """Imports a command's file only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"trainkit.cli.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f'No such command "{args[0]}"; {command_meant(args[0], list(_COMMANDS))}')
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=text) for name, text in _COMMANDS.items() if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _COMMANDS))
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{width}}", text) for name, text in commands.items()])


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 success, 1 a run failed, 2 the recipe or the command line is wrong, "
    "3 finished with a doubtful result, 75 stopped and saved, 130 stopped at once.",
)
@click.version_option(package_name="trainkit")
@click.option("--traceback", is_flag=True, help="Print the Python traceback of an error.")
@click.option(
    "--show-completion",
    is_flag=False,
    flag_value="auto",
    metavar="[SHELL]",
    is_eager=True,
    expose_value=False,
    callback=show_script,
    help="Print the script that makes bash, zsh or fish complete commands and names.",
)
@click.option(
    "--install-completion",
    is_flag=False,
    flag_value="auto",
    metavar="[SHELL]",
    is_eager=True,
    expose_value=False,
    callback=install_script,
    help="Write this script where the shell finds it.",
)
@click.pass_context
def cli(ctx: click.Context, traceback: bool) -> None:
    """Train models as recipes describe them. A recipe is one TOML file that describes a whole training run."""
    ctx.obj = {"traceback": traceback}


def main() -> None:
    """Run the command line. A mistake of the user ends in one message, never in a traceback."""
    # What the system takes back anyway need not be collected: a command ends 0.3 instead of 1.0 s after its run.
    atexit.register(gc.freeze)
    spin_less()
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # for use = "my_module:MyClass"; last, so that nothing installed is hidden by it
    complete_if_asked(cli)
    context: click.Context | None = None
    try:
        with cli.make_context("trainkit", sys.argv[1:]) as context, _imports_watched():
            code = cli.invoke(context)
            sys.exit(code or 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption) and (hint := option_meant(error)) is not None:
            error = click.UsageError(f'No such option "{error.option_name}"; {hint}', error.ctx)
        said = io.StringIO()
        error.show(said)
        _tell(said.getvalue().rstrip("\n"), error.exit_code)
    except BrokenPipeError:  # the reader of our output has closed it, for example `head`
        discard_output()
        sys.exit(1)
    except StoppedEarly as error:
        _tell(f"{error}: stopped; nothing was being trained, so nothing is lost", 75, is_first_process())
    except (click.Abort, KeyboardInterrupt) as error:
        trained = isinstance(error, StoppedAtOnce)
        text = "stopped at once; the last checkpoint is complete" if trained else f"stopped {error}".rstrip()
        _tell(text, 130, is_first_process())
    except Exception as error:
        wants_traceback = context is not None and context.obj and context.obj["traceback"]
        text = format_exc().rstrip("\n") if wants_traceback else _message(error)
        code = error.exit_code if isinstance(error, TrainkitError) else 1
        _tell(text, code, shown=bool(wants_traceback) or not is_reported(error))
    finally:
        ignore_from_now_on()
        let_others_go()


def _imports_watched() -> contextlib.AbstractContextManager[None]:
    """Return the block in which imports that take long are told, and ended by Ctrl-C whatever they do.

    One of several processes is not ended: the others wait for it. What started them ends those that hang.
    """
    if is_one_of_several():
        return contextlib.nullcontext()

    def end(number: int, what: str) -> None:
        let_output_through()  # what an import prints is kept from it
        name, was_key = signal.Signals(number).name, number == signal.SIGINT
        _say(f"stopped while {what}" if was_key else f"{name}: stopped while {what}", code := 130 if was_key else 75)
        os._exit(code)

    return watched_by(Watcher(lambda text: echo(text, err=True), end))


def _tell(text: str, code: int, shown: bool = True) -> NoReturn:
    """End the program with a message."""
    if shown:
        _say(text, code)
    sys.exit(code)


def _say(text: str, code: int) -> None:
    """Say why the program ends on standard error, and with ``--json`` also as an object on standard output."""
    echo(text, err=True)
    if "--json" in sys.argv:  # also where click has refused the command line before it read the option
        with contextlib.suppress(OSError):
            echo_json("error", message=text, exit_code=code)


def _message(error: Exception) -> str:
    if isinstance(error, PartError):
        where = f"is in {error.log}" if error.log else "is shown by: trainkit --traceback …"
        return f"error: {error}\nthe traceback {where}"
    if isinstance(error, TrainkitError):
        return f"error: {error}" if "error:" not in str(error) else str(error)
    return (
        f"error: {type(error).__name__}: {error}\n"
        "This error comes from the code of trainkit or of a plugin. To see its traceback, run: trainkit --traceback …\n"
        "If a run had started, its log.txt holds the traceback too."
    )
