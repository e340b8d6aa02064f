"""Draws ``progress.png``: the curves of a run in one picture, for users without TensorBoard."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from trainkit.drawing.palette import SAFE_ON_WHITE
from trainkit.drawing.png import LEVEL
from trainkit.engine.every_run import metrics_file
from trainkit.events import Live
from trainkit.files.writing import written_whole
from trainkit.garbage import not_collected

if TYPE_CHECKING:
    from trainkit.state import State

_MOST_MARKED = 500  # largest number of points of a curve that are marked one by one
_MOST_NAMED = 12  # largest number of curves in a panel's legend
_LABEL = (-0.125, 0.5)  # place beside a panel; matplotlib would measure all numbers once more to find one
_GRID = {"alpha": 0.3, "color": "#b0b0b0", "linewidth": 0.8}
_STYLES = ("-", "--", ":")  # of the first curves of a panel, of those after all colours are used once, and so on


class ProgressChart(Live):
    """Part of every run: draws the chart when pictures are due, and at the end.

    The curves are kept in memory. Only a resumed run reads ``metrics.jsonl``, once.
    """

    takes_late_values: ClassVar[bool] = True

    def __init__(self) -> None:
        self._due = False
        self._curves: dict[str, Curve] = {}

    def on_run_start(self, state: State) -> None:
        """Take in what earlier starts of the run have written."""
        for line in metrics_file.read(state.folder) if state.step else ():
            place = float(line[metrics_file.EPOCHS]) if "seconds" in line else _place_inside(line["step"], state)
            self._take_in(place, {name: value for name, value in line.items() if name not in metrics_file.NO_VALUES})

    def on_validation_end(self, state: State) -> None:
        """Take in the values of a split that is evaluated inside an epoch."""
        if not state.closing:
            values = {name: value for name, value in state.metrics.items() if name.startswith(f"{state.split}/")}
            self._take_in(_place_inside(state.step, state), values)

    def on_picture(self, state: State) -> None:
        """Remember to draw after this epoch's values are complete."""
        self._due = True

    def on_epoch_end(self, state: State) -> None:
        """Take in the epoch's values, and draw if pictures are due."""
        self._take_in(float(state.epoch + 1), state.metrics)
        if self._due:
            self._due = False
            with not_collected():
                draw(state, self._curves)

    def on_late_values(self, state: State) -> None:
        """Take in the values of splits that have come after their epoch."""
        late = {name: each for name, each in state.metrics.items() if name.partition("/")[0] in state.about.splits}
        self._take_in(float(state.epoch), late)

    def _take_in(self, place: float, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                curve = self._curves.setdefault(name, Curve(array("d"), array("d")))
                curve.places.append(place)
                curve.values.append(value)


class Curve(NamedTuple):
    """The values of one name over a run.

    Attributes:
        places: Their x-coordinates, in finished epochs.
        values: The values.
    """

    places: array[float]
    values: array[float]


def draw(state: State, curves: Mapping[str, Curve]) -> None:
    """Draw loss, learning rates and other values into ``progress.png`` of the run folder."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    losses = [name for name in curves if name.endswith("/loss")]
    rates = [name for name in curves if name.startswith("lr/")]
    rest = [name for name in curves if name not in losses and name not in rates]
    panel_of = _panels({name.partition("/")[2] for name in rest})
    others: dict[str, list[str]] = {}
    for name in rest:
        others.setdefault(panel_of[name.partition("/")[2]], []).append(name)
    panels = [("loss", losses), ("learning rate", rates), *others.items()]

    height = 2.4 * len(panels)
    figure = Figure(figsize=(7, height), dpi=100)
    # The margins are given in inches: an automatic layout takes twice as long as all the rest.
    figure.subplots_adjust(left=1 / 7, right=1 - 0.1 / 7, bottom=0.45 / height, top=1 - 0.1 / height, hspace=0.08)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (title, members) in zip(axes, panels, strict=True):
        smallest = math.inf
        for i, name in enumerate(members):
            points = list(zip(*curves[name], strict=True))
            if title == "learning rate":
                points = [(epoch, value) for epoch, value in points if value > 0]
            if points:
                smallest = min(smallest, *(value for _, value in points))
                ax.plot(
                    *zip(*points, strict=True),
                    marker="." if len(points) <= _MOST_MARKED else "",
                    color=SAFE_ON_WHITE[i % len(SAFE_ON_WHITE)],
                    linestyle=_STYLES[i // len(SAFE_ON_WHITE) % len(_STYLES)],
                    label=name if i < _MOST_NAMED else None,
                )
        if title in ("loss", "learning rate") and 0 < smallest < math.inf:
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(LogFormatter())
            ax.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
        _mark_starts(ax, state)
        ax.set_ylabel(title)
        ax.yaxis.set_label_coords(*_LABEL)
        ax.grid(**_GRID)
        if smallest < math.inf:
            ax.legend(fontsize=8, ncols=1 + (len(members) - 1) // 6)
    axes[-1].set_xlabel("finished epochs")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    _share_ticks(axes)
    with written_whole(state.folder / "progress.png") as new:
        figure.savefig(new, format="png", pil_kwargs={"compress_level": LEVEL})


def _share_ticks(axes: Any) -> None:
    """Draw the lines of the lowest panel's ticks through the others, whose own ticks would take a quarter of the time.

    Args:
        axes: The panels, from the top down.
    """
    low, high = axes[-1].get_xlim()
    places = [place for place in axes[-1].get_xticks() if low <= place <= high]
    axes[-1].set_xlim(low, high)  # which then stays so for all
    for ax in axes[:-1]:
        ax.xaxis.set_visible(False)
        ax.vlines(places, 0, 1, transform=ax.get_xaxis_transform(), **_GRID)


def _place_inside(step: int, state: State) -> float:
    """Return the x-coordinate of a value from inside an epoch, as a fraction of epochs."""
    return step / state.steps_per_epoch


def _panels(values: Collection[str]) -> dict[str, str]:
    """Return value -> the value whose panel it is drawn in: for ``dice_liver`` it is ``dice`` if that exists."""
    return {
        value: min((each for each in values if value.startswith(f"{each}_")), key=len, default=value)
        for value in values
    }


def _mark_starts(ax: Any, state: State) -> None:
    starts = {group.start_epoch for group in state.groups.values() if group.start_epoch}
    passed = sorted(start for start in starts if start <= state.epoch)
    ax.vlines(passed, 0, 1, transform=ax.get_xaxis_transform(), color="grey", linestyle=":", linewidth=1)
