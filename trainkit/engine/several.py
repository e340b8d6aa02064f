"""A training in several processes: the first one does what a command says, and calls the others to each training.

The first process resolves recipes, makes and locks run folders, reads and writes checkpoints, and prints. Before a
training, it sends the others what they need to build the same run in the same state. They take part in it, write
nothing, and wait for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from trainkit.engine.build import build
from trainkit.engine.every_run.saving import checkpoint_content, restore
from trainkit.engine.loop import train
from trainkit.errors import NonFiniteError
from trainkit.events import fire
from trainkit.processes.meeting import meeting
from trainkit.recipe.resolve import resolve_text, write
from trainkit.recipe.root import seconds_of

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.engine.live_run import LiveRun
    from trainkit.engine.signals import KeptSignals
    from trainkit.groups.plan import GroupPlan


@attrs.frozen
class _Task:
    """What the other processes need to take part in a training.

    Attributes:
        recipe: The resolved recipe, as TOML.
        source: The name of the recipe in messages.
        folder: The run folder.
        finished: Number of finished epochs and of their steps.
        content: The state of the run, as a checkpoint holds it.
        plans: Parameter group -> its plan.
        memories: Parameter group -> memory of its schedule.
        stop_reason: Why the run ends after its current epoch.
        resumed: Whether the run continues in place of another process.
        is_trial: Whether only the values of the run are used.
        redefined: What has changed in the meaning of a value.
    """

    recipe: str
    source: str
    folder: Path
    finished: tuple[int, int]
    content: Mapping[str, Any]
    plans: Mapping[str, GroupPlan]
    memories: Mapping[str, Any]
    stop_reason: str | None
    resumed: bool
    is_trial: bool
    redefined: Callable[[str], str | None]


def call_others(run: LiveRun) -> None:
    """Send the other processes, if there are any, what they need to take part in a training from where it is now."""
    state = run.state
    if state.context.world == 1:
        return
    content = checkpoint_content(run, means=run.saved_means)
    run.generators = content["generators"]
    task = _Task(
        recipe=write(run.resolved.tree),
        source=run.resolved.source,
        folder=state.folder,
        finished=(state.epoch, state.epoch_step),
        content=_on_cpu(content),
        plans=run.groups.plans,
        memories=run.groups.memories,
        stop_reason=state.stop_reason,
        resumed=run.resumed,
        is_trial=state.is_trial,
        redefined=state.redefined,
    )
    meeting().call(task, seconds_of(run.recipe.run.patience) or 0.0)


def take_part(console: Console, kept: KeptSignals) -> None:
    """Take part in the trainings to which the first process calls, until it has no more.

    Args:
        console: Prints the messages.
        kept: The signals that this process gets.

    Raises:
        TrainkitError: A training failed here, and nobody else reports it.
    """
    meet = meeting()
    with console.capture_logging():
        while (task := meet.wait()) is not None:
            _take_part(task, console, kept)
    meet.go()


def _take_part(task: _Task, console: Console, kept: KeptSignals) -> None:
    resolved = resolve_text(task.recipe, Path("/"), source=task.source, resolved=True)
    run = build(resolved, task.folder, task.finished, meeting().place)
    for name, plan in task.plans.items():
        run.groups.continue_group(name, plan, task.memories[name])
    restore(run, task.content, {})
    state = run.state
    state.stop_reason, state.is_trial, state.redefined = task.stop_reason, task.is_trial, task.redefined
    run.resumed = task.resumed
    with kept.given_to(lambda name: state.interrupt(f"signal {name}")):
        try:
            train(run)
            reason = state.interrupt_reason or state.stop_reason
            state.ended = f"stopped: {reason}" if reason else "finished"
        except NonFiniteError:  # in every process; the first one says it
            state.ended = "failed: NonFiniteError"
        except BaseException as error:
            state.ended = f"failed: {type(error).__name__}"
            raise
        finally:
            for listener in run.events["run_end"]:
                fire([listener], state)


def _on_cpu(content: Any) -> Any:
    """Return the content with its tensors on the CPU, from where they are sent."""
    import torch

    if isinstance(content, torch.Tensor):
        return content.cpu()
    if isinstance(content, Mapping):
        return {key: _on_cpu(each) for key, each in content.items()}
    if isinstance(content, list | tuple):
        return [_on_cpu(each) for each in content]
    return content
