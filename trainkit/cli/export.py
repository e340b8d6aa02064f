"""``trainkit export``: writes a trained model for another program."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from trainkit.cli import completion
from trainkit.cli.options import ALLOW_CODE, EPOCH, LAST, QUIET, refuse_both
from trainkit.engine.signals import ending_the_program
from trainkit.processes.place import refuse_several_processes


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit export liver_unet --to onnx\n"
    "  trainkit export liver_unet --to monai_bundle --out bundles/liver\n"
    "  trainkit export ptycho_staged --to safetensors --epoch 40\n\n"
    "\b\nExit codes:\n"
    "    0  the model is exported\n"
    "    1  the checkpoint cannot be used, or the file cannot be written\n"
    "    2  the command line is wrong, or the form cannot hold such a model"
)
@click.argument("run", type=click.Path(path_type=Path), shell_complete=completion.runs)
@click.option(
    "--to",
    "form",
    required=True,
    metavar="FORM",
    help="safetensors, torch_export or onnx; monai_bundle for segmentation; or a form of another package. `trainkit "
    "plugins` lists them, `trainkit show exporters/onnx` explains one.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The file, or the folder of a bundle; if not given, it is called after the run, in the working directory.",
)
@EPOCH
@LAST
@click.option("--force", is_flag=True, help="Replace what is at PATH; a folder that is there is kept beside it.")
@ALLOW_CODE
@QUIET
def command(
    run: Path,
    form: str,
    out: Path | None,
    epoch: int | None,
    last: bool,
    force: bool,
    allow_code: bool,
    quiet: bool,
) -> None:
    """Write the trained model of RUN for another program.

    RUN is a run folder, the name or id of a run in runs/, or a checkpoint. Of a run, the best checkpoint is taken, if
    one is known as the best. The weights are the averaged ones if the run had any. The training data are not needed.

    Channels, classes, label values, spacing, patch size and normalisation are written into the file's metadata. A graph
    (torch_export, onnx, monai_bundle) is opened again and compared with the model before it is put in its place.
    """
    with ending_the_program():
        refuse_several_processes()
        refuse_both(epoch, last)
        from trainkit.console import Console
        from trainkit.engine.export import export
        from trainkit.engine.trained_checkpoints import Choice

        code = export(
            run, form, Console(quiet), out=out, choice=Choice(epoch, last), force=force, allow_code=allow_code
        )
    sys.exit(code)
