"""Tries a recipe in a few steps: every stage, validation, saving and resuming, in a folder of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from trainkit.engine.resume import resume
from trainkit.engine.start import ExitCode, Extra, RunOutcome, start
from trainkit.events import Live
from trainkit.recipe.smoke_recipe import STEPS, SmokeRecipe, smoke_recipe
from trainkit.words import duration, number_of, some_of

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.engine.live_run import LiveRun
    from trainkit.recipe.resolve import Resolved
    from trainkit.state import State

_BATCHES = 2  # of each split
_TO_RESUME = "to be resumed, as a smoke run is"


def smoke(whole: Resolved, console: Console) -> ExitCode:
    """Try a recipe, and say in one line whether all its parts work.

    Args:
        whole: The recipe.
        console: Prints the messages.

    Returns:
        The exit code: that of the run after its resume.

    Raises:
        TrainkitError: A part does not work; the message names it. The folder of the run is kept.
    """
    began = perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="trainkit-smoke-"))
    doing = "the recipe of the smoke run"
    try:
        tried = smoke_recipe(whole, folder)
        console.tell("smoke", _facts(tried, folder), *_changes(tried, folder))
        doing = "training"
        watch = _Watch(tried.num_stages)
        outcome: RunOutcome | ExitCode = start(tried.resolved, console, extra=_extra(watch))
        assert isinstance(outcome, RunOutcome)
        if outcome.run.state.interrupt_reason == _TO_RESUME:
            doing = "resuming"
            watch.resumed = True
            named = [used.use for used in whole.used if ":" in used.use]
            outcome = resume(outcome.run.state.folder, console, allow_code=named, extra=_extra(watch))
    except BaseException as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        console.say(f"smoke: something does not work, in {doing}: {said}")
        console.say(f"its folder is kept: {folder}")
        raise
    code = outcome.code if isinstance(outcome, RunOutcome) else outcome
    if code is ExitCode.STOPPED:
        console.say(f"smoke: stopped before all was tried; its folder is kept: {folder}")
        return code
    what = f"{number_of(tried.num_stages, 'stage')} of {STEPS} steps, {number_of(watch.evaluations, 'evaluation')}, "
    what += f"saved after {number_of(watch.saved_at, 'step')} and resumed, in {duration(perf_counter() - began)}"
    still = sorted(watch.untouched)
    if still:
        console.say(f"smoke: no gradient reached the groups {some_of(still)}, although they train: {what}")
        code = ExitCode.DOUBTFUL
    elif code is ExitCode.DOUBTFUL:
        console.say(f"smoke: all parts work, but the run is doubtful, as so short a one may be: {what}")
        code = ExitCode.FINISHED
    else:
        console.say(f"smoke: all parts work: {what}")
    shutil.rmtree(folder, ignore_errors=True)
    return code


def _facts(tried: SmokeRecipe, folder: Path) -> dict[str, Any]:
    return {"folder": folder, "stages": tried.num_stages, "changes": tried.changes, "not_tried": tried.not_tried}


def _changes(tried: SmokeRecipe, folder: Path) -> Iterator[str]:
    yield f"smoke run in {folder}, which is removed if all works; what is changed for it:"
    yield from (f"  {each}" for each in tried.changes)
    if tried.not_tried:
        yield "what happens later in the whole run is not tried:"
        yield from (f"  {each}" for each in tried.not_tried)


def _extra(watch: _Watch) -> Extra:
    def make(run: LiveRun) -> _Watch:
        run.state.data = _FirstBatches(run.state.data)
        return watch

    return {"smoke": make}


class _FirstBatches:
    """Opened data whose splits end after a few batches."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def evaluate(self, split: str) -> Iterator[Any]:
        """Yield the first batches of a split."""
        return islice(self._data.evaluate(split), _BATCHES)


class _Watch(Live):
    """Part of a smoke run: interrupts it in its last epoch, and sees which groups get a gradient."""

    def __init__(self, num_stages: int) -> None:
        self._num_stages = num_stages
        self._touched: set[str] = set()
        self.untouched: set[str] = set()
        self.evaluations = 0
        self.saved_at = 0
        self.resumed = False

    def on_step_end(self, state: State) -> None:
        """Look at the gradients, and interrupt the run after the first step of its last epoch."""
        for name, group in state.groups.items():
            if group.active and group.parameters:
                grads = (each.grad for each in group.parameters.values())
                if any(grad is not None and bool((grad != 0).any()) for grad in grads):
                    self._touched.add(name)
                    self.untouched.discard(name)
                elif name not in self._touched:
                    self.untouched.add(name)
        if not self.resumed and state.epoch == self._num_stages - 1:
            self.saved_at = state.step
            state.interrupt(_TO_RESUME)

    def on_validation_end(self, state: State) -> None:
        """Count the evaluations."""
        self.evaluations += 1
