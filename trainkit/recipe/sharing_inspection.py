"""Says what several processes make of a recipe: batch and memory of each, steps of an epoch, and what is doubtful."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import attrs

from trainkit.contracts import EpochSize, StepMemory
from trainkit.errors import TrainkitError
from trainkit.processes.cuda_devices import num_cuda_devices
from trainkit.recipe.problems import Finding, InvalidRecipe, in_order
from trainkit.recipe.resolve import Resolved
from trainkit.recipe.root import COPIED_FROM_BYTES, MOST_RECORDINGS, Recipe
from trainkit.recipe.sharing import (
    USABLE,
    Sharing,
    recorded,
    rules_of_data,
    rules_of_devices,
    rules_of_memory,
    rules_of_single_items,
    sharing,
    sharing_rules,
)
from trainkit.words import bytes_in_words, number_of


@attrs.frozen
class SharingInspection:
    """What several processes make of a recipe.

    Attributes:
        lines: What each process gets.
        findings: What is doubtful, with its place.
        steps_per_epoch: Optimizer steps of an epoch; None: not known.
    """

    lines: tuple[str, ...]
    findings: tuple[Finding, ...]
    steps_per_epoch: int | None


def check_sharing(resolved: Resolved, processes: int) -> tuple[Finding, ...]:
    """Return notes on a recipe for several processes, without looking at data.

    Raises:
        InvalidRecipe: It cannot be run in so many.
    """
    recipe = resolved.recipe
    found = [*sharing_rules(recipe, processes), *rules_of_single_items(recipe, processes)]
    found += rules_of_devices(recipe, processes, num_cuda_devices())
    return _sorted_out(resolved, found)


def inspect_sharing(resolved: Resolved, processes: int, limit: float | None) -> SharingInspection:
    """Look at headers of the data, and let the model estimate a step.

    Args:
        resolved: The recipe.
        processes: Number of processes.
        limit: Memory of a GPU in bytes; None: not known.

    Raises:
        InvalidRecipe: The recipe cannot be run in so many.
    """
    recipe = resolved.recipe
    notes = list(check_sharing(resolved, processes))
    divided = sharing(recipe, processes)
    if divided is None:
        return SharingInspection(("the data has no batch_size that processes could share",), tuple(notes), None)
    lines = [f"batch        {divided.batch_size} items of the whole run: {divided.in_words()} for each process"]
    unseen = None
    epoch: EpochSize | None = None
    try:
        epoch = recipe.data.epoch_size()
    except (TrainkitError, OSError) as error:
        unseen = str(error).partition("\n")[0]
    steps = None if epoch is None else -(-epoch.batches // recipe.run.accumulate)
    lines += _epoch(recipe, epoch, steps)
    found = list(rules_of_data(recipe, processes, epoch))
    if unseen is not None:
        lines.append(f"memory       not known: {unseen}")
        return SharingInspection(tuple(lines), (*notes, *_sorted_out(resolved, found)), steps)

    @cache
    def memory_of(items: int) -> StepMemory | None:
        return recipe.model.step_memory(recipe, items)

    memory = memory_of(divided.at_once)
    lines += _memory(recipe, memory, divided, limit)
    lines += _memory_of_copy(recipe, memory)
    if processes == 1:
        lines += _memory_beside(recipe, memory)
    found += rules_of_memory(recipe, processes, memory, limit, memory_of)
    return SharingInspection(tuple(lines), (*notes, *_sorted_out(resolved, found)), steps)


def _sorted_out(resolved: Resolved, found: list[Finding]) -> tuple[Finding, ...]:
    """Return what is no mistake, with its place.

    Raises:
        InvalidRecipe: There is a mistake.
    """
    located = in_order(each.located(resolved.origins, resolved.source) for each in found)
    if mistakes := [each for each in located if each.severity == "error"]:
        raise InvalidRecipe(mistakes)
    return tuple(located)


def _epoch(recipe: Recipe, epoch: EpochSize | None, steps: int | None) -> Iterator[str]:
    if epoch is None:
        yield "epoch        its number of steps is known only when the data is opened"
        return
    accumulated = f" of {recipe.run.accumulate} batches" if recipe.run.accumulate > 1 else ""
    yield f"epoch        {steps} steps{accumulated} ({epoch.what} to train on: {epoch.items})"


def _memory(recipe: Recipe, memory: StepMemory | None, divided: Sharing, limit: float | None) -> Iterator[str]:
    if memory is None:
        yield "memory       known only when it runs: the model does not tell it beforehand (Model.step_memory)"
        return
    parts = {
        "weights": memory.weights,
        "average": memory.average,
        "optimizer": memory.optimizer,
        "sums of gradients": divided.sums(memory.weights),
        "data": memory.data,
        "batch, activations and gradients": memory.step,
        "recorded steps": recorded(recipe, memory),
    }
    sums = ", ".join(f"{name} {bytes_in_words(size)}" for name, size in parts.items() if size)
    of_gpu = ""
    if limit is not None:
        of_gpu = f", of {bytes_in_words(USABLE * limit)} that can be counted on ({USABLE * 100:.0f} % of the GPU's)"
    yield f"memory       about {bytes_in_words(sum(parts.values()))} in each process{of_gpu}: {sums}"
    yield f"             estimated by {memory.how}"
    if recipe.run.cuda_graph:
        kinds, most = number_of(memory.kinds, "kind"), min(memory.kinds, MOST_RECORDINGS)
        yield (
            f"             with at most {kinds} of steps, of which {most} at a time are recorded, each with the memory "
            "of a step (run.cuda_graph)"
        )


def _memory_of_copy(recipe: Recipe, memory: StepMemory | None) -> Iterator[str]:
    """Yield what a copy of the checkpoint takes from which it is written while the training goes on."""
    size = _size_of_checkpoint(memory)
    if recipe.checkpoint.in_background and size >= COPIED_FROM_BYTES:
        yield (
            f"             and {bytes_in_words(size)} of the host's in one of them, for the copy from which a "
            "checkpoint is written (checkpoint.in_background)"
        )


def _size_of_checkpoint(memory: StepMemory | None) -> int:
    return 0 if memory is None else memory.weights + memory.average + memory.optimizer


def _memory_beside(recipe: Recipe, memory: StepMemory | None) -> Iterator[str]:
    """Yield what a second process takes that evaluates an epoch while the next one trains, and what is kept for it."""
    on_cpu = recipe.run.device == "cpu" or (recipe.run.device == "auto" and not num_cuda_devices())
    if memory is None or not recipe.validation.beside or not on_cpu:
        return
    copies, second = 2 * _size_of_checkpoint(memory), memory.weights + memory.average + memory.data
    yield (
        f"             and {bytes_in_words(copies)} for two copies of a checkpoint, while an epoch is evaluated "
        "beside the training (validation.beside)"
    )
    yield (
        f"             and {bytes_in_words(second)} in a second process, besides what its libraries ({_LIBRARIES}) and "
        "an evaluation take (trainkit check --data)"
    )


_LIBRARIES = "0.2 to 0.4 GiB"  # measured: torch with the core, and with MONAI; on Linux with a build for CPUs
