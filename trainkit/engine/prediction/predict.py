"""Predicts new inputs with trained models, one after the other; one that fails does not end the others."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch

from trainkit.contracts import HARMLESS, PredictionItem, Predictor
from trainkit.engine.devices import choose_device
from trainkit.engine.fitted_settings import with_fitted_settings
from trainkit.engine.prediction.finished_inputs import FinishedInputs, Origin, origin_of
from trainkit.engine.prediction.progress import PredictionProgress
from trainkit.engine.start import ExitCode
from trainkit.engine.trained_checkpoints import Choice, find_checkpoints
from trainkit.engine.trained_models import load_members
from trainkit.errors import DataError, PartError, RecipeError, TrainkitError, blame
from trainkit.recipe.fields import settings_fields
from trainkit.recipe.tables import to_tables
from trainkit.words import some_of

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.contracts import LivePredictor
    from trainkit.engine.trained_models import LoadedMembers
    from trainkit.recipe.structure import AllowCode

_LONGEST_NAME = 200  # file systems allow 255 bytes, and results have endings


@attrs.frozen
class Share:
    """The part of the inputs that one of several processes predicts.

    Attributes:
        number: Number of the process, from 1.
        of: Number of processes.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read ``i/n``.

        Raises:
            RecipeError: It is something else.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        number, of = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= of:
            raise RecipeError(f'--part must be i/n, the i-th of n equal parts, for example 2/4; got "{text}"')
        return cls(number, of)

    def take(self, items: Sequence[PredictionItem]) -> list[PredictionItem]:
        """Return this share of items: the same for all orders in which they are given, and disjoint from others."""
        return sorted(items, key=lambda item: item.name)[self.number - 1 :: self.of]


def predict(
    runs: Sequence[Path],
    inputs: Sequence[Path],
    out: Path,
    console: Console,
    *,
    choice: Choice = Choice(),  # noqa: B008 (it is frozen)
    sets: Sequence[str] = (),
    device: str = "auto",
    go_on: bool = False,
    share: Share = Share(),
    allow_code: AllowCode = False,
) -> ExitCode:
    """Predict inputs with the models of runs.

    Args:
        runs: The runs, checkpoints or ensembles whose models predict together.
        inputs: Files and folders.
        out: The folder of results.
        console: Prints the messages.
        choice: Which checkpoint of each run predicts.
        sets: Changes to the settings, in the form ``predict.key=value``.
        device: The device, as in ``run.device``.
        go_on: Skip inputs whose result is there already.
        share: The part of the inputs that is predicted.
        allow_code: Which classes that a recipe names as ``module:Class`` may be imported.

    Returns:
        FINISHED, or FAILED if an input could not be predicted.

    Raises:
        RecipeError: The command line is wrong.
        CheckpointError: A checkpoint cannot be used.
        DataError: There is nothing to predict, or the folder of results cannot be written.
    """
    for path in inputs:
        if not path.exists():
            raise RecipeError(f"{path}: there is no such file or folder")
        if path.resolve() == out.resolve():
            raise RecipeError(f"{out} is an input, so it cannot be the folder of results; give another --out")
    console.log_to(None)
    with console.capture_logging():
        chosen = choose_device(device)
        ensemble = find_checkpoints(runs, choice, console.say)
        loaded = load_members(ensemble, sets, chosen, allow_code)
        loaded = attrs.evolve(loaded, settings=with_fitted_settings(loaded, ensemble, console.say))
        progress = PredictionProgress(console)
        try:
            live = loaded.settings.build(loaded.members, chosen, progress.within)
            items = [item for item in live.items(inputs) if not _is_result(item, out)]
        except Exception as error:
            blame(error, "predict")
        if not items:
            raise RecipeError(f"there is nothing to predict in {some_of(list(map(str, inputs)))}")
        _check_names(items)
        mine = share.take(items)
        finished = FinishedInputs(out)
        if not go_on:
            _refuse_results(mine, finished)
        console.log_to(finished.log)
        part = f", part {share.number}/{share.of} of {len(items)}" if share.of > 1 else ""
        models = f"{len(loaded.members)} model{'s' * (len(loaded.members) > 1)}"
        console.say(f"{_count(len(mine))}{part}, {models}, on {chosen}: {out}")
        with progress:
            return _Work(live, loaded, finished, progress, console).run(mine, go_on)


def _is_result(item: PredictionItem, out: Path) -> bool:
    """Return whether an item was found in the folder of results, which may lie in an input folder."""
    return bool(item.files) and all(file.resolve().is_relative_to(out.resolve()) for file in item.files)


