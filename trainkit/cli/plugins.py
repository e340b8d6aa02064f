"""``trainkit plugins``: every component that is installed, and what keeps a broken one from being used."""

from __future__ import annotations

import click

from trainkit import registry
from trainkit.errors import ComponentError


@click.command(name="plugins")
def command() -> None:
    """List all components, by kind, with the package that brings each.

    One that cannot be imported is listed with the reason; it is in nobody's way as long as no recipe names it.
    """
    for group in registry.entry_point_groups():
        found = registry.registered(group)
        click.secho(group, bold=True)
        width = max(len(each.name) for each in found)
        for each in found:
            click.echo(f"  {each.name:<{width}}  {each.package} {each.version}")
            try:
                each.load()
            except ComponentError as error:
                click.secho(f"  {'':<{width}}  {error}", fg="red")
