"""Repeats the run of an archive, and compares what comes out with what the archive holds, bit for bit."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import attrs

from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.engine import journal
from trainkit.engine.fingerprint import other_data
from trainkit.engine.identity import CHECKPOINTS
from trainkit.engine.queue import run_one
from trainkit.engine.resume_report import run_changes
from trainkit.engine.saved_recipe import other_packages, with_packages
from trainkit.engine.start import ExitCode, Report, RunOutcome
from trainkit.engine.verify import say_differences
from trainkit.errors import RecipeError, TrainkitError
from trainkit.recipe.resolve import resolve_text

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.engine.journal import Request
    from trainkit.recipe.resolve import Resolved

_MOST_BYTES = 1 << 40
_OF_PLACE = ("run", "recipe", "fingerprint", "variables")
"""What checkpoints hold of where a run was made, which is compared for itself or not at all."""


@attrs.frozen
class Archived:
    """What an archive holds.

    Attributes:
        recipe: The text of the recipe that the run began with.
        requests: What was changed meanwhile.
        folder: The run folder, unpacked.
        newest: The content of its newest checkpoint.
    """

    recipe: str
    requests: Sequence[Request]
    folder: Path
    newest: dict[str, Any]


def unpack(file: Path, into: Path, say: Callable[[str], None]) -> Archived:
    """Unpack what is needed to repeat and compare the run of an archive.

    Args:
        file: The zip file that ``trainkit archive`` wrote.
        into: An empty folder.
        say: Called with what cannot be used.

    Raises:
        RecipeError: It is no such archive, or its run cannot be repeated.
        CheckpointError: It holds no good checkpoint.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                path = PurePosixPath(entry.filename)
                wanted = entry.filename in ("recipe.toml", journal.NAME) or entry.filename == "run/metrics.jsonl"
                if wanted or (path.parent == PurePosixPath("run", CHECKPOINTS) and path.suffix == ".safetensors"):
                    target = into / Path(*path.parts)  # one of a few known places, so it leads nowhere else
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(entry) as packed, target.open("wb") as unpacked:
                        while chunk := packed.read(1 << 20):
                            unpacked.write(chunk)
    except (OSError, zipfile.BadZipFile) as error:
        raise RecipeError(f"{file} cannot be read as an archive of trainkit: {error}") from error
    if not (into / "recipe.toml").is_file() or not (into / "run" / CHECKPOINTS).is_dir():
        raise RecipeError(f"{file} holds no run that can be repeated; its README.md says why, if trainkit wrote it")
    requests = journal.all_to_replay(into / journal.NAME) if (into / journal.NAME).is_file() else ()
    newest = CheckpointFolder(into / "run" / CHECKPOINTS).newest_good(say)[1]
    return Archived((into / "recipe.toml").read_text(encoding="utf-8"), requests, into / "run", newest)


def resolve_archived(archived: Archived, out: Path, sets: Sequence[str], *, allow_code: bool) -> Resolved:
    """Return the recipe of an archived run, for a run below another folder.

    Args:
        archived: What the archive holds.
        out: The folder for the new run.
        sets: Changes to it, such as other paths of the data.
        allow_code: Whether classes that it names as ``module:Class`` may be imported.

    Raises:
        RecipeError: The recipe cannot be used with what is installed, or code may not be imported.
    """
    text = with_packages(archived.recipe, archived.newest["components"])
    here = (f"run.dir={out}", *sets)
    return resolve_text(text, Path.cwd(), here, source="the archived recipe", allow_code=allow_code, resolved=True)


def reproduce(archived: Archived, resolved: Resolved, console: Console, report: Report) -> bool:
    """Repeat an archived run, and say whether it ended with the same bits, or from where on it differs.

    Args:
        archived: What the archive holds.
        resolved: Its recipe.
        console: Prints the messages.
        report: Called with how the run ended.

    Raises:
        TrainkitError: The run failed, or was interrupted.
    """
    outcome, _ = run_one(resolved, console, continue_unfinished=False, report=report, replay=archived.requests)
    if not isinstance(outcome, RunOutcome) or outcome.code is ExitCode.STOPPED:
        raise TrainkitError("the run was interrupted, so nothing is compared")
    newest = archived.newest
    news_of_data = list(other_data(newest.get("fingerprint") or {}, outcome.run.fingerprint))
    news = run_changes(newest, outcome.run, (), news_of_data)
    for line in (*other_packages(newest["components"]), *news):
        console.say(line.replace("the checkpoint", "the archive"))
    folder = outcome.run.state.folder
    return say_differences("compared with the archive", archived.folder, folder, console.say, without=_OF_PLACE)
