"""What a checkpoint of a run holds, when one is written, and which are kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import attrs
import torch

from trainkit import checkpoint
from trainkit.engine.folder import CHECKPOINTS, conditions
from trainkit.errors import CheckpointError, NonFiniteError
from trainkit.optimizer_state import Loaded, load_optimizer_state, optimizer_state
from trainkit.randomness import generator_states
from trainkit.recipe.resolve import write
from trainkit.state import Running

if TYPE_CHECKING:
    from pathlib import Path

    from trainkit.engine.extension import Continued
    from trainkit.engine.run import Run
    from trainkit.state import State


def content(run: Run) -> dict[str, Any]:
    """Return all that a run needs to go on: JSON values and tensors."""
    state = run.state
    return {
        "epoch": state.epoch,
        "step": state.step,
        "epoch_step": state.epoch_step,
        "steps_per_epoch": state.steps_per_epoch,
        "recipe": write(run.resolved.tree),
        "components": [attrs.asdict(used) for used in run.resolved.used],
        "conditions": conditions(state.context.device),
        "generators": generator_states(),
        "model": state.model.state_dict(),
        "optimizer": optimizer_state(run.optimizer, _parameters(run)),
        "groups": {
            name: {
                "stopped_at": _brought_forward(state.groups[name].stop_epoch, stage.stop_epoch),
                "lr": stage.lr,
                "clock": None if stage.clock is None else list(stage.clock),
                "memory": dict(run.stages.memories[name]),
                "parameters": list(state.groups[name].parameters),
            }
            for name, stage in run.stages.stages.items()
        },
        "metrics": dict(state.metrics),
        "running": {
            name: {
                "values": list(running.values),
                "sum": running.sum,
                "count": running.count,
                "must_be_finite": running.must_be_finite,
            }
            for name, running in state.running.items()
        },
        "parts": {name: part.state_dict() for name, part in _parts_with_state(run).items()},
    }


def restore(run: Run, saved: Mapping[str, Any], groups: Mapping[str, Continued]) -> Loaded:
    """Put a freshly built run where a checkpoint's ``content`` stood.

    Args:
        run: The run.
        saved: The content.
        groups: How each parameter group goes on.

    Returns:
        Which parameters begin with no optimizer state, and whose state nobody takes.

    Raises:
        CheckpointError: The checkpoint is of another model.
    """
    state = run.state
    state.epoch, state.step, state.epoch_step = saved["epoch"], saved["step"], saved["epoch_step"]
    if state.steps_in_epoch and saved["steps_per_epoch"] != state.steps_per_epoch:
        raise CheckpointError(
            f"the checkpoint stands inside an epoch of {saved['steps_per_epoch']} steps, and an epoch now has "
            f"{state.steps_per_epoch}: change what makes up an epoch from a checkpoint at an epoch's end"
        )
    try:
        state.model.load_state_dict(saved["model"])
    except RuntimeError as error:
        said = "; ".join(_misfits(saved["model"], state.model.state_dict())) or str(error)
        advice = "Go on with the model that it was, or begin a run anew"
        raise CheckpointError(f"the checkpoint's model is not this recipe's: {said}. {advice}") from error
    loaded = load_optimizer_state(run.optimizer, _parameters(run), saved["optimizer"])
    for name, group in groups.items():
        run.stages.go_on(name, group.stage, group.memory)
    for name, known in saved["groups"].items():
        if name in state.groups and known["stopped_at"] is not None:
            state.groups[name].stop_epoch = known["stopped_at"]
    state.metrics = dict(saved["metrics"])
    state.running = {
        name: Running(
            [value.to(state.context.device) for value in running["values"]],
            running["sum"],
            running["count"],
            running["must_be_finite"],
        )
        for name, running in saved["running"].items()
    }
    for name, part in _parts_with_state(run).items():
        if name in saved["parts"]:
            part.load_state_dict(saved["parts"][name])
    run.generators = saved["generators"]
    return loaded


def check_finite(run: Run) -> None:
    """Refuse a state that is not finite.

    Raises:
        NonFiniteError: A parameter or buffer is NaN or infinite; the message names it.
    """
    for name, value in run.state.model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            continue  # what a module's get_extra_state returns
        if (value.is_floating_point() or value.is_complex()) and not bool(torch.isfinite(value).all()):
            raise NonFiniteError(f'"{name}" of the model is not finite')


class Saver:
    """Part of every run: writes checkpoints and removes those that nobody asked to keep.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._best: list[tuple[float, int]] = []
        self.newest: Path | None = None

    def on_checkpoint(self, state: State) -> None:
        """Write a checkpoint if one is due or asked for."""
        inside = state.steps_in_epoch > 0
        asked = state.save_reason is not None or state.stop_reason is not None or state.epoch == state.epochs
        state.save_reason = None
        if not asked and (inside or state.epoch % self._run.recipe.checkpoint.every_epochs):
            return
        began = perf_counter()
        check_finite(self._run)
        if not inside:
            self._rank(state)
        name = f"step-{state.step:08d}" if inside else f"epoch-{state.epoch:04d}"
        path = state.folder / CHECKPOINTS / f"{name}.safetensors"
        checkpoint.write(path, content(self._run))
        self.newest = path
        self._remove_others(state)
        state.seconds["checkpoint"] = perf_counter() - began

    @property
    def best(self) -> tuple[float, int] | None:
        """The best monitored value among the saved epochs, and how many epochs were finished then."""
        return self._best[0] if self._best else None

    def state_dict(self) -> dict[str, Any]:
        """Return which epochs were best."""
        return {"best": [list(entry) for entry in self._best]}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over which epochs were best."""
        self._best = [(value, epoch) for value, epoch in saved["best"] if math.isfinite(value)]

    def _rank(self, state: State) -> None:
        value = state.metrics.get(state.monitor.metric)
        if value is None or not math.isfinite(value):
            return
        ranked = [*self._best, (value, state.epoch)]
        ranked.sort(key=lambda entry: entry[0], reverse=state.monitor.mode == "max")
        self._best = ranked[: self._run.recipe.checkpoint.best]

    def _remove_others(self, state: State) -> None:
        files = sorted((state.folder / CHECKPOINTS).glob("*-*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        kept = set(files[-self._run.recipe.checkpoint.keep_last :]) | {self.newest}
        best = {epoch for _, epoch in self._best}
        for path in files:
            kind, _, number = path.stem.partition("-")
            count = int(number)
            every = self._run.recipe.checkpoint.keep_every
            if path not in kept and not (kind == "epoch" and (count in best or (every and count % every == 0))):
                path.unlink()


def _misfits(saved: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """Yield, for a person, in what one model's state does not fit another's."""
    shapes = {
        name: f"{tuple(value.shape)} (here {tuple(here[name].shape)})"
        for name, value in saved.items()
        if name in here and getattr(value, "shape", None) != getattr(here[name], "shape", None)
    }
    for what, names in (
        ("it also has", [name for name in saved if name not in here]),
        ("it lacks", [name for name in here if name not in saved]),
        ("of another shape are", [f"{name} {both}" for name, both in shapes.items()]),
    ):
        if names:
            yield f"{what} {', '.join(names[:4])}" + (f", … ({len(names)} in all)" if len(names) > 4 else "")


def _brought_forward(now: int, planned: int) -> int | None:
    return now if now < planned else None


def _parameters(run: Run) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for group in run.state.groups.values() for name, parameter in group.parameters.items()}


def _parts_with_state(run: Run) -> dict[str, Any]:
    return {
        name: part for name, part in run.parts.items() if part is not run.state.model and hasattr(part, "state_dict")
    }
