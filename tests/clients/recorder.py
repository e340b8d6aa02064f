"""Hooks that tests look through: one writes down what happens, one does what a test tells it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from trainkit import Context, Hook, State, component
from trainkit.events import EVENTS

SEEN: list[tuple[str, int, int]] = []
"""(event, state.epoch, state.step) of everything that happened, in order."""

ACTIONS: dict[str, Callable[[State], None]] = {}
"""Event -> what to do then."""


def forget() -> None:
    """Do nothing from now on, and have seen nothing."""
    SEEN.clear()
    ACTIONS.clear()


@component
class Recorder(Hook):
    """Writes down every event, then does what the test put into ``ACTIONS``."""

    phase: ClassVar[Any] = "mutate"

    def build(self, context: Context) -> object:
        def listener(event: str) -> Callable[[object, State], None]:
            def note(self: object, state: State) -> None:
                SEEN.append((event, state.epoch, state.step))
                ACTIONS.get(event, lambda state: None)(state)

            return note

        return type("LiveRecorder", (), {f"on_{event}": listener(event) for event in EVENTS})()


@component
class Misspelt(Hook):
    """Listens to something that never happens."""

    def build(self, context: Context) -> object:
        return type("Live", (), {"on_epoch_ended": lambda self, state: None})()
