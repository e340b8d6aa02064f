"""``trainkit runs``: lists runs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainkit.cli import completion
from trainkit.cli.options import JSON
from trainkit.cli.output import echo, echo_json, styled

if TYPE_CHECKING:
    from trainkit.runs.finding import Found
    from trainkit.runs.record import RunRecord

_STATES = ("running", "finished", "diverged", "doubtful", "stopped", "failed", "killed", "unknown")
_COLOURS = {"running": "cyan", "finished": "green", "diverged": "red", "doubtful": "yellow", "failed": "red"}


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit runs\n"
    "  trainkit runs ptycho_staged --sort best\n"
    "  trainkit runs --state finished --where 'groups.dr.lr>0.1'\n"
    "  trainkit runs /scratch/runs --json\n\n"
    "Times are local. A run is named by its folder, its name (the newest of that name), or its id as it is "
    "printed here."
)
@click.argument("places", nargs=-1, metavar="[FOLDER or NAME]...", shell_complete=completion.runs)
@click.option(
    "--sort",
    metavar="KEY",
    help="Order by best, created, epochs, seconds, state, name, a setting or a value, instead of showing a tree.",
)
@click.option("--reverse", is_flag=True, help="Reverse the order.")
@click.option(
    "--where",
    "conditions",
    metavar="CONDITION",
    multiple=True,
    help="Show runs that fulfil KEY=VALUE, or !=, <, <=, >, >= (in quotes). Can be given several times.",
)
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, help="Show runs in this state.")
@JSON
def command(
    places: tuple[str, ...],
    sort: str | None,
    reverse: bool,
    conditions: tuple[str, ...],
    states: tuple[str, ...],
    as_json: bool,
) -> None:
    """List runs: state, finished epochs, best value, time, what they set differently, what they began from.

    Without FOLDER or NAME, all runs below runs/ are listed. A run that began from a checkpoint of another one stands
    below it.

    EPOCHS counts finished epochs, of those that are planned; "st" means steps. AT is the epoch of the best value.
    """
    from trainkit.runs.conditions import read_condition, refuse_unknown_keys

    wanted = [read_condition(each) for each in conditions]
    found = _found(places)
    refuse_unknown_keys([each.key for each in wanted], found.runs, "--where")
    refuse_unknown_keys([sort] if sort else [], found.runs, "--sort")
    shown = [
        run
        for run in found.runs
        if (not states or run.state.name in states) and all(each.holds(run) for each in wanted)
    ]
    if as_json:
        differing = _differing(found.runs)
        for run in _in_order(shown, sort, reverse):
            echo_json("run", **_as_json(run, differing[run.folder]))
    elif not shown:
        echo("no run fulfils this" if found.runs else "there are no runs; trainkit run starts one", err=True)
    elif sort is None:
        _show_tree(shown, reverse, places)
    elif sort == "best":
        _show_best(shown, reverse)
    else:
        _show(_in_order(shown, sort, reverse), shown)
    for problem in found.problems:
        echo(styled("left out: ", fg="yellow"), problem, err=True)


def _found(places: Sequence[str]) -> Found:
    from trainkit.engine.finding import RUNS
    from trainkit.errors import CheckpointError
    from trainkit.runs.finding import Found, runs_below, runs_of

    if not places:
        if not RUNS.is_dir():
            raise CheckpointError("there is no folder runs/ here; give the folder of the runs")
        return runs_below(RUNS)
    runs: dict[Path, RunRecord] = {}
    problems = []
    for place in places:
        found = runs_of(place)
        runs |= {run.folder.resolve(): run for run in found.runs}
        problems += found.problems
    ordered = sorted(runs.values(), key=lambda run: (run.identity.created, run.id, str(run.folder)))
    return Found(ordered, problems)


def _width() -> int:
    return max(60, shutil.get_terminal_size((80, 24)).columns)


def _show_tree(runs: Sequence[RunRecord], reverse: bool, places: Sequence[str]) -> None:
    from trainkit.runs.families import families
    from trainkit.runs.lines import tree_lines

    found = families(runs, Path(places[0]) if len(places) == 1 else Path("runs"))
    _print(tree_lines(found[::-1] if reverse else found, _width()))


def _show(runs: Sequence[RunRecord], among: Sequence[RunRecord]) -> None:
    from trainkit.runs.lines import flat_lines
    from trainkit.runs.settings import differing

    _print(flat_lines(runs, differing([run.settings for run in among]), _width()))


def _show_best(runs: Sequence[RunRecord], reverse: bool) -> None:
    """Show runs by their best values, those with values of another meaning apart."""
    from trainkit.runs.meaning import blocks

    for number, (members, reasons) in enumerate(blocks(runs)):
        if number:
            echo()
            echo("not ranked with the runs above: ", "; ".join(reasons))
        monitor = members[0].monitor
        if monitor is not None:
            echo(styled(f"{monitor.metric}, {'lower' if monitor.mode == 'min' else 'higher'} is better", bold=True))
        _show(_in_order(members, "best", reverse), members)


def _print(lines: Any) -> None:
    for line in lines:
        if line.kind in ("head", "family"):
            echo(styled(line.text, bold=line.kind == "family", dim=line.kind == "head"))
        elif line.kind == "run" and (colour := _COLOURS.get(line.run.state.name)):
            before, state, after = line.text.partition(f"  {line.run.state.name} ")
            echo(before, styled(state, fg=colour), after)
        else:
            echo(line.text)


def _in_order(runs: Sequence[RunRecord], sort: str | None, reverse: bool) -> list[RunRecord]:
    """Return runs in an order; those that lack the key are last. The best comes first."""
    from trainkit.runs.conditions import value_of
    from trainkit.runs.settings import NOT_SET

    if sort is None:
        return list(runs)[:: -1 if reverse else 1]
    known = [(value_of(run, sort), run) for run in runs]
    having = [each for each in known if each[0] is not NOT_SET]
    downwards = sort == "best" and any(run.monitor is not None and run.monitor.mode == "max" for _, run in having)
    having.sort(key=lambda each: _key(each[0]), reverse=reverse != downwards)
    return [run for _, run in having] + [run for value, run in known if value is NOT_SET]


def _key(value: Any) -> tuple[int, float, str]:
    is_number = isinstance(value, int | float)
    return (0, float(value), "") if is_number else (1, 0.0, str(value))


def _differing(runs: Sequence[RunRecord]) -> dict[Path, Sequence[str]]:
    """Return for each run folder the settings that differ within its family."""
    from trainkit.runs.families import families

    return {run.folder: family.differing for family in families(runs) for run in family.runs}


def _as_json(run: RunRecord, differing: Sequence[str]) -> dict[str, Any]:
    best, monitor, holder, parent = run.best, run.monitor, run.state.holder, run.parent
    return {
        "id": run.id,
        "name": run.name,
        "folder": str(run.folder),
        "created": run.identity.created or None,
        "state": run.state.name,
        "why": run.state.why or None,
        "process": None if holder is None else holder.process,
        "host": None if holder is None else holder.host,
        "epochs": run.values.epochs,
        "planned_epochs": run.planned_epochs,
        "steps": run.values.steps,
        "planned_steps": run.planned_steps,
        "monitor": None if monitor is None else {"metric": monitor.metric, "mode": monitor.mode},
        "best": None if best is None else {"value": best.value, "epochs": best.place.epochs, "steps": best.place.steps},
        "last": {name: last.value for name in run.values.names if (last := run.values.last(name)) is not None},
        "seconds": round(run.seconds, 1),
        "cpu_wait_share": None if (share := run.cpu_wait_share) is None else round(share, 4),
        "differs": {key: run.settings.get(key) for key in differing},
        "parent": None
        if parent is None
        else {"run": parent.run, "epochs": parent.epoch, "steps": parent.step, "checkpoint": parent.checkpoint},
        "journal": [
            {
                "do": each.do,
                "sets": list(each.sets),
                "epochs": None if each.taken is None else each.taken.epoch,
                "steps": None if each.taken is None else each.taken.step,
                "refused": each.refused or None,
                "by": each.by,
                "time": each.time,
            }
            for each in run.journal
        ],
        "problems": run.problems,
    }
