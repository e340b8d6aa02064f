"""Shows in a notebook how far a run is, in one place that changes, while it trains."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainkit.events import Live

if TYPE_CHECKING:
    from trainkit.state import State

_LOGGER = logging.getLogger("trainkit")
_WIDTH, _HEIGHT, _MARGIN = 320, 90, 4


def in_notebook() -> bool:
    """Return whether this code runs in the kernel of a notebook."""
    python = sys.modules.get("IPython")  # which a notebook has imported long before
    shell = python.get_ipython() if python is not None else None
    return shell is not None and hasattr(shell, "kernel")


class NotebookProgress(Live):
    """Part of a run in a notebook: a bar, the monitored value of each epoch as a curve, and the newest values."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._monitored: list[float] = []

    def on_run_start(self, state: State) -> None:
        """Show the bar."""
        self._show(state)

    def on_epoch_end(self, state: State) -> None:
        """Bring what is shown up to date."""
        value = state.metrics.get(state.monitor.metric)
        if value is not None:
            self._monitored.append(float(value))
        self._show(state, finished=1)

    def _show(self, state: State, finished: int = 0) -> None:
        shown = import_module("IPython.display")  # without types
        html = shown.HTML(_in_html(state, state.epoch + finished, self._monitored))
        try:
            if self._handle is None:
                self._handle = shown.display(html, display_id=True)
            else:
                self._handle.update(html)
        except Exception as error:  # what is shown may not end a run
            _LOGGER.warning("the progress cannot be shown in the notebook: %s: %s", type(error).__name__, error)


def _in_html(state: State, epochs: int, monitored: Sequence[float]) -> str:
    values = "  ".join(f"{name} {value:.4g}" for name, value in state.metrics.items() if not name.startswith("lr/"))
    training = ", ".join(name for name, group in state.groups.items() if group.active)
    return (
        f'<div><progress value="{epochs}" max="{state.epochs}"></progress> '
        f"{epochs} of {state.epochs} epochs finished; training: {escape(training)}</div>"
        f"{curve(monitored, state.monitor.metric)}<pre>{escape(values)}</pre>"
    )


def curve(values: Sequence[float], name: str) -> str:
    """Return a curve of values over their number as SVG; "" for fewer than two that are finite.

    Args:
        values: The values; those that are not finite are left out.
        name: What they are, for the title.
    """
    points = [(place, value) for place, value in enumerate(values) if abs(value) < float("inf")]
    if len(points) < 2:
        return ""
    low, high = min(value for _, value in points), max(value for _, value in points)
    x_step = (_WIDTH - 2 * _MARGIN) / (points[-1][0] - points[0][0])
    y_step = (_HEIGHT - 2 * _MARGIN) / (high - low) if high > low else 0.0
    line = " ".join(
        f"{_MARGIN + (place - points[0][0]) * x_step:.1f},{_HEIGHT - _MARGIN - (value - low) * y_step:.1f}"
        for place, value in points
    )
    title = f"{name}: {points[-1][1]:.5g} (from {low:.5g} to {high:.5g})"
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img"><title>{escape(title)}</title>'
        f'<polyline points="{line}" fill="none" stroke="#0072B2" stroke-width="1.5"/></svg>'
    )
