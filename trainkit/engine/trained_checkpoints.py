"""Chooses the checkpoints that paths stand for, where a trained model is used: of a run, the best, else the newest.

An ensemble is a folder with a file ``ensemble.json``, for example

    {"members": ["fold-0", "fold-1"], "combine": "probabilities"}

with the paths of runs or checkpoints, relative to the folder. Its other keys are settings of [predict].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from trainkit.checkpoint.content import read_run
from trainkit.checkpoint.folder import Best, CheckpointFolder
from trainkit.engine.finding import run_folder_at
from trainkit.engine.identity import CHECKPOINTS, identity_of
from trainkit.errors import CheckpointError, RecipeError

ENSEMBLE = "ensemble.json"


@attrs.frozen
class Choice:
    """Which checkpoint of a run predicts.

    Attributes:
        epoch: The one after this many finished epochs; None: the best, or the newest if none is known as the best.
        last: The newest, even if another one is known as the best.
    """

    epoch: int | None = None
    last: bool = False


@attrs.frozen
class Ensemble:
    """The checkpoints that predict together.

    Attributes:
        files: Each checkpoint and its content.
        settings: Settings of [predict] that the ensemble brings along, and the name of their source.
        folders: The folder of each path that was given: of a run, or of an ensemble.
    """

    files: tuple[tuple[Path, dict[str, Any]], ...]
    settings: tuple[Mapping[str, Any], str] = ({}, "")
    folders: tuple[Path, ...] = ()


def find_checkpoints(
    paths: Sequence[Path], choice: Choice, say: Callable[[str], None], besides: Path | None = None
) -> Ensemble:
    """Return the checkpoints that paths stand for.

    Args:
        paths: Each is a run folder, the name of a run below runs/, a checkpoint, or the folder of an ensemble.
        choice: Which checkpoint of a run.
        say: Called with a sentence about each choice.
        besides: A run folder that is not meant where a path stands for the newest run in it.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged.
    """
    files: list[tuple[Path, dict[str, Any]]] = []
    folders: list[Path] = []
    brought: tuple[Mapping[str, Any], str] = ({}, "")
    for path in paths:
        ensemble = next((each for each in _candidates(path) if each.is_file()), None)
        if ensemble is None:
            files.append(_checkpoint(path, choice, say, besides))
            folders.append(_folder_of(files[-1][0]))
            continue
        folders.append(ensemble.parent)
        members, settings = _read_ensemble(ensemble)
        files += [_checkpoint(each, choice, say, besides) for each in members]
        if settings and len(paths) == 1:
            brought = settings, str(ensemble)
        elif settings:
            say(f"{ensemble}: several runs are given, so its {', '.join(settings)} is not used")
    if twice := sorted({str(file) for file, _ in files if [each for each, _ in files].count(file) > 1}):
        raise RecipeError(f"these checkpoints are given twice: {', '.join(twice)}")
    return Ensemble(tuple(files), brought, tuple(folders))


def _folder_of(file: Path) -> Path:
    """Return the run folder of a checkpoint; of one that was copied elsewhere, the folder that it is in."""
    return file.parent.parent if file.parent.name == CHECKPOINTS else file.parent


def _candidates(path: Path) -> tuple[Path, ...]:
    own = (path,) if path.name == ENSEMBLE else ()
    return (*own, path / ENSEMBLE, Path("runs") / path / ENSEMBLE)


def _read_ensemble(path: Path) -> tuple[list[Path], dict[str, Any]]:
    """Return the paths of the members of an ensemble, and its settings.

    Raises:
        CheckpointError: The file is not what it should be.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        listed = content.pop("members")
        if not isinstance(listed, list) or not listed or not all(isinstance(each, str) and each for each in listed):
            raise TypeError('"members" must be a list of paths')
        if absolute := [each for each in listed if Path(each).is_absolute()]:
            raise TypeError(f"{absolute[0]} must be relative to the folder of this file")
    except KeyError as error:
        raise CheckpointError(f'{path} has no "members", the paths of runs or checkpoints') from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as the list of an ensemble: {error}") from error
    return [path.parent / each for each in listed], {key: each for key, each in content.items() if each is not None}


def _checkpoint(
    path: Path, choice: Choice, say: Callable[[str], None], besides: Path | None
) -> tuple[Path, dict[str, Any]]:
    """Return the checkpoint that a path stands for, and its content."""
    if path.is_file():
        if path.suffix == ".toml":
            raise CheckpointError(f"{path} is a recipe; give a trained model: a run, or a checkpoint of it")
        if choice.epoch is not None or choice.last:
            option = "--last" if choice.last else "--epoch"
            raise RecipeError(f"{path} is a single checkpoint; {option} needs a run folder to choose from")
        return path, read_run(path)
    folder = run_folder_at(path, besides)
    checkpoints = CheckpointFolder(folder / CHECKPOINTS, identity_of(folder).id)
    if choice.epoch is not None:
        file = checkpoints.at_epoch(choice.epoch)
        return file, read_run(file)
    newest, content = checkpoints.newest_good(say, reader=read_run)
    if choice.last:
        return newest, content
    ranked = _ranked(newest, content)
    if not ranked:
        say(f"{newest}: the newest checkpoint; none is known as the best of the run")
        return newest, content
    best = checkpoints.path / ranked[0].file_name
    say(f"{best}: the best of the run, {ranked[0].value:.5g}")
    if best == newest:
        return newest, content
    try:
        return best, read_run(best)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. It is the best checkpoint of the run; --last takes the newest one") from error


def best_of(folder: Path) -> Best | None:
    """Return what the newest checkpoint of a run folder says of the best one; None: nothing."""
    header = CheckpointFolder(folder / CHECKPOINTS, identity_of(folder).id).newest_header()
    try:
        ranked = [] if header is None else _ranked(folder, header)
    except CheckpointError:
        return None
    return ranked[0] if ranked else None


def _ranked(file: Path, content: Mapping[str, Any]) -> list[Best]:
    try:
        ranked = [Best(*each) for each in content["parts"].get("saver", {}).get("best", [])]
        if not all(type(each.epoch) is int and type(each.step) in (int, type(None)) for each in ranked):
            raise TypeError("an epoch and a step are whole numbers")
        return ranked
    except (TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: what it says of the best checkpoint cannot be read: {error}") from error
