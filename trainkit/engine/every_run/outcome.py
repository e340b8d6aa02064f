"""Judges at a run's end, by its values, whether the result is doubtful and whether the training had converged."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trainkit.engine.every_run import metrics_file
from trainkit.events import Live
from trainkit.words import percent_in_words, some_of

if TYPE_CHECKING:
    from trainkit.contracts import Monitor
    from trainkit.state import State

_LOGGER = logging.getLogger("trainkit")

_RISE_OVER_START = 10.0  # a loss that ends this many times above its first value has diverged
_RISE_OVER_BEST = 100.0
_NOTHING = 1e-6  # of the first value: below it, rounding decides how often a loss falls to a hundredth
_LEAST_VALUES = 10  # with fewer, a trend cannot be told from scatter
_LEAST_FITTED = 4
_SCATTERS = 3.0
_MUCH = 0.1  # of what a loss had fallen, by which it has risen again if the model got worse
_SHARE = 0.02  # of what the whole run gained: a smaller gain at its end is not worth another run
_LARGE_SHARE = 0.1  # a steady fall gives 0.2; ptycho_staged, which ends with a phase that is right to r = 0.9996, 0.07


class Outcome(Live):
    """Part of every run: it looks at the run's ``metrics.jsonl``, so a resumed run is judged as a whole.

    A value that a resume has given another meaning is judged only from there.

    Args:
        options: The options that a resume for more epochs needs, each after a space.
    """

    def __init__(self, options: str = "") -> None:
        self._options = options
        self._first_epochs: dict[
            str, int
        ] = {}  # value -> number of epochs before the first that has its present meaning as a whole

    def on_resume(self, state: State) -> None:
        """Remember from when on the values to come can be compared with each other."""
        names = {name for line in metrics_file.read(state.folder) for name in line if "/" in name}
        begin = state.epoch + (state.steps_in_epoch > 0)
        self._first_epochs |= {name: begin for name in names if state.redefined(name)}

    def state_dict(self) -> dict[str, Any]:
        """Return after how many finished epochs each value got its present meaning."""
        return {"first_epochs": dict(self._first_epochs)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._first_epochs = {str(name): int(epoch) for name, epoch in saved["first_epochs"].items()}

    def on_run_end(self, state: State) -> None:
        """Report what is doubtful, and a value that still improved."""
        if state.failed or state.interrupted or state.is_trial:
            return
        first = self._first_epochs
        lines = [
            {name: value for name, value in line.items() if line[metrics_file.EPOCHS] > first.get(name, 0)}
            for line in metrics_file.read(state.folder)
            if "seconds" in line
        ]
        for text in _diverged(lines, state.monitor):
            state.doubt(text)
        values = [line[state.monitor.metric] for line in lines if line.get(state.monitor.metric) is not None]
        losses = [line["train/loss"] for line in lines if line.get("train/loss") is not None]
        if not state.doubts and state.monitor.mode == "min" and got_worse(values) and got_worse(losses):
            epoch = next(line[metrics_file.EPOCHS] for line in lines if line.get(state.monitor.metric) == min(values))
            _LOGGER.warning(
                "the run made the model worse at its end: %s rose from %.5g after epoch %d to %.5g, and train/loss "
                "from %.5g to %.5g, so this is no overfitting: look for what changes the model besides the losses, "
                "such as a constraint, or a stage that starts",
                *(state.monitor.metric, min(values), epoch, values[-1], min(losses), losses[-1]),
            )
        elif not state.doubts and (found := still_improved(values, state.monitor)) is not None:
            longer = f"--epochs {2 * state.epochs}" if state.steps is None else f"--steps {2 * state.steps}"
            many = found.share > _LARGE_SHARE
            _LOGGER.log(
                logging.WARNING if many else logging.INFO,
                "%s %s still improved by %.3g over its last %d values (scatter %.2g), to %.5g: that is %s of what "
                "it improved in the whole run. %s, for example: trainkit resume %s %s%s",
                "the run had not converged:" if many else "nearly converged:",
                *(state.monitor.metric, found.gain, found.number, found.scatter, values[-1]),
                percent_in_words(found.share),
                "Train for longer" if many else "A longer run may still gain a little",
                *(state.folder, longer, self._options),
            )


def _diverged(lines: Sequence[Mapping[str, Any]], monitor: Monitor) -> Iterator[str]:
    """Yield a sentence about the losses that rose, and one about those that are not finite at the end."""
    if not lines:
        return
    names = [name for name in lines[-1] if name.endswith("/loss") or (name, monitor.mode) == (monitor.metric, "min")]
    risen = {}
    for name in names:
        values = [line[name] for line in lines if line.get(name) is not None]
        if values and rose(values):
            risen[name] = (
                f"{name} ends at {values[-1]:.3g}, after {values[0]:.3g} at first and {min(values):.3g} at best"
            )
    if risen:
        yield (f"the training diverged: {'; '.join(risen.values())}. Lower the learning rates, or clip the gradients")
    broken = [name for name in names if lines[-1][name] is None]
    if broken:
        yield f"at the end, {some_of(broken)} {'is' if len(broken) == 1 else 'are'} not a finite number"


def rose(values: Sequence[float]) -> bool:
    """Return whether a loss ends orders of magnitude above its first or its best value.

    Args:
        values: The value of each epoch, of which there is at least one; finite.
    """
    first, best, last = values[0], min(values), values[-1]
    if last > _RISE_OVER_START * max(abs(first), abs(best)):
        return last > 0
    return best >= 0 and last > _RISE_OVER_BEST * max(best, _NOTHING * first)


def got_worse(values: Sequence[float]) -> bool:
    """Return whether a loss surely rose over the last fifth of a run, by much of what it had fallen before.

    Args:
        values: The value of each epoch; finite.
    """
    if len(values) < _LEAST_VALUES:
        return False
    rise, scatter = _trend(values[-max(_LEAST_FITTED, len(values) // 5) :])
    fallen = values[0] - min(values)
    return rise > _SCATTERS * scatter and values[-1] - min(values) > _MUCH * fallen > 0


class Improvement(NamedTuple):
    """How much a value still improved at a run's end.

    Attributes:
        gain: By how much.
        number: The number of values, the last ones, that a straight line was fitted to.
        scatter: The standard deviation of these values about the line.
        share: The gain over that of the whole run.
    """

    gain: float
    number: int
    scatter: float
    share: float


def still_improved(values: Sequence[float], monitor: Monitor) -> Improvement | None:
    """Return how much a value still improved over the last fifth of a run, if this is more than its scatter.

    A straight line is fitted to the last fifth. Its change is compared with the standard deviation of the values about
    it, and with what the whole run gained.

    Args:
        values: The value of each epoch that has one; finite.
        monitor: In which direction the value improves.

    Returns:
        The improvement; None: there is none, or there are too few values to tell.
    """
    if len(values) < _LEAST_VALUES:
        return None
    sign = -1.0 if monitor.mode == "min" else 1.0
    best = sign * max(sign * value for value in values)
    number = max(_LEAST_FITTED, len(values) // 5)
    last = [sign * value for value in values[-number:]]
    gain, scatter = _trend(last)
    whole = abs(best - values[0])
    if gain <= _SCATTERS * scatter or gain <= _SHARE * whole:
        return None
    return Improvement(gain, number, scatter, gain / max(whole, gain))


def _trend(values: Sequence[float]) -> tuple[float, float]:
    """Return by how much a straight line through values rises, and the standard deviation of the values about it."""
    number = len(values)
    centre, mean = (number - 1) / 2, sum(values) / number
    slope = sum((i - centre) * (value - mean) for i, value in enumerate(values))
    slope /= sum((i - centre) ** 2 for i in range(number))
    residuals = [value - mean - slope * (i - centre) for i, value in enumerate(values)]
    return slope * (number - 1), math.sqrt(sum(residual**2 for residual in residuals) / (number - 2))
