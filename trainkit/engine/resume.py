"""Going on from a checkpoint: which one, where, and what differs from before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from trainkit import checkpoint
from trainkit.engine import folder as run_folder
from trainkit.engine.start import Ending, go_on
from trainkit.errors import CheckpointError
from trainkit.groups import stages
from trainkit.loggers import metrics_file
from trainkit.recipe.resolve import resolve_text
from trainkit.recipe.stages import declared_groups

if TYPE_CHECKING:
    from trainkit.hooks.progress import Console
    from trainkit.recipe.resolve import Resolved


def resume(path: Path, sets: Sequence[str], console: Console, *, allow_code: bool = False) -> Ending | None:
    """Go on from a checkpoint or a run folder.

    From the newest checkpoint of a run folder it goes on in that folder; from an earlier one, in a new folder that
    names its parent.

    Args:
        path: A checkpoint file, or a run folder (its newest good checkpoint is taken).
        sets: Changes of the recipe, as ``a.b=c``.
        console: Where to speak.
        allow_code: Import classes that the checkpoint's recipe names as ``module:Class``.

    Returns:
        How the run ended; None if there was nothing left to do.

    Raises:
        CheckpointError: There is no good checkpoint, or it does not fit.
        InvalidRecipe: The changed recipe is wrong, or it names code and that was not allowed.
    """
    file, saved = _find(path, console)
    resolved = resolve_text(saved["recipe"], Path.cwd(), sets, source=f"the recipe in {file}", allow_code=allow_code)
    if saved["epoch"] >= resolved.recipe.run.epochs:
        console.say(f"{file}: all {saved['epoch']} epochs are finished; nothing is left to do")
        return None
    old_folder = file.absolute().parent.parent if file.parent.name == run_folder.CHECKPOINTS else None
    in_place = old_folder is not None and not _later(file, saved)
    folder = file.parent.parent if in_place else run_folder.create(resolved, parent=file)
    with run_folder.lock(folder):
        console.log_to(folder / run_folder.LOG)
        console.say(f"run folder: {folder}")
        console.say(f"going on from {file}: {saved['epoch']} epochs, {saved['step']} steps finished")
        for line in differences(saved, resolved):
            console.say(line)
        if in_place:
            run_folder.describe(folder, resolved)
        if old_folder is not None:
            metrics_file.cut_back(old_folder, saved["epoch"], into=folder)
        return go_on(resolved, folder, saved, console)


def differences(saved: Mapping[str, Any], resolved: Resolved) -> Iterator[str]:
    """Yield, for a person, what will not be as it was before: settings, learning rates, versions."""
    before = dict(_flat(tomli.loads(saved["recipe"])))
    after = dict(_flat(resolved.tree))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield f"changed: {key}: {before.get(key, 'not set')} -> {after.get(key, 'not set')}"
    if before != after:
        yield from _learning_rates(saved, resolved)
    versions = {(used["group"], used["use"]): used["version"] for used in saved["components"]}
    for used in resolved.used:
        was = versions.get((used.group, used.use), used.version)
        if was != used.version:
            yield f"warning: {used.where}: {used.use} is of {used.package} {used.version}, was {was}"
    here = run_folder.versions()
    for name, version in saved["versions"].items():
        if here.get(name) != version:
            yield f"warning: {name} is {here.get(name)}, was {version}: the run will not be the same bit for bit"


def _learning_rates(saved: Mapping[str, Any], resolved: Resolved) -> Iterator[str]:
    names = declared_groups(resolved.recipe)
    if names is None:
        return
    old = resolve_text(saved["recipe"], Path.cwd()).recipe
    epoch, step = saved["epoch"], saved["step"]
    per_epoch = max(step // epoch, 1) if epoch else max(step, 1)
    stages_before, stages_after = stages(old, names), stages(resolved.recipe, names)
    for name, stage in stages_after.items():
        memory = saved["groups"].get(name, {}).get("memory", {})
        was, now = (
            each.point(epoch, step, per_epoch, memory).lr if each.active(epoch) else 0.0
            for each in (stages_before[name], stage)
        )
        yield f"lr of {name} in epoch {epoch}: {was:.6g} -> {now:.6g}" + ("" if was != now else " (as before)")


def _find(path: Path, console: Console) -> tuple[Path, dict[str, Any]]:
    if path.is_dir():
        inner = path / run_folder.CHECKPOINTS
        if not inner.is_dir():
            raise CheckpointError(f"{path} is no run folder: it has no {run_folder.CHECKPOINTS}/ in it")
        return checkpoint.newest_good(inner, console.say)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; give a checkpoint (*.safetensors) or a run folder")
    if path.suffix == ".toml":
        raise CheckpointError(f"{path} is a recipe; begin with it anew by: trainkit run {path}")
    return path, checkpoint.read(path)


def _later(file: Path, saved: Mapping[str, Any]) -> bool:
    for other in file.parent.glob("*-*.safetensors"):
        if other.name != file.name:
            try:
                header = checkpoint.read_header(other)
            except CheckpointError:
                continue  # a damaged file is not a later state of the run
            if header["step"] > saved["step"] or header["epoch"] > saved["epoch"]:
                return True
    return False


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