def _check_names(items: Sequence[PredictionItem]) -> None:
    """Make sure that each item has a name of its own, under which files can be written.

    Raises:
        DataError: Two have the same.
        PartError: A name cannot be that of a file.
    """
    known: dict[str, PredictionItem] = {}
    for item in items:
        name = item.name
        if not name or name.startswith(".") or re.search(r"[/\\\0]", name) or len(os.fsencode(name)) > _LONGEST_NAME:
            raise PartError(f"predict: an item is called {name!r}, which no file can be called")
        other = known.setdefault(name.casefold(), item)
        if other is not item:
            where = " and ".join(str(each.files[0] if each.files else each.name) for each in (other, item))
            raise RecipeError(f"two inputs are called {name}: {where}. Predict them into two folders")


def _refuse_results(items: Sequence[PredictionItem], finished: FinishedInputs) -> None:
    """Make sure that no result is there already.

    Raises:
        RecipeError: Some are.
    """
    there = [item.name for item in items if finished.record(item.name) is not None]
    if there:
        raise RecipeError(
            f"{finished.folder} holds results of {some_of(there)}; add --continue to predict only what is missing or "
            "has changed, or give another folder"
        )


@attrs.define
class _Work:
    """Predicts items one after the other."""

    live: LivePredictor
    loaded: LoadedMembers
    finished: FinishedInputs
    progress: PredictionProgress
    console: Console

    def run(self, items: Sequence[PredictionItem], go_on: bool) -> ExitCode:
        settings = result_settings(self.loaded.settings)
        failed: dict[str, str] = {}
        done = skipped = 0
        try:
            for number, item in enumerate(items, start=1):
                self.progress.begin(number, len(items), item.name)
                began = time.perf_counter()
                try:
                    found = self._predict(item, settings, go_on)
                except TrainkitError as error:
                    failed[item.name] = str(error)
                except Exception as error:  # the code of a predictor may raise anything
                    failed[item.name] = _in_words(error)
                    self.console.say(traceback.format_exc().rstrip(), shown=False)
                else:
                    done, skipped = done + (found is not None), skipped + (found is None)
                    what = "skipped: finished already" if found is None else found
                    self.progress.end(what, time.perf_counter() - began)
                    continue
                self.progress.end(f"failed: {failed[item.name]}", None)
        except BaseException:
            self.console.say(
                f"stopped: {done + skipped} of {_count(len(items))} are finished; --continue predicts the others"
            )
            raise
        self._report(done, skipped, failed)
        return ExitCode.FAILED if failed else ExitCode.FINISHED

    def _predict(self, item: PredictionItem, settings: Mapping[str, Any], go_on: bool) -> str | None:
        """Predict an item, and return what was found; None: it was finished before."""
        if item.problem is not None:
            raise DataError(item.problem)
        origin = origin_of(item.files, self.loaded.weights, settings)
        if go_on and self._is_finished(item.name, origin):
            return None
        with self._workspace(item.name) as space, torch.inference_mode():
            said = self.live.predict(item, space)
            self.finished.publish(item.name, space, origin)
        return said

    def _is_finished(self, name: str, origin: Origin) -> bool:
        record = self.finished.record(name)
        if record is None:
            return False
        why = origin.difference(record.origin)
        why = f"the result is of {why}" if why else self.finished.what_is_missing(name, record)
        if why:
            self.console.say(f"{name} is predicted again: {why}")
        return why is None

    @contextlib.contextmanager
    def _workspace(self, name: str) -> Iterator[Path]:
        space = self.finished.workspace(name)
        try:
            yield space
        finally:
            shutil.rmtree(space, ignore_errors=True)

    def _report(self, done: int, skipped: int, failed: Mapping[str, str]) -> None:
        say = self.console.say
        before = f", {skipped} finished before" if skipped else ""
        say(f"{_count(done)} predicted{before}; results are in {self.finished.folder}")
        if failed:
            say(f"{_count(len(failed))} failed:")
            for name, why in failed.items():
                say(f"  {name}: {why}")


def _in_words(error: Exception) -> str:
    """Return what went wrong in the code of a predictor or a model."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return f"there is too little memory ({str(error).splitlines()[0] if str(error) else 'MemoryError'})"
    return f"{type(error).__name__}: {error}; the traceback is in the log"


def result_settings(settings: Predictor) -> dict[str, Any]:
    """Return the settings that a result depends on, as tables."""
    harmless = {
        key for key, field in settings_fields(type(settings)).items() if field.metadata.items() >= HARMLESS.items()
    }
    return {key: value for key, value in to_tables(settings, None, Predictor).items() if key not in harmless}


def _count(number: int) -> str:
    return f"{number} input{'s' * (number != 1)}"
