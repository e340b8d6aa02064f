"""Repeats a run with each half of its evidence, and says how far both results agree (``trainkit resolution``).

RUN/resolution/half_1/…, half_2/…   the two runs, as of any other recipe
RUN/resolution/NAME.json, .csv, .png  what they have in common; NAME says of what they are halves
RUN/resolution/log.txt                what was printed about it
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.contracts import Agreement, Halver
from trainkit.engine.command_settings import command_settings, draw_picture, settings_of
from trainkit.engine.queue import run_all
from trainkit.engine.run_folder import LOG, doubts, earlier_run, is_finished, short_path
from trainkit.engine.saved_recipe import resolve_saved
from trainkit.engine.start import ExitCode, Report
from trainkit.engine.trained_checkpoints import Choice, find_checkpoints
from trainkit.errors import DataError, RecipeError, blame
from trainkit.files.tables import write_json, write_table
from trainkit.files.writing import make_folder
from trainkit.recipe.references import escaped
from trainkit.recipe.resolve import write
from trainkit.recipe.source import as_sets
from trainkit.version import __version__

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.recipe.resolve import Resolved
    from trainkit.recipe.structure import AllowCode

TABLE = "resolution"


def compare_halves(
    run: Path,
    console: Console,
    *,
    epoch: int | None = None,
    sets: Sequence[str] = (),
    allow_code: AllowCode = False,
    report: Report,
) -> ExitCode:
    """Repeat a run with each half of its evidence, and compare the results.

    Halves that are finished already are not repeated, and unfinished ones are resumed.

    Args:
        run: The run or checkpoint.
        console: Prints the messages.
        epoch: Take the checkpoint after so many finished epochs; None: the newest, of which the run's result is.
        sets: Changes to the settings of the comparison, ``resolution.key=value``, or to the recipe of both halves.
        allow_code: Which classes that a recipe names as ``module:Class`` may be imported.
        report: Prints how the run of a half ended.

    Returns:
        The exit code of the command line.

    Raises:
        RecipeError: The command line is wrong, or such data cannot be halved.
        CheckpointError: The checkpoint cannot be used.
        DataError: The results cannot be compared, or the folder cannot be written.
    """
    console.log_to(None)
    with console.capture_logging():
        ensemble = find_checkpoints([run], Choice(epoch, last=epoch is None), console.say)
        if len(ensemble.files) > 1:
            raise RecipeError(f"{run} is an ensemble; name one of its runs")
        (file, saved), folder = ensemble.files[0], ensemble.folders[0] / TABLE
        own = settings_of(TABLE, sets)

        def resolved(text: str, changes: Iterable[str]) -> Resolved:
            return resolve_saved(text, saved["components"], f"the recipe in {file}", [*changes], allow_code)

        whole = resolved(saved["recipe"], (each for each in sets if each not in own))
        recipe = whole.recipe
        data = type(recipe.data)
        nothing = f"no resolution is measured with {data.__name__}: it has no halver"
        halver = command_settings(TABLE, own, Halver, data.halver, nothing)  # type: ignore[type-abstract]
        recipes = []
        for half in (1, 2):
            place = {"run": {"dir": escaped(str(folder.resolve())), "name": f"half_{half}"}}
            changes = halver.changes(recipe, file.resolve(), half)
            recipes.append(resolved(write(whole.tree), (*as_sets(changes), *as_sets(place))))
        try:
            halver.check(recipe)
        except Exception as error:
            blame(error, TABLE)
    code = run_all(recipes, console, continue_unfinished=True, report=report)
    found = [each for each in map(earlier_run, recipes) if each is not None and is_finished(each)]
    if code is ExitCode.STOPPED or len(found) < len(recipes):
        console.say("not both halves are finished, so nothing is compared; the same command finishes them")
        return code
    console.log_to(folder / LOG)
    with console.capture_logging():
        try:
            agreement = halver.compare(recipe, *found)
        except Exception as error:
            blame(error, TABLE)
        of_halves = [f"{each.parent.name}: {doubt}" for each in found for doubt in doubts(each)]
        return _keep(agreement._replace(doubts=(*agreement.doubts, *of_halves)), folder, console)


def _keep(found: Agreement, folder: Path, console: Console) -> ExitCode:
    """Print and write what was found."""
    console.say("")
    for line in found.lines:
        console.say(line)
    try:
        make_folder(folder)
        for name, draw in found.pictures.items():
            draw_picture(folder / name, draw, console)
        write_table(folder / f"{found.name}.csv", found.rows)
        content = {"trainkit": __version__, "doubts": list(found.doubts), **found.results}
        write_json(folder / f"{found.name}.json", content)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error
    written = [f"{found.name}.json", f"{found.name}.csv", *found.pictures]
    console.say(f"written: {short_path(folder)}: {', '.join(written)}")
    for doubt in found.doubts:
        console.doubt(doubt)
    return ExitCode.DOUBTFUL if found.doubts else ExitCode.FINISHED
