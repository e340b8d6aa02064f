"""``trainkit verify-resume``: prove on a recipe that a stopped run goes on to the same bits."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click


@click.command("verify-resume", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--epochs", type=click.IntRange(min=1), default=2, show_default=True, help="Epochs to compare.")
@click.option(
    "--stops", type=click.IntRange(min=0), default=3, show_default=True, help="Places to stop at inside epochs."
)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a setting: --set data.path=scan.h5")
def command(recipe: Path, epochs: int, stops: int, sets: tuple[str, ...]) -> None:
    r"""Run the first epochs of RECIPE in one go, then again from several of its checkpoints, each in a new process.

    Every tensor, every memory and every logged value must be the same to the bit; where it is not, it is said where the
    runs first differ, and the exit code is 1. To see a group's start, compare beyond it: --epochs 12.

    \b
    trainkit verify-resume recipes/ptycho_staged.toml --epochs 12
    """
    from trainkit.recipe.resolve import resolve

    with tempfile.TemporaryDirectory(prefix="trainkit-verify-") as folder:
        keep = (f"run.dir={folder}", "checkpoint.every_epochs=1", "checkpoint.keep_last=1000000")
        resolved = resolve(recipe, (*sets, *keep))
        from trainkit.engine.verify import verify

        epochs = min(epochs, resolved.recipe.run.num_epochs())
        same = verify(resolved, epochs, stops, click.echo)
    if not same:
        click.echo("the resumed runs are not the same: see above where they first differ", err=True)
        sys.exit(1)
