"""A run from Python: described by a recipe, trained, looked at, continued."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from trainkit.errors import RecipeError, TrainkitError
from trainkit.interactive.pictures import Picture, pictures_of
from trainkit.interactive.rows import Rows
from trainkit.recipe.resolve import resolve, resolve_text, write
from trainkit.recipe.root import ASSUMED_STEPS_PER_EPOCH, Recipe
from trainkit.recipe.shipped import shipped
from trainkit.recipe.source import as_sets
from trainkit.recipe.tables import to_tables
from trainkit.registry import name_of

if TYPE_CHECKING:
    from torch import nn

    from trainkit.engine.start import RunOutcome
    from trainkit.groups.resuming import Choice
    from trainkit.recipe.resolve import Resolved
    from trainkit.state import State

Changes = Mapping[str, Any]
"""Settings that differ from the recipe, by dotted keys or as nested tables: ``{"run.epochs": 5, "groups.dr": {…}}``."""


class BestCheckpoint(NamedTuple):
    """The checkpoint with the best monitored value.

    Attributes:
        value: The value.
        epoch: Number of finished epochs in it.
        path: The file.
    """

    value: float
    epoch: int
    path: Path


class Run:
    """One training run: the same as ``trainkit run`` makes, in the same folder, with the same bits.

    The recipe is checked when the object is made, without importing torch. `fit` trains. What there is to see of the
    run is read from its folder whenever it is asked for, also while it trains or when another program trained it
    (`open_run`).

    Args:
        recipe: A recipe file; the name of one that comes with trainkit; its tables as a dict, in which components can
            stand as objects (``{"data": MyData(), …}``); or a `Recipe`.
        changes: Settings that differ from it, by dotted keys, as ``--set`` takes them.
        quiet: Print nothing; the run folder's ``log.txt`` has every message.

    Raises:
        RecipeError: The recipe has mistakes; the message lists all of them.

    Example:
        ::

            run = trainkit.Run("recipe.toml", {"run.epochs": 5})
            run.fit()
            run.metrics["val/loss"]
            run.resume(epochs=10)
    """

    def __init__(
        self, recipe: str | Path | Recipe | Mapping[str, Any], changes: Changes | None = None, *, quiet: bool = False
    ) -> None:
        self._resolved = _resolve(recipe, changes)
        self._quiet = quiet
        self._allow_code: bool = True  # the caller wrote the recipe, or read it
        self._folder: Path | None = None

    @property
    def recipe(self) -> Recipe:
        """The settings of the whole run."""
        return self._resolved.recipe

    @property
    def toml(self) -> str:
        """The complete recipe as TOML, every default written out."""
        return write(self._resolved.tree)

    @property
    def notes(self) -> tuple[str, ...]:
        """What ``trainkit check`` notes about the recipe, besides mistakes."""
        return tuple(map(str, self._resolved.notes))

    @property
    def name(self) -> str:
        """The run's name, which is that of the folder above its run folder."""
        return self.recipe.run.name

    @property
    def folder(self) -> Path:
        """The run folder.

        Raises:
            TrainkitError: The run has none yet.
        """
        if self._folder is None:
            raise TrainkitError(f"the run {self.name} has not started, so it has no folder; fit() starts it")
        return self._folder

    @property
    def state(self) -> str:
        """What became of the run: "not started", "started", "finished", "stopped: …" or "failed: …"."""
        if self._folder is None:
            return "not started"
        from trainkit.engine import run_folder

        starts = run_folder.starts(self._folder)
        return str(starts[-1].get("ended") or "started") if starts else "started"

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the result may be wrong although the run ended well; usually none."""
        from trainkit.engine import run_folder

        return () if self._folder is None else tuple(run_folder.doubts(self._folder))

    def plan(self, steps_per_epoch: int = ASSUMED_STEPS_PER_EPOCH) -> Rows:
        """Return the learning rate of each group in each epoch, None where it does not train.

        Args:
            steps_per_epoch: Optimizer steps of an epoch, on which schedules by steps depend.
        """
        from trainkit.interactive.planned import planned_rates

        return planned_rates(self.recipe, steps_per_epoch)

    def fit(self) -> Run:
        """Train the run to its end; if it had been interrupted, from its last checkpoint on. Returns the run itself.

        Raises:
            TrainkitError: The run cannot start, or failed.
            KeyboardInterrupt: The notebook's stop button or Ctrl-C stopped it: the step was finished and saved, and
                another `fit` goes on from there.
        """
        from trainkit.processes.place import refuse_several_processes

        refuse_several_processes()
        if self._folder is None:
            self._start()
        else:
            self._resume({}, None, None, branch=False)
        return self

    def resume(
        self,
        changes: Changes | None = None,
        *,
        epochs: int | None = None,
        epoch: int | None = None,
        on_extend: Choice | None = None,
    ) -> Run:
        """Continue the run, as ``trainkit resume`` does; what differs is printed before it trains.

        Args:
            changes: Settings to change.
            epochs: Train for so many epochs in all.
            epoch: Begin after so many finished epochs, in a new run folder, instead of at the newest checkpoint.
            on_extend: How learning rates continue if the run's length or a schedule has changed: "stretch", "hold" or
                "restart".

        Returns:
            The run itself; if it continued in a new folder, the run there.

        Raises:
            TrainkitError: The run cannot continue, or failed.
        """
        longer = {} if epochs is None else {"run.epochs": epochs}
        return self._resume({**(changes or {}), **longer}, epoch, on_extend, branch=False)

    def branch(
        self, changes: Changes | None = None, *, epoch: int | None = None, on_extend: Choice | None = None
    ) -> Run:
        """Continue in a new run folder, with this run as its parent, and return the run there; this one stays as it is.

        Args:
            changes: Settings to change.
            epoch: Begin after so many finished epochs; None: at the newest checkpoint.
            on_extend: As in `resume`.

        Raises:
            TrainkitError: The run cannot continue, or failed.
        """
        return self._resume(changes or {}, epoch, on_extend, branch=True)

    @property
    def metrics(self) -> Rows:
        """The values of each epoch, as ``metrics.jsonl`` holds them; ``pandas.DataFrame(run.metrics)`` takes them."""
        return Rows(line for line in self._lines() if "seconds" in line)

    @property
    def metrics_within_epochs(self) -> Rows:
        """The values of splits that were evaluated inside epochs (``validation.every_steps``), by step."""
        return Rows(line for line in self._lines() if "seconds" not in line)

    def _lines(self) -> list[dict[str, Any]]:
        from trainkit.engine.every_run.metrics_file import read

        return [] if self._folder is None else read(self._folder)

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints that the run keeps and that can be read, the newest at the end."""
        from trainkit.checkpoint.folder import CheckpointFolder
        from trainkit.engine.identity import CHECKPOINTS

        return [] if self._folder is None else CheckpointFolder(self._folder / CHECKPOINTS).in_order()

    @property
    def best(self) -> BestCheckpoint | None:
        """The checkpoint with the best value of ``[monitor]``; None: no checkpoint is known as the best."""
        from trainkit.engine.identity import CHECKPOINTS
        from trainkit.engine.trained_checkpoints import best_of

        best = None if self._folder is None else best_of(self._folder)
        if best is None:
            return None
        return BestCheckpoint(best.value, best.epoch, self.folder / CHECKPOINTS / best.file_name)

    @property
    def pictures(self) -> dict[str, Picture]:
        """The pictures of the run by name; a notebook shows ``run.pictures["progress"]``."""
        return {} if self._folder is None else pictures_of(self._folder)

    @property
    def result(self) -> Path:
        """The file with the result that the model wrote at the end, for example ``result.h5`` of a reconstruction.

        Raises:
            TrainkitError: There is none, since the run has not ended, or its model writes none.
        """
        found = sorted(self.folder.glob("result.*"))
        if not found:
            raise TrainkitError(
                f"{self.folder} holds no result file: the run is {self.state}, or its model writes none; load_model() "
                "returns a trained network"
            )
        return found[0]

    def load_model(self, checkpoint: Path | None = None) -> nn.Module:
        """Return the trained model, in eval mode and on the CPU, without opening the training data.

        Args:
            checkpoint: One of `checkpoints`; None: the best, or the newest if none is known as the best.

        Raises:
            CheckpointError: There is no good checkpoint, or the model cannot be built from it.
        """
        from trainkit.console import Console
        from trainkit.engine.trained_checkpoints import Choice, find_checkpoints
        from trainkit.engine.trained_models import build_model, read_parts

        console = Console(self._quiet)
        found = find_checkpoints([checkpoint or self.folder], Choice(), console.say)
        ((file, saved),) = found.files
        _, model = build_model(file, saved, read_parts(file, saved, self._allow_code))
        return model.eval()

    def __repr__(self) -> str:
        """Return the name and what became of the run."""
        where = "" if self._folder is None else f", {str(self._folder)!r}"
        return f"<Run {self.name!r}: {self.state}{where}>"

    def _repr_html_(self) -> str:
        from trainkit.interactive.notebook import curve

        monitor, rows = self.recipe.monitor.metric, self.metrics
        values = [value for value in rows[monitor] if value is not None] if monitor in rows.columns else []
        lines = [f"<b>{escape(self.name)}</b>: {escape(self.state)}, {len(rows)} epochs finished"]
        if (best := self.best) is not None:
            lines.append(f"best {escape(monitor)} {best.value:.5g} after {best.epoch} epochs")
        lines += [f"doubtful: {escape(text)}" for text in self.doubts]
        if self._folder is not None:
            lines.append(f"<code>{escape(str(self._folder))}</code>")
        return "<br>".join(lines) + curve(values, monitor)

    def _start(self) -> None:
        from trainkit.engine.queue import run_one
        from trainkit.engine.start import NOTHING_MORE, RunOutcome
        from trainkit.recipe.weight_search import searched

        console = self._console()
        for note in self.notes:
            console.say(note)
        extra = NOTHING_MORE if searched(self.recipe) else dict(self._extra(self._remember))
        outcome, _ = run_one(self._resolved, console, continue_unfinished=False, report=_say_doubts, extra=extra)
        assert isinstance(outcome, RunOutcome)  # a new run has something to do
        self._remember(outcome.run.state)
        _raise_if_interrupted(outcome)

    def _resume(self, changes: Changes, epoch: int | None, on_extend: Choice | None, *, branch: bool) -> Run:
        from trainkit.engine.edited import with_edits
        from trainkit.engine.resume import resume
        from trainkit.engine.start import RunOutcome
        from trainkit.processes.place import refuse_several_processes

        refuse_several_processes()
        target = _opened(self.folder, self._resolved, self._allow_code, self._quiet)
        asked: dict[str, Any] = {"sets": _as_sets(changes), "epoch": epoch, "on_extend": on_extend, "branch": branch}
        console = self._console()
        outcome = with_edits(
            lambda report, extra: resume(
                self.folder, console, allow_code=self._allow_code, report=report, extra=extra, **asked
            ),
            console,
            allow_code=self._allow_code,
            report=_say_doubts,
            extra=dict(self._extra(target._remember)),
        )
        if not isinstance(outcome, RunOutcome):
            return self
        target._resolved = outcome.run.resolved
        target._remember(outcome.run.state)
        if target.folder.samefile(self.folder):
            self._resolved = target._resolved
            target = self
        _raise_if_interrupted(outcome)
        return target

    def _console(self) -> Any:
        from trainkit.console import Console

        return Console(self._quiet)

    def _extra(self, remember: Callable[[State], None]) -> Iterator[tuple[str, Callable[[Any], object]]]:
        """Yield the parts that a run from Python has besides those of every run: name, and what makes it."""
        from trainkit.interactive.notebook import NotebookProgress, in_notebook

        def noted(run: Any) -> object:
            remember(run.state)
            return NotebookProgress() if in_notebook() and not self._quiet else object()

        yield "python", noted

    def _remember(self, state: State) -> None:
        self._folder = state.folder


