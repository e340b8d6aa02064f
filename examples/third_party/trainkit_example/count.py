"""A hook: what happens at events of a run."""

from __future__ import annotations

from typing import Any

from trainkit import Context, Hook, Live, State, component


@component
class Count(Hook):
    """Logs how many items the run has trained on."""

    def names(self) -> tuple[str, ...]:
        return ("train/items",)

    def build(self, context: Context) -> LiveCount:
        return LiveCount()


class LiveCount(Live):
    """Counts; `Live` has a method for each event of a run."""

    def __init__(self) -> None:
        self._items = 0

    def on_step_end(self, state: State) -> None:
        self._items += len(state.batch["index"])
        state.log("train/items", self._items)

    def state_dict(self) -> dict[str, Any]:  # saved in each checkpoint, so a resumed run goes on counting
        return {"items": self._items}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self._items = saved["items"]
