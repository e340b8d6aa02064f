"""What a process knows of the launcher that started it (`trainkit run --processes`), and leaves for it.

The launcher hands its processes a folder. The first process notes there which run folders it makes. If one of the
processes dies, the launcher starts all of them again, and they go on in those folders, not in those of earlier runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from trainkit.files.writing import append_line

LAUNCH = "TRAINKIT_LAUNCH"
"""Name of the environment variable that holds the launcher's folder."""

ONLY_NOTED = "TRAINKIT_ONLY_NOTED"
"""Name of the environment variable that is set where only the runs of this launch may be continued."""

_FOLDERS = "folders.txt"


def is_launched() -> bool:
    """Return whether the launcher started this process; then it decides what a second signal does."""
    return bool(os.environ.get(LAUNCH))


def note_folder(folder: Path) -> None:
    """Tell the launcher, if there is one, of a new run folder."""
    if is_launched():
        append_line(Path(os.environ[LAUNCH]) / _FOLDERS, str(folder.absolute()))


def noted_folders() -> list[Path]:
    """Return the run folders that this launch made and that are still there."""
    file = Path(os.environ.get(LAUNCH, "")) / _FOLDERS
    if not is_launched() or not file.is_file():
        return []
    return [path for each in file.read_text(encoding="utf-8").splitlines() if (path := Path(each)).is_dir()]


def may_continue(folder: Path) -> bool:
    """Return whether a run folder may be continued by this process: after a restart, only one of this launch."""
    return not os.environ.get(ONLY_NOTED) or folder.absolute() in noted_folders()
