"""``trainkit verify-resume``: tests on a recipe that a resumed run ends with the same bits."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from trainkit.cli.options import SETS
from trainkit.cli.output import echo


@click.command(epilog="\b\nExamples:\n  trainkit verify-resume recipes/ptycho_staged.toml --epochs 12")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--epochs", type=click.IntRange(min=1), default=2, show_default=True, help="Number of epochs to compare.")
@click.option(
    "--stops",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Number of steps inside epochs to resume from as well.",
)
@SETS
def command(recipe: Path, epochs: int, stops: int, sets: tuple[str, ...]) -> None:
    """Test that a resumed run of RECIPE ends with the same bits.

    The first epochs are run without a stop, then again from several checkpoints, each in a new process. Every tensor,
    all other state and every logged value must be equal to the bit. If they are not, the place where the runs first
    differ is printed, and the exit code is 1. To test the start of a group, compare more epochs than come before it.
    """
    from trainkit.recipe.resolve import resolve

    with tempfile.TemporaryDirectory(prefix="trainkit-verify-") as folder:
        keep = (f"run.dir={folder}", "checkpoint.every_epochs=1", "checkpoint.keep_last=1000000")
        resolved = resolve(recipe, (*sets, *keep))
        from trainkit.engine.verify import verify

        same = verify(resolved, epochs, stops, echo)
    if not same:
        echo("the resumed runs differ from the first one; the place where they first differ is printed above", err=True)
        sys.exit(1)
