"""Compares predictions with the truth, and writes ``cases.csv`` and ``summary.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from trainkit import registry
from trainkit.contracts import Evaluation, Evaluator, Progress
from trainkit.engine.start import ExitCode
from trainkit.engine.trained_checkpoints import Choice, find_checkpoints
from trainkit.errors import CheckpointError, ComponentError, DataError, RecipeError, blame
from trainkit.files.tables import write_json, write_table
from trainkit.files.writing import make_folder
from trainkit.recipe.problems import Finding, InvalidRecipe
from trainkit.recipe.resolve import resolve
from trainkit.recipe.rules import missing_modules
from trainkit.recipe.source import read_settings
from trainkit.recipe.structure import Structurer

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.contracts import Data

CASES, SUMMARY = "cases.csv", "summary.json"
_WRITTEN_BY = "trainkit evaluate"


def compare(
    predictions: Path,
    truth: Path,
    console: Console,
    *,
    out: Path | None = None,
    recipe: Path | None = None,
    run: Path | None = None,
    sets: Sequence[str] = (),
    tell: Callable[[Progress], None] = lambda progress: None,
    told: Callable[[], None] = lambda: None,
) -> ExitCode:
    """Compare predictions with the truth, print the means, and write the tables.

    Args:
        predictions: The folder of predictions, or a single file.
        truth: The folder of the truth, or a single file.
        console: Prints the messages.
        out: The folder for ``cases.csv`` and ``summary.json``; None: the folder of the predictions.
        recipe: A recipe whose data says what the files mean.
        run: A run, or a checkpoint, whose training data says what the files mean.
        sets: Settings of the evaluator, in the form ``evaluate.key=value``.
        tell: Shows how far the comparison is.
        told: Called when all cases are compared.

    Returns:
        FINISHED; FAILED if a case could not be compared; DOUBTFUL if a case has no prediction or no truth.

    Raises:
        RecipeError: The command line is wrong, or nothing says what the files mean.
        DataError: There is nothing to compare, or the tables cannot be written.
    """
    for path in (predictions, truth):
        if not path.exists():
            raise RecipeError(f"{path}: there is no such file or folder")
    out = out or (predictions if predictions.is_dir() else predictions.parent)
    for name, is_ours in ((CASES, _is_table), (SUMMARY, _is_summary)):
        if (out / name).exists() and not is_ours(out / name):
            raise RecipeError(f"{out / name} was not written by {_WRITTEN_BY}; give another folder with --out")
    data = resolve(recipe).recipe.data if recipe is not None else None
    facts, use = _facts_of(run) if run is not None else (None, None)
    settings = _settings(sets, type(data).evaluator if data is not None else use, data)
    try:
        found = settings.build(data, facts, truth, tell).evaluate(predictions, truth)
    except Exception as error:
        blame(error, "evaluate")
    finally:
        told()
    return _report(found, out, predictions, truth, console)


def _report(found: Evaluation, out: Path, predictions: Path, truth: Path, console: Console) -> ExitCode:
    for line in found.lines:
        console.say(line)
    for sentence in found.unpaired:
        console.say(f"warning: {sentence}")
    if found.rows:
        about = {"written_by": _WRITTEN_BY, "predictions": str(predictions), "truth": str(truth)}
        summary = {**about, **found.summary, "failed": dict(found.failed)}
        try:
            make_folder(out)
            write_table(out / CASES, found.rows)
            write_json(out / SUMMARY, summary)
        except OSError as error:
            raise DataError(
                f"{out}: the tables cannot be written ({error.strerror}); give another folder with --out"
            ) from error
        console.say(f"tables: {out / CASES}, {out / SUMMARY}")
    if found.failed:
        console.say(f"{len(found.failed)} case{'s' * (len(found.failed) != 1)} could not be compared:")
        for name, why in found.failed.items():
            console.say(f"  {name}: {why}")
        return ExitCode.FAILED
    return ExitCode.DOUBTFUL if found.unpaired else ExitCode.FINISHED


def _is_table(path: Path) -> bool:
    """Return whether a file may be replaced by a table of cases."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(100).startswith("case,")


def _is_summary(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("written_by") == _WRITTEN_BY


def _facts_of(run: Path) -> tuple[Mapping[str, Any], str | None]:
    """Return what a run's checkpoint says of its training data, and the evaluator of such data.

    Raises:
        CheckpointError: There is no checkpoint, or it says nothing.
    """
    file, header = find_checkpoints([run], Choice(), lambda text: None).files[0]
    facts = header.get("facts")
    if not isinstance(facts, Mapping):
        raise CheckpointError(f"{file} holds no facts of the training data")
    try:
        use = tomli.loads(header["recipe"])["data"]["use"]
        return facts, None if ":" in use else registry.find("trainkit.data", use).evaluator
    except (ComponentError, KeyError, TypeError, ValueError, AttributeError):
        return facts, None  # the package of the data is not installed here; the facts are enough


def _settings(sets: Sequence[str], usual: str | None, data: Data | None) -> Evaluator:
    """Return the evaluator with its settings.

    Args:
        sets: The settings, in the form ``evaluate.key=value``.
        usual: The evaluator of the data, if it is known.
        data: The data of a recipe.

    Raises:
        RecipeError: The settings are wrong, or no evaluator is known.
    """
    layer, found = read_settings(sets)
    for key in layer.tree:
        if key != "evaluate":
            mistake = "has no effect on an evaluation; only evaluate.… can be set"
            found.append(Finding(mistake, (key,), origin=layer.origins[key,]))
    table = layer.tree.get("evaluate", {})
    if usual is None and data is not None and "use" not in table:
        raise RecipeError(f"nothing is evaluated with {type(data).__name__}: it has no evaluator")
    known = [each.name for each in registry.registered(Evaluator.entry_points)]
    if usual is None and len(known) == 1:
        usual = known[0]
    if usual is None and "use" not in table:
        raise RecipeError(
            f"several evaluators are installed ({', '.join(known)}): name one with --set evaluate.use=NAME, or give "
            "--recipe or --run"
        )
    texts = {where: origin.text for where, origin in layer.origins.items() if origin.text is not None}
    structurer = Structurer(True, texts)
    settings = structurer.value({"use": usual} | table, Evaluator, ("evaluate",))
    found += structurer.findings
    if not found:
        found += missing_modules(("evaluate",), settings)
    if found:
        raise InvalidRecipe(each.located(layer.origins, "the command line") for each in found)
    evaluator: Evaluator = settings
    return evaluator
