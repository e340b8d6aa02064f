"""Going on from a checkpoint: which one, where, and what differs from before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from trainkit import checkpoint
from trainkit.engine import folder as run_folder
from trainkit.engine.extension import CHOICES, Begun, Choice, Continued, Place, begun, goes_on, must_choose, trace
from trainkit.engine.run import Run, build
from trainkit.engine.saving import restore
from trainkit.engine.start import Ending, execute
from trainkit.errors import CheckpointError, RecipeError
from trainkit.groups import Stage, stages
from trainkit.loggers import metrics_file
from trainkit.recipe.group_epochs import declared_groups
from trainkit.recipe.resolve import resolve, resolve_text

if TYPE_CHECKING:
    from trainkit.hooks.progress import Console
    from trainkit.recipe.resolve import Resolved
    from trainkit.recipe.root import Recipe
    from trainkit.recipe.structure import AllowCode

_HARMLESS = ("run.name", "run.dir", "run.time_limit", "pictures.", "checkpoint.", "loggers.", "validation.")


def resume(
    path: Path,
    console: Console,
    *,
    sets: Sequence[str] = (),
    recipe: Path | Resolved | None = None,
    epoch: int | None = None,
    on_extend: Choice | None = None,
    allow_code: AllowCode = False,
    extra: Mapping[str, object] | None = None,
) -> Ending | None:
    """Go on from a checkpoint.

    From the newest checkpoint of a run folder it goes on in that folder; from an earlier one, in a new folder that
    names its parent. Before anything runs it says what differs.

    Args:
        path: A checkpoint file; a run folder, or a folder of such (the newest one is taken); or a name below runs/.
        console: Where to speak.
        sets: Changes of the recipe, as ``a.b=c``.
        recipe: A recipe to use instead of the one in the checkpoint.
        epoch: Of a run folder, take the checkpoint with so many finished epochs, not the newest.
        on_extend: How learning rates go on when the run's length or a schedule is another.
        allow_code: Which classes that the checkpoint's recipe names as ``module:Class`` may be imported: all, none, or
            those listed.
        extra: Further live parts, called last.

    Returns:
        How the run ended; None if there was nothing left to do.

    Raises:
        CheckpointError: There is no good checkpoint, or it does not fit.
        RecipeError: The changed recipe is wrong, it names code and that was not allowed, or ``on_extend`` has to be
            said.
    """
    console.log_to(None)
    file, saved = find(path, epoch, console)
    if recipe is not None:
        resolved = resolve(recipe, sets) if isinstance(recipe, Path) else recipe
    else:
        source = f"the recipe in {file}"
        resolved = resolve_text(saved["recipe"], Path.cwd(), sets, source=source, allow_code=allow_code)
    if saved["epoch"] >= resolved.recipe.run.num_epochs(saved["steps_per_epoch"]):
        console.say(f"{file}: all {saved['epoch']} epochs are finished; nothing is left to do")
        return None
    then = resolve_text(saved["recipe"], Path.cwd(), source="the checkpoint's recipe", allow_code=allow_code).recipe
    if on_extend is None:
        _ask_early(resolved.recipe, then, saved)
    old_folder = file.parent.parent if file.parent.name == run_folder.CHECKPOINTS else None
    in_place = old_folder is not None and not _is_followed(file, saved)
    folder = old_folder if old_folder is not None and in_place else run_folder.create(resolved, parent=file)
    with run_folder.lock(folder), console.heard():
        try:
            run = build(resolved, folder)
            for name, part in (extra or {}).items():
                run.add(name, part)
            old = _begun(then, saved, {name: _name_then(name, run, saved) for name in run.stages.stages})
            groups = _groups(run.stages.stages, old, _place(run, saved), on_extend)
            loaded = restore(run, saved, groups)
        except BaseException:
            if not in_place:
                shutil.rmtree(folder)  # nothing was run in it
            raise
        if in_place:
            run_folder.describe(folder, resolved)
        if old_folder is not None:
            metrics_file.cut_back(old_folder, saved["epoch"], into=folder)
        console.log_to(folder / run_folder.LOG)
        console.say(f"run folder: {folder}")
        console.say(f"going on from {file}: {saved['epoch']} epochs, {saved['step']} steps finished")
        for line in (*differences(saved, run), *_told(run, saved, old, groups)):
            console.say(f"  {line}")
        for names, what in ((loaded.fresh, "begin without optimizer state"), (loaded.unused, "are no longer there")):
            if names:
                shown = ", ".join(names[:8]) + (f", … ({len(names)} in all)" if len(names) > 8 else "")
                console.say(f"  parameters that {what}: {shown}")
        return execute(run, console)


def find(path: Path, epoch: int | None, console: Console) -> tuple[Path, dict[str, Any]]:
    """Return the checkpoint that a person means, and its content.

    Args:
        path: See `resume`.
        epoch: The number of finished epochs; None: the newest good one.
        console: Is told of damaged files that are passed over.

    Raises:
        CheckpointError: There is none.
    """
    if path.is_file():
        if path.suffix == ".toml":
            raise CheckpointError(f"{path} is a recipe; begin with it anew by: trainkit run {path}")
        if epoch is not None:
            raise CheckpointError(f"{path} is one checkpoint; --epoch chooses among those of a run folder")
        return path, checkpoint.read(path)
    folder = _run_folder(path) / run_folder.CHECKPOINTS
    if epoch is None:
        return checkpoint.newest_good(folder, console.say)
    file = folder / f"epoch-{epoch:04d}.safetensors"
    if not file.is_file():
        there = ", ".join(str(int(each.stem.partition("-")[2])) for each in sorted(folder.glob("epoch-*.safetensors")))
        raise CheckpointError(
            f"{folder} has no checkpoint of {epoch} finished epochs; there are: {there or 'none'}. "
            "([checkpoint] keep_last and keep_every say which are kept)"
        )
    return file, checkpoint.read(file)


def _run_folder(path: Path) -> Path:
    for candidate in (path, Path("runs") / path):
        if (candidate / run_folder.CHECKPOINTS).is_dir():
            return candidate
        for folder in run_folder.newest_first(candidate.glob("*")):
            return folder
    raise CheckpointError(
        f"there is no run at {path}; give a checkpoint (*.safetensors), a run folder, or the name of a run below runs/"
    )


def _is_followed(file: Path, saved: Mapping[str, Any]) -> bool:
    """Return whether its folder holds a good checkpoint of a later state."""
    for other in file.parent.glob("*-*.safetensors"):
        if other.name != file.name:
            try:
                header = checkpoint.read_header(other)
            except CheckpointError:
                continue  # a damaged file is not a later state of the run
            if (header["step"], header["epoch"]) > (saved["step"], saved["epoch"]):
                return True
    return False


# ---- parameter groups -----------------------------------------------------------------------------------------------


def _ask_early(recipe: Recipe, then: Recipe, saved: Mapping[str, Any]) -> None:
    """Ask how to go on before the data is opened, where settings alone tell that it has to be said.

    Raises:
        RecipeError: It has to be said.
    """
    names = declared_groups(recipe)
    if names is not None and recipe.data == then.data:
        old = _begun(then, saved, {name: name if name in saved["groups"] else None for name in names})
        place = Place(saved["epoch"], saved["epoch_step"], saved["steps_per_epoch"])
        _groups(stages(recipe, names), old, place, on_extend=None)


def _groups(
    new: Mapping[str, Stage], old: Mapping[str, Begun | None], place: Place, on_extend: Choice | None
) -> dict[str, Continued]:
    """Return how each group goes on.

    Raises:
        RecipeError: It has to be said how; names the learning rates that each way gives.
    """
    if on_extend is None:
        open_questions = [name for name in new if must_choose(new[name], old[name], place)]
        if open_questions:
            raise RecipeError(_question(new, old, place, open_questions))
    choice: Choice = on_extend or "stretch"
    return {name: goes_on(stage, old[name], place, choice) for name, stage in new.items()}


def _place(run: Run, saved: Mapping[str, Any]) -> Place:
    return Place(saved["epoch"], saved["epoch_step"], run.state.steps_per_epoch)


def _begun(then: Recipe, saved: Mapping[str, Any], names: Mapping[str, str | None]) -> dict[str, Begun | None]:
    """Return what the checkpoint knows of each group.

    Args:
        then: The checkpoint's recipe.
        saved: The checkpoint.
        names: Group -> what it was called then; None: it was not there.
    """
    written = stages(then, dict.fromkeys(saved["groups"], True))
    return {
        name: None if before is None else begun(written[before], saved["groups"][before])
        for name, before in names.items()
    }


def _name_then(name: str, run: Run, saved: Mapping[str, Any]) -> str | None:
    """Return what a group of the run was called in the checkpoint; one with the same parameters is the same group."""
    if name in saved["groups"]:
        return name
    parameters = sorted(run.state.groups[name].parameters)
    same = (n for n, group in saved["groups"].items() if parameters and sorted(group["parameters"]) == parameters)
    return next(same, None)


def _question(new: Mapping[str, Stage], old: Mapping[str, Begun | None], place: Place, names: Sequence[str]) -> str:
    meaning = {
        "stretch": "as if the new length, or schedule, had always held",
        "hold": "the old curve and then its last value; a new schedule begins at the present rate",
        "restart": "the recipe's rate and schedule anew, over what is left",
    }
    lines = [
        "the run's length or a schedule is another now, and the learning rates can go on in three ways; say which:"
    ]
    for choice in CHOICES:
        rates = []
        for name in names:
            lr = trace(goes_on(new[name], old[name], place, choice), place)
            rates.append(f"{name} {lr[0]:.4g} now, {lr[-1]:.4g} at the end")
        lines.append(f"  --on-extend {choice:8} {'; '.join(rates)}   ({meaning[choice]})")
    return "\n".join(lines)


# ---- what is said beforehand ----------------------------------------------------------------------------------------


def differences(saved: Mapping[str, Any], run: Run) -> Iterator[str]:
    """Yield, for a person, which settings and versions are not as they were."""
    before = dict(_flat(tomli.loads(saved["recipe"])))
    after = dict(_flat(run.resolved.tree))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            effect = "harmless" if key.startswith(_HARMLESS) else "the run goes on differently"
            yield f"changed: {key}: {before.get(key, 'not set')} -> {after.get(key, 'not set')} ({effect})"
    versions = {(used["group"], used["use"]): used["version"] for used in saved["components"]}
    for used in run.resolved.used:
        was = versions.get((used.group, used.use), used.version)
        if was != used.version:
            yield f"warning: {used.where}: {used.use} is of {used.package} {used.version}, was {was}"
    here = run_folder.conditions(run.state.context.device)
    for name, value in saved["conditions"].items():
        if here.get(name) != value:
            yield f"warning: {name} is {here.get(name)}, was {value}: the run will not be the same bit for bit"


def _told(
    run: Run, saved: Mapping[str, Any], old: Mapping[str, Begun | None], groups: Mapping[str, Continued]
) -> Iterator[str]:
    """Yield what becomes of each group, where anything does."""
    place = _place(run, saved)
    kept = set()
    for name, continued in groups.items():
        then = _name_then(name, run, saved)
        if then is None:
            yield f"group {name}: new"
        elif then != name:
            yield f"group {name}: was called {then}"
        kept.add(then)
        stage = continued.stage
        known = old[name]
        if known is None:
            if stage.start_epoch == place.epoch:
                yield f"group {name}: starts now, lr {trace(continued, place)[0]:.6g}"
            continue
        was = known.stage.point(place.epoch, place.epoch_step, place.steps_per_epoch, known.memory).lr
        now = trace(continued, place)[0] if stage.active(place.epoch) else 0.0
        schedules = [type(each.scheduler).__name__ for each in (known.stage, stage)]
        if was != now or schedules[0] != schedules[1] or continued.stage.clock != known.stage.clock:
            change = f", {schedules[0]} -> {schedules[1]}" if schedules[0] != schedules[1] else ""
            yield f"group {name}: lr in epoch {place.epoch}: {was:.6g} -> {now:.6g}{change}"
    for name in saved["groups"]:
        if name not in kept:
            yield f"group {name}: no longer there"


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
