"""Chooses the weights "auto" of regularisers by held-out data, and then runs with them (``trainkit run``).

    runs/NAME_weights/start/…       the run with weights of 0, up to the epoch in which the branches begin
    runs/NAME_weights/tv_0.01/…     a branch: from there to the end of the run, with this weight; and so on
    runs/NAME/…                     the run: from there to the end, with the weights that were chosen
    runs/NAME/…/weight_search.json  what was tried, and what it gave

All of these are runs as of any other recipe, and are what is remembered: a search that was interrupted finds those that
are finished, and continues the one that is not.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from trainkit.checkpoint.content import read_run
from trainkit.checkpoint.file import read_header
from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.engine import run_folder
from trainkit.engine.branches import BRANCHING, Branching, HeldOutItems, SearchRecord, branch_start
from trainkit.engine.every_run import metrics_file
from trainkit.engine.golden_section import search
from trainkit.engine.identity import CHECKPOINTS, identity_of
from trainkit.engine.resume import resume
from trainkit.engine.start import ExitCode, Report, RunOutcome, finished_before, no_report, start
from trainkit.engine.weight_judgement import Facts, Tried, judge
from trainkit.errors import DivergedError, TrainkitError
from trainkit.recipe.inputs import refuse_missing_inputs
from trainkit.recipe.references import escaped
from trainkit.recipe.resolve import changed
from trainkit.recipe.weight_search import between, branch_epochs, search_settings, searched, watched

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.engine.start import Extra
    from trainkit.recipe.resolve import Resolved

_ONE_FILE = {"keep_last": 1, "keep_every": 0, "best": 0}  # of each branch, since only its values are used


class _StoppedError(Exception):
    """A run of the search was stopped, with a checkpoint."""

    def __init__(self, outcome: RunOutcome) -> None:
        super().__init__(outcome.run.state.ended)
        self.outcome = outcome


def run_with_chosen_weights(
    resolved: Resolved, console: Console, *, continue_unfinished: bool, report: Report
) -> tuple[RunOutcome | ExitCode, Path | None]:
    """Choose the weights "auto" of a recipe, and run it with them.

    Args:
        resolved: The recipe.
        console: Prints the messages.
        continue_unfinished: Use what an earlier search has finished, and resume what it has not.
        report: Prints how the run ended.

    Returns:
        How the run ended; or the exit code of one that was finished before, and its folder.

    Raises:
        TrainkitError: A run of the search cannot start, or failed other than by a training that ran away.
    """
    whole = _Search(resolved, console, anew=not continue_unfinished)
    try:
        begin = whole.begin()
        chosen: dict[str, float] = {}
        records: dict[str, Any] = {}
        doubts: list[str] = []
        for name in searched(resolved.recipe):
            tried = whole.tries(begin, name, chosen)
            found = judge(tried, whole.facts(begin, name))
            chosen[name] = found.weight
            records[name] = found.record
            doubts += found.doubts
            console.log_to(None)  # what is said now is in the log of the run that follows
            for line in found.lines:
                console.say(line)
    except _StoppedError as stopped:
        console.say(
            f"\nthe search of weights is not finished ({stopped}); the same command with --continue goes on with it"
        )
        return stopped.outcome, None
    record = SearchRecord({"begins_from": str(begin), "weights": records}, doubts)
    outcome, before = whole.finish(begin, chosen, record, report)
    if isinstance(outcome, RunOutcome) and outcome.code in (ExitCode.FINISHED, ExitCode.DOUBTFUL):
        whole.compare(outcome.run.state.metrics, chosen)
    return outcome, before


@attrs.define
class _Search:
    """The runs of a search.

    Attributes:
        resolved: The recipe with the weights "auto".
        console: Prints the messages.
        anew: Whether nothing of an earlier search is used.
        done: Branches by their weights, which several searches may have in common.
    """

    resolved: Resolved
    console: Console
    anew: bool
    done: dict[tuple[float, ...], Tried] = attrs.Factory(dict)

    def begin(self) -> Path:
        """Make the run that all branches have in common, and return its checkpoint."""
        recipe, names = self.resolved.recipe, searched(self.resolved.recipe)
        started = self._recipe(dict.fromkeys(names, 0.0), "start")
        before = None if self.anew else run_folder.earlier_run(started)
        if before is None or not self._has_begun(before):
            self.console.say(f"\nthe run up to its branches, with {_weights(dict.fromkeys(names, 0.0))}")
            outcome = self._run(started, before, None, {"branching": lambda run: Branching(run, recipe)}, no_report)
            assert isinstance(outcome, RunOutcome)
            state = outcome.run.state
            if state.interrupt_reason != BRANCHING:
                if state.interrupted:
                    raise _StoppedError(outcome)
                raise TrainkitError(
                    f"the run ended after {state.epoch} epochs ({state.ended}), before its branches began; so that "
                    "they begin earlier, make [weight_search] epochs longer, or take out what stops the run"
                )
            before = state.folder
        return CheckpointFolder(before / CHECKPOINTS).newest_good(self.console.say, reader=read_run)[0]

    def _has_begun(self, folder: Path) -> bool:
        """Return whether a run has reached the epoch in which the branches begin, and no later one."""
        newest = CheckpointFolder(folder / CHECKPOINTS, identity_of(folder).id).newest_header()
        if newest is None:
            return False
        epochs = self.resolved.recipe.run.num_epochs(newest["steps_per_epoch"])
        inside = newest["step"] > newest["epoch_step"]
        return bool(newest["epoch"] == branch_start(self.resolved.recipe, epochs) and not inside)

    def tries(self, begin: Path, name: str, chosen: Mapping[str, float]) -> dict[float, Tried]:
        """Return what the branches of one weight reached: weight -> result, in the order in which they were run."""
        recipe, settings = self.resolved.recipe, search_settings(self.resolved.recipe)
        sign = 1.0 if watched(recipe).mode == "min" else -1.0
        tried: dict[float, Tried] = {}
        searching = search(*between(recipe, name), settings.branches)
        weight = next(searching)
        while True:
            weights = {**dict.fromkeys(searched(recipe), 0.0), **chosen, name: weight}
            at = tuple(weights.values())
            if at not in self.done:
                self.console.log_to(None)
                number = f"branch {len(tried) + 1} of at most {settings.branches}"
                self.console.say(f"\n{number}: {_weights(weights)}")
                self.done[at] = self._branch(begin, weights)
            tried[weight] = self.done[at]
            value = tried[weight].value
            try:
                weight = searching.send(math.inf if value is None else sign * value)
            except StopIteration:
                return tried

    def _branch(self, begin: Path, weights: Mapping[str, float]) -> Tried:
        """Run a branch, unless it is finished."""
        recipe = self.resolved.recipe
        metric = watched(recipe).metric
        branch = self._recipe(weights, "_".join(f"{name}_{weight:g}" for name, weight in weights.items()))
        folder = None if self.anew else run_folder.earlier_run(branch)
        try:
            if folder is None or not run_folder.is_finished(folder):
                extra: Extra = {"held_out_items": lambda run: HeldOutItems(run, metric)}
                outcome = self._run(branch, folder, begin, extra, no_report)
                if isinstance(outcome, RunOutcome):
                    if outcome.run.state.interrupted:
                        raise _StoppedError(outcome)
                    folder = outcome.run.state.folder
        except DivergedError as error:
            self.console.say(f"this weight is left out: {str(error).splitlines()[0]}")
            return Tried(None)
        assert folder is not None
        saved = CheckpointFolder(folder / CHECKPOINTS).newest_good(self.console.say, reader=read_run)[1]
        value = saved["metrics"].get(metric)
        if value is None:
            raise TrainkitError(f"{folder} has no {metric}, by which weights are chosen")
        items = saved["parts"].get("held_out_items", {}).get("losses", ())
        lines = [each for each in metrics_file.read(folder) if "seconds" in each and each.get(metric) is not None]
        parent = identity_of(folder).parent
        course = {
            each[metrics_file.EPOCHS]: each[metric]
            for each in lines
            if parent and each[metrics_file.EPOCHS] > parent.epoch
        }
        return Tried(value if math.isfinite(value) else None, tuple(items), course, folder)

    def finish(
        self, begin: Path, weights: Mapping[str, float], record: SearchRecord, report: Report
    ) -> tuple[RunOutcome | ExitCode, Path | None]:
        """Make the rest of the run, with the weights that were chosen."""
        final = self._recipe(weights, None)
        before = None if self.anew else run_folder.earlier_run(final)
        if before is not None:
            parent = identity_of(before).parent
            if parent is None or parent.run != identity_of(begin.parent.parent).id:
                before = None  # a run of its own, with weights that somebody wrote down
        if before is not None and run_folder.is_finished(before):
            self.console.say(f"{before}: finished already")
            return finished_before(run_folder.doubts(before), self.console), before
        outcome = self._run(final, before, begin, {"weight_search": lambda run: record}, report)
        return outcome, before

    def compare(self, metrics: Mapping[str, float], weights: Mapping[str, float]) -> None:
        """Say if the run did not repeat its branch, as on a device whose results differ from time to time."""
        metric, branch = watched(self.resolved.recipe).metric, self.done[tuple(weights.values())]
        value = metrics.get(metric)
        if value is not None and branch.value is not None and value != branch.value:
            self.console.say(
                f"{metric} is {value:.6g}, and was {branch.value:.6g} in the branch with this weight: on this device, "
                "a run is not the same every time"
            )

    def facts(self, begin: Path, name: str) -> Facts:
        """Return what a search is judged by."""
        recipe = self.resolved.recipe
        decides, epochs = watched(recipe), recipe.run.num_epochs(read_header(begin)["steps_per_epoch"])
        return Facts(name, decides.metric, decides.mode, branch_epochs(recipe, epochs))

    def _recipe(self, weights: Mapping[str, float], name: str | None) -> Resolved:
        """Return the recipe with weights; with a name, that of a run of the search."""
        whole = self.resolved
        tables: dict[str, Any] = {"losses": {each: {"weight": weight} for each, weight in weights.items()}}
        if name is not None:
            above = whole.recipe.run.dir / f"{whole.recipe.run.name}_weights"
            tables |= {"run": {"dir": escaped(str(above)), "name": name}, "checkpoint": _ONE_FILE}
        if whole.recipe.weight_search is not None:
            tables["drop"] = ["weight_search"]
        return changed(whole, tables)

    def _run(
        self, resolved: Resolved, before: Path | None, begin: Path | None, extra: Extra, report: Report
    ) -> RunOutcome | ExitCode:
        """Resume a run; or begin one from a checkpoint, or from the beginning."""
        named = [used.use for used in resolved.used if ":" in used.use]
        with contextlib.ExitStack() as choosing:  # until the run folder is locked, no other process may choose
            choosing.enter_context(run_folder.choosing(resolved))
            common: dict[str, Any] = {"locked": choosing.close, "extra": extra, "report": report}
            if before is not None:
                return resume(before, self.console, recipe=resolved, allow_code=named, **common)
            if begin is not None:
                return resume(begin, self.console, recipe=resolved, allow_code=named, branch=True, **common)
            refuse_missing_inputs([resolved])
            return start(resolved, self.console, **common)


def _weights(weights: Mapping[str, float]) -> str:
    return ", ".join(f"losses.{name}.weight = {weight:g}" for name, weight in weights.items())
