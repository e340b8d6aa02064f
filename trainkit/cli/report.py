"""``trainkit report``: writes a page about a run."""

from __future__ import annotations

from pathlib import Path

import click

from trainkit.cli import completion
from trainkit.cli.output import echo


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit report ptycho_staged\n"
    "  trainkit report 1a2b3c4d --out report.html\n\n"
    "A run is named by its folder, its name (the newest of that name), or its id as trainkit runs prints it."
)
@click.argument("name", metavar="RUN", shell_complete=completion.runs)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="The page; not given: report.html in the run folder."
)
def command(name: str, out: Path | None) -> None:
    """Write a report on RUN: one page of HTML that needs no network and no other file.

    It holds curves, stages, pictures over the epochs, the recipe with the origin of each value, all starts with their
    environment, the table of cases, checkpoints, warnings, and what the run began from. It can be written while the run
    is going on.
    """
    from trainkit.errors import TrainkitError
    from trainkit.files.writing import written_whole
    from trainkit.runs.finding import run_named
    from trainkit.runs.report.page import page
    from trainkit.words import bytes_in_words

    run = run_named(name)
    path = out or run.folder / "report.html"
    content = page(run).encode(errors="backslashreplace")
    try:
        with written_whole(path) as new:
            new.write_bytes(content)
    except OSError as error:
        raise TrainkitError(f"{path} cannot be written ({error.strerror or error}); give another with --out") from error
    for problem in run.problems:
        echo("damaged: ", problem, err=True)
    echo(f"{path} ({bytes_in_words(len(content))})")
