"""What ``check --data`` and ``plan`` say about memory: of a training step, and of validating the largest case."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import nn

from trainkit import Depth, Problem, Recipe, StepMemory, bytes_in_words, free_host_memory, recompute, shape_in_words
from trainkit_segmentation.cases.case import CaseList
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.data.inspection import grid_of
from trainkit_segmentation.data.intensities import with_intensities
from trainkit_segmentation.models.footprint import Footprint, footprint, validation_bytes
from trainkit_segmentation.preparing.cache_filling import classes_in_cache
from trainkit_segmentation.preparing.cache_live import CaseStore

if TYPE_CHECKING:
    from torch import Tensor

    from trainkit import Batch, Outputs
    from trainkit_segmentation.data.kind import SegmentationData
    from trainkit_segmentation.models.kind import SegmentationModel
    from trainkit_segmentation.models.kind_live import SegmentationNetwork

_SHARE = 0.9  # of the free memory: the estimates know neither the work space of convolutions nor what is fragmented


def memory_needs(
    model: SegmentationModel, data: SegmentationData, recipe: Recipe, depth: Depth
) -> Iterator[str | Problem]:
    """Yield what training and validation take, and a doubt if that is more than is free here.

    Raises:
        RecipeError: The network cannot be made for the data.
    """
    listing = data.cases()
    made = _Made.of(model, data, listing, recipe)
    try:
        found = made.footprint(data.batch_size, recipe)
    except Exception as error:  # an operation of the network or a loss depends on values
        yield f"memory for training: known only when it runs ({type(error).__name__}: {str(error).splitlines()[0]})"
        return
    yield _training(found)
    free = _free(recipe)
    if free is not None and found.training > _SHARE * free:
        yield Problem(
            f"a training step takes about {bytes_in_words(found.training)}, and {bytes_in_words(free)} are free: lower "
            f"{'run.accumulate, ' * (made.together > 1)}data.batch_size or data.patch_size, or choose a smaller "
            "network",
            severity="warning",
        )
    on_volumes = [
        partial(loss, model=made.model) for name, loss in made.losses.items() if recipe.losses[name].on_validation
    ]
    if (largest := _largest(data, listing, bool(recipe.metrics), depth == "all", on_volumes)) is None:
        return
    case, shape, num_bytes = largest
    validation = found.kept + found.window + num_bytes
    yield f"memory for validation: about {bytes_in_words(validation)} for {case}, of {shape_in_words(shape)} voxels"
    if free is not None and validation > _SHARE * free:
        yield Problem(
            f"the validation of {case} takes about {bytes_in_words(validation)}, and {bytes_in_words(free)} are free: "
            "hold out smaller cases, or crop them",
            severity="warning",
        )
    elif recipe.validation.beside and _is_on_cpu(recipe):
        both = found.training + validation + 2 * (found.network + found.average + (found.optimizer or 0))
        yield f"memory with validation.beside: about {bytes_in_words(both)}, for training and validation at once"
        if free is not None and both > _SHARE * free:
            yield Problem(
                f"training and the validation of {case} at once (validation.beside) take about {bytes_in_words(both)}, "
                f"and {bytes_in_words(free)} are free: set validation.beside = false, or hold out smaller cases",
                severity="warning",
            )


def step_memory(model: SegmentationModel, data: SegmentationData, recipe: Recipe, batch_size: int) -> StepMemory | None:
    """Return what training takes on the device of a process; None: a part of it depends on values.

    Args:
        model: The network.
        data: The data.
        recipe: The recipe.
        batch_size: Number of patches whose gradient is computed at once.

    Raises:
        DataError: The cases cannot be listed.
        RecipeError: The network cannot be made for the data.
    """
    made = _Made.of(model, data, data.cases(), recipe)
    try:
        found = made.footprint(batch_size, recipe)
    except Exception:  # an operation of the network or a loss depends on values
        return None
    how = f"a step of {batch_size} patch{'es' * (batch_size != 1)} on tensors without values"
    if made.together > 1:
        how += f", {made.together} batches of which are kept for a loss of sums"
    statistics = any(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in made.model.modules())
    return StepMemory(found.network, found.average, found.optimizer or 0, 0, found.step, how, statistics, found.batch)


class _Made(NamedTuple):
    """A network and its losses.

    Attributes:
        model: The network; a footprint takes its values.
        losses: The losses by name.
        facts: What the network was made for.
        together: Batches whose activations are kept until one backward pass.
    """

    model: SegmentationNetwork
    losses: Mapping[str, Callable[..., Tensor]]
    facts: SegmentationFacts
    together: int

    @classmethod
    def of(cls, model: SegmentationModel, data: SegmentationData, listing: CaseList, recipe: Recipe) -> _Made:
        labels = listing.labels
        facts = SegmentationFacts(listing.channels, labels.classes, labels.exclusive, {}, data.patch_size, {}, 1, "")
        built = model.build(facts)
        if recipe.run.activation_checkpointing:
            recompute(model.recomputed_blocks(built))
        losses = {name: loss.build(cast(Any, facts)) for name, loss in recipe.losses.items()}
        # A loss of sums keeps the activations of all batches of a step until one backward pass.
        sums = any(each.combine() == "sums" for each in recipe.losses.values())
        return cls(built, losses, facts, recipe.run.accumulate if sums else 1)

    def footprint(self, batch_size: int, recipe: Recipe) -> Footprint:
        """Return what training takes."""
        facts = self.facts
        return footprint(
            self.model.network,
            facts.num_channels,
            len(facts.classes),
            facts.exclusive,
            facts.patch_size,
            batch_size * self.together,
            self.losses,
            recipe.optimizer,
            recipe.run.precision,
            averaged=recipe.ema is not None,
        )


def _training(found: Footprint) -> str:
    average = f", average {bytes_in_words(found.average)}" if found.average else ""
    state = "" if found.optimizer is None else f", optimizer {bytes_in_words(found.optimizer)}"
    return (
        f"memory for training: about {bytes_in_words(found.training)} "
        f"(network {bytes_in_words(found.network)}{average}{state}, "
        f"activations, gradients and batch {bytes_in_words(found.step)})"
    )


def _largest(
    data: SegmentationData,
    listing: CaseList,
    on_own_grid: bool,
    balanced: bool,
    losses: Sequence[Callable[[Outputs, Batch], Tensor]] = (),
) -> tuple[str, tuple[int, ...], int] | None:
    """Return the case whose validation takes most: its name, its own size, and the bytes.

    Args:
        data: The data.
        listing: Its cases.
        on_own_grid: Whether scores are resampled to the case's own grid.
        balanced: Whether the cases were read, so that the split can be balanced as it will be.
        losses: Those that are computed in validation.
    """
    subjects = {case.name: case.subject for case in listing.cases}
    division = data.split.divide_listed(subjects, listing.folds)
    if balanced:
        store = CaseStore(data.cache)
        preprocessing = with_intensities(data, listing, listing.cases, division, store)
        present = classes_in_cache(listing.cases, listing.labels, preprocessing, store)
        division = division if present is None else data.split.balance(division, subjects, present)
    held_out = {name for split, names in division.items() if split != "train" for name in names}
    most: tuple[str, tuple[int, ...], int] | None = None
    tried: set[tuple[int, ...]] = set()
    for case in listing.cases:
        if case.name not in held_out:
            continue
        grid = grid_of(data, case.inspect())
        if grid is None or (size := (math.prod(grid.own_shape), math.prod(grid.shape))) in tried:
            continue
        tried.add(size)
        num_classes = len(listing.labels.classes)
        num_bytes = validation_bytes(
            grid, len(listing.channels), num_classes, listing.labels.exclusive, on_own_grid, losses
        )
        if most is None or num_bytes > most[2]:
            most = case.name, grid.own_shape, num_bytes
    return most


def _free(recipe: Recipe) -> int | None:
    """Return the memory that the run would find on its device; None if the device is not here."""
    device = recipe.run.device
    if torch.cuda.is_available() and device not in ("cpu", "mps"):
        return int(torch.cuda.get_device_properties("cuda" if device == "auto" else device).total_memory)
    return free_host_memory() if _is_on_cpu(recipe) else None


def _is_on_cpu(recipe: Recipe) -> bool:
    has_others = torch.cuda.is_available() or torch.backends.mps.is_available()
    return recipe.run.device == "cpu" or (recipe.run.device == "auto" and not has_others)
