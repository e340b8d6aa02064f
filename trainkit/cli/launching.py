"""The options of commands that can start several processes of themselves."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from trainkit.cli.output import echo
from trainkit.engine.launched import is_launched
from trainkit.engine.signals import ending_the_program
from trainkit.processes.place import refuse_several_processes

_OPTIONS = (
    click.option(
        "--processes",
        type=click.IntRange(min=1),
        metavar="N",
        help="Train in N processes, started by torchrun; on GPUs, one for each. The batch is divided among them.",
    ),
    click.option(
        "--restarts",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="If one of the processes dies, start all again from the last checkpoint, up to N times.",
    ),
    click.option("--logs", type=click.Path(path_type=Path), metavar="DIR", help="Keep the others' output in DIR."),
    click.option("--nodes", type=click.IntRange(min=1), default=1, metavar="N", help="With --processes on N machines."),
    click.option("--meet-at", metavar="HOST:PORT", default="", help="The first of these machines, and a free port."),
)
_OF_SRUN = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
_NAMES = ("processes", "restarts", "logs", "nodes", "meet_at")


def can_launch(
    before: Callable[[dict[str, Any], int], None] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that start several processes of it, and do so where they are given.

    Args:
        before: Called with the other options and the number of processes before anything is started, to find mistakes.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def launch_or_do(**options: Any) -> None:
            context = click.get_current_context()
            launching = {name: options.pop(name) for name in _NAMES}
            several = launching["nodes"] > 1 or (launching["processes"] or 1) > 1
            if not several or is_launched():
                command(**options)
                return
            with ending_the_program():
                if launching["nodes"] == 1:
                    refuse_several_processes()
                for name in _OF_SRUN:  # it counts the launchers, which are not the processes of the run
                    os.environ.pop(name, None)
                if launching["nodes"] > 1 and not launching["meet_at"]:
                    raise click.UsageError("--nodes needs --meet-at, where the machines meet")
                if before is not None:
                    before(options, launching["nodes"] * (launching["processes"] or 1))
                is_silent = bool(options.get("quiet") or options.get("as_json"))
                code = _launch(context, launching, is_silent)
            context.exit(code)

        for option in reversed(_OPTIONS):
            launch_or_do = option(launch_or_do)
        return launch_or_do

    return decorate


def _launch(context: click.Context, launching: dict[str, Any], quiet: bool) -> int:
    from trainkit.launching.launcher import Launch, launch, threads_of_each

    asked = Launch(
        words=words_of(context),
        processes=launching["processes"] or 1,
        restarts=launching["restarts"],
        nodes=launching["nodes"],
        meeting=launching["meet_at"],
        logs=launching["logs"],
    )
    if not quiet:
        threads = threads_of_each(asked.processes)
        where = f" on each of {asked.nodes} machines" if asked.nodes > 1 else ""
        count = f"{asked.processes} process{'es' * (asked.processes != 1)}"
        echo(f"{count}{where}, each with {threads} CPU thread{'s' * (threads != 1)}")
    return launch(asked, lambda text: echo(text, err=True))


def words_of(context: click.Context) -> list[str]:
    """Return a command line that does what was asked for, without the options that start processes.

    Its options stand before its arguments, from which "--" divides them.
    """
    arguments: list[str] = []
    words: list[str] = ["--traceback"] if context.obj and context.obj["traceback"] else []
    words.append(str(context.info_name))
    for parameter in context.command.params:
        name = str(parameter.name)
        value = context.params.get(name)
        if name in _NAMES or value is None or value is False or value == parameter.default:
            continue
        values = value if isinstance(value, tuple | list) else (value,)
        if isinstance(parameter, click.Argument):
            arguments += map(str, values)
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[0])
        else:
            words += [word for each in values for word in (parameter.opts[0], str(each))]
    return [*words, "--", *arguments]
