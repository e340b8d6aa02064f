"""Coarse to fine along the beam: in which epochs the wave passes fewer slices than the object has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs
from attrs.validators import ge

from trainkit import Problem, component


@component
class CoarseSlices:
    """A stage of a run in which the object's slices count together, in this many groups of neighbours.

    Attributes:
        slices: Number of slices that the wave passes, fewer than ``model.slices``.
        stop_epoch: The first epoch in which this stage is over. It lasts from the end of the stage before it.
    """

    slices: int = attrs.field(validator=ge(1))
    stop_epoch: int = attrs.field(validator=ge(1))


def slices_in(epoch: int, stages: Mapping[str, CoarseSlices], slices: int) -> int:
    """Return how many slices the wave passes in an epoch.

    Args:
        epoch: The epoch, from 0.
        stages: The stages, in any order.
        slices: Number of slices after all stages.

    Example:
        >>> stages = {"one": CoarseSlices(slices=1, stop_epoch=2), "few": CoarseSlices(slices=4, stop_epoch=3)}
        >>> [slices_in(epoch, stages, 12) for epoch in range(5)]
        [1, 1, 4, 12, 12]
    """
    ahead = [each for each in in_order(stages) if epoch < each.stop_epoch]
    return ahead[0].slices if ahead else slices


def in_order(stages: Mapping[str, CoarseSlices]) -> list[CoarseSlices]:
    """Return the stages, the one that comes first in front."""
    return sorted(stages.values(), key=lambda each: each.stop_epoch)


def timeline(stages: Mapping[str, CoarseSlices], slices: int, epochs: int) -> Iterator[tuple[int, str]]:
    """Yield the epochs in which the number of slices changes, for the plan of a run."""
    before = slices
    for epoch in range(epochs):
        now = slices_in(epoch, stages, slices)
        if now != before:
            yield epoch, f"model: {now} slice{'s' if now > 1 else ''}" + (f" of {slices}" if now < slices else "")
        before = now


def problems_of_stages(stages: Mapping[str, CoarseSlices], slices: int, epochs: int) -> Iterable[Problem]:
    """Check the stages.

    Args:
        stages: Name -> stage.
        slices: Number of slices after all stages.
        epochs: Epochs of the run.
    """
    if slices == 1:
        if stages:
            yield Problem("has no effect on a single slice: raise model.slices, or leave it out", "coarse")
        return
    named = sorted(stages.items(), key=lambda each: each[1].stop_epoch)
    for number, (name, stage) in enumerate(named):
        where = f"coarse.{name}"
        if stage.slices >= slices:
            yield Problem(f"must be fewer than model.slices = {slices}, got {stage.slices}", f"{where}.slices")
        if stage.stop_epoch >= epochs:
            yield Problem(
                f"the run ends before, after {epochs} epochs: its {slices} slices will never be told apart",
                f"{where}.stop_epoch",
                "warning",
            )
        if number == 0:
            continue
        before, earlier = named[number - 1]
        if earlier.stop_epoch == stage.stop_epoch:
            yield Problem(f"is that of coarse.{before}: one of the two would never be", f"{where}.stop_epoch")
        elif earlier.slices >= stage.slices:
            yield Problem(
                f"must be more than the {earlier.slices} of coarse.{before}, which comes before it: slices that were "
                f"told apart would be one again; got {stage.slices}",
                f"{where}.slices",
            )
