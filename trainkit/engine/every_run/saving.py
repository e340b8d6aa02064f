"""Writes the checkpoints of a run, and restores a run from one."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import attrs
import torch

from trainkit.checkpoint.folder import Best, BestValues, CheckpointFolder
from trainkit.checkpoint.in_background import WriterInBackground
from trainkit.checkpoint.optimizer_state import LoadReport, class_name, load_optimizer_state, optimizer_state
from trainkit.engine.agreement import check_replicas, restore_means, running_means
from trainkit.engine.every_run.requests import edits_of
from trainkit.engine.identity import CHECKPOINTS
from trainkit.errors import CheckpointError, NonFiniteError, blame
from trainkit.events import Live
from trainkit.groups.plan import SHARED
from trainkit.randomness import generator_states
from trainkit.recipe.root import COPIED_FROM_BYTES
from trainkit.state import EpochValues
from trainkit.words import some_of

if TYPE_CHECKING:
    from pathlib import Path

    from trainkit.checkpoint.file import Prepared
    from trainkit.engine.live_run import LiveRun
    from trainkit.groups.resuming import ResumedGroup
    from trainkit.state import State

_LOGGER = logging.getLogger("trainkit")


def checkpoint_content(
    run: LiveRun, adopted: Iterable[str] = (), means: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return everything that is needed to resume a run, as JSON values and tensors.

    Args:
        run: The run.
        adopted: Names of checkpoints in its folder that another run wrote.
        means: What `running_means` returned; None: it is called, which all processes have to do.
    """
    state, parameters = run.state, _parameters(run)
    states = run.before_evaluation or run.states()
    return {
        "epoch": state.epoch,
        "step": state.step,
        "epoch_step": state.epoch_step,
        "skipped": list(state.skipped),
        "steps_per_epoch": state.steps_per_epoch,
        "evaluated_step": state.evaluated_step,
        "stop_reason": state.stop_reason,
        "doubts": list(state.doubts),
        "facts": facts_of(run),
        "fingerprint": run.fingerprint,
        "run": run.identity.in_checkpoint(run.recipe_text, run.variables)
        | {"adopted": sorted(adopted), "edits": edits_of(run)},
        "recipe": run.recipe_text,
        "components": [attrs.asdict(used) for used in run.resolved.used],
        "conditions": run.conditions,
        "generators": generator_states(),
        "model": states["model"],
        "average": None if run.average is None else run.average.content(),
        "optimizers": {
            name: optimizer_state(optimizer, _held(optimizer, parameters))
            for name, optimizer in run.optimizers.members.items()
        },
        "groups": {name: _group_content(run, name) for name in run.groups.plans},
        "metrics": dict(state.metrics),
        "not_acted_on": [attrs.asdict(each) for each in run.not_acted_on],
        **(running_means(state) if means is None else means),
        "parts": states["parts"],
    }


