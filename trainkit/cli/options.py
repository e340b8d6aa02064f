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
QUIET = click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors; log.txt holds the output.")
