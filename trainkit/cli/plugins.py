"""``trainkit plugins``: lists every installed component, and why a broken one cannot be used."""

from __future__ import annotations

import click

from trainkit import registry
from trainkit.cli.output import echo, styled
from trainkit.errors import ComponentError


@click.command()
def command() -> None:
    """List all installed components by kind, each with its package.

    A component that cannot be imported is listed with the reason. It matters only to recipes that use it.
    """
    for group in registry.entry_point_groups():
        found = registry.registered(group)
        echo(styled(group, bold=True))
        width = max(len(each.name) for each in found)
        for each in found:
            echo(f"  {each.name:<{width}}  {each.package} {each.version}")
            try:
                each.load()
            except ComponentError as error:
                echo(styled(f"  {'':<{width}}  {error}", fg="red"))
