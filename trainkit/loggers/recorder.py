"""Turns the events of a run into what loggers write: values of epochs and of single steps, marks, texts, pictures.

What is logged is decided here, once; a logger says where it goes. Every value has a full name and a place:

    value                                        named like                     place
    of a finished epoch                          train/loss, val/dice, lr/probe finished epochs
    mean norm of a group's gradient in it        grad_norm/probe                finished epochs
    held-out values of the best epoch so far     best/val/dice                  finished epochs
    its times                                    time/epoch_seconds             finished epochs
    a group starts or stops to train             stages/probe_optimization_started, always 1.0
                                                                                finished epochs
    of a single step, or of an evaluation        train/loss, lr/probe, grad_norm/probe, val/dice
    inside an epoch                                                             finished steps

So values of epochs and of steps never share an axis, and a name means the same with every logger.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs

from trainkit.events import Live
from trainkit.loggers.gradient_norms import GradientNorms
from trainkit.state import OF_NO_EPOCH, share_of_waiting

if TYPE_CHECKING:
    import numpy as np

    from trainkit.state import State

By = Literal["epoch", "step"]
"""What a place counts: finished epochs, or finished optimizer steps of the run."""


@attrs.frozen
class Place:
    """Where on its axis something belongs.

    Attributes:
        by: What is counted.
        at: The count.
        epoch: Number of finished epochs then.
        step: Number of finished optimizer steps then.
    """

    by: By
    at: int
    epoch: int
    step: int


class Recorder(Live):
    """The live part of a logger, without what it does with the values: a logger overrides the methods at the end.

    Args:
        every_steps: Optimizer steps between two values of single steps; 0: none are written.
        gradient_norm_every_steps: Steps of an epoch between two gradients whose norms are computed; 0: none are.
    """

    def __init__(self, every_steps: int, gradient_norm_every_steps: int) -> None:
        self._every_steps: float = every_steps or float("inf")
        self._next = self._every_steps
        self._norm_every = gradient_norm_every_steps
        self._norms = GradientNorms()
        self._evaluated: dict[str, float] = {}  # inside an epoch, until all splits are evaluated
        self._late: list[Mapping[str, float]] = [{}, {}]  # norms and times of an epoch whose values come later
        self._best: dict[str, float] = {}  # the values of the best epoch so far

    def on_resume(self, state: State) -> None:
        """Forget what was best, if the values to come cannot be compared with it."""
        if state.redefined(state.monitor.metric):
            self._best = {}

    def on_run_start(self, state: State) -> None:
        """Begin, or continue where the run continues."""
        if state.step:
            self._next = (state.step // self._every_steps + 1) * self._every_steps
        self.begin(state)
        for name, text in _texts(state):
            self.write_text(name, text, _inside(state))

    def on_group_start(self, state: State) -> None:
        """Mark the number of finished epochs after which a group trains."""
        self._mark(f"stages/{state.group}_optimization_started", state)

    def on_group_stop(self, state: State) -> None:
        """Mark the number of finished epochs after which a group no longer trains."""
        self._mark(f"stages/{state.group}_optimization_stopped", state)

    def _mark(self, name: str, state: State) -> None:
        self.write_values({name: 1.0}, Place("epoch", state.epoch, state.epoch, state.step))

    def on_epoch_start(self, state: State) -> None:
        """Forget the last epoch."""
        self._norms.start_epoch()

    def on_backward_end(self, state: State) -> None:
        """Compute the gradient's norms once in a while; they stay on the device."""
        if self._norm_every and (state.steps_in_epoch % self._norm_every == 0 or state.step + 1 >= self._next):
            self._norms.add(state)

    def on_step_end(self, state: State) -> None:
        """Write the step's loss, gradient norms, and the rates that change every step, once in ``every_steps``."""
        if state.step >= self._next:
            self._next += self._every_steps
            assert state.loss is not None
            values = {"train/loss": state.loss.item()}
            if self._norm_every:
                values |= {f"grad_norm/{name}": norm for name, norm in self._norms.last().items()}
            rates = {f"lr/{name}": group.lr for name, group in state.groups.items() if group.lr_by == "step"}
            self.write_values(values | rates, _inside(state))

    def on_validation_end(self, state: State) -> None:
        """Inside an epoch, keep a split's values; an interrupted evaluation is repeated as a whole."""
        if not state.closing:
            own = {name: value for name, value in state.metrics.items() if name.startswith(f"{state.split}/")}
            self._evaluated |= own

    def on_picture(self, state: State) -> None:
        """Write pictures over the step if they are made inside an epoch."""
        if not state.closing and state.pictures:
            self.write_pictures(state.pictures, state.ranks, _inside(state))

    def on_epoch_end(self, state: State) -> None:
        """Write the epoch's values and pictures."""
        place = Place("epoch", state.epoch + 1, state.epoch + 1, state.step)
        norms = {f"grad_norm/{name}": norm for name, norm in self._norms.means().items()}
        if state.awaits_values:
            self._late = [norms, _times(state)]
        else:
            self.write_values({**state.metrics, **norms, **self._best_so_far(state), **_times(state)}, place)
        if state.pictures:
            self.write_pictures(state.pictures, state.ranks, place)

    def on_late_values(self, state: State) -> None:
        """Write the values of an epoch that was evaluated beside the training, and bring them to their place."""
        norms, times = self._late
        place = Place("epoch", state.epoch, state.epoch, state.step)
        self.write_values({**state.metrics, **norms, **self._best_so_far(state), **times}, place)
        self.flush(state)

    def late_state(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was saved at the end of an epoch, with what the values mean that have come since then."""
        return {**saved, "best": dict(self._best)}

    def _best_so_far(self, state: State) -> Mapping[str, float]:
        """Return the held-out values of the epoch whose monitored value is the best so far."""
        name, sign = state.monitor.metric, -1.0 if state.monitor.mode == "min" else 1.0
        value, best = state.metrics.get(name, math.nan), self._best.get(name, -sign * math.inf)
        if math.isfinite(value) and sign * value > sign * best:
            wanted = [each for each in state.about.values if each.partition("/")[0] in state.about.splits]
            self._best = {each: state.metrics[each] for each in [name, *wanted] if each in state.metrics}
        return {f"best/{each}": value for each, value in self._best.items()}

    def on_checkpoint(self, state: State) -> None:
        """Write the values of a whole evaluation inside an epoch over the step, and bring everything to its place."""
        if state.evaluated_step == state.step and self._evaluated:
            self.write_values(self._evaluated, _inside(state))
        self._evaluated = {}
        self.flush(state)

    def on_run_end(self, state: State) -> None:
        """Write the pictures of the run's end, and close."""
        if state.pictures:
            place = Place("epoch", state.epoch, state.epoch, state.step)
            self.write_pictures(state.pictures, state.ranks, place, of_end=True)
        self.close(state)

    def state_dict(self) -> dict[str, Any]:
        """Return the norms that were added up in the current epoch, and the values of the best one so far."""
        return {"gradient_norms": self._norms.state_dict(), "best": dict(self._best)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._norms.load_state_dict(saved["gradient_norms"])
        self._best = {str(name): float(value) for name, value in saved["best"].items()}

    # ---- what a logger does with it ---------------------------------------------------------------------------------

    def begin(self, state: State) -> None:
        """Open what is written to, and remove from it what a killed process wrote after ``state.step`` steps.

        `State.about` says what the run is, and in which folder what happened before was logged.
        """

    def write_values(self, values: Mapping[str, float], place: Place) -> None:
        """Write values under their full names.

        Args:
            values: Full name -> value, of any type that Python's ``float`` takes.
            place: The place of all of them.
        """

    def write_text(self, name: str, markdown: str, place: Place) -> None:
        """Write a text: "recipe", and "resume" if the run continues another start."""

    def write_pictures(
        self,
        pictures: Mapping[str, np.ndarray[Any, Any]],
        ranks: Mapping[str, int],
        place: Place,
        *,
        of_end: bool = False,
    ) -> None:
        """Write pictures.

        Args:
            pictures: Name -> image (height, width, 3) uint8.
            ranks: Name -> its place among the pictures, 1 to 99.
            place: Their place.
            of_end: Whether they were made at the run's end. A run that continues makes them anew at its own end.
        """

    def flush(self, state: State) -> None:
        """Bring what was written to where it survives this process; a checkpoint is written next."""

    def close(self, state: State) -> None:
        """Close; ``state.ended`` says how the run ended."""


def _times(state: State) -> Mapping[str, float]:
    """Return the times of an epoch; after a resume inside it, those since then.

    That of its checkpoint, which is yet to be written, is not known.
    """
    parts = {what: seconds for what, seconds in state.seconds.items() if what not in ("checkpoint", *OF_NO_EPOCH)}
    waited = {} if state.cpu_wait_seconds is None else {"time/cpu_wait_seconds": state.cpu_wait_seconds}
    return {
        "time/epoch_seconds": sum(parts.values()),
        **{f"time/{what}_seconds": seconds for what, seconds in parts.items()},
        "time/share_of_waiting_for_data": share_of_waiting(state.seconds),
        **waited,
    }


def _inside(state: State) -> Place:
    return Place("step", state.step, state.epoch, state.step)


def _texts(state: State) -> Iterator[tuple[str, str]]:
    """Yield the recipe, and what the resume plan says."""
    recipe = state.folder / "recipe.toml"
    yield "recipe", f"```toml\n{recipe.read_text(encoding='utf-8')}\n```"
    if state.about.resume_plan:
        began, *differences = state.about.resume_plan
        lines = differences or ["nothing has changed"]
        yield "resume", "\n".join([began, "", *(f"- {line}" for line in lines)])
