"""``trainkit run``: trains what recipes describe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from trainkit.cli import completion
from trainkit.cli.lasting_imports import lasting_imports
from trainkit.cli.launching import can_launch
from trainkit.cli.options import EXIT_CODES, JSON, QUIET, SETS, refuse_json_and_quiet
from trainkit.cli.several import only_first_process_continues
from trainkit.engine.signals import ending_the_program

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.engine.start import RunOutcome
    from trainkit.recipe.resolve import Resolved


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit run ptycho_staged\n"
    "  trainkit run my_recipe.toml --smoke\n"
    "  trainkit run my_recipe.toml --set run.epochs=60 --set groups.dr.lr=5e-3\n"
    "  trainkit run a.toml b.toml c.toml --continue\n"
    "  trainkit run brats.toml --folds 5 --continue\n"
    "  trainkit run brats.toml --processes 4 --restarts 3\n\n" + EXIT_CODES
)
@click.argument(
    "recipes",
    type=click.Path(path_type=Path),
    nargs=-1,
    required=True,
    metavar="RECIPE...",
    shell_complete=completion.recipes,
)
@SETS
@click.option("--continue", "unfinished", is_flag=True, help="Skip finished runs, and resume unfinished ones.")
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    metavar="N",
    help="Cross-validation: divide the cases into N folds, and train N runs, each of which holds one fold out.",
)
@click.option(
    "--fold",
    "only",
    type=click.IntRange(min=0),
    multiple=True,
    metavar="K",
    help="With --folds: train fold K alone (0 is the first), as in a job of its own. Can be given several times.",
)
@click.option(
    "--journal",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Repeat the edits and stops of an earlier run of the RECIPE, at the same steps: its folder, its name, or its "
    "journal.jsonl. The new run ends with the same bits.",
)
@click.option(
    "--smoke",
    is_flag=True,
    help="Try the recipe: two steps of each stage of the groups, validation, saving, resuming; in a temporary folder.",
)
@QUIET
@JSON
@can_launch(lambda *given: _refuse_mistakes(*given))
def command(
    recipes: tuple[Path, ...],
    sets: tuple[str, ...],
    unfinished: bool,
    folds: int | None,
    only: tuple[int, ...],
    journal: Path | None,
    smoke: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train what each RECIPE describes, one after the other.

    Each run gets a new folder below runs/. If one run fails, the others are run all the same.

    With --continue, a recipe whose run is finished is skipped, and a recipe whose run is not finished is resumed from
    its newest checkpoint. A run belongs to a recipe if all of their settings are equal.

    With --folds, the run of each fold is in runs/NAME_5folds/fold_0, …, and can be resumed like any other. When all are
    finished, their values are shown with means and standard deviations, and runs/NAME_5folds becomes an ensemble:
    `trainkit predict NAME_5folds` averages what its models predict. With --fold, the folds can be trained at the same
    time, for example by `trainkit slurm --folds`; the command that finishes the last one makes the ensemble.

    With --smoke, nothing of this is done: each recipe is tried in a few steps, which take every group through its
    start, and a line says whether all parts work. What is changed for that is printed.

    With --processes, the run is one run all the same: one folder, one output, one exit code. The settings of a recipe
    are of the whole run, whatever the number of processes. See docs/clusters.md.
    """
    refuse_json_and_quiet(as_json, quiet)
    _refuse_no_fold(folds, only)
    if smoke and (unfinished or folds is not None or journal is not None):
        raise click.UsageError("--smoke excludes --continue, --folds and --journal")
    only_first_process_continues()
    with ending_the_program():
        from trainkit.recipe.inputs import refuse_missing_inputs
        from trainkit.recipe.resolve import resolve_all

        resolved = resolve_all(recipes, sets)  # before torch is imported, so that a mistake is reported at once
        from trainkit.console import Console
        from trainkit.engine.finding import run_folder_at
        from trainkit.engine.journal import to_replay

        if journal is not None and (folds is not None or len(resolved) > 1):
            raise click.UsageError("--journal repeats one run: give one recipe, without --folds and [sweep]")
        replay = [] if journal is None else to_replay(journal if journal.exists() else run_folder_at(journal))
        if folds is not None:
            sys.exit(_run_folds(resolved, folds, only, unfinished, Console(quiet, as_json)))
        if not unfinished:  # a run that is continued may not need all of them, for example the weights it began with
            refuse_missing_inputs(resolved)
        with lasting_imports():
            from trainkit.engine.queue import run_all, worst_of

        console = Console(quiet, as_json)
        for note in dict.fromkeys(str(note) for each in resolved for note in each.notes):
            console.say(note)
        if smoke:
            from trainkit.engine.smoke import smoke as try_out

            sys.exit(worst_of([try_out(each, console) for each in resolved]))
        code = run_all(resolved, console, continue_unfinished=unfinished, report=report, replay=replay)
    sys.exit(code)


def _refuse_mistakes(options: dict[str, Any], processes: int) -> None:
    """Find the mistakes of recipes before several processes do."""
    from trainkit.launching.division import refuse_division
    from trainkit.recipe.inputs import refuse_missing_inputs
    from trainkit.recipe.resolve import resolve_all

    _refuse_no_fold(options["folds"], options["only"])
    resolved = resolve_all(options["recipes"], options["sets"])
    if not options["unfinished"]:
        refuse_missing_inputs(resolved)
    for each in resolved:
        refuse_division(each, [processes])


