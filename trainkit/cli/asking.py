"""What commands have in common that ask something of a run while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainkit.cli import completion
from trainkit.cli.output import echo
from trainkit.errors import TrainkitError
from trainkit.words import some_of

if TYPE_CHECKING:
    from trainkit.engine.journal import Action, Request

RUN = click.argument("run", type=click.Path(path_type=Path), shell_complete=completion.runs)


def running_folder(run: Path) -> Path:
    """Return the folder of a run that trains.

    Args:
        run: Its folder, or the name or id of a run below runs/.

    Raises:
        TrainkitError: There is none, or nothing trains in it.
    """
    from trainkit.engine.finding import RUNS, run_folder_at, run_folders_below
    from trainkit.engine.folder_lock import holder

    folder = run_folder_at(run)
    if holder(folder) is None:
        others = [str(each) for each in run_folders_below(RUNS) if holder(each) is not None]
        instead = f"\nin training: {some_of(others)}" if others else ""
        raise TrainkitError(
            f"{folder}: no process trains this run. To go on with it, also with other settings: trainkit resume {run}"
            f"{instead}"
        )
    return folder


def ask(run: Path, do: Action, when: str, **more: Any) -> Request:
    """Ask something of a run that trains, and say when it takes effect.

    Raises:
        TrainkitError: There is none, or its journal cannot be written.
    """
    from trainkit.engine import journal

    folder = running_folder(run)
    try:
        request = journal.ask(folder, do, **more)
    except OSError as error:
        raise TrainkitError(f"{folder / journal.NAME} cannot be written: {error.strerror or error}") from error
    echo(f"{folder}: asked to {do}; takes effect {when}")
    return request
