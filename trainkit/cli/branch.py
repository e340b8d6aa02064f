"""``trainkit branch``: continues a run in a new folder, with other settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainkit.cli import completion
from trainkit.cli.launching import can_launch
from trainkit.cli.options import ALLOW_CODE, EXIT_CODES, JSON, ON_EXTEND, QUIET, SETS, refuse_json_and_quiet
from trainkit.cli.several import only_first_process_continues
from trainkit.engine.signals import ending_the_program

if TYPE_CHECKING:
    from trainkit.groups.resuming import Choice


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit branch ptycho_staged --epoch 30 --set groups.dr.lr=0.1\n"
    "  trainkit branch ptycho_staged --set losses.tv.weight=0.01\n\n" + EXIT_CODES
)
@click.argument("path", type=click.Path(path_type=Path), shell_complete=completion.runs)
@click.option("--epoch", type=click.IntRange(min=0), metavar="N", help="Begin after N finished epochs.")
@ON_EXTEND
@SETS
@ALLOW_CODE
@QUIET
@JSON
@can_launch()
def command(
    path: Path,
    epoch: int | None,
    on_extend: Choice | None,
    sets: tuple[str, ...],
    allow_code: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Continue the run at PATH in a new folder, and leave the run itself as it is, even while it trains.

    PATH is a run folder, the name or id of a run in runs/, or a checkpoint. Without --epoch, the newest checkpoint is
    taken. The new run names PATH as its parent. Without other settings, it ends with the same bits.
    """
    refuse_json_and_quiet(as_json, quiet)
    only_first_process_continues()
    with ending_the_program():
        from trainkit.cli.run import report
        from trainkit.console import Console
        from trainkit.engine.edited import with_edits
        from trainkit.engine.resume import resume
        from trainkit.engine.start import RunOutcome

        console = Console(quiet, as_json)
        asked: dict[str, Any] = {"sets": sets, "epoch": epoch, "on_extend": on_extend, "allow_code": allow_code}
        ending = with_edits(
            lambda reported, extra: resume(path, console, report=reported, extra=extra, branch=True, **asked),
            console,
            allow_code=allow_code,
            report=report,
        )
    sys.exit(ending.code if isinstance(ending, RunOutcome) else ending)
