"""Evaluates the weights of an epoch in a second process, while the training goes on with the next epoch.

    training     epoch k ──┬── steps of epoch k+1 ──────────┬─ epoch k is recorded ─ …
                           │ weights          values │
    beside                 └── evaluation of epoch k ─┘

At the end of an epoch, its weights, and all that its checkpoint holds, are copied. The second process evaluates the
copy by the code, from the states of the random generators, and with the number of threads of the training. When the
values arrive, after a step of the next epoch or at the latest when its steps are over, the epoch is recorded: its line
in ``metrics.jsonl``, what loggers write, its place among the best, and its checkpoint. So no file ever holds an epoch
without its values. A process that is killed meanwhile loses that epoch, and is resumed from the one before.

What acts on values, such as a plateau's learning rate or early stopping, acts at the end of epoch k+1 on those of epoch
k, also where they are there before: by the setting ``validation.beside``, not by what is evaluated where, or when.

The first evaluation of each start is made twice, by both processes. Parts of third parties may draw random numbers,
change the model, or keep something to themselves: then the two differ, and the run evaluates in line from then on.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from collections.abc import Mapping
from copy import copy
from multiprocessing import Pipe
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import attrs
import torch

from trainkit.cpus import usable_cpus
from trainkit.engine.evaluation import evaluate
from trainkit.engine.every_run.requests import EDIT
from trainkit.engine.every_run.saving import check_finite, checkpoint_content, saver_of
from trainkit.engine.signals import blocked
from trainkit.errors import PartError
from trainkit.events import fire
from trainkit.randomness import generator_states
from trainkit.recipe.resolve import write
from trainkit.state import EpochValues
from trainkit.words import number_of

if TYPE_CHECKING:
    from trainkit.engine.live_run import LiveRun
    from trainkit.state import State

_LOGGER = logging.getLogger("trainkit")

EVALUATED = ("data", "model", "inference", "losses", "metrics")
"""The first words of the names of the parts that take part in an evaluation."""

PLACE = ("epoch", "step", "epoch_step", "epochs")
"""Attributes of `State` that say how far a run is that is evaluated."""

_OF_EVALUATION = (
    "validation_start",
    "validation_step_end",
    "validation_end",
    "picture",
    "resume",
    "run_start",
    "run_end",
)
_WITH_VALUES = ("validation_start", "validation_step_end", "validation_end", "epoch_end")
_LOOK_SECONDS = 0.05


@attrs.frozen
class _Trial:
    """What the first evaluation of a start found in line.

    Attributes:
        values: The values.
        moved: Whether it drew from the global random generators.
        changed: Whether it changed the model.
    """

    values: dict[str, float]
    moved: bool
    changed: bool


@attrs.define
class _Kept:
    """An epoch whose values are not there yet.

    Attributes:
        before: The content of a checkpoint after its last step, from which a resume evaluates and closes the epoch.
        names: Names of the values that the epoch had before it was evaluated.
        state: The state at the epoch's end.
        content: The content of its checkpoint, without what its values decide.
    """

    before: dict[str, Any]
    names: tuple[str, ...]
    state: State | None = None
    content: dict[str, Any] | None = None


class Beside:
    """The second process, as the training sees it.

    Args:
        run: The run, at the beginning of its training.
    """

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._kept: _Kept | None = None
        self._trial: _Trial | None = None
        self._is_trusted = False
        self._arrived, self._answer = Event(), dict[str, Any]()
        self._training, other = Pipe()
        with blocked():  # signals are the training's to act on
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainkit.engine.beside_worker", str(other.fileno())],
                pass_fds=(other.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        other.close()
        task = {
            "path": sys.path,
            "recipe": write(run.resolved.tree),
            "source": run.resolved.source,
            "folder": run.state.folder,
            "finished": (run.state.epoch, run.state.epoch_step),
            "threads": torch.get_num_threads(),
        }
        self._training.send_bytes(pickle.dumps(task))

    @property
    def is_pending(self) -> bool:
        """Whether the values of an epoch are still to come."""
        return self._kept is not None

    def takes_over(self, with_pictures: bool) -> bool:
        """Return whether the evaluation that is due now is made beside the training.

        Args:
            with_pictures: Whether pictures are made at the end of this epoch; hooks may draw what they see of an
                evaluation.
        """
        run = self._run
        self._judge_trial()
        watching = (each.where for event in ("validation_step_end", "validation_end") for each in run.events[event])
        is_drawn = with_pictures and any(each.startswith("hooks.") for each in watching)
        return self._is_trusted and not (is_drawn or run.state.is_last_epoch or run.state.interrupted)

    def evaluate_in_line(self) -> bool:
        """Evaluate in line; the first time, have it done beside too. Return False if the run was interrupted."""
        run = self._run
        is_first = self._trial is None and not (self._is_trusted or run.state.is_last_epoch)
        if is_first:
            question = _copied(self._question(), {})
            self._ask(question)
        if not evaluate(run):
            return False
        if is_first:
            own = {name: each for name, each in run.state.metrics.items() if self._is_evaluated(name)}
            moved = not is_same(question["generators"], generator_states())
            changed = not is_same(question["model"], run.state.model.state_dict())
            self._trial = _Trial(own, moved, changed)
        return True

    def hand_over(self) -> None:
        """Begin the evaluation of the weights as they are after the epoch's last step."""
        state = self._run.state
        check_finite(self._run)
        before = _copied(checkpoint_content(self._run), {})
        self._kept = _Kept(before, tuple(state.metrics))
        self._ask(self._question() | {"model": before["model"], "average": before["average"]})
        state.awaits_values = True

    def keep_state(self) -> None:
        """Keep the state at the epoch's end, for those who record the epoch."""
        assert self._kept is not None
        state = self._run.state
        self._kept.state = attrs.evolve(
            state,
            metrics=dict(state.metrics),
            pictures={},
            seconds=dict(state.seconds),
            skipped=list(state.skipped),
            groups={name: copy(group) for name, group in state.groups.items()},
        )

    def keep_content(self) -> None:
        """Keep what the checkpoint of the epoch holds."""
        kept, state = self._kept, self._run.state
        assert kept is not None
        assert kept.state is not None
        kept.content = _copied(checkpoint_content(self._run), kept.before)
        kept.state.epoch, kept.state.epoch_step, kept.state.closing = state.epoch, state.epoch_step, False
        kept.state.save_reason, state.save_reason = state.save_reason, None
        state.awaits_values = kept.state.awaits_values = False

    def take_in(self) -> None:
        """Record the epoch if its values are there."""
        if self._kept is not None and self._arrived.is_set():
            self._record()

    def finish(self) -> bool:
        """Wait for the values, and record the epoch.

        Returns:
            False if the run is interrupted meanwhile. The checkpoint is then that of a run which was interrupted before
            it evaluated that epoch, and the steps since then are made again.
        """
        if self._kept is None:
            return True
        state = self._run.state
        with self._run.watch.during("validation"):
            while not self._arrived.wait(_LOOK_SECONDS):
                if state.interrupted and not str(state.interrupt_reason).startswith(EDIT):
                    self._save_before_evaluation()
                    return False
        self._record()
        return True

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._training.close()

    def _judge_trial(self) -> None:
        """Compare the first evaluation of the start in both processes, if both have made it."""
        trial, self._trial = self._trial, None
        if trial is None:
            return
        if not self._arrived.is_set():
            self._trial = trial
            return
        answer, splits = self._answer, self._run.recipe.evaluated_splits()
        if "error" in answer:
            why = str(answer["error"]).strip()
        elif trial.moved:
            why = "an evaluation draws from the global random generators"
        elif trial.changed:
            why = "an evaluation changes the model"
        else:
            beside = answer["metrics"]
            names = [name for name in {**trial.values, **beside} if name.partition("/")[0] in splits]
            differ = [name for name in names if repr(trial.values.get(name)) != repr(beside.get(name))]
            if not differ:
                self._is_trusted = True
                return
            name = differ[0]
            why = f"of the same weights, {name} was {trial.values.get(name)} in line and {beside.get(name)} beside"
        _LOGGER.warning("validation.beside: the run evaluates in line, because %s", why)
        self.end()
        self._run.beside = None

    def _is_evaluated(self, name: str) -> bool:
        return name.partition("/")[0] in self._run.recipe.evaluated_splits()

    def _save_before_evaluation(self) -> None:
        kept, self._kept = self._kept, None
        assert kept is not None
        saver_of(self._run).write_kept(kept.before)

    def _record(self) -> None:
        answer, kept, run = self._answer, self._kept, self._run
        assert kept is not None
        if "error" in answer:
            self._save_before_evaluation()
            raise PartError(
                f"the evaluation of epoch {run.state.epoch} beside the training failed: {answer['error']}\n"
                "It is saved as it was before its evaluation, which trainkit resume makes up for; to evaluate in line, "
                "add --set validation.beside=false"
            )
        self._kept = None
        late = kept.state
        assert late is not None
        assert kept.content is not None
        for level, text in answer["messages"]:
            _LOGGER.log(level, "%s", text)
        for doubt in answer["doubts"]:
            run.state.doubt(doubt)
        first = {name: late.metrics[name] for name in kept.names}
        late.metrics = {**first, **answer["metrics"], **late.metrics}
        late.evaluated_step = run.state.evaluated_step = late.step
        run.not_acted_on = (EpochValues(late.epoch - 1, late.updates, dict(late.metrics)),)
        late.late_rows = answer["rows"]
        content = kept.content | {
            "metrics": dict(late.metrics),
            "evaluated_step": late.step,
            "doubts": list(run.state.doubts),
            "not_acted_on": [attrs.asdict(each) for each in run.not_acted_on],
        }
        with saver_of(run).saving(content):
            fire(run.events["late_values"], late)

    def _question(self) -> dict[str, Any]:
        run, state = self._run, self._run.state
        return {
            **{name: getattr(state, name) for name in PLACE},
            "model": state.model.state_dict(),
            "average": None if run.average is None else run.average.content(),
            "generators": generator_states(),
        }

    def _ask(self, question: Mapping[str, Any]) -> None:
        self._arrived.clear()
        Thread(target=self._exchange, args=(question,), name="beside", daemon=True).start()

    def _exchange(self, question: Mapping[str, Any]) -> None:
        try:
            self._training.send_bytes(pickle.dumps(question))
            self._answer = pickle.loads(self._training.recv_bytes())
        except (EOFError, OSError):
            code = self._process.wait()
            self._answer = {"error": f"its process ended with {f'signal {-code}' if code < 0 else f'code {code}'}"}
        self._arrived.set()


