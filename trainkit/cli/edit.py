"""``trainkit edit``: changes settings of a run while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainkit.cli.asking import RUN, ask, running_folder
from trainkit.cli.options import ALLOW_CODE, ON_EXTEND

if TYPE_CHECKING:
    from trainkit.engine.journal import OnExtend


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit edit ptycho_staged groups.dr.lr=1e-3\n"
    "  trainkit edit ptycho_staged groups.dr.lr=1e-3 --at epoch 40\n"
    "  trainkit edit ptycho_staged run.epochs=80 --on-extend stretch\n"
)
@RUN
@click.argument("sets", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.option(
    "--at", type=(click.Choice(["epoch"]), click.IntRange(min=1)), metavar="epoch N", help="After N finished epochs."
)
@click.option("--now", is_flag=True, help="After the next step, not at the end of the epoch.")
@ON_EXTEND
@ALLOW_CODE
def command(
    run: Path,
    sets: tuple[str, ...],
    at: tuple[str, int] | None,
    now: bool,
    on_extend: OnExtend | None,
    allow_code: bool,
) -> None:
    """Change settings of the RUN that trains, at the end of its epoch.

    RUN is a run folder, or the name or id of a run in runs/; of one name, the newest is taken. The changed recipe is
    checked before anything is asked of the run. The run then saves, goes on from there with the new settings as a
    resumed run does, and says what changed. If that is not possible after all, it goes on as it was.

    What was asked, and where it took effect, stands in journal.jsonl of the run folder. With it, trainkit run --journal
    repeats the run, bit for bit.
    """
    epoch = at[1] if at else None
    if now and at:
        raise click.UsageError("--now and --at exclude each other")
    folder = running_folder(run)
    _refuse_mistakes(folder, sets, epoch, on_extend, allow_code)
    when = f"after {epoch} finished epochs" if epoch else "after the next step" if now else "at the end of the epoch"
    ask(run, "edit", when, sets=sets, epoch=epoch, now=now, on_extend=on_extend)


def _refuse_mistakes(
    folder: Path, sets: tuple[str, ...], epoch: int | None, on_extend: OnExtend | None, allow_code: bool
) -> None:
    """Make sure that a run can go on with the changed settings, as far as its files tell.

    Raises:
        RecipeError: The changed recipe has mistakes, the epoch is over, or ``on_extend`` must be given.
    """
    from trainkit.checkpoint.folder import CheckpointFolder
    from trainkit.engine.editable import refuse_edit
    from trainkit.engine.identity import CHECKPOINTS, identity_of

    identity = identity_of(folder)
    newest = CheckpointFolder(folder / CHECKPOINTS, identity.id).newest_header()
    refuse_edit(folder, identity, newest, sets, epoch, on_extend, allow_code)