def restore(run: LiveRun, saved: Mapping[str, Any], groups: Mapping[str, ResumedGroup]) -> LoadReport:
    """Restore the state of a checkpoint in a newly built run.

    Args:
        run: The run.
        saved: The content of the checkpoint.
        groups: How each parameter group continues.

    Returns:
        Which parameters start without optimizer state, and which saved states are not used.

    Raises:
        CheckpointError: The checkpoint does not fit the run's model or its steps per epoch.
    """
    state = run.state
    state.epoch, state.step, state.epoch_step = saved["epoch"], saved["step"], saved["epoch_step"]
    if state.steps_in_epoch and saved["steps_per_epoch"] != state.steps_per_epoch:
        raise CheckpointError(
            f"the checkpoint was written inside an epoch of {saved['steps_per_epoch']} steps, but an epoch now has "
            f"{state.steps_per_epoch}; to change the number of steps, resume from a checkpoint at an epoch's end"
        )
    try:
        state.model.load_state_dict(saved["model"])
    except Exception as error:  # a model's own load_state_dict may raise anything
        reason = "; ".join(_misfits(saved["model"], state.model.state_dict())) or f"{type(error).__name__}: {error}"
        advice = (
            "Resume with the same model settings, or start a new run with the weights that fit: [initial_weights] with "
            "path and, for example, skip"
        )
        raise CheckpointError(f"the checkpoint does not fit this recipe's model: {reason}. {advice}") from error
    if run.average is not None:
        run.average.restore(saved.get("average"))
    report = _load_optimizers(run, saved)
    for name, group in groups.items():
        run.groups.continue_group(name, group.plan, group.memory)
    for name, known in saved["groups"].items():
        if name in state.groups and known["stopped_at"] is not None:
            state.groups[name].change(stop_epoch=known["stopped_at"])
    state.metrics = dict(saved["metrics"])
    waiting = saved.get("not_acted_on", ())
    run.not_acted_on = tuple(EpochValues(each["epoch"], each["updates"], each["metrics"]) for each in waiting)
    state.skipped = list(saved.get("skipped", ()))
    state.evaluated_step = saved.get("evaluated_step", -1)
    state.doubts = list(saved.get("doubts", ()))
    if state.steps_in_epoch:  # a stop may have been requested when the epoch was not closed yet
        state.stop_reason = saved.get("stop_reason")
    restore_means(state, saved)
    run.saved_means = {key: saved[key] for key in ("running", "running_of_each") if key in saved}
    for name, part in run.parts_with_state.items():
        if name in saved["parts"]:
            try:
                part.load_state_dict(saved["parts"][name])
            except Exception as error:
                blame(error, f"{name}, in load_state_dict")
    run.generators, run.resumed = saved["generators"], True
    return report


def _load_optimizers(run: LiveRun, saved: Mapping[str, Any]) -> LoadReport:
    """Load each optimizer's state: what it saved itself, or else what another optimizer of its class saved."""
    kept: Mapping[str, Any] = saved["optimizers"] if "optimizers" in saved else {SHARED: saved["optimizer"]}
    parameters = _parameters(run)
    fresh: list[str] = []
    for name, optimizer in run.optimizers.members.items():
        held = _held(optimizer, parameters)
        is_of_phase = "." in name  # it starts without a state, whatever the other optimizers saved
        sources = [other for other in kept if other != name and not is_of_phase] + [name] * (name in kept)
        known: dict[str, Any] = {}
        for source in sources:
            if kept[source]["optimizer"] == class_name(optimizer):
                entries = kept[source]["parameters"].items()
                known |= {key: entry for key, entry in entries if key in held and (key not in known or entry["state"])}
        report = load_optimizer_state(optimizer, held, {"optimizer": class_name(optimizer), "parameters": known})
        fresh += [] if is_of_phase else report.fresh
    unused = {key: None for state in kept.values() for key in state["parameters"] if key not in parameters}
    return LoadReport(tuple(fresh), tuple(unused))


def check_finite(run: LiveRun) -> None:
    """Check that the model's state is finite.

    Raises:
        NonFiniteError: A parameter or buffer is NaN or infinite; the message names it.
    """
    with_fractions = {
        name: value
        for name, value in run.state.model.state_dict().items()
        if isinstance(value, torch.Tensor)  # or what a module's get_extra_state returns
        and (value.is_floating_point() or value.is_complex())
    }
    # A sum over what is not finite is not finite either, and is made ten times as fast as a look at each value. It may
    # also be too large a number although all values are finite, so only a look decides.
    sums = [value.sum().abs().to(run.state.context.device, torch.float32) for value in with_fractions.values()]
    if not sums or bool(torch.stack(sums).isfinite().all()):
        return
    for name, value in with_fractions.items():
        if not bool(torch.isfinite(value).all()):
            raise NonFiniteError(f'"{name}" of the model is not finite')


