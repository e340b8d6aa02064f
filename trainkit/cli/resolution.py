"""``trainkit resolution``: how far the results from two halves of the data agree."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from trainkit.cli import completion
from trainkit.cli.options import ALLOW_CODE, EPOCH, QUIET
from trainkit.engine.signals import ending_the_program
from trainkit.processes.place import refuse_several_processes


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit resolution ptycho_mos2\n"
    "  trainkit resolution ptycho_mos2 --set resolution.of=counts\n"
    "  trainkit resolution ptycho_mos2 --set resolution.begin=finished\n\n"
    "\b\nExit codes:\n"
    "    0  measured\n"
    "    1  the checkpoint or the data cannot be used, or the run of a half failed\n"
    "    2  the command line or a setting is wrong\n"
    "    3  measured, but the result is doubtful; the output says why\n"
    "   75  stopped by a signal, with a checkpoint; the same command continues"
)
@click.argument("run", type=click.Path(path_type=Path), shell_complete=completion.runs)
@EPOCH
@click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a setting: resolution.… of the comparison, or any setting of the recipe, for both halves. Can be "
    "given several times.",
)
@ALLOW_CODE
@QUIET
def command(run: Path, epoch: int | None, sets: tuple[str, ...], allow_code: bool, quiet: bool) -> None:
    """Repeat RUN with each half of its data, and say up to which detail both results agree.

    RUN is a run folder, the name or id of a run in runs/, or a checkpoint. Both runs together take about as long as
    RUN. They are in RUN/resolution, with the numbers and a picture. If the command is interrupted, repeat it: what is
    finished is not trained again. An earlier checkpoint does not shorten the halves; --set resolution.epochs=N does.

    Both halves share what is systematically wrong, so they agree more than either does with the truth; see
    docs/resolution.md. Run `trainkit show halvers/fourier_ring` for the settings of ptychography.
    """
    with ending_the_program():
        refuse_several_processes()
        from trainkit.cli.run import report
        from trainkit.console import Console
        from trainkit.engine.halves import compare_halves

        code = compare_halves(run, Console(quiet), epoch=epoch, sets=sets, allow_code=allow_code, report=report)
    sys.exit(code)
