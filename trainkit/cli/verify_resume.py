"""``trainkit verify-resume``: tests on a recipe that a resumed run ends with the same bits."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from trainkit.cli import completion
from trainkit.cli.options import SETS
from trainkit.cli.output import echo


def _numbers(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Return the numbers of processes in a text."""
    if text is None:
        return None
    parts = [each.strip() for each in text.split(",")]
    if not all(each.isdecimal() and int(each) > 0 for each in parts) or len({int(each) for each in parts}) < 2:
        raise click.BadParameter(f'"{text}" does not name several numbers of processes, such as 1,2,4')
    return tuple(map(int, parts))


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit verify-resume recipes/ptycho_staged.toml --epochs 12\n"
    "  trainkit verify-resume my_recipe.toml --set run.shards=4 --processes 1,2,4"
)
@click.argument("recipe", type=click.Path(path_type=Path), shell_complete=completion.recipes)
@click.option("--epochs", type=click.IntRange(min=1), default=2, show_default=True, help="Number of epochs to compare.")
@click.option(
    "--stops",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Number of steps inside epochs to resume from as well.",
)
@click.option(
    "--processes",
    callback=_numbers,
    metavar="N,M,…",
    help="Instead of stops, compare these numbers of processes, and a run in which the number changes.",
)
@SETS
def command(recipe: Path, epochs: int, stops: int, processes: tuple[int, ...] | None, sets: tuple[str, ...]) -> None:
    """Test that a resumed run of RECIPE ends with the same bits.

    The first epochs are run without a stop, then again from several checkpoints, each in a new process. Every tensor,
    all other state and every logged value must be equal to the bit. If they are not, the place where the runs first
    differ is printed, and the exit code is 1. To test the start of a group, compare more epochs than come before it.

    With --processes 1,2,4, the first epochs are run by one, by two and by four processes of this machine, and once more
    by one, then four, then two, with changes inside epochs. A recipe with [run] shards has the same bits each time. Of
    one without, it is printed by how much the runs differ, and the exit code is 1.
    """
    from trainkit.recipe.resolve import resolve

    with tempfile.TemporaryDirectory(prefix="trainkit-verify-") as folder:
        keep = (f"run.dir={folder}", "checkpoint.every_epochs=1", "checkpoint.keep_last=1000000")
        resolved = resolve(recipe, (*sets, *keep))
        if processes is None:
            from trainkit.engine.verify import verify

            same = verify(resolved, epochs, stops, echo)
            why = "the resumed runs differ from the first one; the place where they first differ is printed above"
        else:
            from trainkit.engine.verify_processes import verify_processes

            same = verify_processes(resolved, processes, epochs, echo)
            why = "the number of processes changes bits; the place where they first differ is printed above"
            if not resolved.recipe.run.shards:
                why = "the number of processes changes bits, because run.shards is not set"
    if not same:
        echo(why, err=True)
        sys.exit(1)