def open_run(path: str | Path, *, allow_code: bool = False, quiet: bool = False) -> Run:
    """Return a run that was started before, by the command line, by another script or on another machine.

    Args:
        path: A run folder, or the name or id of a run below ``runs/``; of several of one name, the newest is taken.
        allow_code: Whether classes that its recipe names as ``module:Class`` may be imported: that runs their code.
        quiet: Print nothing when it is continued.

    Raises:
        CheckpointError: There is no run.
        RecipeError: Its recipe cannot be used with what is installed.
    """
    from trainkit.engine import run_folder
    from trainkit.engine.finding import run_folder_at
    from trainkit.engine.identity import identity_of

    folder = run_folder_at(Path(path))
    text = identity_of(folder).recipe
    source = folder / run_folder.RECIPE
    if text is None:
        try:
            text = source.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise RecipeError(f"{source} cannot be read: {error}") from error
    resolved = resolve_text(text, Path.cwd(), source=str(source), allow_code=allow_code, resolved=True)
    return _opened(run_folder.at_fixed_place(folder), resolved, allow_code, quiet)


def _opened(folder: Path, resolved: Resolved, allow_code: bool, quiet: bool) -> Run:
    run = Run.__new__(Run)
    run._resolved, run._folder, run._allow_code, run._quiet = resolved, folder, allow_code, quiet
    return run


