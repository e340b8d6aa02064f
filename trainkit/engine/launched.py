"""What a process knows of the launcher that started it (`trainkit run --processes`), and leaves for it.

The launcher hands its processes a folder. The first process notes there which run folders it makes. If one of the
processes dies, the launcher starts all of them again, and they go on in those folders, not in those of earlier runs.

The first process also notes which run of a queue is under way, and how each ended. If one fails, its processes have to
end, or have died; the launcher starts them anew, and they go on with the run after it.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import attrs

from trainkit.files.writing import append_line, written_whole

LAUNCH = "TRAINKIT_LAUNCH"
"""Name of the environment variable that holds the launcher's folder."""

ONLY_NOTED = "TRAINKIT_ONLY_NOTED"
"""Name of the environment variable that is set where only the runs of this launch may be continued."""

STARTS_ANEW = "TRAINKIT_STARTS_ANEW"
"""Name of the environment variable that is set where the launcher starts the processes anew after a run that failed."""

_FOLDERS, _RESULTS = "folders.txt", "results.jsonl"


def is_launched() -> bool:
    """Return whether the launcher started this process; then it decides what a second signal does."""
    return bool(os.environ.get(LAUNCH))


def starts_anew_after_failures() -> bool:
    """Return whether the launcher starts the processes anew for the runs of a queue after one that failed."""
    return is_launched() and bool(os.environ.get(STARTS_ANEW))


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


# ---- the runs of a queue --------------------------------------------------------------------------------------------


@attrs.frozen
class NotedResult:
    """How a run of a queue ended; while it is under way, how it has ended if its processes come to say no more.

    Attributes:
        run: The folder of its run folders.
        what: How it ended, in words.
        began: When it began, in seconds of `time.time`.
        seconds: How long it took.
        failed: Whether it failed.
        ends_processes: Whether its processes cannot go on with the runs after it.
    """

    run: str
    what: str
    began: float
    seconds: float = 0.0
    failed: bool = False
    ends_processes: bool = False


def note_result(result: NotedResult, folder: Path | None = None) -> None:
    """Tell the launcher, if there is one, how a run ended; what was noted of the run before does not hold any more.

    Args:
        result: How it ended.
        folder: The launcher's folder; None: that of the launcher that started this process.
    """
    if folder is not None or is_launched():
        append_line((folder or Path(os.environ[LAUNCH])) / _RESULTS, json.dumps(attrs.asdict(result)))


def noted_results(folder: Path | None = None) -> dict[str, NotedResult]:
    """Return how the runs ended that this launch made, by the folder of their run folders; the last one is the last.

    Args:
        folder: The launcher's folder; None: that of the launcher that started this process.
    """
    file = (folder or Path(os.environ.get(LAUNCH, ""))) / _RESULTS
    found: dict[str, NotedResult] = {}
    if (folder is not None or is_launched()) and file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # a process was killed while it wrote
                result = NotedResult(**json.loads(line))
                found.pop(result.run, None)
                found[result.run] = result
    return found


def forget_last_result(folder: Path) -> None:
    """Take back what was noted of the last run in the folder of a launcher, because this run goes on."""
    kept = list(noted_results(folder).values())[:-1]
    with written_whole(folder / _RESULTS) as new:
        new.write_text("".join(json.dumps(attrs.asdict(each)) + "\n" for each in kept), encoding="utf-8")
