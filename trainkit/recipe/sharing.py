"""What several processes make of a recipe: the share of each, and what cannot work or is doubtful.

A batch is of the whole run. It is divided into as many parts as there are processes, or into ``[run] shards`` parts, of
which each process computes as many.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import ceil

import attrs

from trainkit.contracts import EpochSize, StepMemory
from trainkit.recipe.problems import Finding
from trainkit.recipe.root import MOST_RECORDINGS, Recipe
from trainkit.words import bytes_in_words

USABLE = 0.9
"""Share of a GPU's memory that an estimate may fill: it knows neither work space nor what is fragmented."""

_FEW_OF_A_BATCH = 8  # items; below, the statistics that BatchNorm computes are noise (Wu & He 2018, figure 1)
_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@attrs.frozen
class Sharing:
    """How batches are divided.

    Attributes:
        processes: Number of processes.
        batch_size: Items of a batch of the whole run.
        parts: Number of parts of a batch.
    """

    processes: int
    batch_size: int
    parts: int

    @property
    def shares(self) -> tuple[int, ...]:
        """The number of items of each process."""
        each = self.parts // self.processes
        sizes = [len(range(part, self.batch_size, self.parts)) for part in range(self.parts)]
        return tuple(sum(sizes[rank * each : (rank + 1) * each]) for rank in range(self.processes))

    @property
    def at_once(self) -> int:
        """The number of items whose gradient is computed at once: those of the largest part."""
        return ceil(self.batch_size / self.parts)

    def sums(self, weights: int) -> int:
        """Return the bytes of the sums of gradients: one, and those of parts that wait in the tree of sums.

        Args:
            weights: Bytes of the weights.
        """
        return weights * (self.parts // self.processes).bit_length() if self.parts > 1 else 0

    def needs(self, memory: StepMemory) -> int:
        """Return what training takes in a process, in bytes."""
        return memory.total + self.sums(memory.weights)

    def in_words(self) -> str:
        """Return the share of a process."""
        most, least = max(self.shares), min(self.shares)
        text = f"{most}" if most == least else f"{most} or {least}"
        if self.parts == self.processes:
            return text
        return f"{text}, in {self.parts // self.processes} of {self.parts} shards"


def sharing(recipe: Recipe, processes: int) -> Sharing | None:
    """Return how batches are divided; None: the data has no ``batch_size``, or shards cannot be divided."""
    batch_size = getattr(recipe.data, "batch_size", None)
    shards = recipe.run.shards
    if type(batch_size) is not int or (shards and shards % processes):
        return None
    return Sharing(processes, batch_size, shards or processes)


def sharing_rules(recipe: Recipe, processes: int) -> Iterator[Finding]:
    """Find what keeps a recipe from being run in so many processes, without looking at data."""
    shards = recipe.run.shards
    if shards and shards % processes:
        powers = ", ".join(str(2**k) for k in range(shards.bit_length()))
        yield Finding(
            f"{shards} shards cannot be divided among {processes} processes; possible are {powers}", ("run", "shards")
        )
    if max(processes, shards) > 1 and not recipe.data.divides_batches:
        yield Finding(
            f"{type(recipe.data).__name__} does not divide batches among processes or shards (divides_batches), so "
            "each would train on the same ones: run one process, without run.shards",
            ("data", "use"),
        )
    if processes > 1 and recipe.run.cuda_graph:
        yield Finding("steps of several processes cannot be recorded: run one process", ("run", "cuda_graph"))
    divided = sharing(recipe, processes)
    if divided is None:
        return
    size, parts = divided.batch_size, divided.parts
    of_whom = "shards" if parts != processes else "processes"
    place = ("data", "batch_size")
    if size < parts:
        fewer = f"run at most {size} processes" if size > 1 else "run one process"
        if parts != processes:
            fewer = f"set run.shards = {2 ** (size.bit_length() - 1) if size > 1 else 0}"
        yield Finding(
            f"a batch of {size} cannot be divided among {parts} {of_whom}: some would have nothing to do; it is the "
            f"batch of the whole run, so raise it to a multiple of {parts}, or {fewer}",
            place,
        )
    elif size % parts:
        low, high = size // parts * parts, ceil(size / parts) * parts
        shares = divided.shares
        shares = divided.shares
        waiting = shares.count(max(shares)) if min(shares) < max(shares) else 0
        message = f"a batch of {size} is divided unevenly among {parts} {of_whom}"
        if waiting:
            message += f": the {waiting} with {max(shares)} items make the others, with {min(shares)}, wait"
        yield Finding(message, place, "note", hint=f"batch_size = {low} and {high} are divided evenly")


def rules_of_single_items(recipe: Recipe, processes: int) -> Iterator[Finding]:
    """Find shards of one item, which a CPU computes more slowly than several at once (docs/several_processes.md)."""
    divided = sharing(recipe, processes)
    if divided is None or recipe.run.device != "cpu" or divided.parts == divided.processes:
        return
    if divided.at_once == 1 and divided.batch_size >= divided.parts:
        yield Finding(
            f"each of {divided.parts} shards has one item of a batch: if items are small, a step takes up to half as "
            "long again as without shards",
            ("run", "shards"),
            "note",
            hint=f"batch_size = {2 * divided.parts} gives each two; so does shards = {divided.parts // 2}",
        )


def rules_of_devices(recipe: Recipe, processes: int, num_devices: int) -> Iterator[Finding]:
    """Find a device that so many processes cannot have, or may not have here.

    Args:
        recipe: The recipe.
        processes: Number of processes.
        num_devices: CUDA devices of this machine; 0: none, or not known.
    """
    device, place = recipe.run.device, ("run", "device")
    if processes == 1:
        return
    if device.startswith("cuda:"):
        yield Finding(
            f'"{device}" names one device for {processes} processes; with "cuda", each has one of its own', place
        )
    elif device in ("auto", "cuda") and 0 < num_devices < processes:
        yield Finding(
            f"each of {processes} processes needs a CUDA device of its own, and this machine has {num_devices}: here, "
            "they are refused",
            place,
            "warning",
            hint=f'at most {num_devices} on this machine, several machines, or run.device = "cpu"',
        )
    elif device == "cuda" and not num_devices:
        yield Finding(
            f"each of {processes} processes needs a CUDA device of its own, and none is seen here; where it runs, a "
            "machine must have as many as it has processes",
            place,
            "note",
        )


def rules_of_data(recipe: Recipe, processes: int, epoch: EpochSize | None) -> Iterator[Finding]:
    """Find batches of an epoch that are too small for so many processes."""
    divided = sharing(recipe, processes)
    if epoch is None or divided is None or divided.batch_size < divided.parts:
        return
    if epoch.batches == ceil(epoch.items / divided.batch_size) and epoch.items // epoch.batches < divided.parts:
        yield Finding(
            f"{epoch.items} {epoch.what} are trained on, too few for batches of {divided.parts} parts: some would have "
            "nothing to do",
            ("data",),
            at="key",
        )


def recorded(recipe: Recipe, memory: StepMemory) -> int:
    """Return the bytes that recorded steps keep besides those of one step.

    Each kind of steps is made as usual once, and then recorded. What usual steps took is given back before a recording,
    and the next batch arrives beside that of a recording.
    """
    if not recipe.run.cuda_graph:
        return 0
    if memory.kinds > MOST_RECORDINGS:  # the others are made as usual, beside the recordings
        return MOST_RECORDINGS * memory.step
    return (memory.kinds - 1) * memory.step + memory.batch


def rules_of_memory(
    recipe: Recipe,
    processes: int,
    memory: StepMemory | None,
    limit: float | None,
    smaller: Callable[[int], StepMemory | None],
) -> Iterator[Finding]:
    """Find a step that takes more memory than there is, and statistics of small shares.

    Args:
        recipe: The recipe.
        processes: Number of processes.
        memory: What a step takes in one process.
        limit: Memory of a GPU in bytes; None: not known.
        smaller: Number of items at once -> what a step of so many takes; None: not known.
    """
    divided = sharing(recipe, processes)
    if memory is None or divided is None:
        return
    if memory.batch_statistics and divided.at_once < min(_FEW_OF_A_BATCH, divided.batch_size):
        yield Finding(
            f"the model has BatchNorm, whose statistics are those of the {divided.at_once} item"
            f"{'s' * (divided.at_once != 1)} that are computed at once, not of all {divided.batch_size} of a batch: "
            "results depend on how batches are divided",
            ("model",),
            "warning",
            at="key",
            hint="choose a normalisation of each item by itself, such as instance or group normalisation",
        )
    needs = divided.needs(memory) + recorded(recipe, memory)
    if limit is not None and needs > USABLE * limit:
        yield Finding(
            f"a step of {divided.at_once} item{'s' * (divided.at_once != 1)} takes about "
            f"{bytes_in_words(needs)} in each process, and {bytes_in_words(USABLE * limit)} of the "
            f"GPU's {bytes_in_words(limit)} can be counted on",
            ("data", "batch_size"),
            "warning",
            hint=_what_to_lower(recipe, divided, memory, USABLE * limit, smaller),
        )


def _what_to_lower(
    recipe: Recipe, divided: Sharing, memory: StepMemory, usable: float, smaller: Callable[[int], StepMemory | None]
) -> str:
    if divided.needs(memory) - memory.step > usable:
        return "what is there all the time does not fit: keep the data elsewhere, or choose a smaller model"
    ways = []
    if (kept := recorded(recipe, memory)) and divided.needs(memory) <= usable:
        ways.append(f"cuda_graph = false in [run] fits: recorded steps keep {bytes_in_words(kept)} more")

    def fits(items: int) -> bool:
        found = smaller(items)
        return found is not None and divided.needs(found) + recorded(recipe, found) <= usable

    fitting = divided.at_once
    while fitting > 0 and not fits(fitting):
        fitting //= 2
    if fitting:
        times = ceil(divided.at_once / fitting) * recipe.run.accumulate
        size = fitting * divided.parts
        way = f"batch_size = {size} in [data] fits"
        if not recipe.run.cuda_graph:
            way += f"; accumulate = {times} in [run] gives steps of as many items"
        ways.append(way)
        if divided.parts == divided.processes and not recipe.run.cuda_graph:
            ways.append(f"{ceil(divided.batch_size / fitting)} processes fit with the batch as it is")
    else:
        ways.append("not even one item at once fits: make the items smaller, or the model")
    may_recompute = not (recipe.run.activation_checkpointing or recipe.run.cuda_graph)
    if may_recompute and not recipe.model.computes_complex:
        ways.append("activation_checkpointing = true in [run] saves most of the activations, for a third more time")
    if recipe.run.precision == "fp32" and not recipe.model.computes_complex:
        ways.append('precision = "bf16" in [run] halves most of them')
    return "\n    ".join(ways)


def memory_size(text: str) -> float | None:
    """Return the bytes of a size such as "24GB", "80 GiB" or "512M"; None if it is none.

    Example:
        >>> memory_size("24GB"), memory_size("1.5 GiB")
        (24000000000.0, 1610612736.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?|)b?\s*", text.lower())
    if found is None or not (size := float(found[1]) * _UNITS[found[2]]):
        return None
    return size
