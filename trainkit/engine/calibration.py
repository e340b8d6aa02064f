"""Fits settings of a prediction to the held-out items of runs (``trainkit calibrate``), and keeps what was found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainkit.contracts import Calibration, Calibrator, Context, OpenedRun, Progress
from trainkit.engine.command_settings import command_settings, draw_picture, settings_of
from trainkit.engine.comparison import CASES
from trainkit.engine.devices import choose_device
from trainkit.engine.fitted_settings import FILE, FOLDER, Fitted, prediction_of
from trainkit.engine.resume_report import other_facts
from trainkit.engine.run_folder import LOG, short_path
from trainkit.engine.start import ExitCode
from trainkit.engine.trained_checkpoints import Choice, find_checkpoints
from trainkit.engine.trained_models import load_members
from trainkit.errors import DataError, blame
from trainkit.files.tables import write_json, write_table
from trainkit.files.writing import make_folder
from trainkit.version import __version__

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.engine.trained_checkpoints import Ensemble
    from trainkit.engine.trained_models import LoadedMembers
    from trainkit.recipe.structure import AllowCode

_TABLE = "calibrate"


def calibrate(
    run: Path,
    console: Console,
    *,
    choice: Choice = Choice(),  # noqa: B008 (it is frozen)
    sets: Sequence[str] = (),
    device: str = "auto",
    allow_code: AllowCode = False,
    tell: Callable[[Progress], None] = lambda progress: None,
    told: Callable[[], None] = lambda: None,
) -> ExitCode:
    """Fit settings of [predict] to held-out items of a run, and write them where ``predict`` finds them.

    Args:
        run: The run, checkpoint or ensemble.
        console: Prints the messages.
        choice: Which checkpoint of a run.
        sets: Changes to the settings: ``calibrate.key=value``, or as for a prediction.
        device: The device, as in ``run.device``.
        allow_code: Which classes that a recipe names as ``module:Class`` may be imported.
        tell: Shows how far it is.
        told: Called when nothing more is told.

    Returns:
        FINISHED, or DOUBTFUL if what was fitted is not better on other held-out items.

    Raises:
        RecipeError: The command line is wrong, or nothing is calibrated for such data.
        CheckpointError: A checkpoint cannot be used.
        DataError: The data are not those of the training, there are too few held-out items, or the folder cannot be
            written.
    """
    console.log_to(None)
    with console.capture_logging():
        own = settings_of(_TABLE, sets)
        chosen = choose_device(device)
        ensemble = find_checkpoints([run], choice, console.say)
        loaded = load_members(ensemble, [each for each in sets if each not in own], chosen, allow_code)
        settings = _settings(own, loaded)
        with torch.inference_mode():
            try:
                runs = tuple(_opened(loaded, ensemble, chosen))
                found = settings.calibrate(runs, loaded.settings, chosen, tell)
            except Exception as error:
                blame(error, _TABLE)
            finally:
                told()
        return _keep(found, loaded, ensemble, console)


def _opened(loaded: LoadedMembers, ensemble: Ensemble, device: torch.device) -> Iterator[OpenedRun]:
    """Yield the models with the data that they were trained on.

    Raises:
        DataError: They are other data.
    """
    for (file, saved), member, (data, seed) in zip(ensemble.files, loaded.members, loaded.trained_on, strict=True):
        opened = data.build(Context(seed, device, folder=file.parent))
        if news := list(other_facts(saved["facts"], opened.facts())):
            lines = "\n  ".join(each.removeprefix("warning: ") for each in news)
            raise DataError(
                f"{file}: the data are not those of the training, so it is not known what was held out:\n  {lines}"
            )
        yield OpenedRun(member, opened, tuple(split for split in data.splits() if split != "train"))


def _settings(sets: Sequence[str], loaded: LoadedMembers) -> Calibrator:
    """Return the calibrator with its settings.

    Raises:
        RecipeError: The settings are wrong, or there is no calibrator for such data.
    """
    data = type(loaded.trained_on[0][0])
    missing = f"nothing is calibrated with {data.__name__}: it has no calibrator"
    return command_settings(_TABLE, sets, Calibrator, data.calibrator, missing)  # type: ignore[type-abstract]


def _keep(found: Calibration, loaded: LoadedMembers, ensemble: Ensemble, console: Console) -> ExitCode:
    """Print and write what was found; its folder has a ``log.txt`` of all that is printed."""
    folder = ensemble.folders[0] / FOLDER
    with contextlib.suppress(OSError):  # which is said below
        make_folder(folder)
        console.log_to(folder / LOG)
    for line in found.lines:
        console.say(line)
    of = prediction_of(loaded, ensemble, found.depends_on)
    fitted = Fitted(found.predict, of.weights, of.checkpoints, of.settings)
    content: Mapping[str, Any] = {
        **fitted.to_json(),
        "trainkit": __version__,
        "doubts": list(found.doubts),
        "results": found.results,
    }
    try:
        make_folder(folder)
        for name, draw in found.pictures.items():
            draw_picture(folder / name, draw, console)
        if found.rows:
            write_table(folder / CASES, found.rows)
        write_json(folder / FILE, content)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error
    shown = short_path(folder)
    console.say(f"written: {', '.join([str(shown / FILE), *([CASES] if found.rows else []), *found.pictures])}")
    for doubt in found.doubts:
        console.doubt(doubt)
    return ExitCode.DOUBTFUL if found.doubts else ExitCode.FINISHED