def _refuse_no_fold(folds: int | None, only: tuple[int, ...]) -> None:
    """Refuse --fold without --folds, and folds that there are not.

    Raises:
        click.UsageError: One is not possible.
    """
    if only and folds is None:
        raise click.UsageError("--fold needs --folds N, which says into how many folds the cases are divided")
    if folds is not None and any(fold >= folds for fold in only):
        raise click.UsageError(f"--fold {max(only)}: of {folds} folds, the first is 0 and the last is {folds - 1}")


def _run_folds(recipes: list[Resolved], number: int, only: tuple[int, ...], unfinished: bool, console: Console) -> int:
    """Run the folds of each recipe, or some of them, and return the exit code."""
    from trainkit.recipe.fold_recipes import fold_recipes
    from trainkit.recipe.inputs import refuse_missing_inputs

    divided = [fold_recipes(each, number) for each in recipes]  # before torch is imported
    if not unfinished:
        refuse_missing_inputs([each for folds in divided for each in folds.chosen(only)])
    from trainkit.engine.folds import run_folds
    from trainkit.engine.queue import worst_of
    from trainkit.engine.start import ExitCode

    for note in dict.fromkeys(str(note) for each in recipes for note in each.notes):
        console.say(note)
    codes = []
    for folds in divided:
        codes.append(run_folds(folds, console, only=only, continue_unfinished=unfinished, report=report))
        if codes[-1] is ExitCode.STOPPED:
            break
    return worst_of(codes)


def report(ending: RunOutcome, console: Console) -> None:
    """Print how a run ended, the values it reached, what its time went to, and where its files are."""
    from trainkit.engine.every_run.progress import time_in_words

    seconds, waited = ending.run.watch.totals(), ending.run.watch.waited_in_all()
    console.say("")
    facts = {**_facts(ending, seconds), "cpu_wait_seconds": None if waited is None else round(waited, 6)}
    console.tell("end", facts, *_in_words(ending, time_in_words(seconds, waited)))
    for text in ending.run.state.doubts:
        console.doubt_in_quiet(text)


def _in_words(ending: RunOutcome, time: str) -> Iterator[str]:
    state = ending.run.state
    folder = state.folder
    if state.steps is None:
        yield f"{state.ended} after {state.epoch} of {state.epochs} epochs, {state.step} steps"
    else:
        yield f"{state.ended} after {state.step} of {state.steps} steps, {state.epoch} epochs"
    losses = {name: value for name, value in state.metrics.items() if name.endswith("/loss")}
    others = {n: v for n, v in state.metrics.items() if n not in losses and not n.startswith("lr/")}
    if losses:
        yield from _listed("losses:", [f"{name} {value:.5g}" for name, value in losses.items()])
    if others:
        yield from _listed("values:", [f"{name} {value:.4g}" for name, value in others.items()])
    groups = {name: group for name, group in state.groups.items() if group.parameters}
    rates = [f"{name} {group.lr:.4g}" if group.active else f"{name} frozen" for name, group in groups.items()]
    yield from _listed("learning rates:", rates)
    if ending.best:
        best = ending.best
        where = f"{best.epoch} epoch{'s' if best.epoch != 1 else ''}" if best.step is None else f"{best.step} steps"
        yield f"best:           {state.monitor.metric} {best.value:.5g} after {where}"
    yield f"time:           {time}"
    for text in state.doubts:
        yield f"doubtful:       {text}"
    if ending.newest:
        yield f"checkpoint:     {ending.newest}"
    yield f"run folder:     {folder}"
    if (folder / "tensorboard").is_dir():
        yield f"view it with:   tensorboard --logdir {folder / 'tensorboard'} --samples_per_plugin=images=200"
    if (more := _continued_with(ending)) is not None:
        yield f"continue with:  {more}"


def _listed(title: str, items: Iterable[str]) -> Iterator[str]:
    """Yield lines of 80 columns with items, none of which is broken in two."""
    line = f"{title:<16}"
    for item in items:
        if len(line) > 16 and len(line) + len(item) > 80:
            yield line.rstrip()
            line = " " * 16
        line += f"{item}  "
    yield line.rstrip()


def _continued_with(ending: RunOutcome) -> str | None:
    """Return the command that continues a run; None: nothing is left to do."""
    state = ending.run.state
    if state.epoch < state.epochs or (state.steps is not None and state.step < state.steps):
        return f"trainkit resume {quote(str(state.folder))}{ending.run.resolved.resume_options}"
    return None


def _facts(ending: RunOutcome, seconds: Mapping[str, float]) -> dict[str, Any]:
    state, best = ending.run.state, ending.best
    return {
        "ended": state.ended,
        "exit_code": int(ending.code),
        "epoch": state.epoch,
        "step": state.step,
        "values": {name: value for name, value in state.metrics.items() if not name.startswith("lr/")},
        "best": None if best is None else {"value": best.value, "epoch": best.epoch, "step": best.step},
        "doubts": state.doubts,
        "checkpoint": ending.newest,
        "run_folder": state.folder,
        "seconds": {activity: round(each, 6) for activity, each in seconds.items()},
        "continue_with": _continued_with(ending),
    }
