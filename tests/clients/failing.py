"""A logger that fails whenever it is asked to write anything."""

from __future__ import annotations

from trainkit import Context, Logger, State, component


@component
class Failing(Logger):
    """Fails at the end of every step."""

    def build(self, context: Context) -> object:
        return LiveFailing()


class LiveFailing:
    def on_step_end(self, state: State) -> None:
        raise OSError("no space left on the logger's disk")
