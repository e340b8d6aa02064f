"""Draws a plan: the learning rate of each group over the epochs, and when each group trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from trainkit.drawing.palette import SAFE_ON_WHITE
from trainkit.errors import RecipeError
from trainkit.files.writing import written_whole
from trainkit.groups.plan import GroupPlan, RunLength
from trainkit.recipe.root import Recipe

MOST_PLANS = 6
"""Plans in one picture."""
_POINTS = 600  # of a curve, about
_STYLES = ("-", "--", ":", "-.")


class DrawnPlan(NamedTuple):
    """A plan that is drawn.

    Attributes:
        title: What stands above it.
        recipe: The settings.
        plans: Group -> its plan.
        length: How long the run lasts.
        steps_per_epoch: Optimizer steps of an epoch.
    """

    title: str
    recipe: Recipe
    plans: Mapping[str, GroupPlan]
    length: RunLength
    steps_per_epoch: int


def rates(plan: GroupPlan, drawn: DrawnPlan) -> tuple[list[float], list[float]]:
    """Return the learning rate of a group where it changes: epochs, also between two of them, and rates.

    Outside the epochs in which the group trains, the rate is NaN, so that a curve has a gap.
    """
    x: list[float] = []
    y: list[float] = []
    by_step = any(phase.scheduler.by == "step" for phase in plan.phases)
    parts = max(1, min(_POINTS // drawn.length.epochs, drawn.steps_per_epoch)) if by_step else 1
    every = max(1, drawn.length.epochs // (4 * _POINTS))
    for epoch in range(0, drawn.length.epochs, every):
        for part in range(parts):
            if epoch not in plan.epochs:
                value = float("nan")
            else:
                step = epoch * drawn.steps_per_epoch + part * drawn.steps_per_epoch // parts
                value = plan.phase_at(epoch).rate(epoch, step, drawn.steps_per_epoch, {}).lr
            x.append(epoch + part / parts)
            y.append(value)
    return [*x, float(drawn.length.epochs)], [*y, y[-1]]


def stages(plans: Mapping[str, GroupPlan], epochs: int) -> dict[int, list[str]]:
    """Return what changes at the beginning of epochs after the first one: epoch -> sentences."""
    found: dict[int, list[str]] = {}
    for name, plan in plans.items():
        start, stop = plan.epochs.start, plan.epochs.stop
        if start is None:
            continue
        changes = [(start, f"{name} starts"), (stop, f"{name} stops")]
        changes += [(phase.epochs.start or 0, f"{name}: {phase.name}") for phase in plan.phases[1:]]
        for epoch, what in changes:
            if 0 < epoch < epochs:
                found.setdefault(epoch, []).append(what)
    return dict(sorted(found.items()))


def draw(path: Path, drawn: list[DrawnPlan]) -> None:
    """Draw plans below each other into a PNG file.

    Args:
        path: The file, which is replaced.
        drawn: The plans, at least one.

    Raises:
        RecipeError: There are more than `MOST_PLANS`, or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if len(drawn) > MOST_PLANS:
        raise RecipeError(f"{len(drawn)} different plans; a picture shows at most {MOST_PLANS}")
    heights = [height for each in drawn for height in (3.0, 0.35 + 0.22 * len(each.plans))]
    figure = Figure(figsize=(9, sum(heights) + 0.9 * len(drawn)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 * len(drawn), 1, squeeze=False, height_ratios=heights)[:, 0]
    for number, each in enumerate(drawn):
        _draw_rates(panels[2 * number], each)
        _draw_stages(panels[2 * number + 1], each)
    try:
        with written_whole(path) as new:
            figure.savefig(new, format="png")
    except OSError as error:
        raise RecipeError(f"{path} cannot be written: {error.strerror}") from error


def _look(plans: Mapping[str, GroupPlan]) -> Iterator[tuple[str, GroupPlan, str, str]]:
    """Yield each group with a colour and a style of line of its own."""
    for number, (name, plan) in enumerate(plans.items()):
        round_, place = divmod(number, len(SAFE_ON_WHITE))
        yield name, plan, SAFE_ON_WHITE[place], _STYLES[round_ % len(_STYLES)]


def _draw_rates(ax: Any, drawn: DrawnPlan) -> None:
    highest = 0.0
    lowest = float("inf")
    for name, plan, colour, style in _look(drawn.plans):
        x, y = rates(plan, drawn)
        by_step = any(phase.scheduler.by == "step" for phase in plan.phases)
        known = [value for value in y if value > 0]  # NaN is not
        highest = max([highest, *known])
        lowest = min([lowest, *known])
        label = name if known else f"{name} (frozen)"
        how = "default" if by_step else "steps-post"
        ax.plot(x, y, style, color=colour, linewidth=1.8, label=label, drawstyle=how)
    if highest > 0:
        ax.set_yscale("log")
        ax.set_ylim(max(lowest, highest * 1e-6) / 1.6, highest * 1.6)
    ax.set_xlim(0, drawn.length.epochs)
    ax.set_ylabel("learning rate")
    ax.set_title(drawn.title, fontsize=10, loc="left")
    ax.grid(alpha=0.25)
    ax.tick_params(labelbottom=False)
    if len(drawn.plans) > 1:
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for epoch in stages(drawn.plans, drawn.length.epochs):
        ax.axvline(epoch, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)))


def _draw_stages(ax: Any, drawn: DrawnPlan) -> None:
    for row, (_name, plan, colour, _) in enumerate(_look(drawn.plans)):
        for number, phase in enumerate(plan.phases):
            start, stop = phase.epochs.start, min(phase.epochs.stop, drawn.length.epochs)
            if start is not None and start < stop:
                strength = 1.0 if number % 2 else 0.65  # phases that follow each other can be told apart
                ax.broken_barh([(start, stop - start)], (row - 0.35, 0.7), color=colour, alpha=strength)
                if phase.name:
                    ax.text(start, row, f" {phase.name}", va="center", fontsize=7, color="white")
    marked = stages(drawn.plans, drawn.length.epochs)
    for epoch in marked:
        ax.axvline(epoch, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)))
    ax.set_yticks(range(len(drawn.plans)), list(drawn.plans), fontsize=8)
    ax.set_ylim(len(drawn.plans) - 0.5, -0.5)
    ax.set_xlim(0, drawn.length.epochs)
    ticks = sorted({0, *marked, drawn.length.epochs})
    apart = drawn.length.epochs / 30
    if all(after - before >= apart for before, after in pairwise(ticks)):
        ax.set_xticks(ticks)
    ax.set_xlabel("finished epochs")
