"""Draws docs/learning_rate_traces.png with the functions that a resume uses. Takes no arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainkit.groups.plan import Clock, GroupPlan, Phase
from trainkit.groups.resuming import CHOICES, ResumePoint, SavedGroup, rates_per_epoch, resume_group
from trainkit.optimizers.adam import Adam
from trainkit.recipe.group_epochs import ActiveEpochs
from trainkit_schedulers.cosine import Cosine
from trainkit_schedulers.one_cycle import OneCycle
from trainkit_schedulers.polynomial import Polynomial
from trainkit_schedulers.reduce_on_plateau import ReduceOnPlateau

OLD, NEW, STEPS, LR = 50, 100, 100, 1e-3
AT = ResumePoint(epoch=OLD, epoch_step=OLD * STEPS, steps_per_epoch=STEPS)
COLOURS = {"stretch": "tab:blue", "hold": "tab:orange", "restart": "tab:green"}
CASES: tuple[tuple[str, Any, Any], ...] = (
    ("cosine, 50 epochs made 100", Cosine(), Cosine()),
    ("one_cycle, 50 epochs made 100", OneCycle(), OneCycle()),
    ("polynomial, 50 epochs made 100", Polynomial(), Polynomial()),
    ("cosine for 50 epochs, then reduce_on_plateau", Cosine(), ReduceOnPlateau()),
)


def main() -> None:
    """Draw a panel for each case."""
    figure = Figure(figsize=(10, 6.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for ax, (title, before, after) in zip(figure.subplots(2, 2).flat, CASES, strict=True):
        first = Phase(ActiveEpochs(0, OLD), LR, before, Adam(), clock=Clock(0, 0, OLD))
        past = [first.rate(epoch, epoch * STEPS, STEPS, {}).lr for epoch in range(OLD)]
        ax.plot(range(OLD), past, color="black", label="as it was trained")
        for choice in CHOICES:
            plan = GroupPlan((Phase(ActiveEpochs(0, NEW), LR, after, Adam()),))
            resumed = resume_group(plan, SavedGroup(first, LR, {}), AT, choice)
            style = {"stretch": "-", "hold": "--", "restart": ":"}[choice]
            rates = rates_per_epoch(resumed, AT)
            ax.plot(range(OLD, NEW), rates, style, color=COLOURS[choice], label=f"--on-extend {choice}")
        ax.axvline(OLD, color="grey", linewidth=0.8)
        ax.set_yscale("log")
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("epoch")
        ax.set_ylabel("learning rate")
        ax.legend(fontsize=7)
    figure.savefig(Path(__file__).with_name("learning_rate_traces.png"))


if __name__ == "__main__":
    main()
