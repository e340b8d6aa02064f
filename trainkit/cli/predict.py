"""``trainkit predict``: applies trained models to new inputs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from trainkit.cli import completion
from trainkit.cli.lasting_imports import lasting_imports
from trainkit.cli.options import ALLOW_CODE, EPOCH, LAST, refuse_both
from trainkit.engine.signals import ending_the_program
from trainkit.processes.place import refuse_several_processes


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit predict msd_liver_unet patients/ --out masks/\n"
    "  trainkit predict brats_unet BraTS-GLI-00005-100/ --out masks/\n"
    "  trainkit predict fold_0 --with fold_1 images/ --out masks/\n"
    "  trainkit predict my_run scans/ --out masks/ --part 2/8 --continue\n\n"
    "\b\nExit codes:\n"
    "    0  all inputs are predicted\n"
    "    1  some inputs failed, or a checkpoint cannot be used\n"
    "    2  the command line or a setting is wrong; nothing was predicted\n"
    "   75  stopped by a signal; --continue predicts what is missing\n"
    "  130  stopped by Ctrl-C; --continue predicts what is missing"
)
@click.argument("run", type=click.Path(path_type=Path), shell_complete=completion.runs)
@click.argument("inputs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The folder of results. It is made; files that are there and were not predicted are never replaced.",
)
@click.option(
    "--with",
    "others",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="RUN",
    help="Another run whose model predicts too; the outputs are averaged. Can be given several times.",
)
@EPOCH
@LAST
@click.option(
    "--probabilities", is_flag=True, help="Write probabilities too; short for --set predict.probabilities=true."
)
@click.option("--entropy", is_flag=True, help="Write the uncertainty too; short for --set predict.entropy=true.")
@click.option(
    "--temperature",
    metavar="none|VALUE",
    help="What logits are divided by for probabilities and entropy; short for --set predict.temperature=VALUE. If not "
    "given, it is what `trainkit calibrate` fitted for this prediction; none is 1.",
)
@click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a setting of the prediction, for example --set predict.overlap=0.6. Can be given several times.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option(
    "--continue",
    "go_on",
    is_flag=True,
    help="Skip inputs whose result is finished. An input is predicted again, and the reason is printed, if the input, "
    "the weights or the settings have changed since then.",
)
@click.option(
    "--part", metavar="i/n", help="Predict the i-th of n parts of the inputs, for n jobs that share a folder."
)
@ALLOW_CODE
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors; DIR/.trainkit/log.txt holds the output.")
def command(
    run: Path,
    inputs: tuple[Path, ...],
    out: Path,
    others: tuple[Path, ...],
    epoch: int | None,
    last: bool,
    probabilities: bool,
    entropy: bool,
    temperature: str | None,
    sets: tuple[str, ...],
    device: str,
    go_on: bool,
    part: str | None,
    allow_code: bool,
    quiet: bool,
) -> None:
    """Predict each INPUT with the model of RUN.

    RUN is a run folder, the name or id of a run in runs/, a checkpoint, or a folder with an ensemble.json that lists
    several. Of a run, the best checkpoint is taken, if one is known as the best. The training data are not needed.

    INPUT is a file or a folder. What is looked for in it depends on the data that the run was trained on: run
    `trainkit show predictors/NAME` to read it. If one input fails, the others are predicted all the same.
    """
    with ending_the_program():
        refuse_several_processes()
        refuse_both(epoch, last)
        from trainkit.console import Console

        with lasting_imports():
            from trainkit.engine.prediction.predict import Share, predict
            from trainkit.engine.trained_checkpoints import Choice

        share = Share() if part is None else Share.parse(part)
        short = ["predict.probabilities=true"] if probabilities else []
        short += ["predict.entropy=true"] if entropy else []
        if temperature is not None:
            short.append(f"predict.temperature={'1.0' if temperature == 'none' else temperature}")
        code = predict(
            (run, *others),
            inputs,
            out,
            Console(quiet),
            choice=Choice(epoch, last),
            sets=(*short, *sets),
            device=device,
            go_on=go_on,
            share=share,
            allow_code=allow_code,
        )
    sys.exit(code)
