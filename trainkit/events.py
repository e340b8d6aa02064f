"""The events of a run, in the order in which the loop fires them, and who listens.

    run_start
    for each epoch:
        group_start, group_stop         for each group that starts or stops to train now (state.group)
        epoch_start
        for each batch:
            step_start                  state.batch is set
            (forward, loss, backward)   state.outputs, state.loss
            backward_end                gradients are there
            (optimizer step)
            step_end                    a model's constraints belong here
        validation_start                for each split but "train" (state.split)
            validation_step_end         for each batch of it: state.batch, state.outputs
        validation_end                  state.metrics holds the split's values
        picture                         now and then, and at the end: time for state.picture(…)
        epoch_end                       state.metrics is complete
        checkpoint                      everything of this epoch (or step, when a save was asked for) is finished
    run_end                             however the run ended: state.ended says how

Any live part (model, data, loss, metric, hook, logger) listens by having a method ``on_<event>(state)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from trainkit.errors import ComponentError, did_you_mean

if TYPE_CHECKING:
    from trainkit.contracts import Hook
    from trainkit.state import State

EVENTS = (
    "run_start",
    "group_start",
    "group_stop",
    "epoch_start",
    "step_start",
    "backward_end",
    "step_end",
    "validation_start",
    "validation_step_end",
    "validation_end",
    "picture",
    "epoch_end",
    "checkpoint",
    "run_end",
)

PHASES = ("mutate", "observe", "log", "persist")

Listener = Callable[["State"], None]


def listeners(parts: Iterable[object]) -> dict[str, tuple[Listener, ...]]:
    """Find, once, what each event has to call.

    Args:
        parts: The live parts, in the order in which they are to be called.

    Returns:
        For every event, the bound methods; an empty tuple where nobody listens.

    Raises:
        ComponentError: A part has an ``on_…`` method that is no event.
    """
    found: dict[str, list[Listener]] = {event: [] for event in EVENTS}
    for part in parts:
        for attribute in dir(type(part)):
            if attribute.startswith("on_") and callable(getattr(part, attribute)):
                event = attribute.removeprefix("on_")
                if event not in found:
                    where = f"{type(part).__module__}.{type(part).__qualname__}"
                    raise ComponentError(f"{where}.{attribute} is no event; {did_you_mean(event, EVENTS)}")
                found[event].append(getattr(part, attribute))
    return {event: tuple(methods) for event, methods in found.items()}


def order(hooks: dict[str, Hook]) -> list[str]:
    """Return the hooks' names in calling order: by phase, then as ``before`` and ``after`` say, then as in the recipe.

    Args:
        hooks: Full name in the recipe ("hooks.x", "loggers.y") -> settings; ``before`` and ``after`` say the last part.

    Raises:
        ComponentError: ``before`` and ``after`` contradict each other.
    """
    ordered: list[str] = []
    for phase in PHASES:
        names = [name for name, hook in hooks.items() if hook.phase == phase]
        graph: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(names, ()))
        for name in names:
            for other in names:
                key = other.rpartition(".")[2]
                if key in hooks[name].after:
                    graph.add(name, other)
                if key in hooks[name].before:
                    graph.add(other, name)
        try:
            graph.prepare()
        except CycleError as error:
            raise ComponentError(f"hooks want to come before each other: {' -> '.join(error.args[1])}") from error
        while graph.is_active():
            ready = sorted(graph.get_ready(), key=names.index)
            ordered += ready
            graph.done(*ready)
    return ordered
