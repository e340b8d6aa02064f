"""``trainkit resume``: go on from a checkpoint or a run folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trainkit.groups.resuming import Choice


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--epoch", type=int, metavar="N", help="Go on from the checkpoint with N finished epochs, not the newest."
)
@click.option("--epochs", type=int, metavar="N", help="Train for N epochs in all; short for --set run.epochs=N.")
@click.option("--steps", type=int, metavar="N", help="Train for N steps in all; short for --set run.steps=N.")
@click.option(
    "--on-extend",
    type=click.Choice(["stretch", "hold", "restart"]),
    help="How learning rates go on when the run's length or a schedule is another; needed only where it matters.",
)
@click.option("--recipe", type=click.Path(path_type=Path), help="Use this recipe, not the one in the checkpoint.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a setting: --set groups.probe.lr=1e-4")
@click.option("--allow-code", is_flag=True, help="Import classes that the checkpoint names as module:Class.")
@click.option("--quiet", "-q", is_flag=True, help="Write nothing but errors; log.txt has it all.")
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
) -> None:
    r"""Go on from PATH: a run folder (its newest good checkpoint), the name of a run below runs/, or one checkpoint.

    It goes on bit for bit where the run stood, with the recipe that the checkpoint holds. What differs is said before
    it starts. From an earlier checkpoint a new run folder is made; nothing is overwritten.

    \b
    trainkit resume runs/ptycho_staged/2026-11-21T10-00-00-1a2b
    trainkit resume ptycho_staged --epoch 30 --epochs 100 --on-extend hold
    """
    from trainkit.cli.run import report
    from trainkit.console import Console
    from trainkit.engine.resume import resume

    console = Console(quiet)
    lengths = {"run.epochs": epochs, "run.steps": steps}
    sets += tuple(f"{key}={length}" for key, length in lengths.items() if length is not None)
    ending = resume(path, console, sets=sets, recipe=recipe, epoch=epoch, on_extend=on_extend, allow_code=allow_code)
    if ending is not None:
        report(ending, console)
        sys.exit(ending.code)