class Saver(Live):
    """Part of every run: writes checkpoints, and removes those that the settings do not keep.

    Args:
        run: The run.
    """

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._folder = CheckpointFolder(run.state.folder / CHECKPOINTS, run.identity.id)
        self._best = BestValues(run.state.monitor, run.recipe.checkpoint.best)
        self._best_before: list[Best] = []
        self._adopted_before: list[str] = []
        self._ranked_by = [run.state.monitor.metric, run.state.monitor.mode]
        self._writer = WriterInBackground()
        self._newest: Path | None = None
        self._longest_write = 0.0  # seconds
        self._lacks_room = False
        self._late_content: Mapping[str, Any] | None = None

    def take_over(self, adopted: Sequence[str]) -> None:
        """Take over what the checkpoint says that the run was resumed from: which ones in its folder others wrote.

        Those that are not removed yet when that checkpoint is written are among them, as the run may be killed then.
        """
        self._adopted_before = list(adopted)

    def on_resume(self, state: State) -> None:
        """Begin the ranking anew if the values to come cannot be compared with those before, and keep its checkpoints.

        Of checkpoints that are not in this folder, because the run continues in a new one or somebody removed them, the
        ranking begins anew too.
        """
        gone = [each for each in self._best.ranked if not self._folder.holds(each)]
        self._best.ranked = [each for each in self._best.ranked if each not in gone]
        now, why = [state.monitor.metric, state.monitor.mode], state.redefined(state.monitor.metric)
        if self._ranked_by != now:
            why = f"{now[0]} ({now[1]}) is now monitored instead of {self._ranked_by[0]} ({self._ranked_by[1]})"
            self._ranked_by = now
        if why is not None and self._best.ranked:
            self._best_before += self._best.ranked
            kept = ", ".join(each.file_name for each in self._best.ranked)
            self._best.ranked = []
            _LOGGER.warning("what is best begins anew, because %s; the best before is kept: %s", why, kept)
        self._folder.keep_while_best([each.file_name for each in self.all_best] + self._adopted_before, self.all_best)
        if gone:
            names = ", ".join(each.file_name for each in gone)
            _LOGGER.warning("the best so far is not in %s: %s; what is best begins anew", self._folder.path, names)

    def on_checkpoint(self, state: State) -> None:
        """Write a checkpoint if one is due, was requested, or is among the best.

        A large one is copied, and written while the training goes on; the last one of a process is waited for.
        """
        self._writer.raise_error()
        if not state.awaits_values:
            self._save(state)

    def on_late_values(self, state: State) -> None:
        """Rank an epoch whose values have come, and write its checkpoint as `on_checkpoint` would have."""
        self._writer.raise_error()
        self._save(state)

    @contextlib.contextmanager
    def saving(self, content: Mapping[str, Any]) -> Iterator[None]:
        """In the block, checkpoints have a content that was kept, and not that of the run as it is now.

        Args:
            content: The content. Parts with a method ``late_state`` replace what was saved of them, because the values
                that have come since then belong to it.
        """
        self._late_content = content
        try:
            yield
        finally:
            self._late_content = None

    def write_kept(self, content: Mapping[str, Any]) -> None:
        """Write a checkpoint with a content that was kept."""
        self._writer.finish()
        self._write(self._folder.prepare(content), self.all_best)

    def _content(self) -> dict[str, Any]:
        late = self._late_content
        if late is None:
            return checkpoint_content(self._run, self._folder.adopted)
        states = dict(late["parts"])
        for name, part in self._run.parts_with_state.items():
            if hasattr(part, "late_state"):
                states[name] = part.late_state(states[name])
        return {**late, "parts": states, "run": late["run"] | {"adopted": sorted(self._folder.adopted)}}

    def late_state(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ranking with the epoch whose values have come."""
        return self.state_dict()

    def _save(self, state: State) -> None:
        settings = self._run.recipe.checkpoint
        inside = state.steps_in_epoch > 0
        leaving = state.stop_reason is not None or state.interrupted or state.epoch == state.epochs
        by_epochs = not inside and settings.every_epochs > 0 and state.epoch % settings.every_epochs == 0
        value = _monitored_now(self._run, state)
        is_best = value is not None and self._best.would_rank(value)
        if not state.context.exchange.from_first(state.save_reason is not None or leaving or by_epochs or is_best):
            return
        state.save_reason = None
        if self._late_content is None:
            check_replicas(self._run)
            check_finite(self._run)
        self._writer.finish()  # it uses the folder
        if value is not None:
            self._best.take_in(Best(value, state.epoch, state.step if inside else None))
        prepared, best = self._folder.prepare(self._content()), self.all_best
        if leaving or not self._is_worth_a_copy(prepared):
            self._write(prepared, best)
        else:
            state.seconds_in_background = self._longest_write
            self._writer.begin(prepared, partial(self._write, best=best))

    def _is_worth_a_copy(self, prepared: Prepared) -> bool:
        """Return whether a checkpoint is large enough to be written in the background, and memory for it is free.

        In a run with a time limit, the first one is waited for: how long it takes decides when the last one is begun.
        """
        recipe = self._run.recipe
        if not recipe.checkpoint.in_background or prepared.num_bytes < COPIED_FROM_BYTES:
            return False
        if recipe.run.time_limit is not None and not self._longest_write:
            return False
        has_room = self._writer.has_room_for(prepared)
        if not has_room and not self._lacks_room:
            self._lacks_room = True
            _LOGGER.info("checkpoints are not written in the background: there is no memory for another copy of them")
        return has_room

    def _write(self, prepared: Prepared, best: Sequence[Best]) -> None:
        """Write a checkpoint, and remove those that are not kept any more."""
        settings, began = self._run.recipe.checkpoint, monotonic()
        prepared.write()
        self._longest_write = max(self._longest_write, monotonic() - began)
        self._newest = prepared.path
        self._folder.prune(settings.keep_last, settings.keep_every, best, prepared.path)

    def on_run_end(self, state: State) -> None:
        """Wait for a checkpoint that is being written."""
        self._writer.finish()

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint, which is on the disk; None: there is none. One that is being written is waited for."""
        self._writer.wait()
        return self._newest

    @newest.setter
    def newest(self, file: Path | None) -> None:
        self._newest = file

    def becomes_best(self, state: State) -> bool:
        """Return whether the checkpoint that is written now, after the other parts are told, will be the best."""
        value = _monitored_now(self._run, state)
        return value is not None and self._best.would_lead(value)

    @property
    def best(self) -> Best | None:
        """The checkpoint with the best monitored value; None: there is none."""
        return self._best.ranked[0] if self._best.ranked else None

    @property
    def all_best(self) -> list[Best]:
        """The checkpoints that are kept because they are the best, or were before values meant something else."""
        return [*self._best.ranked, *self._best_before]

    def state_dict(self) -> dict[str, Any]:
        """Return the ranking of the best checkpoints."""
        before = [list(each) for each in self._best_before]
        return {"best": self._best.state(), "best_before": before, "ranked_by": self._ranked_by}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore the ranking of the best checkpoints."""
        self._best.restore(saved["best"])
        self._best_before = [Best(*each) for each in saved.get("best_before", [])]
        self._ranked_by = saved.get("ranked_by", self._ranked_by)


def saver_of(run: LiveRun) -> Saver:
    """Return the part of a run that writes its checkpoints."""
    saver = run.parts["saver"]
    assert isinstance(saver, Saver)
    return saver


def _monitored_now(run: LiveRun, state: State) -> float | None:
    """Return the monitored value of the model as it is now; None: there is none, or it is that of an earlier step."""
    metric = state.monitor.metric
    by_evaluation = metric.partition("/")[0] in run.recipe.evaluated_splits()
    if metric not in state.metrics or ((by_evaluation or state.steps_in_epoch) and state.evaluated_step != state.step):
        return None
    return float(state.metrics[metric])


class SavingByFirst(Live):
    """Part of runs of several processes, on all but the first: does what is needed for the checkpoints of that one.

    Args:
        run: The run.
    """

    def __init__(self, run: LiveRun) -> None:
        self._run = run

    def on_checkpoint(self, state: State) -> None:
        """Take part in a checkpoint if one is due."""
        if state.context.exchange.from_first(False):
            state.save_reason = None
            check_replicas(self._run)
            check_finite(self._run)
            running_means(state)


class SaveByTime(Live):
    """Part of runs that also write checkpoints by steps or minutes: requests these checkpoints.

    Args:
        every_steps: Optimizer steps between two checkpoints; 0: not by steps.
        every_minutes: Minutes since the last checkpoint after which one is written; 0: not by time.
    """

    def __init__(self, every_steps: int, every_minutes: float) -> None:
        self._every_steps, self._every_seconds = every_steps, 60.0 * every_minutes
        self._saved = monotonic()
        self._at_epoch_end = False

    def on_step_end(self, state: State) -> None:
        """Request a checkpoint if one is due; after an epoch's last step, at the end of the epoch."""
        by_steps = self._every_steps > 0 and state.step % self._every_steps == 0
        by_time = self._every_seconds > 0 and monotonic() - self._saved >= self._every_seconds
        if by_steps or by_time:
            if state.steps_in_epoch == state.steps_per_epoch or state.step == state.steps:
                self._at_epoch_end = True
            else:
                state.save("steps" if by_steps else "time")

    def on_checkpoint(self, state: State) -> None:
        """Request the checkpoint at the end of an epoch if it is due, and restart the clock when one is written."""
        if self._at_epoch_end and not state.steps_in_epoch:
            state.save("steps or time")
            self._at_epoch_end = False
        if state.save_reason is not None or not state.steps_in_epoch:
            self._saved = monotonic()


def _misfits(saved: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """Yield, in words, the differences in names and shapes between a saved model and this run's."""
    shapes = {
        name: f"{_shape(value)} (here {_shape(here[name])})"
        for name, value in saved.items()
        if name in here and getattr(value, "shape", None) != getattr(here[name], "shape", None)
    }
    for what, names in (
        ("it also has", [name for name in saved if name not in here]),
        ("it lacks", [name for name in here if name not in saved]),
        ("of another shape are", [f"{name} {both}" for name, both in shapes.items()]),
    ):
        if names:
            yield f"{what} {some_of(names, most=4)}"


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"


def facts_of(run: LiveRun) -> dict[str, Any] | None:
    """Return the facts of the opened data; None if it has none.

    Raises:
        PartError: The method ``facts`` of the data failed, or did not return JSON values.
    """
    facts = getattr(run.state.data, "facts", None)
    if facts is None:
        return None
    try:
        found = dict(facts())
        json.dumps(found)
    except Exception as error:
        blame(error, f"{run.data_name}, in facts")
    return found


def _group_content(run: LiveRun, name: str) -> dict[str, Any]:
    group, plan = run.state.groups[name], run.groups.plans[name]
    phase = plan.phase_at(run.state.epoch if run.state.steps_in_epoch else run.state.epoch - 1)
    return {
        "stopped_at": earlier_stop(group.stop_epoch, plan.epochs.stop),
        "phase": phase.name,
        "lr": phase.lr,
        "clock": None if phase.clock is None else list(phase.clock),
        "memory": dict(run.groups.memories[name]),
        "parameters": list(group.parameters),
    }


def earlier_stop(now: int, planned: int) -> int | None:
    """Return the epoch at which a hook stopped a group early; None: the group stops as planned."""
    return now if now < planned else None


def _parameters(run: LiveRun) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for group in run.state.groups.values() for name, parameter in group.parameters.items()}


def _held(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that an optimizer holds."""
    ids = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return {name: parameter for name, parameter in parameters.items() if id(parameter) in ids}
