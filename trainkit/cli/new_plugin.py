"""``trainkit new-plugin``: writes a distribution with parts for trainkit, whose tests pass at once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from trainkit.cli.options import JSON
from trainkit.cli.output import echo, echo_json
from trainkit.errors import RecipeError, did_you_mean

_PLURALS = {"losses": "loss", "metrics": "metric", "schedulers": "scheduler", "hooks": "hook"}
_ALSO = {"model": "data", "models": "data", **_PLURALS, "schedule": "scheduler", "schedules": "scheduler"}


def _kinds(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the last one of a list of kinds."""
    from trainkit.cli.plugin_template import PARTS

    before, comma, last = incomplete.rpartition(",")
    given = before.split(",")
    return [CompletionItem(before + comma + each) for each in PARTS if each.startswith(last) and each not in given]


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit new-plugin my-parts\n"
    "  trainkit new-plugin my-schedules --only scheduler\n"
    "  trainkit new-plugin my-parts --only data,loss --dir ~/code/my-parts"
)
@click.argument("name")
@click.option(
    "--only",
    metavar="KINDS",
    shell_complete=_kinds,
    help="The kinds of parts that it has, with commas: data (with a model), loss, metric, scheduler, hook.  "
    "[default: all]",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    help="The folder to write, new or empty.  [default: NAME, in the working directory]",
)
@JSON
def command(name: str, only: str | None, folder: Path | None, as_json: bool) -> None:
    """Write a Python package NAME with parts of your own: data, model, loss, metric, schedule, hook.

    Each part is a small one that works, in a file of its own, to be replaced by yours. The package has entry points, a
    recipe, tests, and a README that says how to go on. It is found by trainkit once it is installed.
    """
    from trainkit.cli.plugin_template import PARTS, files_of, module_of

    kinds = _chosen(only, list(PARTS))
    module = module_of(name)
    target = folder if folder is not None else Path(name)
    files = files_of(name, module, kinds)
    _write(files, target)
    if as_json:
        echo_json("new_plugin", name=name, module=module, folder=target.resolve(), files=sorted(map(str, files)))
        return
    echo(f"wrote {target}, a package with {', '.join(kinds)}; next:")
    steps = [f"cd {target}", "pip install -e '.[test]'", "pytest", "trainkit plugins"]
    for step in [*steps, *(["trainkit run recipe.toml"] if Path("recipe.toml") in files else [])]:
        echo(f"  {step}")


def _chosen(only: str | None, known: list[str]) -> list[str]:
    """Return the kinds that ``--only`` names, in the order in which they are known."""
    if only is None:
        return known
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    kinds = {_ALSO.get(word, word) for word in words}
    if not kinds:
        raise RecipeError(f"--only names no kind; choose from {', '.join(known)}")
    for each in sorted(kinds - set(known)):
        raise RecipeError(f'--only: there is no kind "{each}" in the template; {did_you_mean(each, known)}')
    return [each for each in known if each in kinds]


def _write(files: dict[Path, str], target: Path) -> None:
    """Write all files, or none: the folder appears when it is complete.

    Raises:
        RecipeError: The folder holds something, or cannot be written.
    """
    if os.path.lexists(target) and not target.is_dir():
        raise RecipeError(f"{target} is there already, and is no folder; give another one after --dir")
    try:
        if target.is_dir() and (there := sorted(each.name for each in target.iterdir())):
            raise RecipeError(
                f"{target} is there already, with {there[0]} in it, and nothing is overwritten; give another folder "
                "after --dir"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.parent / f".{target.name}.tmp-{os.urandom(4).hex()}"
        try:
            for path, text in files.items():
                (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
                (unfinished / path).write_text(text, encoding="utf-8")
            os.rename(unfinished, target)  # replaces an empty folder
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise RecipeError(f"{target} cannot be written: {error.strerror}") from error