def _copied(node: Any, like: Any) -> Any:
    """Return a copy of a checkpoint's content; a tensor that ``like`` has too, at the same place, is not copied."""
    if isinstance(node, torch.Tensor):
        is_there = isinstance(like, torch.Tensor) and like.shape == node.shape and like.dtype == node.dtype
        return like if is_there and torch.equal(like, node) else node.detach().clone()
    if isinstance(node, Mapping):
        return {key: _copied(each, like.get(key) if isinstance(like, Mapping) else None) for key, each in node.items()}
    if isinstance(node, list | tuple):
        others = like if isinstance(like, list | tuple) and len(like) == len(node) else [None] * len(node)
        return [_copied(each, other) for each, other in zip(node, others, strict=True)]
    return node


def is_same(one: Any, other: Any) -> bool:
    """Return whether two states of generators or models are the same, to the bit; a NaN differs from itself."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return all(is_same(each, other[key]) for key, each in one.items())
    return bool(one == other)


def beside_of(run: LiveRun) -> Beside | None:
    """Return the second process of a run whose recipe asks for it; None: the run evaluates in line, which is said."""
    if not run.recipe.validation.beside:
        return None
    if (why := _why_in_line(run)) is not None:
        _LOGGER.info("validation.beside: the run evaluates in line, because %s; the values are the same", why)
        return None
    return Beside(run)


def _why_in_line(run: LiveRun) -> str | None:
    context, threads = run.state.context, torch.get_num_threads()
    if run.state.is_trial:
        return "it is one of several that are compared"
    if context.device.type != "cpu":
        return f"it computes on {context.device}"
    if context.exchange.num_parts > 1:
        return "its batches are divided"
    if (free := usable_cpus()) < 2 * threads:
        return (
            f"two processes of {number_of(threads, 'thread')} (run.threads) need {2 * threads} CPUs, and it may use "
            f"{free}"
        )
    for event, listening in run.events.items():
        for name in (each.where.partition(",")[0] for each in listening):
            kind = name.partition(".")[0]
            if kind in EVALUATED and event not in _OF_EVALUATION:
                return f"{name} listens to {event}, so not its weights alone may decide what it computes"
            is_checked = kind in ("hooks", "loggers")  # by the rules of recipes
            if not is_checked and kind not in EVALUATED and event in _WITH_VALUES and not _takes_late_values(run, name):
                return f"{name} needs the values of an epoch at its end"
    return None


def _takes_late_values(run: LiveRun, name: str) -> bool:
    return bool(getattr(run.parts[name], "takes_late_values", False))
