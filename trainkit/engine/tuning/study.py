"""Keeps the trials of a search by Optuna: it proposes their values, and remembers what became of them.

All that imports Optuna stands here. Optuna's state of a trial is RUNNING until its run has ended. A trial whose process
is gone stays so: whoever can lock its folder goes on with it (`Study.next`). Trials whose values are at fault, because
the training diverged or needs too much memory, are PRUNED for Optuna, so that its samplers count them as bad ones and
propose others; Optuna ignores a trial that is a FAIL.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, Trial, TrialState

from trainkit.engine.folder_lock import FolderInUseError, alone_in, lock
from trainkit.engine.tuning.records import Became, TrialRecord
from trainkit.files.writing import make_folder
from trainkit.randomness import random_seed
from trainkit.recipe.search import RANDOM_TRIALS, Parameter, Search

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from trainkit.contracts import Monitor

_LOGGER = logging.getLogger("trainkit")

_NAME = "trainkit"  # of the only study in its storage
_FILES = {"journal": "study.journal", "sqlite": "study.db"}
_FACTOR = 3  # of successive halving
_SECONDS_FOR_SQLITE = 60  # for which a process waits while another one writes


@attrs.frozen
class Claim:
    """A trial that this process has locked, to run it.

    Attributes:
        number: Its number.
        trial: Optuna's trial.
        record: What was known of it when it was claimed.
    """

    number: int
    trial: Any
    record: TrialRecord


class Study:
    """The trials of a search, which several processes may share.

    Args:
        folder: The folder of the search, which is there.
        settings: The table ``[search]``.
        judged_by: The values by which trials are judged.
        length: The number of epochs, or steps, at which validations end; None: not known.
        first: Values of the first trial, of some or all keys: numbers, or what choices are called.
    """

    def __init__(
        self,
        folder: Path,
        settings: Search,
        judged_by: Sequence[Monitor],
        length: int | None,
        first: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder = folder.absolute()
        self._settings = settings
        self._looked_for_orphans = False
        with alone_in(self.folder):
            self._study = optuna.create_study(
                study_name=_NAME,
                storage=_storage(self.folder, settings.storage),
                sampler=_SeededByTrial(lambda number: _sampler(settings, number)),
                pruner=_pruner(settings, length),
                directions=["minimize" if each.mode == "min" else "maximize" for each in judged_by],
                load_if_exists=True,
            )
            if first and not self._study.get_trials(deepcopy=False):
                self._study.enqueue_trial(dict(first))

    def records(self) -> list[TrialRecord]:
        """Return what is known of all trials, in order."""
        known = self._study.get_trials(deepcopy=False)
        return [_record(each) for each in known if each.state != TrialState.WAITING]

    def next(self, most: int, held: contextlib.ExitStack) -> Claim | None:
        """Return a trial to run: one whose process is gone, or a new one.

        Args:
            most: Number of trials of the study.
            held: Keeps the lock of the trial.

        Returns:
            The trial, whose values may not be chosen yet; None: there is nothing left to begin.
        """
        with alone_in(self.folder):
            if not self._looked_for_orphans:
                self._looked_for_orphans = True
                if (found := self._orphan(held)) is not None:
                    self._looked_for_orphans = False  # there may be more
                    return found
            while sum(each.state != TrialState.WAITING for each in self._study.get_trials(deepcopy=False)) < most:
                trial: Any = self._study.ask()
                if self._locked(trial.number, held):
                    return Claim(trial.number, trial, TrialRecord(trial.number, "running", {}))
            return self._orphan(held)

    def _orphan(self, held: contextlib.ExitStack) -> Claim | None:
        for each in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self._locked(each.number, held):
                continue
            now = self._study.get_trials(deepcopy=False)[each.number]
            if now.state == TrialState.RUNNING:
                return Claim(each.number, Trial(self._study, now._trial_id), _record(now))
            held.close()  # another process has finished it just now
        return None

    def _locked(self, number: int, held: contextlib.ExitStack) -> bool:
        """Lock the folder of a trial; return False if another process has it."""
        above = self.folder / trial_name(number)
        make_folder(above)
        try:
            held.enter_context(lock(above))
        except FolderInUseError:
            return False
        return True

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other process of this machine propose values while the block runs."""
        with alone_in(self.folder):
            yield

    def note(self, claim: Claim, **facts: Any) -> None:
        """Remember facts of a trial that is running; they are part of its record."""
        for name, value in facts.items():
            claim.trial.set_user_attr(name, value)

    def facts(self, number: int) -> Mapping[str, Any]:
        """Return the facts of a trial that are remembered."""
        found: Mapping[str, Any] = self._study.get_trials(deepcopy=False)[number].user_attrs
        return found

    def finish(self, claim: Claim, values: Sequence[float], **facts: Any) -> None:
        """End a trial with its values."""
        self.note(claim, **facts)
        self._study.tell(claim.number, list(values))

    def end_early(self, claim: Claim, **facts: Any) -> None:
        """End a trial that was worse than others."""
        self.note(claim, **facts)
        self._study.tell(claim.number, state=TrialState.PRUNED)

    def fail(self, claim: Claim, reason: str, *, by_values: bool, **facts: Any) -> None:
        """End a trial that failed.

        Args:
            claim: The trial.
            reason: Why, in one line.
            by_values: Whether its values are at fault, so that others should be proposed.
            facts: Further facts of it.
        """
        self.note(claim, failed=reason, **facts)
        self._study.tell(claim.number, state=TrialState.PRUNED if by_values else TrialState.FAIL)

    def importances(self, objective: int) -> dict[str, float]:
        """Return the share of each searched key in what makes trials good; none if there are too few trials to tell.

        Args:
            objective: The number of the value by which trials are judged.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found: dict[str, float] = optuna.importance.get_param_importances(
                    self._study, target=lambda trial: trial.values[objective]
                )
        except (ValueError, RuntimeError, ZeroDivisionError):
            return {}
        return {name: float(share) for name, share in found.items()}


def trial_name(number: int) -> str:
    """Return the name of a trial's run, which is that of the folder of its run folders."""
    return f"trial_{number:04d}"


