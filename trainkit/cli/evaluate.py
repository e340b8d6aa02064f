"""``trainkit evaluate``: compares predictions with the truth."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from trainkit.cli.output import clear_progress, show_progress
from trainkit.engine.signals import ending_the_program


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit evaluate masks/ Task03_Liver/ --only-predicted\n"
    '  trainkit evaluate masks/ truth/ --classes "liver=1+2, tumour=2" --out eval/\n'
    "  trainkit evaluate masks/ truth/ --run brats --set evaluate.tolerance_mm=2\n\n"
    "\b\nExit codes:\n"
    "    0  all cases were compared\n"
    "    1  some cases could not be compared, and are named at the end\n"
    "    2  the command line is wrong, or nothing says what values mean\n"
    "    3  cases have no prediction, or predictions no truth; they are named"
)
@click.argument("predictions", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
@click.option(
    "--classes",
    metavar="TABLE",
    help='What label values mean, for example "liver=1+2, tumour=2"; short for --set evaluate.classes=…',
)
@click.option("--run", type=click.Path(path_type=Path), help="A run or checkpoint that knows what label values mean.")
@click.option("--recipe", type=click.Path(path_type=Path), help="A recipe whose data knows what label values mean.")
@click.option(
    "--only-predicted",
    is_flag=True,
    help="Say nothing of cases that were not predicted; short for --set evaluate.only_predicted=true.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder for cases.csv and summary.json; if not given, that of the predictions.",
)
@click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a setting, for example --set evaluate.tolerance_mm=2. Can be given several times.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
def command(
    predictions: Path,
    truth: Path,
    classes: str | None,
    run: Path | None,
    recipe: Path | None,
    only_predicted: bool,
    out: Path | None,
    sets: tuple[str, ...],
    quiet: bool,
) -> None:
    """Compare PREDICTIONS with TRUTH, two folders or two files.

    Writes cases.csv, with the scores of each case and class, and summary.json, with their means and standard
    deviations, and prints the means. Which scores there are depends on the data: run `trainkit show
    evaluators/segmentation` to read it.
    """
    with ending_the_program():
        if sum(each is not None for each in (classes, run, recipe)) > 1:
            raise click.UsageError("--classes, --run and --recipe exclude each other")
        from trainkit.console import Console
        from trainkit.engine.comparison import compare

        short = [f"evaluate.classes={json.dumps(classes)}"] if classes is not None else []
        short += ["evaluate.only_predicted=true"] if only_predicted else []
        code = compare(
            predictions,
            truth,
            Console(quiet),
            out=out,
            recipe=recipe,
            run=run,
            sets=(*short, *sets),
            tell=show_progress,
            told=clear_progress,
        )
    sys.exit(code)
