"""Cross-validation: a run for each fold, the table of what they reached, and an ensemble of them.

    runs/NAME_5folds/fold_0/…       the run of each fold, as of any other recipe
    runs/NAME_5folds/ensemble.json  the runs that predict together, and settings of [predict] that suit them
    runs/NAME_5folds/cases.csv      scores of every case, by the model that was not trained on it; summary.json
    runs/NAME_5folds/folds.csv      the values of each fold

The folder can be moved as a whole: paths in ``ensemble.json`` are relative to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import torch

from trainkit import registry
from trainkit.contracts import Context, Evaluator, HeldOut, HeldOutEvaluation
from trainkit.engine import run_folder
from trainkit.engine.batches import to_device
from trainkit.engine.comparison import CASES, SUMMARY
from trainkit.engine.devices import choose_device
from trainkit.engine.every_run import metrics_file
from trainkit.engine.folder_lock import alone_in
from trainkit.engine.queue import run_all
from trainkit.engine.start import ExitCode, Report
from trainkit.engine.trained_checkpoints import ENSEMBLE, Choice, find_checkpoints
from trainkit.engine.trained_models import load_members
from trainkit.errors import blame
from trainkit.files.tables import write_json, write_table

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.engine.trained_checkpoints import Ensemble
    from trainkit.recipe.fold_recipes import Folds

_TABLE = "folds.csv"


def run_folds(
    folds: Folds, console: Console, *, only: Sequence[int] = (), continue_unfinished: bool, report: Report
) -> ExitCode:
    """Train every fold, and make the ensemble when all are finished.

    Args:
        folds: The cross-validation.
        console: Prints the messages.
        only: The folds to train here, if not all; others are trained by other commands, perhaps at the same time.
        continue_unfinished: Skip finished folds, and resume those that were started before.
        report: Prints how the run of a fold ended.

    Returns:
        The exit code of the command line, as of any queue of runs.
    """
    code = run_all(folds.chosen(only), console, continue_unfinished=continue_unfinished, report=report)
    if code is ExitCode.STOPPED:
        return code
    with alone_in(folds.folder):  # of several commands that train folds, the last one to finish sees that it is
        found = [run_folder.earlier_run(each) for each in folds.recipes]
        finished = [each for each in found if each is not None and run_folder.is_finished(each)]
        if missing := len(found) - len(finished):
            how = "the same command with --continue trains what is missing"
            if only:
                how = "the command that finishes the last one makes it"
            console.say(f"{missing} of {len(found)} folds are not finished, so there is no ensemble yet; {how}")
            return code
        console.log_to(folds.folder / run_folder.LOG)
        with console.capture_logging():
            _make_ensemble(folds, finished, console)
    return code


def _make_ensemble(folds: Folds, runs: Sequence[Path], console: Console) -> None:
    """Show what the folds reached, evaluate their held-out items, and write ``ensemble.json``."""
    values = [_values(run) for run in runs]
    console.say("\nvalues at the checkpoint of each fold that predicts, its best by [monitor]:")
    for line in value_table(values):
        console.say(line)
    write_table(folds.folder / _TABLE, [{"fold": fold, **each} for fold, each in enumerate(_complete(values))])
    found = _evaluate(folds, runs, console)
    for line in found.lines:
        console.say(line)
    if found.rows:
        write_table(folds.folder / CASES, found.rows)
        write_json(folds.folder / SUMMARY, found.summary)
    members = [run.resolve().relative_to(folds.folder.resolve()).as_posix() for run in runs]
    write_json(folds.folder / ENSEMBLE, {"members": members, **found.predict})
    shown = run_folder.short_path(folds.folder)
    console.say(f"ensemble:     {shown / ENSEMBLE}")
    console.say(f"predict with: trainkit predict {quote(str(shown))} INPUT... --out DIR")


def _values(run: Path) -> dict[str, float]:
    """Return the values of a run at the checkpoint that predicts."""
    _, saved = _checkpoint(run).files[0]
    values = {
        name: value
        for line in metrics_file.read(run)
        if line["step"] == saved["step"]
        for name, value in line.items()
        if name not in metrics_file.NO_VALUES and not name.startswith("lr/") and value is not None
    }
    return values or {name: value for name, value in saved["metrics"].items() if not name.startswith("lr/")}


def _complete(values: Sequence[Mapping[str, float]]) -> list[dict[str, float | None]]:
    names = list(dict.fromkeys(name for each in values for name in each))
    return [{name: each.get(name) for name in names} for each in values]


def value_table(values: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """Yield the lines of a table of what each fold reached, with mean and standard deviation.

    Args:
        values: Name -> value of each fold, at the checkpoint that predicts.
    """
    complete = _complete(values)
    names = list(complete[0])
    width = max([len(name) for name in names], default=0)
    titles = [f"fold {fold}" for fold in range(len(values))]
    yield f"{'value':{width}}  {'  '.join(f'{title:>8}' for title in titles)}  mean ± sd over folds"
    for name in names:
        known = [value for each in complete if (value := each[name]) is not None]
        cells = ["-" if each[name] is None else f"{each[name]:.4g}" for each in complete]
        spread = f" ± {stdev(known):.2g}" if len(known) > 1 else ""
        fewer = f" ({len(known)} folds)" if len(known) < len(values) else ""
        yield f"{name:{width}}  {'  '.join(f'{cell:>8}' for cell in cells)}  {fmean(known):.4g}{spread}{fewer}"


def _evaluate(folds: Folds, runs: Sequence[Path], console: Console) -> HeldOutEvaluation:
    """Evaluate the held-out items of all folds by the evaluator of the data, if it has one."""
    use = type(folds.recipes[0].recipe.data).evaluator
    if use is None:
        return HeldOutEvaluation()
    settings: Evaluator = registry.find(Evaluator.entry_points, use)()
    with torch.inference_mode():
        try:
            return settings.evaluate_held_out(_held_out(folds, runs, console))
        except Exception as error:
            blame(error, "evaluators, in evaluate_held_out")


def _held_out(folds: Folds, runs: Sequence[Path], console: Console) -> Iterator[HeldOut]:
    """Yield the held-out items of each fold with the outputs of its model."""
    for fold, (resolved, run) in enumerate(zip(folds.recipes, runs, strict=True), start=1):
        console.say(f"evaluating the held-out items of fold {fold - 1} ({fold} of {len(runs)})")
        recipe = resolved.recipe
        device = choose_device(recipe.run.device)
        named = [used.use for used in resolved.used if ":" in used.use]
        member = load_members(_checkpoint(run), (), device, named).members[0]
        data = recipe.data.build(Context(recipe.run.seed, device, folder=run))
        infer = member.inference.build(data)
        for split in recipe.data.splits():
            for batch in data.evaluate(split) if split != "train" else ():
                batch = to_device(batch, device)
                yield HeldOut(data, batch, infer(member.model, batch))


def _checkpoint(run: Path) -> Ensemble:
    """Return the checkpoint of a run that predicts."""
    return find_checkpoints([run], Choice(), lambda text: None)
