"""``trainkit reproduce``: repeats the run of an archive, and compares."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from trainkit.cli.options import ALLOW_CODE, QUIET, SETS
from trainkit.engine.signals import ending_the_program


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit reproduce paper.zip\n"
    "  trainkit reproduce paper.zip --set data.path=scan.h5\n\n"
    "\b\nExit codes:\n"
    "    0  the same bits\n"
    "    1  not the same bits, or the run failed\n"
    "    2  the archive cannot be repeated, or the command line is wrong\n"
)
@click.argument("archive", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default="reproduced", show_default=True, help="Folder for the new run."
)
@SETS
@ALLOW_CODE
@QUIET
def command(archive: Path, out: Path, sets: tuple[str, ...], allow_code: bool, quiet: bool) -> None:
    """Repeat the run in ARCHIVE, which trainkit archive wrote, and compare it with what the archive holds.

    The new run is trained like any other, through all that was changed while the first one trained. Then the final
    checkpoints and the values of all epochs are compared, bit for bit, or it is said from where on they differ. --set
    says where the data lies here.
    """
    with ending_the_program():
        from trainkit.processes.place import refuse_several_processes
        from trainkit.recipe.inputs import refuse_missing_inputs

        refuse_several_processes()
        from trainkit.cli.run import report
        from trainkit.console import Console
        from trainkit.engine.reproduction import reproduce, resolve_archived, unpack

        console = Console(quiet)
        with tempfile.TemporaryDirectory() as place:
            archived = unpack(archive, Path(place), console.say)
            resolved = resolve_archived(archived, out.absolute(), sets, allow_code=allow_code)
            refuse_missing_inputs([resolved])
            is_same = reproduce(archived, resolved, console, report)
    sys.exit(0 if is_same else 1)
