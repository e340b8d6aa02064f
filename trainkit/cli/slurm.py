"""``trainkit slurm``: writes the batch script of a Slurm job that trains recipes, and submits it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainkit.cli.options import SETS
from trainkit.cli.output import echo
from trainkit.errors import RecipeError

if TYPE_CHECKING:
    from trainkit.recipe.resolve import Resolved


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit slurm brats.toml --gpus-per-node 1 --time 04:00:00 > job.sh\n"
    "  trainkit slurm brats.toml --gpus-per-node 1 --time 4h --submit\n"
    '  trainkit slurm a.toml --time 1-00 --setup "module load cuda" --submit\n\n'
    "Exit codes: 0 the script was printed or submitted, 1 Slurm refuses it,\n"
    "2 a recipe has a mistake or the job is not possible."
)
@click.argument("recipes", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RECIPE...")
@SETS
@click.option(
    "--time", "limit", required=True, metavar="TIME", help="Time limit of one portion: HH:MM:SS, D-HH, 4h, 1d12h."
)
@click.option("--gpus-per-node", type=click.IntRange(min=0), metavar="N", help="Default: 1; 0 for a recipe on the CPU.")
@click.option(
    "--cpus-per-process",
    type=click.IntRange(min=1),
    metavar="N",
    help="Default: 1, and 1 for each loader worker of the data.",
)
@click.option("--mem", "memory", default="", metavar="SIZE", help="Memory of each node, such as 64G.")
@click.option("--partition", default="", metavar="NAME", help="Default: the cluster's.")
@click.option("--account", default="", metavar="NAME", help="Default: yours.")
@click.option("--job-name", metavar="NAME", help="Default: the name of the run, or of the first recipe.")
@click.option(
    "--sbatch", "directives", metavar="OPTION", multiple=True, help='A further one, as --sbatch="--qos=long".'
)
@click.option(
    "--setup", metavar="LINE", multiple=True, help="A line of shell to run first. Can be given several times."
)
@click.option("--python", type=click.Path(path_type=Path), help="The Python to use on the nodes. Default: this one.")
@click.option("--log", default="%x-%j.log", show_default=True, help="The log; %x: the job's name, %j: its number.")
@click.option(
    "--signal-before",
    type=int,
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="How long before the limit Slurm signals: enough for one step and a checkpoint.",
)
@click.option(
    "--requeues",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="N",
    help="How often the job goes back into the queue by itself.",
)
@click.option(
    "--submit", is_flag=True, help="Submit the script, and print the number of the job instead of the script."
)
def command(
    recipes: tuple[Path, ...],
    sets: tuple[str, ...],
    limit: str,
    gpus_per_node: int | None,
    cpus_per_process: int | None,
    memory: str,
    partition: str,
    account: str,
    job_name: str | None,
    directives: tuple[str, ...],
    setup: tuple[str, ...],
    python: Path | None,
    log: str,
    signal_before: int,
    requeues: int,
    submit: bool,
) -> None:
    """Print a Slurm batch script that trains each RECIPE, one after the other.

    The job may need many portions of TIME. Before one is over, the training saves and the job goes back into the
    queue, where it continues. The recipes are checked first; a job with a mistake is not queued.

    The script holds all that happens, with comments: read it, change it, keep it. On standard error stands what the
    job will need.
    """
    from trainkit.launching.sbatch import submit as hand_over
    from trainkit.launching.slurm_script import SlurmJob
    from trainkit.launching.slurm_time import read_time
    from trainkit.recipe.inputs import refuse_missing_inputs
    from trainkit.recipe.resolve import resolve_all

    resolved = resolve_all(recipes, sets)
    refuse_missing_inputs(resolved)
    num_gpus = _num_gpus(resolved, gpus_per_node)
    job = SlurmJob(
        name=job_name or (resolved[0].recipe.run.name if len(resolved) == 1 else recipes[0].stem),
        recipes=recipes,
        sets=sets,
        folder=Path.cwd(),
        python=(python or Path(sys.executable)).absolute(),
        seconds=read_time(limit),
        gpus_per_node=num_gpus,
        cpus_per_process=cpus_per_process or 1 + max(getattr(each.recipe.data, "workers", 0) for each in resolved),
        memory=memory,
        partition=partition,
        account=account,
        directives=directives,
        setup=setup,
        signal_seconds=signal_before,
        most_requeues=requeues,
        log=log,
        command=" ".join(shlex.quote(each) for each in ("trainkit", *sys.argv[1:])).replace("\n", " "),
    )
    for note in dict.fromkeys(str(note) for each in resolved for note in each.notes):
        echo(note, err=True)
    echo(f"job {job.name}: {job.in_words()}, requeued until finished, at most {requeues} times", err=True)
    if not submit:
        echo(job.script(), nl=False)
        return
    number = hand_over(job.script())
    echo(f"submitted; follow it with: squeue --job {number}", err=True)
    echo(number)


def _num_gpus(resolved: Sequence[Resolved], wanted: int | None) -> int:
    """Return the number of GPUs of each node, after a look at what the recipes can use.

    Raises:
        RecipeError: A recipe names a GPU that the job will not have.
    """
    devices = {each.source: each.recipe.run.device for each in resolved}
    num_gpus = wanted if wanted is not None else int(any(device != "cpu" for device in devices.values()))
    for source, device in devices.items():
        if device.startswith("cuda") and not num_gpus:
            raise RecipeError(f'{source}: run.device = "{device}", but the job has no GPU; give --gpus-per-node')
    for line in _doubts(devices, num_gpus):
        echo(f"warning: {line}", err=True)
    return num_gpus


def _doubts(devices: dict[str, str], num_gpus: int) -> Iterator[str]:
    if num_gpus and all(device == "cpu" for device in devices.values()):
        yield f'every recipe has run.device = "cpu", so {num_gpus} GPU{"s" * (num_gpus != 1)} would wait for nothing'
    if num_gpus > 1:
        yield f"a run is one process, which uses one of the {num_gpus} GPUs"
