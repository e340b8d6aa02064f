"""``trainkit archive``: packs a run into one file, from which others can look at it and repeat it."""

from __future__ import annotations

from pathlib import Path

import click

from trainkit.cli import completion
from trainkit.cli.options import ALLOW_CODE
from trainkit.cli.output import echo


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit archive ptycho_staged\n"
    '  trainkit archive ptycho_staged --author "Ann Lee" --license CC-BY-4.0\n'
)
@click.argument("run", type=click.Path(path_type=Path), shell_complete=completion.runs)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="The zip file; if not given, NAME-ID.zip.")
@click.option("--author", default="", help="Who made the run.")
@click.option("--license", "licence", default="", help="Licence under which others may use it, as a name or URL.")
@click.option("--description", default="", help="A sentence for the reader.")
@ALLOW_CODE
def command(run: Path, out: Path | None, author: str, licence: str, description: str, allow_code: bool) -> None:
    """Pack the RUN into one zip file, an RO-Crate.

    RUN is a run folder, or the name or id of a run in runs/; of one name, the newest is taken. The archive holds the
    recipe, the journal, values, pictures, results, the machine and the versions, and the final and the best weights.
    Data is not in it; its paths and its fingerprint are. trainkit reproduce repeats the run and compares.
    """
    from trainkit.engine.finding import run_folder_at
    from trainkit.runs.archive import About, write_archive
    from trainkit.runs.record import RunRecord

    record = RunRecord(run_folder_at(run))
    file = out or Path(f"{record.name}-{record.id}.zip")
    write_archive(record, file, About(author, licence, description), echo, allow_code)
