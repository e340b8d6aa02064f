"""``trainkit picture``: lets a run that trains make its pictures."""

from __future__ import annotations

from pathlib import Path

import click

from trainkit.cli.asking import RUN, ask


@click.command(
    epilog="\b\nExamples:\n  trainkit picture ptycho_staged\n  trainkit picture runs/brats/2026-11-26T22-02-55-3e59\n"
)
@RUN
def command(run: Path) -> None:
    """Let the RUN that trains make its pictures at the end of this epoch, even if they are not due.

    RUN is a run folder, or the name or id of a run in runs/; of one name, the newest is taken.
    """
    ask(run, "picture", "at the end of the epoch")
