"""Options that several commands have."""

from __future__ import annotations

import click

SETS = click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a setting, for example --set run.epochs=60. Can be given several times.",
)
ALLOW_CODE = click.option(
    "--allow-code",
    is_flag=True,
    help="Import classes that the checkpoint names as module:Class, which runs their code.",
)
PROCESSES = click.option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Say what N processes make of it: the batch, the memory and the steps of each.",
)


class _MemorySize(click.ParamType):  # type: ignore[type-arg]  # it takes arguments in some versions of click
    """A size such as "24GB", in bytes."""

    name = "SIZE"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number of bytes."""
        from trainkit.recipe.sharing import memory_size

        size = value if isinstance(value, float) else memory_size(value)
        if size is None:
            self.fail(f'"{value}" is no size of memory; write, for example, 24GB', param, ctx)
        return size


GPU_MEMORY = click.option(
    "--gpu-memory",
    type=_MemorySize(),
    help="Memory of the GPU of each process, for example 24GB: doubt a step that does not fit.",
)
ON_EXTEND = click.option(
    "--on-extend",
    type=click.Choice(["stretch", "hold", "restart"]),
    help="How the learning rates continue if the run's length or a schedule has changed. stretch: as if it had always "
    "been so. hold: the old curve, then its last value. restart: the schedule starts again. Needed only if it matters.",
)
EPOCH = click.option(
    "--epoch", type=click.IntRange(min=0), metavar="N", help="Take the checkpoint after N finished epochs."
)
LAST = click.option("--last", is_flag=True, help="Take the newest checkpoint, even if another one is the best.")
QUIET = click.option(
    "--quiet", "-q", is_flag=True, help="Print nothing but errors and doubts; log.txt holds the output."
)

JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object a line, for programs; docs/json.md says what they hold.",
)


def refuse_json_and_quiet(as_json: bool, quiet: bool) -> None:
    """Refuse --json together with --quiet.

    Raises:
        click.UsageError: Both are given.
    """
    if as_json and quiet:
        raise click.UsageError("--json and --quiet exclude each other")


EXIT_CODES = (
    "\b\nExit codes:\n"
    "    0  finished\n"
    "    1  failed; everything up to the last checkpoint is on the disk\n"
    "    2  a recipe or the command line is wrong; nothing was started\n"
    "    3  finished, but the result is doubtful; the output says why\n"
    "   75  stopped by a signal or the time limit, with a checkpoint\n"
    "  130  stopped at once by a second signal"
)
"""What `run` and `resume` tell the shell, for their help."""


def refuse_both(epoch: int | None, last: bool) -> None:
    """Refuse --epoch together with --last.

    Raises:
        click.UsageError: Both are given.
    """
    if epoch is not None and last:
        raise click.UsageError("--epoch and --last exclude each other")
