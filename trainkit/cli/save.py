"""``trainkit save``: lets a run that trains write a checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from trainkit.cli.asking import RUN, ask


@click.command(
    epilog="\b\nExamples:\n  trainkit save ptycho_staged\n  trainkit save runs/brats/2026-11-26T22-02-55-3e59\n"
)
@RUN
def command(run: Path) -> None:
    """Let the RUN that trains write a checkpoint after its next step.

    RUN is a run folder, or the name or id of a run in runs/; of one name, the newest is taken.
    """
    ask(run, "save", "after the next step")