def proposed(claim: Claim) -> Callable[[Parameter], Any]:
    """Return the function that gives a trial the value of a key: what it has already, or else a new proposal."""

    def choose(parameter: Parameter) -> Any:
        name, trial = parameter.name, claim.trial
        if parameter.kind == "choice":
            label = trial.suggest_categorical(name, parameter.labels)
            return parameter.labels.index(label)
        low, high, step, log = parameter.low, parameter.high, parameter.step, parameter.log
        if parameter.kind == "int":
            return trial.suggest_int(name, int(low), int(high), step=int(step or 1), log=log)
        return trial.suggest_float(name, low, high, step=step, log=log)

    return choose


class PruningDecision:
    """Reports the values of a trial to Optuna, and asks whether it should end early.

    Args:
        claim: The trial.
    """

    def __init__(self, claim: Claim) -> None:
        self._trial = claim.trial
        self._known = set(claim.trial.study.get_trials(deepcopy=False)[claim.number].intermediate_values)

    def should_end(self, value: float, at: int) -> bool:
        """Report a value, unless it was reported before, and return whether the trial should end early.

        Args:
            value: The value, which is finite.
            at: Number of finished epochs, or steps.
        """
        if at not in self._known:
            self._known.add(at)
            self._trial.report(value, at)
        return bool(self._trial.should_prune())


def _record(trial: FrozenTrial) -> TrialRecord:
    facts = trial.user_attrs
    failed = facts.get("failed")
    became: Became = "finished" if trial.state == TrialState.COMPLETE else "ended early"
    if trial.state == TrialState.RUNNING:
        became = "running"
    elif failed is not None or trial.state == TrialState.FAIL:
        became = "failed"
    values = trial.values if trial.state == TrialState.COMPLETE else None
    reached = trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None
    known = {field.name for field in attrs.fields(TrialRecord)}
    more = {name: value for name, value in facts.items() if name in known}
    return TrialRecord(
        trial.number,
        became,
        dict(trial.params),
        values=None if values is None else tuple(values),
        reached=reached,
        **{**more, "doubts": tuple(more.get("doubts", ())), "reason": failed or more.get("reason", "")},
    )


class _SeededByTrial(BaseSampler):
    """Makes a sampler anew for each trial, with a seed of its own.

    So what it proposes depends on the number of the trial and on the trials before, and on nothing that ends with a
    process. A sampler that goes on from one seed would repeat its first proposals in each process.

    Args:
        make: Makes the sampler of a trial.
    """

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        self._make = make
        self._number = -1
        self._current: Any = None

    def _of(self, trial: FrozenTrial) -> Any:
        if trial.number != self._number:
            self._number, self._current = trial.number, self._make(trial.number)
        return self._current

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the keys that are proposed together."""
        found: dict[str, BaseDistribution] = self._of(trial).infer_relative_search_space(study, trial)
        return found

    def sample_relative(
        self, study: Any, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose values of keys together."""
        found: dict[str, Any] = self._of(trial).sample_relative(study, trial, search_space)
        return found

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Propose the value of one key."""
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Any, trial: FrozenTrial) -> None:
        """Prepare a trial."""
        self._of(trial).before_trial(study, trial)

    def after_trial(self, study: Any, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Take in the end of a trial."""
        self._of(trial).after_trial(study, trial, state, values)


def _sampler(settings: Search, number: int) -> BaseSampler:
    seed = random_seed(settings.seed, number) % 2**32
    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    if settings.sampler == "gp":
        return GPSampler(seed=seed, n_startup_trials=RANDOM_TRIALS, warn_independent_sampling=False)
    if settings.sampler == "qmc":  # one sequence for all trials, of which the study counts the members
        conditional = RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # Optuna may change its arguments
            return QMCSampler(
                seed=settings.seed, scramble=True, independent_sampler=conditional, warn_independent_sampling=False
            )
    return TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)


def _pruner(settings: Search, length: int | None) -> BasePruner:
    first = max(settings.prune_after, 1)
    if settings.ends_early == "median":
        return MedianPruner(n_startup_trials=settings.prune_after_trials, n_warmup_steps=first)
    if settings.ends_early == "successive_halving":
        return SuccessiveHalvingPruner(min_resource=first, reduction_factor=_FACTOR)
    if settings.ends_early == "hyperband":
        most: Any = "auto" if length is None else max(length, first)
        return HyperbandPruner(min_resource=first, max_resource=most, reduction_factor=_FACTOR)
    return NopPruner()


def _storage(folder: Path, kind: str) -> BaseStorage:
    path = folder / _FILES[kind]
    if kind == "sqlite":
        return RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": _SECONDS_FOR_SQLITE}})
    _mend(path)
    return JournalStorage(JournalFileBackend(str(path)))


def _mend(path: Path) -> None:
    """Cut off what a process that was killed, or a full disk, left of a line: nothing after it could be read."""
    if not path.is_file() or _ends_with_line(path):
        return
    held = JournalFileSymlinkLock(str(path))
    held.acquire()
    try:
        content = path.read_bytes()
        if not _ends_with_line(path):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
            _LOGGER.warning("%s: its last line was not written to its end, and is cut off", path)
    finally:
        held.release()


def _ends_with_line(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if not size:
            return True
        file.seek(size - 1)
        return file.read(1) == b"\n"
