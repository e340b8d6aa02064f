"""``trainkit slurm``: writes the batch script of a Slurm job that trains recipes, and submits it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainkit.cli import completion
from trainkit.cli.options import SETS
from trainkit.cli.output import echo
from trainkit.errors import RecipeError
from trainkit.launching.division import refuse_division

if TYPE_CHECKING:
    from trainkit.launching.slurm_script import SlurmJob
    from trainkit.recipe.resolve import Resolved


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit slurm brats.toml --gpus-per-node 1 --time 04:00:00 > job.sh\n"
    "  trainkit slurm brats.toml --gpus-per-node 1 --time 4h --submit\n"
    '  trainkit slurm a.toml --time 1-00 --setup "module load cuda" --submit\n'
    "  trainkit slurm a.toml --time 4h --nodes 1-4 --gpus-per-node 4 --submit\n"
    "  trainkit slurm a.toml --time 4h --folds 5 --submit\n\n"
    "Exit codes: 0 the script was printed or submitted, 1 Slurm refuses it,\n"
    "2 a recipe has a mistake or the job is not possible."
)
@click.argument(
    "recipes",
    type=click.Path(path_type=Path),
    nargs=-1,
    required=True,
    metavar="RECIPE...",
    shell_complete=completion.recipes,
)
@SETS
@click.option(
    "--time", "limit", required=True, metavar="TIME", help="Time limit of one portion: HH:MM:SS, D-HH, 4h, 1d12h."
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    metavar="N",
    help="Cross-validation as by `trainkit run --folds N`: an array of N jobs, one for each fold.",
)
@click.option("--nodes", default="1", show_default=True, metavar="N", help="Number of nodes, or a range such as 1-4.")
@click.option("--gpus-per-node", type=click.IntRange(min=0), metavar="N", help="Default: 1; 0 for a recipe on the CPU.")
@click.option(
    "--processes-per-node", type=click.IntRange(min=1), metavar="N", help="Default: one for each GPU, or one."
)
@click.option(
    "--restarts",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="If a process dies, start all again within the job, up to N times.",
)
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
@click.option(
    "--log",
    metavar="FILE",
    help="The log; %x: the job's name, %j: its number. Default: %x-%j.log; with --folds "
    "%x-%A_%a.log, where %A is the number of the array and %a the fold.",
)
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
    folds: int | None,
    nodes: str,
    gpus_per_node: int | None,
    processes_per_node: int | None,
    restarts: int,
    cpus_per_process: int | None,
    memory: str,
    partition: str,
    account: str,
    job_name: str | None,
    directives: tuple[str, ...],
    setup: tuple[str, ...],
    python: Path | None,
    log: str | None,
    signal_before: int,
    requeues: int,
    submit: bool,
) -> None:
    """Print a Slurm batch script that trains each RECIPE, one after the other.

    The job may need many portions of TIME. Before one is over, the training saves and the job goes back into the
    queue, where it continues. The recipes are checked first; a job with a mistake is not queued.

    With --folds, each fold is a job of its own, which trains that fold of each RECIPE, and is requeued by itself. The
    last one to finish makes the ensemble.

    The script holds all that happens, with comments: read it, change it, keep it. On standard error stands what the
    job will need.
    """
    from trainkit.launching.sbatch import submit as hand_over
    from trainkit.launching.slurm_script import SlurmJob
    from trainkit.launching.slurm_time import read_time
    from trainkit.recipe.fold_recipes import fold_recipes
    from trainkit.recipe.inputs import refuse_missing_inputs
    from trainkit.recipe.resolve import resolve_all

    resolved = resolve_all(recipes, sets)
    refuse_missing_inputs(resolved)
    if folds is not None:
        for each in resolved:
            refuse_missing_inputs(fold_recipes(each, folds).recipes)
    num_gpus = _num_gpus(resolved, gpus_per_node)
    job = SlurmJob(
        name=job_name or (resolved[0].recipe.run.name if len(resolved) == 1 else recipes[0].stem),
        recipes=recipes,
        sets=sets,
        folder=Path.cwd(),
        python=(python or Path(sys.executable)).absolute(),
        seconds=read_time(limit),
        nodes=nodes,
        gpus_per_node=num_gpus,
        processes_per_node=processes_per_node or max(num_gpus, 1),
        restarts=restarts,
        cpus_per_process=cpus_per_process or 1 + max(getattr(each.recipe.data, "workers", 0) for each in resolved),
        memory=memory,
        partition=partition,
        account=account,
        directives=directives,
        setup=setup,
        signal_seconds=signal_before,
        most_requeues=requeues,
        folds=folds or 0,
        log=log or ("%x-%A_%a.log" if folds else "%x-%j.log"),
        command=" ".join(shlex.quote(each) for each in ("trainkit", *sys.argv[1:])).replace("\n", " "),
    )
    for doubt in _doubts(resolved, job):
        echo(f"warning: {doubt}", err=True)
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
    return num_gpus


def _doubts(resolved: Sequence[Resolved], job: SlurmJob) -> Iterator[str]:
    """Yield what of the job will hardly be of use to the recipes.

    Raises:
        RecipeError: The batch of a recipe cannot be divided among the processes.
    """
    gpus, processes = job.gpus_per_node, job.processes_per_node
    if gpus and all(each.recipe.run.device == "cpu" for each in resolved):
        yield f'every recipe has run.device = "cpu", so {gpus} GPU{"s" * (gpus != 1)} of each node would be idle'
    if gpus > processes:
        yield f"each process uses one GPU, so {gpus - processes} of the {gpus} GPUs of each node would be idle"
    if 0 < gpus < processes:
        yield f"{processes} processes share {gpus} GPU{'s' * (gpus != 1)} on each node, which NCCL does not allow"
    for each in resolved:
        refuse_division(each, job.possible_processes)
