"""Draws ``progress.png``: the curves of a run in one picture, for users without TensorBoard."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from trainkit.engine.every_run import metrics_file
from trainkit.events import Live
from trainkit.files.writing import written_whole

if TYPE_CHECKING:
    from trainkit.state import State

_NOT_VALUES = ("epoch", "step", "seconds")
_MOST_NAMED = 12  # largest number of curves in a panel's legend


class ProgressChart(Live):
    """Part of every run: draws the chart when pictures are due, and at the end."""

    def __init__(self) -> None:
        self._due = False

    def on_picture(self, state: State) -> None:
        """Remember to draw after this epoch's line is written."""
        self._due = True

    def on_epoch_end(self, state: State) -> None:
        """Draw if pictures are due."""
        if self._due:
            self._due = False
            draw(state)


def draw(state: State) -> None:
    """Draw loss, learning rates and other values of the run folder's ``metrics.jsonl`` into ``progress.png``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = metrics_file.read(state.folder)
    names = list(dict.fromkeys(name for line in lines for name in line if name not in _NOT_VALUES))
    losses = [name for name in names if name.endswith("/loss")]
    rates = [name for name in names if name.startswith("lr/")]
    rest = [name for name in names if name not in losses and name not in rates]
    panel_of = _panels({name.partition("/")[2] for name in rest})
    others: dict[str, list[str]] = {}
    for name in rest:
        others.setdefault(panel_of[name.partition("/")[2]], []).append(name)
    panels = [("loss", losses), ("learning rate", rates), *others.items()]

    figure = Figure(figsize=(7, 2.4 * len(panels)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (title, members) in zip(axes, panels, strict=True):
        values: list[float] = []
        for i, name in enumerate(members):
            points = [(_place(line, state), line[name]) for line in lines if line.get(name) is not None]
            if title == "learning rate":
                points = [(epoch, value) for epoch, value in points if value > 0]
            values += [value for _, value in points]
            if points:
                ax.plot(*zip(*points, strict=True), marker=".", label=name if i < _MOST_NAMED else None)
        if title in ("loss", "learning rate") and values and min(values) > 0:
            ax.set_yscale("log")
        _mark_starts(ax, state)
        ax.set_ylabel(title)
        ax.grid(alpha=0.3)
        if values:
            ax.legend(fontsize=8, ncols=1 + (len(members) - 1) // 6)
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    with written_whole(state.folder / "progress.png") as new:
        figure.savefig(new, format="png")


def _place(line: Mapping[str, Any], state: State) -> float:
    """Return the x-coordinate of a line's values: its epoch, or a fraction of epochs if it is from inside one."""
    return float(line["epoch"]) if "seconds" in line else line["step"] / state.steps_per_epoch - 1


def _panels(values: Collection[str]) -> dict[str, str]:
    """Return value -> the value whose panel it is drawn in: for ``dice_liver`` it is ``dice`` if that exists."""
    return {
        value: min((each for each in values if value.startswith(f"{each}_")), key=len, default=value)
        for value in values
    }


def _mark_starts(ax: Any, state: State) -> None:
    for group in state.groups.values():
        if group.start_epoch and group.start_epoch <= state.epoch:
            ax.axvline(group.start_epoch, color="grey", linestyle=":", linewidth=1)
