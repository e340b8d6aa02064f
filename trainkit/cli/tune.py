"""``trainkit tune``: searches the best values of a recipe's keys."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import click

from trainkit.cli import completion
from trainkit.cli.options import QUIET, SETS
from trainkit.engine.signals import ending_the_program
from trainkit.processes.place import refuse_several_processes


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit tune my_recipe.toml\n"
    "  trainkit tune my_recipe.toml --trials 80\n\n"
    "\b\nExit codes:\n"
    "    0  searched; the best recipe is written\n"
    "    1  no trial has succeeded\n"
    "    2  the recipe or the command line is wrong; nothing was started\n"
    "    3  searched, but the best result is doubtful; the output says why\n"
    "   75  stopped by a signal, with a checkpoint; the same command goes on\n"
    "  130  stopped at once by a second signal; the same command goes on"
)
@click.argument("recipe", type=click.Path(path_type=Path), shell_complete=completion.recipes)
@SETS
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Short for --set search.trials=N.")
@QUIET
def command(recipe: Path, sets: tuple[str, ...], trials: int | None, quiet: bool) -> None:
    """Search the best values of keys of RECIPE, as its table [search] says.

    Each trial is a run with values that Optuna proposes, in runs/NAME_search. Poor trials end early. A trial that fails
    does not end the search.

    The same command goes on with a search that was stopped or killed, and with --trials with one that is finished.
    Started several times, also on several machines that share the folder, the processes share its trials.

    In the end, runs/NAME_search has a table of all trials, pictures, and the recipe of the best one, best.toml. See
    docs/search.md for the settings of [search].
    """
    with ending_the_program():
        refuse_several_processes()
        from trainkit.errors import RecipeError
        from trainkit.recipe.resolve import resolve

        more = () if trials is None else (f"search.trials={trials}",)
        resolved = resolve(recipe, (*sets, *more))  # before torch is imported, so that a mistake is reported at once
        if find_spec("optuna") is None:
            raise RecipeError("trainkit tune needs Optuna, which is not installed: pip install 'trainkit[tune]'")
        from trainkit.console import Console
        from trainkit.engine.tuning.tune import tune

        console = Console(quiet)
        for note in resolved.notes:
            console.say(str(note))
        code = tune(resolved, console)
    sys.exit(code)
