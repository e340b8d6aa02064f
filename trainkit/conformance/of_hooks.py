"""Checks of hooks and loggers in small runs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

from trainkit.conformance.trial import Trial
from trainkit.console import Console
from trainkit.contracts import Hook, Logger
from trainkit.engine.resume import resume
from trainkit.engine.start import start
from trainkit.engine.verify import differences, lines_that_differ, trained
from trainkit.errors import RecipeError, TrainkitError
from trainkit.events import Live
from trainkit.randomness import generators_kept
from trainkit.recipe.resolve import Resolved, resolve_text, write
from trainkit.recipe.tables import to_tables
from trainkit.registry import name_of
from trainkit.state import State

_EPOCHS = 2
_TRIED, _WHOLE = "tried", "whole"


def leaves_the_training_as_it_is(hook: Hook, trials: Iterable[Trial]) -> None:
    """Check that a run trains to the same bits with and without a hook that only observes, logs or saves."""
    if hook.phase == "mutate":
        return
    with _in_a_folder() as folder:
        recipe, trial = _first_that_fits(hook, trials)
        _run(recipe)
        _run(_recipe(trial, None))
        one, other = _contents(folder, _WHOLE, "without")
        found = [line for key in _OF_THE_TRAINING for line in differences(one.get(key), other.get(key), key)]
    assert not found, (
        f'the phase of {type(hook).__name__} is "{hook.phase}", but a run trains to other bits with it than without: '
        f'{found[0]}; give it phase = "mutate", or leave model, batch, gradients and global random numbers as they are'
    )


def continues_after_a_resume(hook: Hook, trials: Iterable[Trial]) -> None:
    """Check that a run that is interrupted inside an epoch and resumed ends with the same state and values."""
    with _in_a_folder() as folder:
        recipe, trial = _first_that_fits(hook, trials)
        _run(recipe)
        stopped = _recipe(trial, hook, "resumed")
        outcome = _run(stopped, interrupted_after=_steps_before(trial))
        if not outcome.run.state.interrupted:
            return
        with generators_kept():
            resume(outcome.run.state.folder, Console(quiet=True), allow_code=True)
        one, other = _contents(folder, _WHOLE, "resumed")
        found = list(differences(one, other))
        values = list(lines_that_differ(next((folder / "runs" / _WHOLE).iterdir()), outcome.run.state.folder))
    assert not found, (
        f"a run that was interrupted inside an epoch and resumed ends otherwise than one without a stop: {found[0]}; "
        "what the hook remembers must be in its state_dict, and load_state_dict must restore it"
    )
    assert not values, f"a run that was interrupted inside an epoch and resumed logs other values: {values[0]}"


def _steps_before(trial: Trial) -> int:
    """Return the number of steps before the interruption: inside the second epoch, if it has two steps."""
    each = int(trial.live_data().batches_per_epoch)
    return each + max(1, each // 2)


class _Interrupting(Live):
    """Interrupts a run after a step."""

    def __init__(self, after: int) -> None:
        self._after = after

    def on_step_end(self, state: State) -> None:
        if state.step == self._after:
            state.interrupt("to resume it")


def _first_that_fits(hook: Hook, trials: Iterable[Trial]) -> tuple[Resolved, Trial]:
    """Return a recipe with the hook that has no mistakes.

    Raises:
        SkipTest: There is none; the message says why.
    """
    why = "no data, model and loss that it accepts can be built here without settings; give samples of some"
    for trial in trials:
        if trial.model is not None and trial.loss is not None:
            try:
                return _recipe(trial, hook), trial
            except RecipeError as error:
                why = " ".join(str(error).split())
    raise SkipTest(f"{type(hook).__name__} cannot be tried in a run: {why}")


def _recipe(trial: Trial, hook: Hook | None, name: str | None = None) -> Resolved:
    tables: dict[str, Any] = {
        "trainkit": 1,
        "run": {"name": name or (_WHOLE if hook is not None else "without"), "epochs": _EPOCHS, "device": "cpu"},
        "checkpoint": {"keep_last": 1},
        "data": _table(trial.data),
        "model": _table(trial.model),
        "losses": {"term": _table(trial.loss)},
    }
    if trial.inference is not None:
        tables["inference"] = _table(trial.inference)
    if hook is not None:
        tables["loggers" if isinstance(hook, Logger) else "hooks"] = {_TRIED: _table(hook)}
    return resolve_text(write(tables), Path.cwd())


def _table(settings: Any) -> dict[str, Any]:
    return {"use": name_of(type(settings)), **to_tables(settings)}


def _run(resolved: Resolved, interrupted_after: int | None = None) -> Any:
    extra = {} if interrupted_after is None else {"interrupting": lambda run: _Interrupting(interrupted_after)}
    try:
        with generators_kept():
            return start(resolved, Console(quiet=True), extra=extra)
    except RecipeError as error:  # the settings do not fit the trial, or something is not installed
        raise SkipTest(f"it cannot be tried in a run: {error}") from error
    except TrainkitError as error:
        raise AssertionError(f"a small run with it fails: {error}") from error


@contextlib.contextmanager
def _in_a_folder() -> Iterator[Path]:
    """Work in a new folder: what a logger writes below the working directory is removed with it."""
    with tempfile.TemporaryDirectory(prefix="trainkit-testing-") as folder, contextlib.chdir(folder):
        yield Path(folder)


_OF_THE_TRAINING = ("model", "average", "optimizers", "groups", "generators")


def _contents(folder: Path, *names: str) -> list[dict[str, Any]]:
    """Return the newest checkpoints of runs, without what says which run it is."""
    folders = [next((folder / "runs" / name).iterdir()) for name in names]
    return [trained(each, lambda _: None, ("run", "recipe")) for each in folders]
