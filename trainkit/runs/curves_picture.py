"""Draws the values of several runs into one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from trainkit.drawing.palette import SAFE_ON_WHITE
from trainkit.files.writing import written_whole
from trainkit.runs.record import RunRecord

_MOST_PANELS = 6
_STYLES = ("-", "--", ":", "-.")
_MOST_MARKED = 60  # values of a curve that are marked one by one


def panels(runs: Sequence[RunRecord]) -> list[str]:
    """Return the names of the values that are drawn: what is monitored, losses, and others that most runs have."""
    monitored = [run.monitor.metric for run in runs if run.monitor is not None]
    counts: dict[str, int] = {}
    for run in runs:
        for name in run.values.names:
            if not name.startswith(("lr/", "time/")):
                counts[name] = counts.get(name, 0) + 1
    others = sorted(counts, key=lambda name: (not name.endswith("/loss"), -counts[name]))
    return [name for name in dict.fromkeys([*monitored, *others]) if name in counts][:_MOST_PANELS]


def draw(
    path: Path, runs: Sequence[RunRecord], labels: Sequence[str], why_other: Callable[[str], Sequence[str]]
) -> list[str]:
    """Write the picture, and return the names of the values in it; without any, nothing is written.

    Args:
        path: The file, a PNG.
        runs: The runs.
        labels: What they are called.
        why_other: Returns why a value does not mean the same in all runs, which is written above its panel.
    """
    names = panels(runs)
    if not names:
        return []
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 1 if len(names) == 1 else 2
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(6 * columns, 3.4 * rows + 0.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for ax, name in zip(axes, names, strict=False):
        smallest, largest = float("inf"), float("-inf")
        for number, (run, label) in enumerate(zip(runs, labels, strict=True)):
            steps_per_epoch = run.values.steps / run.values.epochs if run.values.epochs else 1.0
            known = [
                (each.place.steps / steps_per_epoch if each.place.inside else each.place.epochs, each.value)
                for each in run.values.of(name)
            ]
            if not known:
                continue
            smallest, largest = min(smallest, *(v for _, v in known)), max(largest, *(v for _, v in known))
            ax.plot(
                *zip(*known, strict=True),
                color=SAFE_ON_WHITE[number % len(SAFE_ON_WHITE)],
                linestyle=_STYLES[number // len(SAFE_ON_WHITE) % len(_STYLES)],
                marker="." if len(known) <= _MOST_MARKED else "",
                label=label,
            )
        if name.endswith("/loss") and smallest > 0 and largest > 3 * smallest:
            ax.set_yscale("log")
        reasons = why_other(name)
        ax.set_title(name if not reasons else f"{name} (not the same quantity)", fontsize=10)
        ax.grid(alpha=0.3)
        ax.set_xlabel("finished epochs")
    for ax in list(axes)[len(names) :]:
        ax.set_axis_off()
    handles, shown = axes[0].get_legend_handles_labels()
    figure.legend(handles, shown, loc="outside lower center", ncols=min(len(runs), 3), fontsize=9)
    with written_whole(path) as new:
        figure.savefig(new, format="png")
    return names
