"""``trainkit plugins``: lists every installed component, and why a broken one cannot be used."""

from __future__ import annotations

import click

from trainkit import registry
from trainkit.cli.options import JSON
from trainkit.cli.output import echo, echo_json, styled


@click.command()
@JSON
def command(as_json: bool) -> None:
    """List all installed components by kind, each with its package and with what it does.

    What is wrong with a component is said below it. It matters only to recipes that use it. Components of other
    packages are imported in a process of their own, so that one that hangs or ends the process harms nobody.
    """
    from trainkit.cli.plugin_inspection import look_at

    groups = {group: registry.registered(group) for group in registry.entry_point_groups()}
    seen = look_at((group, each) for group, found in groups.items() for each in found)
    for group, found in groups.items():
        if not as_json:
            echo(styled(group, bold=True))
        width = max(len(each.name) for each in found)
        for each in found:
            about = seen[group, each]
            if as_json:
                facts = {"kind": group, "name": each.name, "package": each.package, "version": each.version}
                echo_json("component", **facts, text=about.text, error=about.error, remarks=about.remarks)
                continue
            echo(f"  {each.name:<{width}}  {each.package} {each.version}  {about.text}".rstrip())
            if about.error is not None:
                echo(styled(f"  {'':<{width}}  {about.error}", fg="red"))
            for remark in about.remarks:
                echo(styled(f"  {'':<{width}}  {remark}", fg="yellow"))
    for package in registry.damaged():
        if as_json:
            echo_json("damaged_package", package=package.package, version=package.version, error=package.reason)
        else:
            what = "none of its components is known"
            echo(styled(f"{package.package} {package.version}: {package.reason}; {what}", fg="red"))
