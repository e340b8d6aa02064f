"""``trainkit inspect``: shows what a checkpoint or a run folder holds, without importing torch or a component."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import click

from trainkit.cli import completion
from trainkit.cli.output import echo, styled
from trainkit.errors import CheckpointError
from trainkit.words import bytes_in_words, shape_in_words, some_of


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit inspect ptycho_staged\n"
    "  trainkit inspect epoch-0030.safetensors --json\n\n"
    "Exit codes: 0 the checkpoint is whole, undamaged and of a run, 1 it is not."
)
@click.argument("path", type=click.Path(path_type=Path), shell_complete=completion.runs)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(path: Path, as_json: bool) -> None:
    """Show what the checkpoint or run at PATH holds.

    PATH is a checkpoint, a run folder, or the name or id of a run in runs/. Of a run folder, the newest good checkpoint
    is shown, and damaged ones are named. The digest is verified. No code is imported or run.
    """
    inspection = inspect(path)
    if as_json:
        from trainkit.files.tables import finite

        echo(json.dumps(finite(attrs.asdict(inspection)), indent=2))
    else:
        for heading, text in _lines(inspection):
            echo(styled(f"{heading + ':' if heading else '':<13}", bold=True), text)
    sys.exit(0 if inspection.digest == "verified" and not inspection.damaged else 1)


@attrs.define
class Inspection:
    """What a checkpoint holds.

    Attributes:
        file: The checkpoint; None: there is no good one.
        digest: "verified", "damaged" or "missing".
        size: Bytes of the file.
        damaged: What is wrong with checkpoints that were looked at before this one, or with this one.
        num_checkpoints: Number of checkpoints in the run folder.
        state: Whether the run is finished; "" if that is not known.
        run: Id of the run, its parent, and the digest of its recipe.
        name: Name of the run.
        length: How long the run lasts, for example "40 epochs".
        epoch: Number of finished epochs.
        step: Number of finished optimizer steps.
        steps_in_epoch: Number of finished steps of the epoch that is not finished.
        steps_per_epoch: Optimizer steps in an epoch.
        metrics: The values of the last epoch.
        doubts: What makes the result doubtful.
        groups: Name -> learning rate, phase, and parameters of a group.
        components: The components that the run used.
        conditions: Versions, device and threads.
        variables: The environment variables that a resume reads, and the setting that each is for.
        code: The classes that are named as module:Class, which a resume imports only with --allow-code.
    """

    file: str | None = None
    digest: str = "missing"
    size: int = 0
    damaged: list[str] = attrs.Factory(list)
    num_checkpoints: int = 0
    state: str = ""
    run: Mapping[str, Any] = attrs.Factory(dict)
    name: str = ""
    length: str = ""
    epoch: int = 0
    step: int = 0
    steps_in_epoch: int = 0
    steps_per_epoch: int = 0
    metrics: Mapping[str, float] = attrs.Factory(dict)
    doubts: list[str] = attrs.Factory(list)
    groups: dict[str, dict[str, Any]] = attrs.Factory(dict)
    components: list[Mapping[str, str]] = attrs.Factory(list)
    conditions: Mapping[str, Any] = attrs.Factory(dict)
    variables: dict[str, str] = attrs.Factory(dict)
    code: list[str] = attrs.Factory(list)


def inspect(path: Path) -> Inspection:
    """Return what the checkpoint or run at a path holds.

    Raises:
        CheckpointError: There is neither.
    """
    from trainkit.checkpoint.folder import CheckpointFolder
    from trainkit.engine import run_folder
    from trainkit.engine.finding import run_folder_at
    from trainkit.engine.identity import CHECKPOINTS, identity_of

    found = Inspection()
    if path.is_file():
        found.file = str(path)
        _read(path, found)
        return found
    folder = run_folder_at(path)
    checkpoints = CheckpointFolder(folder / CHECKPOINTS, identity_of(folder).id)
    files = checkpoints.files()
    found.num_checkpoints = len(files)
    found.state = "finished" if run_folder.is_finished(folder) else "not finished"

    def reader(file: Path) -> dict[str, Any]:
        attempt = Inspection()
        content = _read(file, attempt)
        if content is None:
            raise CheckpointError(attempt.damaged[0])
        return content

    try:
        file, content = checkpoints.newest_good(found.damaged.append, reader=reader)
    except CheckpointError as error:
        found.damaged.append(str(error))
        return found
    found.file, found.digest, found.size = str(file), "verified", file.stat().st_size
    _take_in(content, found)
    return found


def _read(file: Path, found: Inspection) -> dict[str, Any] | None:
    """Take in a checkpoint, and return its content; None: it is damaged or not of a run."""
    from trainkit.checkpoint.content import check
    from trainkit.checkpoint.file import read_verified_header

    try:
        found.size = file.stat().st_size
        content = read_verified_header(file)
        check(content, file)
    except (CheckpointError, OSError) as error:
        found.digest = "damaged"
        found.damaged.append(str(error))
        return None
    found.digest = "verified"
    _take_in(content, found)
    return content


def _take_in(content: Mapping[str, Any], found: Inspection) -> None:
    from trainkit.engine.identity import digest
    from trainkit.recipe.origin import dotted
    from trainkit.recipe.problems import InvalidRecipe
    from trainkit.recipe.references import variables
    from trainkit.recipe.source import read

    found.run = content.get("run") or {}
    if found.run and found.run.get("recipe") != digest(content["recipe"]):
        found.damaged.append("the recipe in it is not the one that the run had: its digest is another one")
    found.epoch, found.step, found.steps_per_epoch = content["epoch"], content["step"], content["steps_per_epoch"]
    found.steps_in_epoch = content["step"] - content["epoch_step"]
    found.metrics, found.doubts = content["metrics"], list(content.get("doubts", ()))
    optimizers = content.get("optimizers") or {"": content["optimizer"]}
    shapes = {name: entry["shape"] for each in optimizers.values() for name, entry in each["parameters"].items()}
    for name, group in content["groups"].items():
        known = {each: shapes[each] for each in group["parameters"] if each in shapes}
        found.groups[name] = {
            "lr": group["lr"],
            "phase": group.get("phase", ""),
            "started": group["clock"] is not None,
            "stopped_at": group.get("stopped_at"),
            "num_values": sum(math.prod(shape) for shape in known.values()),
            "parameters": known,
        }
    found.components, found.conditions = content["components"], content["conditions"]
    found.code = [each["use"] for each in content["components"] if ":" in each["use"]]
    try:
        tree = read(content["recipe"], "the recipe in the checkpoint", Path.cwd(), resolved=True).tree
    except InvalidRecipe as error:
        found.damaged.append(str(error))
        return
    settings = tree.get("run")
    if isinstance(settings, Mapping):
        found.name = str(settings.get("name", ""))
        found.length = next((f"{settings[each]} {each}" for each in ("epochs", "steps") if each in settings), "")
    found.variables = {name: dotted(where) for name, where in variables(tree).items()}


def _lines(found: Inspection) -> Iterator[tuple[str, str]]:
    """Yield the lines that are shown: heading and text."""
    if found.file is not None:
        of_folder = f", the newest good one of {found.num_checkpoints}" if found.num_checkpoints else ""
        yield "checkpoint", f"{found.file} ({bytes_in_words(found.size)}{of_folder})"
    yield "digest", found.digest
    for text in found.damaged:
        yield "damaged", text
    if found.digest != "verified":
        return
    state = f", {found.state}" if found.state else ""
    yield "run", f"{found.name} ({found.run.get('id', 'of an older version of trainkit, without id')}){state}"
    if parent := found.run.get("parent"):
        yield "parent", f"{parent.get('checkpoint')} (run {parent.get('run')}, {parent.get('step')} steps)"
    inside = f", {found.steps_in_epoch} of them in an epoch that is not finished" if found.steps_in_epoch else ""
    yield "finished", f"{found.epoch} epochs, {found.step} steps{inside} (of {found.length or 'an unknown length'})"
    yield "recipe", f"digest {found.run.get('recipe', 'unknown')}"
    if found.metrics:
        yield "values", "  ".join(f"{name} {value:.5g}" for name, value in found.metrics.items())
    for text in found.doubts:
        yield "doubtful", text
    for name, group in found.groups.items():
        parameters = [f"{each} {shape_in_words(shape) or 'scalar'}" for each, shape in group["parameters"].items()]
        stopped = group["stopped_at"] is not None and group["stopped_at"] <= found.epoch
        state = "not started" if not group["started"] else "stopped" if stopped else f"lr {group['lr']:.4g}"
        phase = f", phase {group['phase']}" if group["phase"] else ""
        yield (
            "group",
            f"{name}: {state}{phase}, {group['num_values']} values in {some_of(parameters, most=3) or 'no parameter'}",
        )
    packages = {f"{each['package']} {each['version']}": None for each in found.components if each["package"]}
    yield "components", ", ".join(dict.fromkeys(each["use"] for each in found.components))
    yield "packages", ", ".join(packages) or "none"
    yield "computed on", ", ".join(f"{name} {value}" for name, value in found.conditions.items())
    for name, where in found.variables.items():
        yield "reads", f"the environment variable {name}, for {where}"
    if found.code:
        yield "imports", f"{some_of(found.code)}, only with --allow-code"
