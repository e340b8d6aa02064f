"""``trainkit plugins``: lists every installed component, and why a broken one cannot be used."""

from __future__ import annotations

import click

from trainkit import registry
from trainkit.cli.options import JSON
from trainkit.cli.output import echo, echo_json, styled
from trainkit.errors import ComponentError


@click.command()
@JSON
def command(as_json: bool) -> None:
    """List all installed components by kind, each with its package.

    A component that cannot be imported is listed with the reason. It matters only to recipes that use it.
    """
    for group in registry.entry_point_groups():
        found = registry.registered(group)
        if not as_json:
            echo(styled(group, bold=True))
        width = max(len(each.name) for each in found)
        for each in found:
            failure = _failure(each)
            if as_json:
                facts = {"kind": group, "name": each.name, "package": each.package, "version": each.version}
                echo_json("component", **facts, error=failure)
                continue
            echo(f"  {each.name:<{width}}  {each.package} {each.version}")
            if failure is not None:
                echo(styled(f"  {'':<{width}}  {failure}", fg="red"))


def _failure(component: registry.RegisteredComponent) -> str | None:
    """Return why a component cannot be imported; None: it can."""
    try:
        component.load()
    except ComponentError as error:
        return str(error)
    return None
