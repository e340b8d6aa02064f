"""``trainkit resume``: go on from a checkpoint or a run folder."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a setting: --set groups.probe.lr=1e-4")
@click.option("--allow-code", is_flag=True, help="Import classes that the checkpoint names as module:Class.")
@click.option("--quiet", "-q", is_flag=True, help="Write nothing but errors; log.txt has it all.")
def command(path: Path, sets: tuple[str, ...], allow_code: bool, quiet: bool) -> None:
    r"""Go on from PATH, a run folder (its newest good checkpoint) or one checkpoint.

    It goes on bit for bit where the run stood, with the recipe that the checkpoint holds. What differs is said before
    it starts.

    \b
    trainkit resume runs/ptycho_staged/2026-11-21T10-00-00-1a2b
    """
    from trainkit.cli.run import report
    from trainkit.engine.resume import resume
    from trainkit.hooks.progress import Console

    console = Console(quiet)
    ending = resume(path, sets, console, allow_code=allow_code)
    if ending is not None:
        report(ending, console)
        sys.exit(ending.code)
