"""``trainkit calibrate``: fits the confidence of a trained model to held-out items."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from trainkit.cli import completion
from trainkit.cli.options import ALLOW_CODE, EPOCH, LAST, QUIET, refuse_both
from trainkit.cli.output import clear_progress, show_progress
from trainkit.engine.signals import ending_the_program
from trainkit.processes.place import refuse_several_processes


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit calibrate msd_liver_unet\n"
    '  trainkit calibrate brats_unet --set predict.flips=["x","y","z"]\n'
    "  trainkit calibrate liver_5folds --set data.path=Task03_Liver\n\n"
    "\b\nExit codes:\n"
    "    0  fitted, and better on held-out items that were not fitted to\n"
    "    1  a checkpoint or the data cannot be used, or too little is held out\n"
    "    2  the command line or a setting is wrong\n"
    "    3  fitted, but the result is doubtful; the output says why"
)
@click.argument("run", type=click.Path(path_type=Path), shell_complete=completion.runs)
@EPOCH
@LAST
@click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a setting: calibrate.… of the calibration, predict.… of the prediction that it is for, or data.path "
    "if the training data are elsewhere now. Can be given several times.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@ALLOW_CODE
@QUIET
def command(
    run: Path, epoch: int | None, last: bool, sets: tuple[str, ...], device: str, allow_code: bool, quiet: bool
) -> None:
    """Make the probabilities of RUN say how often they are right.

    RUN is a run folder, the name or id of a run in runs/, a checkpoint, or a folder with an ensemble.json. Its held-out
    items are predicted as `trainkit predict` would. On one half of them, a temperature is fitted; on the other half,
    the confidence before and after is measured. RUN/calibration/ gets calibration.json, a table of the cases and
    pictures, and `trainkit predict --probabilities` applies the temperature from then on.

    The training data are needed. Which settings there are depends on them: run `trainkit show
    calibrators/segmentation` to read it.
    """
    with ending_the_program():
        refuse_several_processes()
        refuse_both(epoch, last)
        from trainkit.console import Console
        from trainkit.engine.calibration import calibrate
        from trainkit.engine.trained_checkpoints import Choice

        code = calibrate(
            run,
            Console(quiet),
            choice=Choice(epoch, last),
            sets=sets,
            device=device,
            allow_code=allow_code,
            tell=show_progress,
            told=clear_progress,
        )
    sys.exit(code)
