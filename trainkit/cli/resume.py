"""``trainkit resume``: continues a run from its folder or from a checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainkit.cli import completion
from trainkit.cli.lasting_imports import lasting_imports
from trainkit.cli.launching import can_launch
from trainkit.cli.options import ALLOW_CODE, EXIT_CODES, JSON, ON_EXTEND, QUIET, SETS, refuse_json_and_quiet
from trainkit.cli.several import only_first_process_continues
from trainkit.engine.signals import ending_the_program

if TYPE_CHECKING:
    from trainkit.groups.resuming import Choice


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit resume runs/ptycho_staged/2026-11-21T10-00-00-1a2b\n"
    "  trainkit resume ptycho_staged --epoch 30 --epochs 100 --on-extend hold\n\n" + EXIT_CODES
)
@click.argument("path", type=click.Path(path_type=Path), shell_complete=completion.runs)
@click.option(
    "--epoch", type=int, metavar="N", help="Continue from the checkpoint of N finished epochs, not from the newest."
)
@click.option("--epochs", type=int, metavar="N", help="Train for N epochs in all; short for --set run.epochs=N.")
@click.option("--steps", type=int, metavar="N", help="Train for N steps in all; short for --set run.steps=N.")
@ON_EXTEND
@click.option("--recipe", type=click.Path(path_type=Path), help="Use this recipe instead of the one in the checkpoint.")
@SETS
@ALLOW_CODE
@QUIET
@JSON
@can_launch()
def command(
    path: Path,
    epoch: int | None,
    epochs: int | None,
    steps: int | None,
    on_extend: Choice | None,
    recipe: Path | None,
    sets: tuple[str, ...],
    allow_code: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Continue the run at PATH.

    PATH is a run folder, the name or id of a run in runs/, or a checkpoint. A run folder is continued from its newest
    readable checkpoint, a name from the newest run of that name.

    The run continues bit for bit from where it was, with the recipe in the checkpoint. Before it starts, every change
    is printed. If PATH is an earlier checkpoint, the run continues in a new folder; nothing is overwritten.
    """
    refuse_json_and_quiet(as_json, quiet)
    only_first_process_continues()
    with ending_the_program():
        from trainkit.cli.run import report
        from trainkit.console import Console

        with lasting_imports():
            from trainkit.engine.edited import with_edits
            from trainkit.engine.resume import resume
            from trainkit.engine.start import RunOutcome

        console = Console(quiet, as_json)
        lengths = {"run.epochs": epochs, "run.steps": steps}
        sets += tuple(f"{key}={length}" for key, length in lengths.items() if length is not None)
        asked: dict[str, Any] = {
            "sets": sets,
            "recipe": recipe,
            "epoch": epoch,
            "on_extend": on_extend,
            "allow_code": allow_code,
        }
        ending = with_edits(
            lambda reported, extra: resume(path, console, report=reported, extra=extra, **asked),
            console,
            allow_code=allow_code,
            report=report,
        )
    sys.exit(ending.code if isinstance(ending, RunOutcome) else ending)
