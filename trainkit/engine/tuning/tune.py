"""Searches the best values of a recipe's keys, in trials that several processes may share (``trainkit tune``).

    runs/NAME_search/recipe.toml        what is searched: the recipe, and what a process that joins must have in common
    runs/NAME_search/study.journal      Optuna's record of all trials; or study.db
    runs/NAME_search/trial_0000/…       the run of a trial, as of any other recipe; and so on
    runs/NAME_search/trials.csv         the table of trials
    runs/NAME_search/best.toml          the recipe of the best trial; with several objectives, best_0003.toml, …
    runs/NAME_search/*.png              pictures of the search
    runs/NAME_search/log.txt            what was printed about it

A trial is proposed, locked and run. Its run is what is remembered: a trial whose process was killed is resumed by the
next process that finds it, and one whose run is finished only has its values read.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import attrs

from trainkit.engine import run_folder
from trainkit.engine.identity import digest
from trainkit.engine.older_recipe import compare
from trainkit.engine.start import ExitCode
from trainkit.engine.tuning.best_recipe import best_recipe
from trainkit.engine.tuning.records import TrialRecord, best_trials
from trainkit.engine.tuning.study import Claim, PruningDecision, Study, proposed, trial_name
from trainkit.engine.tuning.table import in_short, rows, table
from trainkit.engine.tuning.trial_run import TrialEnd, forget_the_last_run, how_far, run_trial, values_of
from trainkit.errors import RecipeError
from trainkit.files.tables import write_table
from trainkit.files.writing import make_folder, written_whole
from trainkit.recipe.inputs import refuse_missing_inputs
from trainkit.recipe.origin import dotted
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.references import escaped
from trainkit.recipe.resolve import varied, write
from trainkit.recipe.root import seconds_of
from trainkit.recipe.search import SEARCH, Parameter, SearchSpace, own_values
from trainkit.recipe.tables import plain
from trainkit.words import some_of

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.contracts import Monitor
    from trainkit.recipe.positions import Where
    from trainkit.recipe.resolve import Resolved

TABLE = "trials.csv"
_DEFAULTS: Mapping[Where, Any] = {(SEARCH, "value"): "best", (SEARCH, "storage"): "journal"}  # of `_in_common`
_MOST_STARTS = 3  # of a trial whose process is killed again and again before it gets any further


def tune(resolved: Resolved, console: Console) -> ExitCode:
    """Search the best values of a recipe's keys, as its table ``[search]`` says.

    Args:
        resolved: The recipe.
        console: Prints the messages.

    Returns:
        The exit code of the command line: STOPPED if a trial was interrupted; else FAILED if no trial has values; else
        DOUBTFUL if the result of the best one is doubtful.

    Raises:
        RecipeError: The recipe has no ``[search]``, or its folder holds the search of another one.
        InvalidRecipe: A file that it names is not there.
    """
    if resolved.search is None:
        raise RecipeError(f"{resolved.source} has no [search], which says what is searched; see docs/search.md")
    console.log_to(None)
    search = _Tuning.of(resolved, resolved.search, console)
    refuse_missing_inputs([resolved])
    with console.capture_logging():
        search.open()
    stopped = search.run_trials()  # each run captures messages itself
    with console.capture_logging():
        return search.stop(stopped) if stopped is not None else search.conclude()


@attrs.define
class _Tuning:
    """A search under way.

    Attributes:
        resolved: The recipe.
        space: What is searched.
        console: Prints the messages.
        folder: The folder of the search.
        judged_by: The values by which trials are judged.
        study: The trials.
    """

    resolved: Resolved
    space: SearchSpace
    console: Console
    folder: Path
    judged_by: tuple[Monitor, ...]
    study: Study = attrs.field(init=False)

    @classmethod
    def of(cls, resolved: Resolved, space: SearchSpace, console: Console) -> _Tuning:
        """Return the search of a recipe."""
        run = resolved.recipe.run
        folder = run_folder.at_fixed_place(run_folder.short_path(run.dir / f"{run.name}_search"))
        return cls(resolved, space, console, folder, space.settings.judged_by(resolved.recipe.monitor))

    def open(self) -> None:
        """Begin the search, or go on with it.

        Raises:
            RecipeError: The folder holds the search of another recipe.
        """
        make_folder(self.folder)
        self.console.log_to(self.folder / run_folder.LOG)
        self._refuse_another()
        recipe = self.resolved.recipe
        by_steps = bool(recipe.validation.every_steps)
        length = recipe.run.steps if by_steps else recipe.run.epochs
        own = own_values(self.space.parameters, self.resolved.tree)
        self.study = Study(self.folder, self.space.settings, self.judged_by, length, own)
        known = in_short(self.study.records())
        self.console.say(f"search: {self.folder}, {self.space.settings.trials} trials{known and f'; so far {known}'}")

    def _refuse_another(self) -> None:
        """Write down what is searched; or make sure that it is the same as before."""
        path = self.folder / run_folder.RECIPE
        text = write(self._in_common())
        if not path.is_file():
            with written_whole(path) as new:
                new.write_text(text, encoding="utf-8")
            return
        before = path.read_text(encoding="utf-8")
        found = compare(before, self.resolved, defaults=_DEFAULTS, now=self._in_common())
        if news := found.news:
            self.console.say(news)
        if differ := found.differences:
            raise RecipeError(
                f"{self.folder} holds the search of another recipe: {some_of(differ)} differ{'s' * (len(differ) == 1)} "
                f"from {path}\nStart another search under another name, for example with --set "
                f"run.name={self.resolved.recipe.run.name}_2, or move that folder away. A path that differs from "
                'machine to machine can be written as "${env.NAME}/…".'
            )

    def _in_common(self) -> dict[str, Any]:
        """Return what must be the same in all processes, as a recipe."""
        settings, whole = self.space.settings, self.resolved
        judged = {
            name: {"metric": each.metric, "mode": each.mode}
            for name, each in zip(settings.objectives or ("",), self.judged_by, strict=True)
        }
        search: dict[str, Any] = judged[""] if not settings.objectives else {"objectives": judged}
        search |= {"value": "best" if settings.takes_best else "last", "storage": settings.storage}
        search["keys"] = {each.name: _as_written(each) for each in self.space.parameters}
        run = {key: value for key, value in whole.tree["run"].items() if key != "dir"}
        return {**whole.tree, "run": run, "search": search}

    # ---- trials -----------------------------------------------------------------------------------------------------

    def run_trials(self) -> str | None:
        """Run trials until none is left to begin; return why the search was interrupted, or None."""
        settings = self.space.settings
        limit = seconds_of(settings.time_limit) if settings.time_limit else None
        began = time.monotonic()
        while limit is None or time.monotonic() - began < limit:
            with contextlib.ExitStack() as held:
                claim = self.study.next(settings.trials, held)
                if claim is None:
                    return None
                end = self._run(claim)
            forget_the_last_run()
            if end.became == "stopped" or end.signal is not None:
                return end.signal or end.reason
            self._write_results()
        self.console.say(f"\nthe time limit of {settings.time_limit} is over, so no further trial begins")
        return None

    def _run(self, claim: Claim) -> TrialEnd:
        """Run a trial, and remember what became of it."""
        again = bool(claim.record.parameters)
        try:
            with self.study.alone():
                resolved, values = self._recipe(claim)
        except InvalidRecipe as error:
            reason = f"the recipe has a mistake with these values: {str(error).splitlines()[0]}"
            self.console.say(f"\ntrial {claim.number}: failed: {error}")
            self.study.fail(claim, reason, by_values=True)
            return TrialEnd("failed", reason)
        shown = ", ".join(f"{name} = {value}" for name, value in values.items())
        number = f"trial {claim.number} ({claim.number + 1} of {self.space.settings.trials})"
        self.console.say(f"\n{number}{', resumed' if again else ''}: {shown}")
        if (same := self._same_as(claim, resolved)) is not None:
            return self._take_over(claim, same)
        far, starts = how_far(resolved), list(self.study.facts(claim.number).get("starts", ()))
        if again and starts[-_MOST_STARTS:] == [far] * _MOST_STARTS:
            reason = f"its process was killed {_MOST_STARTS} times at the same point; is there too little memory?"
            self.console.say(f"failed: {reason}")
            self.study.fail(claim, reason, by_values=True)
            return TrialEnd("failed", reason)
        self.study.note(claim, starts=[*starts, far])
        should_end = PruningDecision(claim).should_end if self.space.settings.ends_early != "none" else None
        try:
            end = run_trial(resolved, self.console, should_end, self.judged_by[0])
        except BaseException:  # a signal ended the program, which is no failure of the trial
            self._unnote(claim, starts)
            raise
        self.console.log_to(self.folder / run_folder.LOG)
        if end.became == "stopped":
            self._unnote(claim, starts)
        else:
            self._remember(claim, end)
        return end

    def _unnote(self, claim: Claim, starts: Sequence[Any]) -> None:
        """Take back that the run of a trial was started, because its process was not killed."""
        self.study.note(claim, starts=list(starts))

    def _recipe(self, claim: Claim) -> tuple[Resolved, dict[str, str]]:
        """Return the recipe of a trial, and its values in words."""
        own = {"run": {"dir": escaped(str(self.folder)), "name": trial_name(claim.number)}}
        return varied(self.resolved, self.space.parameters, proposed(claim), own)

    def _same_as(self, claim: Claim, resolved: Resolved) -> TrialRecord | None:
        """Return an earlier trial with the same recipe that has ended; None: there is none."""
        run = {key: value for key, value in resolved.tree["run"].items() if key not in ("name", "dir")}
        mark = digest(write({**resolved.tree, "run": run}))
        if self.study.facts(claim.number).get("recipe") is None:
            self.study.note(claim, recipe=mark)
        for each in self.study.records():
            has_ended = each.became in ("finished", "ended early")
            is_same = self.study.facts(each.number).get("recipe") == mark or each.parameters == dict(claim.trial.params)
            if has_ended and each.number < claim.number and is_same:
                return each
        return None

    def _take_over(self, claim: Claim, same: TrialRecord) -> TrialEnd:
        """End a trial as an earlier one with the same recipe ended."""
        self.console.say(f"has the recipe of trial {same.number}, whose result it takes over")
        facts = {"same_as": same.number, "folder": same.folder, "epochs": same.epochs, "epoch": same.epoch}
        if same.values is not None:
            self.study.finish(claim, same.values, doubts=list(same.doubts), **facts)
            return TrialEnd("finished")
        self.study.end_early(claim, reason=same.reason, **facts)
        return TrialEnd("ended early")

    def _remember(self, claim: Claim, end: TrialEnd) -> None:
        """Tell the study how a trial ended, and print it."""
        settings = self.space.settings
        facts: dict[str, Any] = {"doubts": list(end.doubts)}
        found = None
        if end.folder is not None:
            found = values_of(end.folder, self.judged_by, settings.takes_best)
            place = end.folder.resolve().relative_to(self.folder.resolve()).as_posix()
            facts |= {"folder": place, "epochs": found.epochs, "epoch": found.epoch, "seconds": found.seconds}
        if end.became == "ended early":
            self.study.end_early(claim, reason=end.reason, **facts)
            self.console.say(f"trial {claim.number} ended early: {end.reason}")
        elif end.became == "failed" or found is None or found.values is None:
            reason = end.reason or (found.missing if found is not None else "it has no run folder")
            self.study.fail(claim, reason, by_values=end.by_values or end.became != "failed", **facts)
            self.console.say(f"trial {claim.number} failed: {reason}")
        else:
            self.study.finish(claim, found.values, **facts)
            reached = ", ".join(f"{j.metric} {v:.5g}" for j, v in zip(self.judged_by, found.values, strict=True))
            doubtful = ", but is doubtful" if end.doubts else ""
            best = best_trials(self.study.records(), self.judged_by)
            first = best[0] if best else None
            place_now = "on the Pareto front" if len(self.judged_by) > 1 else "the best so far"
            if not any(each.number == claim.number for each in best):
                others = f"the best is trial {first.number}" if first is not None else ""
                place_now = others if len(self.judged_by) == 1 else "beaten by others"
            self.console.say(f"trial {claim.number} reached {reached}{doubtful}: {place_now}")

    # ---- results ----------------------------------------------------------------------------------------------------

    def _write_results(self) -> list[str]:
        """Write the table of trials and the best recipes; return the names of the files."""
        records = self.study.records()
        write_table(self.folder / TABLE, rows(records, self.judged_by, self.space.parameters))
        names = [TABLE]
        best = best_trials(records, self.judged_by)
        for each in best:
            name = "best.toml" if len(self.judged_by) == 1 else f"best_{each.number:04d}.toml"
            text = best_recipe(each, records, self.resolved, self.space, self.judged_by)
            with written_whole(self.folder / name) as new:
                new.write_text(text, encoding="utf-8")
            names.append(name)
        for path in self.folder.glob("best_*.toml"):
            if path.name not in names and re.fullmatch(r"best_\d{4,}\.toml", path.name):
                path.unlink(missing_ok=True)  # it is no longer on the front
        return names

    def stop(self, reason: str) -> ExitCode:
        """Say how the search goes on after an interruption."""
        self._write_results()
        self.console.say(f"\nthe search is not finished ({reason}); the same command goes on with it")
        return ExitCode.STOPPED

    def conclude(self) -> ExitCode:
        """Print the table of trials and what is best, and write all results."""
        from trainkit.engine.tuning.pictures import draw_study

        say, records = self.console.say, self.study.records()
        importances = [self.study.importances(number) for number in range(len(self.judged_by))]
        say("")
        for line in table(records, self.judged_by, self.space.parameters):
            say(line)
        for judged, found in zip(self.judged_by, importances, strict=True):
            if found:
                shares = ", ".join(f"{name} {share:.0%}" for name, share in found.items())
                number = sum(each.values is not None for each in records)
                say(f"what decides {judged.metric}, by {number} finished trials: {shares}")
        written = self._write_results() if records else []
        written += draw_study(self.folder, records, self.judged_by, self.space.parameters, importances, self.console)
        best = best_trials(records, self.judged_by)
        for each in best:
            reached = ", ".join(f"{j.metric} {v:.5g}" for j, v in zip(self.judged_by, each.values or (), strict=True))
            say(f"best: trial {each.number}, {reached} ({self.folder / each.folder})")
            for doubt in each.doubts:
                say(f"doubtful: trial {each.number}: {doubt}")
        say(f"written: {self.folder}: {', '.join(written)}")
        if (others := sum(each.became == "running" for each in records)) > 0:
            are = "trials are" if others > 1 else "trial is"
            say(f"{others} {are} still run by other processes, of which the last one sums up all")
        if not best:
            say("no trial has finished, so there is no best recipe" if others else "no trial has succeeded")
            return ExitCode.FINISHED if others else ExitCode.FAILED
        name = "best.toml" if len(self.judged_by) == 1 else f"best_{best[0].number:04d}.toml"
        say(f"run it with: trainkit run {quote(str(run_folder.short_path(self.folder / name)))}")
        return ExitCode.DOUBTFUL if any(each.doubts for each in best) else ExitCode.FINISHED


def _as_written(parameter: Parameter) -> dict[str, Any]:
    """Return the range or the choices of a key, and its conditions, as tables."""
    made: dict[str, Any] = {}
    if parameter.kind == "choice":
        made["choices"] = [plain(each) for each in parameter.choices]
    else:
        made |= {"low": parameter.low, "high": parameter.high}
        made |= {"step": parameter.step} if parameter.step is not None else {}
        made |= {"log": True} if parameter.log else {}
    if parameter.when:
        made["when"] = {dotted(key): list(values) for key, values in parameter.when.items()}
    return made
