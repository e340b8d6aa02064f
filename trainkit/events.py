"""The events of a run, in the order in which the loop fires them, and the methods that they call.

    resume                              only if the run continues from where another process ended (state.step, …)
    run_start
    for each epoch:
        group_start, group_stop         for each group that starts or stops training now (state.group)
        epoch_start
        for each optimizer step:
            step_start                  state.batch is set
            (forward, loss, backward)   state.outputs, state.loss
            backward_end                gradients are set; a model may scale its own before the update
            (optimizer step)
            step_end                    a model applies its constraints here
        evaluation:                     every few epochs or steps, for each split except "train" (state.split)
            validation_start
            validation_step_end         for each batch of it: state.batch, state.outputs
            validation_end              state.metrics holds the split's values
        picture                         every few epochs or steps, and at the end: call state.picture(…) here
        epoch_end                       state.metrics is complete
        checkpoint                      everything of this epoch is finished; also after a step with an evaluation
                                        inside an epoch, or if a save was requested
    late_values                         during the next epoch, instead of validation, if it was evaluated beside it
    run_end                             always, also after an error: state.ended says how the run ended

Any live part (model, data, loss, metric, hook, logger) listens by having a method ``on_<event>(state)``. `Live` is a
typed base that has all of them.

A part that fails ends the run, unless it only writes something to look at (a hook of the phase "log", a picture): then
that is said once, and the run goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, ClassVar, NamedTuple, get_args

from trainkit.contracts import Phase
from trainkit.errors import ComponentError, NonFiniteError, PartError, blame, did_you_mean, exit_in_words

if TYPE_CHECKING:
    from trainkit.contracts import Hook
    from trainkit.state import State

PHASES = get_args(Phase)
_LOGGER = logging.getLogger("trainkit")


class Live:
    """Base class of live parts: one method per event, which does nothing. A part overrides those that it needs.

    Deriving from it is optional: it is enough for a part to have methods with these names.
    """

    takes_late_values: ClassVar[bool] = False
    """Of a part that no recipe names: whether it works if values of an epoch are missing at its end, and come later.

    A hook or logger says so in its settings (`Hook.takes_late_values`)."""

    def on_resume(self, state: State) -> None:
        """The run continues after ``state.epoch`` epochs and ``state.step`` steps; both are 0 if nothing was saved.

        What a logger wrote for later epochs or steps must be removed here, because it will be written again. A part
        that compares values with earlier ones asks ``state.redefined(name)`` whether it still can.
        """

    def on_run_start(self, state: State) -> None:
        """The run starts, or resumes from a checkpoint."""

    def on_group_start(self, state: State) -> None:
        """The group ``state.group`` trains from this epoch on; loggers are told again on resume inside the epoch."""

    def on_group_stop(self, state: State) -> None:
        """The group ``state.group`` no longer trains from now on; loggers are told again on resume inside the epoch."""

    def on_epoch_start(self, state: State) -> None:
        """An epoch starts; not called again when a run resumes inside an epoch."""

    def on_step_start(self, state: State) -> None:
        """``state.batch`` is set."""

    def on_backward_end(self, state: State) -> None:
        """The gradients of the step are set, and may be changed.

        Hooks come last here, whatever their phase, so that loggers see the gradients before they are clipped.
        """

    def on_step_end(self, state: State) -> None:
        """The parameters are updated, and ``state.step`` counts the step."""

    def on_validation_start(self, state: State) -> None:
        """The evaluation of ``state.split`` starts."""

    def on_validation_step_end(self, state: State) -> None:
        """``state.batch`` and ``state.outputs`` are set to those of the split."""

    def on_validation_end(self, state: State) -> None:
        """``state.metrics`` holds the values of ``state.split``."""

    def on_picture(self, state: State) -> None:
        """Pictures are due: call ``state.picture(...)`` here."""

    def on_epoch_end(self, state: State) -> None:
        """``state.metrics`` holds all values of the epoch, and ``state.values_to_act_on`` those to decide by.

        Without ``validation.beside``, the two are the same; with it, those to decide by are of the epoch before.
        """

    def on_checkpoint(self, state: State) -> None:
        """A checkpoint may be written: after an epoch, after an evaluation inside one, or if one was requested."""

    def on_late_values(self, state: State) -> None:
        """The values of an epoch before are there, which was evaluated beside the training.

        ``state`` is a copy, as it was at the end of that epoch, with all its values.
        """

    def on_run_end(self, state: State) -> None:
        """The run ends; ``state.ended`` says how."""


EVENTS = tuple(name.removeprefix("on_") for name in vars(Live) if name.startswith("on_"))


class Listener(NamedTuple):
    """A method that an event calls.

    Attributes:
        call: The bound method.
        where: The part and its method, for messages, for example "hooks.ema, in on_step_end".
        tolerated: Exceptions of the method that do not end the run.
    """

    call: Callable[[State], None]
    where: str
    tolerated: type[Exception] | tuple[()] = ()


def listeners(
    parts: Mapping[str, object], tolerated: Mapping[str, type[Exception]] | None = None
) -> dict[str, tuple[Listener, ...]]:
    """Find the methods that each event calls.

    Args:
        parts: Name -> live part, in calling order.
        tolerated: Name of a part -> exceptions of it that do not end the run.

    Returns:
        The methods of every event; an empty tuple if no part listens to it.

    Raises:
        ComponentError: A part has an ``on_…`` method whose name is not an event.
    """
    found: dict[str, list[Listener]] = {event: [] for event in EVENTS}
    for name, part in parts.items():
        _refuse_other_events(name, type(part))
        for event in EVENTS:
            method = f"on_{event}"
            own = getattr(type(part), method, None)
            if own is not None and own is not getattr(Live, method):
                allowed = Exception if event == "picture" else (tolerated or {}).get(name, ())
                found[event].append(Listener(getattr(part, method), f"{name}, in {method}", allowed))
    found["backward_end"].sort(key=lambda each: each.where.startswith("hooks."))
    return {event: tuple(methods) for event, methods in found.items()}


def fire(listeners: Iterable[Listener], state: State) -> None:
    """Call the listeners of an event.

    Raises:
        PartError: One of them failed, and it matters to the run; the message names it and the event.
    """
    where = ""
    tolerated: type[Exception] | tuple[()] = ()
    waiting = iter(listeners)
    while True:
        try:
            for call, where, tolerated in waiting:  # noqa: B007 (names the part that failed)
                call(state)
            return
        except (Exception, SystemExit) as raised:
            error = raised if isinstance(raised, Exception) else PartError(f"{where}, {exit_in_words(raised)}")
            if isinstance(error, NonFiniteError) or not isinstance(error, tolerated):
                if error is not raised:
                    raise error from raised
                blame(error, where)
            _note_failure(where, error, state)


def _note_failure(where: str, error: Exception, state: State) -> None:
    """Count a failure that does not end the run, and say it if it is the first one of its kind."""
    state.failures[where] = state.failures.get(where, 0) + 1
    if state.failures[where] == 1:
        _LOGGER.warning("%s: %s: %s; the run goes on without it", where, type(error).__name__, error, exc_info=error)


def _refuse_other_events(name: str, cls: type) -> None:
    for method in dir(cls):
        event = method.removeprefix("on_")
        if event != method and event not in EVENTS and callable(getattr(cls, method)):
            where = f"{cls.__module__}.{cls.__qualname__}.{method}"
            raise ComponentError(f"{name}: {where} is not an event; {did_you_mean(event, EVENTS)}")


def order(hooks: dict[str, Hook]) -> list[str]:
    """Return the hooks' names in calling order: by phase, then by ``before`` and ``after``, then as in the recipe.

    Args:
        hooks: Full name in the recipe ("hooks.x", "loggers.y") -> settings. ``before`` and ``after`` hold the last
            part of such names.

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
            cycle = " -> ".join(error.args[1])
            raise ComponentError(
                f"the settings before and after of these hooks contradict each other: {cycle}"
            ) from error
        while graph.is_active():
            ready = sorted(graph.get_ready(), key=names.index)
            ordered += ready
            graph.done(*ready)
    return ordered