def _resolve(recipe: str | Path | Recipe | Mapping[str, Any], changes: Changes | None) -> Resolved:
    sets = _as_sets(changes or {})
    if isinstance(recipe, Recipe):
        text = write(to_tables(recipe))
        return resolve_text(text, Path.cwd(), sets, source="the Recipe", name=recipe.run.name)
    if isinstance(recipe, Mapping):
        return resolve_text(write(_plain(recipe)), Path.cwd(), sets, source="the recipe's tables")
    path = Path(recipe)
    if not path.exists() and str(recipe) in (known := shipped()):
        path = known[str(recipe)]
    return resolve(path, sets)


def _as_sets(changes: Changes) -> tuple[str, ...]:
    """Return changes as the values of ``--set``.

    Raises:
        RecipeError: A value cannot be one of a recipe.
    """
    for key, value in changes.items():
        if value is None:
            raise RecipeError(f'{key} is None, which a recipe cannot hold; {{"drop": ["{key}"]}} removes a setting')
    return tuple(as_sets(_plain(changes)))


def _plain(value: Any, key: str = "") -> Any:
    """Return tables of a recipe in which components, paths and numbers of numpy are what TOML has instead of them.

    Raises:
        RecipeError: A value is none that a recipe can hold.
    """
    if isinstance(value, Mapping):
        return {str(name): _plain(each, f"{key}.{name}" if key else str(name)) for name, each in value.items()}
    if attrs.has(type(value)):
        named = {"use": name_of(type(value))} if getattr(type(value), "entry_points", "") else {}
        return named | to_tables(value)
    if isinstance(value, list | tuple):
        return [_plain(each, key) for each in value]
    if isinstance(value, Path):
        return str(value)
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, str | bool | int | float):
        return value
    raise RecipeError(
        f"{key} is of type {type(value).__name__}; a recipe holds text, numbers, true, false, lists, tables"
    )


def _say_doubts(outcome: RunOutcome, console: Any) -> None:
    for text in outcome.run.state.doubts:
        console.say(f"doubtful: {text}")


def _raise_if_interrupted(outcome: RunOutcome) -> None:
    reason = outcome.run.state.interrupt_reason or ""
    if reason.startswith("signal ") or outcome.signal is not None:
        raise KeyboardInterrupt(
            f"{reason or outcome.signal}: the run is saved in {outcome.run.state.folder}; fit() goes on"
        )
