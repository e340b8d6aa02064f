"""``trainkit stop``: ends a run that trains."""

from __future__ import annotations

from pathlib import Path

import click

from trainkit.cli.asking import RUN, ask


@click.command(epilog="\b\nExamples:\n  trainkit stop ptycho_staged\n  trainkit stop ptycho_staged --now\n")
@RUN
@click.option("--now", is_flag=True, help="End after the next step, with a checkpoint, so that it can be resumed.")
def command(run: Path, now: bool) -> None:
    """End the RUN that trains, after its next step.

    RUN is a run folder, or the name or id of a run in runs/; of one name, the newest is taken. It makes no further
    step, closes its epoch, writes its results, and counts as finished, as after early stopping.

    With --now, it saves and ends with exit code 75, as after a signal; trainkit resume continues it, bit for bit.
    """
    if now:
        ask(run, "interrupt", "after the next step")
    else:
        ask(run, "stop", "after the next step; the epoch is closed, and results are written")
