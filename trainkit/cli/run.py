"""``trainkit run``: train what a recipe describes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.engine.start import RunOutcome


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("recipes", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RECIPE...")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a setting: --set groups.probe.lr=1e-4")
@click.option("--continue", "unfinished", is_flag=True, help="Skip finished runs, go on with those that are not.")
@click.option("--quiet", "-q", is_flag=True, help="Write nothing but errors; log.txt has it all.")
def command(recipes: tuple[Path, ...], sets: tuple[str, ...], unfinished: bool, quiet: bool) -> None:
    r"""Train what each RECIPE describes, one after the other, in new folders below runs/.

    One that fails does not keep the others from running. With --continue a run of the same resolved recipe that is
    finished is skipped, and one that is not goes on from its newest checkpoint.

    \b
    trainkit run recipes/ptycho_staged.toml
    trainkit run recipes/ptycho_staged.toml --set run.epochs=60 --set groups.dr.lr=5e-3
    trainkit run a.toml b.toml c.toml --continue
    """
    from trainkit.recipe.resolve import resolve_all

    resolved = resolve_all(recipes, sets)  # before torch is imported: a mistake is answered at once
    from trainkit.console import Console
    from trainkit.engine.queue import run_all

    console = Console(quiet)
    for each in resolved:
        for note in each.notes:
            console.say(str(note))
    sys.exit(run_all(resolved, console, continue_unfinished=unfinished, report=report))


def report(ending: RunOutcome, console: Console) -> None:
    """Say how a run ended, what it reached, and where everything is."""
    state = ending.run.state
    folder = state.folder
    say = console.say
    say("")
    say(f"{state.ended} after {state.epoch} of {state.epochs} epochs, {state.step} steps")
    losses = {name: value for name, value in state.metrics.items() if name.endswith("/loss")}
    others = {n: v for n, v in state.metrics.items() if n not in losses and not n.startswith("lr/")}
    if losses:
        say("losses:         " + "  ".join(f"{name} {value:.5g}" for name, value in losses.items()))
    if others:
        say("values:         " + "  ".join(f"{name} {value:.4g}" for name, value in others.items()))
    rates = [f"{n} {lr:.4g}" if state.groups[n].active else f"{n} frozen" for n, lr in state.learning_rates().items()]
    say("learning rates: " + "  ".join(rates))
    if ending.best:
        best = ending.best
        where = f"{best.epoch} epoch{'s' if best.epoch != 1 else ''}" if best.step is None else f"{best.step} steps"
        say(f"best:           {state.monitor.metric} {best.value:.5g} after {where}")
    if ending.newest:
        say(f"checkpoint:     {ending.newest}")
    say(f"run folder:     {folder}")
    if (folder / "tensorboard").is_dir():
        say(f"look at it:     tensorboard --logdir {folder / 'tensorboard'} --samples_per_plugin=images=200")
    if state.epoch < state.epochs:
        say(f"go on:          trainkit resume {folder}")
