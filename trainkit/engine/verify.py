"""Verifies for a recipe that a run that is stopped at any step and resumed ends with the same bits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from trainkit.checkpoint.file import read_header
from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.console import Console
from trainkit.engine import run_folder
from trainkit.engine.build import build
from trainkit.engine.every_run import metrics_file
from trainkit.engine.identity import CHECKPOINTS
from trainkit.engine.resume import resume
from trainkit.engine.start import Extra, RunOutcome, execute
from trainkit.errors import TrainkitError
from trainkit.events import Live
from trainkit.words import number_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainkit.engine.live_run import LiveRun
    from trainkit.recipe.resolve import Resolved
    from trainkit.state import State


class StopAfter(Live):
    """Stops a run after a number of epochs, and requests checkpoints or interruptions after given steps.

    Args:
        epochs: The number of epochs.
        steps: Numbers of finished steps after which a checkpoint is written.
        interruptions: Numbers of finished steps after which the run is interrupted.
    """

    takes_late_values: ClassVar[bool] = True

    def __init__(self, epochs: int, steps: Sequence[int] = (), interruptions: Sequence[int] = ()) -> None:
        self._epochs = epochs
        self._steps, self._interruptions = frozenset(steps), frozenset(interruptions)

    def on_step_end(self, state: State) -> None:
        """Request what is due after this step."""
        if state.step in self._steps:
            state.save("to resume from")
        if state.step in self._interruptions:
            state.interrupt("to resume with another number of processes")

    def on_epoch_end(self, state: State) -> None:
        """Stop the run if this is the last epoch."""
        if state.epoch + 1 == self._epochs:
            state.stop("the epochs to compare are finished")


def verify(resolved: Resolved, epochs: int, num_stops: int, say: Callable[[str], None]) -> bool:
    """Run the first epochs of a recipe without a stop, then resume from several checkpoints, each in a new process.

    Args:
        resolved: The recipe; the runs are written to its ``run.dir``, and its ``checkpoint`` settings must keep all.
        epochs: Number of epochs to compare; at most those that the run has.
        num_stops: Number of checkpoints inside epochs to resume from, in addition to each epoch's end.
        say: Called with a message for each comparison and each difference.

    Returns:
        Whether all runs ended with the same bits.

    Raises:
        TrainkitError: A run failed.
    """
    with run_folder.created(resolved) as folder:
        run = build(resolved, folder)
        per_epoch, epochs = run.state.steps_per_epoch, min(epochs, run.length.epochs)
        steps = _places(epochs * per_epoch, per_epoch, num_stops)
        run.add("verify", StopAfter(epochs, steps))
        execute(run, Console(quiet=True))
    places = {file: read_header(file) for file in CheckpointFolder(folder / CHECKPOINTS).files()}
    say(f"{epochs} epochs of {per_epoch} steps without a stop: {folder}")

    def compare(place: str, resumed: Path) -> bool:
        return say_differences(place, folder, resumed, say)

    same = True
    ordered = sorted(places, key=lambda file: (places[file]["epoch"], places[file]["step"]))
    for file in ordered:
        epoch, inside = places[file]["epoch"], places[file]["step"] - places[file]["epoch_step"]
        if epoch < epochs:
            done = [number_of(number, what) for number, what in ((epoch, "epoch"), (inside, "step")) if number]
            place = f"stopped after {' and '.join(done)}" if done else "stopped at the start"
            same = compare(place, _in_new_process("resume_until", file, epochs)[0]) and same
    if places[ordered[0]]["epoch"] < epochs:
        resumed, events = _in_new_process("interrupt_in_each_event", ordered[0], epochs)
        same = compare(f"interrupted in each of {events}, and resumed each time", resumed) and same
    return same


def say_differences(
    place: str, whole: Path, resumed: Path, say: Callable[[str], None], without: Sequence[str] = ("run",)
) -> bool:
    """Say where the newest checkpoint of a resumed run and its metrics differ from those of the whole run.

    Args:
        place: What is compared with the whole run.
        whole: The folder of the run without a stop.
        resumed: The folder of the other run.
        say: Called with each message.
        without: Keys of the checkpoints that are not compared.

    Returns:
        Whether they are the same to the bit.
    """
    found = list(differences(trained(whole, say, without), trained(resumed, say, without)))
    logged = list(lines_that_differ(whole, resumed))
    say(f"{place}: {'DIFFERENT' if found or logged else 'the same, to the bit'}")
    for line in logged[:1]:
        say(f"  first in {line}")
    for line in found[:8]:
        say(f"  {line}")
    if len(found) > 8:
        say(f"  … and {len(found) - 8} more")
    return not found and not logged


def trained(folder: Path, say: Callable[[str], None], without: Sequence[str] = ("run",)) -> dict[str, Any]:
    """Return the content of a run's newest checkpoint, without the identity of the run, or without other keys."""
    content = CheckpointFolder(folder / CHECKPOINTS).newest_good(say)[1]
    return {name: value for name, value in content.items() if name not in without}


def differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Yield a line for each place where the contents of two checkpoints differ in any bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            if (key in one) != (key in other):
                yield f"{name}/{key}: only in {'the whole run' if key in one else 'the resumed run'}"
            else:
                yield from differences(one[key], other[key], f"{name}/{key}")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            yield f"{name}: {tuple(one.shape)} {one.dtype}, {tuple(other.shape)} {other.dtype}"
        elif _bits(one) != _bits(other):
            largest = (one.to(torch.complex128) - other.to(torch.complex128)).abs().max()
            yield f"{name}: differs by up to {float(largest):.3g}"
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (mine, its) in enumerate(zip(one, other, strict=True)):
            yield from differences(mine, its, f"{name}/{index}")
    elif repr(one) != repr(other):
        yield f"{name}: {_short(one)}, {_short(other)}"


def resume_until(file: str, epochs: str) -> None:
    """Resume from a checkpoint until ``epochs`` epochs are finished, and print the run folder as the last line."""
    outcome = resume(Path(file), Console(quiet=True), allow_code=True, extra=_stopping(epochs))
    if not isinstance(outcome, RunOutcome):
        raise TrainkitError(f"{file}: there is nothing left to run")
    _print_result(outcome.run.state.folder, "")


_EVENTS = (
    *("step_start", "backward_end", "step_end", "validation_start", "validation_step_end", "validation_end"),
    *("epoch_end", "checkpoint", "epoch_start", "group_start", "group_stop", "picture"),
)


def interrupt_in_each_event(file: str, epochs: str) -> None:
    """Resume from a checkpoint as `resume_until` does, but interrupt the run in each event in turn, and resume it."""
    place, met = Path(file), []
    for event in _EVENTS:
        part = _interruption(event)
        extra: Extra = {**_stopping(epochs), "interruption": partial(_itself, part)}
        outcome = resume(place, Console(quiet=True), allow_code=True, extra=extra)
        assert isinstance(outcome, RunOutcome)
        place = outcome.run.state.folder
        if not outcome.run.state.interrupted:
            break
        met.append(event)
    else:
        outcome = resume(place, Console(quiet=True), allow_code=True, extra=_stopping(epochs))
    _print_result(place, ", ".join(met))


def _stopping(epochs: str) -> Extra:
    return {"verify": lambda run: StopAfter(int(epochs))}


def _itself(part: Live, run: LiveRun) -> Live:
    return part


def _interruption(event: str) -> Live:
    """Return a part that interrupts the run when an event happens for the first time."""

    def interrupt(self: Live, state: State) -> None:
        if not state.interrupted:
            state.interrupt(f"verify-resume, in {event}")

    made: Live = type("Interruption", (Live,), {f"on_{event}": interrupt})()
    return made


def _print_result(folder: Path, events: str) -> None:
    sys.stdout.write(f"\n{events}\n{folder.absolute()}\n")


def _in_new_process(function: str, file: Path, epochs: int) -> tuple[Path, str]:
    """Call a function of this module in a new process; return the run folder and the events that it printed last."""
    # As for the command line, the working directory comes last in the path, so it hides no installed module.
    code = (
        f"import os, sys; from trainkit.engine.verify import {function}; sys.path.append(os.getcwd()); "
        f"{function}(*sys.argv[1:])"
    )
    command = [sys.executable, "-P", "-c", code, str(file.absolute()), str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrainkitError(f"resuming from {file} failed: {done.stderr.strip().splitlines()[-1]}")
    *_, events, folder = done.stdout.splitlines()
    return Path(folder), events


def _places(steps: int, per_epoch: int, number: int) -> list[int]:
    """Return the steps after which to stop: spread over all steps, and the first epoch's last, before validation."""
    spread = {round((i + 1) * steps / (number + 1)) for i in range(number)} if number else set()
    return sorted(step for step in spread | {per_epoch} if 0 < step <= steps)


def lines_that_differ(folder: Path, other: Path) -> Iterator[str]:
    """Yield a line for each logged value of an epoch that differs between two run folders, but for times."""
    lines, others = metrics_file.read(folder), metrics_file.read(other)
    if len(lines) != len(others):
        yield f"the number of lines of metrics: {len(lines)}, {len(others)}"
    for mine, its in zip(lines, others, strict=False):
        for name in dict.fromkeys([*mine, *its]):
            if name != "seconds" and repr(mine.get(name)) != repr(its.get(name)):
                yield f"epoch {mine[metrics_file.EPOCHS]}: {name} {mine.get(name)}, {its.get(name)}"


def _bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().flatten().view(torch.uint8).numpy())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
