"""The time of a training step on 1, 8 and 64 GPUs, worked out from floating-point operations and bytes.

    python benchmarks/several_processes_model.py > docs/several_processes_model.md

Nothing is run on a GPU. The operations of ``recipes/brats_unet.toml`` are counted by PyTorch on tensors without values;
those of a scan follow from the sizes of its transforms. What a GPU and its links do in a second is an assumption
(`GPU`, `Links`), and the page says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from math import ceil, log2
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from trainkit import shape_in_words
from trainkit.recipe.resolve import resolve
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.models.kind_live import SegmentationNetwork

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "brats_unet.toml"
PROCESSES = (1, 8, 64)


# ---- assumptions ----------------------------------------------------------------------------------------------------


class GPU(NamedTuple):
    """What a GPU does in a second. The numbers are those of an H100 SXM; the shares of its peaks are assumptions.

    Attributes:
        tensor_flops: Operations of convolutions in TF32, which torch uses for them unless it is told not to.
        vector_flops: Other operations in fp32, such as those of Fourier transforms.
        memory_bytes: Bytes read or written in its memory.
        launch_seconds: Time that torch needs to start an operation.
    """

    tensor_flops: float = 0.35 * 495e12
    vector_flops: float = 0.5 * 67e12
    memory_bytes: float = 0.7 * 3.35e12
    launch_seconds: float = 6e-6


class Links(NamedTuple):
    """How fast GPUs exchange bytes: within a node of eight by NVLink 4, between nodes by one NDR InfiniBand port each.

    Attributes:
        per_node: GPUs of a node.
        inside_bytes: Bytes that a GPU sends in a second to the others of its node, and receives at the same time.
        outside_bytes: The same to another node.
        inside_seconds: Latency of a message within the node.
        outside_seconds: The same between nodes.
    """

    per_node: int = 8
    inside_bytes: float = 0.8 * 450e9
    outside_bytes: float = 0.8 * 50e9
    inside_seconds: float = 3e-6
    outside_seconds: float = 8e-6


# ---- formulas -------------------------------------------------------------------------------------------------------


def fft_flops(num: int) -> float:
    """Return the real operations of a complex Fourier transform of ``num`` values, 5 n log2 n.

    Source: Cooley, Tukey, Math. Comp. 19 (1965) 297: n/2 log2 n butterflies of ten operations.
    """
    return 5 * num * log2(num)


def ring_volume(num_bytes: float, processes: int) -> float:
    """Return the bytes that each process sends in a ring all-reduce: 2 (N - 1) / N of the array.

    Source: Patarasuk, Yuan, J. Parallel Distrib. Comput. 69 (2009) 117.
    """
    return 2 * (processes - 1) / processes * num_bytes


def tree_volume(num_bytes: float, processes: int) -> float:
    """Return the bytes that each process sends in recursive doubling: the whole array in each of log2 N rounds."""
    return log2(processes) * num_bytes


def ring_seconds(num_bytes: float, processes: int, links: Links) -> float:
    """Return the time of a ring all-reduce: 2 (N - 1) messages, at the pace of the slowest link."""
    if processes == 1:
        return 0.0
    inside = processes <= links.per_node
    pace = links.inside_bytes if inside else links.outside_bytes
    latency = links.inside_seconds if inside else links.outside_seconds
    return 2 * (processes - 1) * latency + ring_volume(num_bytes, processes) / pace


def tree_seconds(num_bytes: float, processes: int, links: Links) -> float:
    """Return the time of recursive doubling: partners are in the node first, then in other nodes."""
    inside = min(log2(processes), log2(links.per_node))
    outside = log2(processes) - inside
    return inside * (links.inside_seconds + num_bytes / links.inside_bytes) + outside * (
        links.outside_seconds + num_bytes / links.outside_bytes
    )


def hierarchical_seconds(num_bytes: float, processes: int, links: Links) -> float:
    """Return the time of an all-reduce in three parts: a ring within each node, between nodes, and within again.

    Each GPU adds up its share of the array within the node, exchanges that with its partners in other nodes, and gets
    the other shares within the node.
    """
    per_node = min(processes, links.per_node)
    nodes = processes // per_node
    within = 2 * (per_node - 1) * links.inside_seconds + ring_volume(num_bytes, per_node) / links.inside_bytes
    between = 2 * (nodes - 1) * links.outside_seconds + ring_volume(num_bytes / per_node, nodes) / links.outside_bytes
    return within + between


class Work(NamedTuple):
    """What a process computes in a step.

    Attributes:
        tensor_flops: Operations of convolutions and products of matrices.
        vector_flops: Other operations.
        memory_bytes: Bytes that its operations read and write.
        launches: Number of operations that are started.
    """

    tensor_flops: float
    vector_flops: float
    memory_bytes: float
    launches: float

    def seconds(self, gpu: GPU) -> tuple[float, str]:
        """Return the time, and what bounds it: operations, memory or launches, which overlap each other."""
        times = {
            "operations": self.tensor_flops / gpu.tensor_flops + self.vector_flops / gpu.vector_flops,
            "memory": self.memory_bytes / gpu.memory_bytes,
            "launches": self.launches * gpu.launch_seconds,
        }
        bound = max(times, key=times.__getitem__)
        return times[bound], bound


# ---- the recipe -----------------------------------------------------------------------------------------------------


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that make tensors, and the bytes that each reads and writes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_bytes = 0
        self.launches = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call an operation, and count it."""
        made = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            self.launches += 1
            tensors = [each for each in tree_leaves((args, kwargs, made)) if isinstance(each, Tensor)]
            self.num_bytes += sum(each.nbytes for each in tensors)
        return made


def counted(batch_size: int) -> tuple[Work, int]:
    """Return what a step of ``recipes/brats_unet.toml`` computes for some patches, and the bytes of its parameters."""
    recipe = resolve(RECIPE, ("data.path=.",)).recipe
    patch = cast(Any, recipe.data).patch_size
    facts = SegmentationFacts(("t1", "t1ce", "t2", "flair"), ("wt", "tc", "et"), False, {}, patch, {}, 1, "")
    network = cast(Any, recipe.model).build(facts).network
    losses = [loss.build(cast(Any, facts)) for loss in recipe.losses.values()]
    fake = FakeTensorMode(allow_fallback_kernels=False, allow_non_fake_inputs=True)
    for module in network.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            setattr(module, name, fake.from_tensor(tensor))
    model = SegmentationNetwork(network)
    parameters = sum(each.nbytes for each in model.parameters())
    with fake:
        batch = {"image": torch.empty(batch_size, 4, *patch), "label": torch.empty(batch_size, 3, *patch)}
    operations = FlopCounterMode(display=False)
    with operations, Traffic() as traffic:
        outputs = model(batch)
        loss = sum((_whole(each, outputs, batch, model) for each in losses), torch.zeros(()))
        loss.backward()  # type: ignore[no-untyped-call]
    update = 7 * parameters  # AdamW reads weight, gradient and two moments, and writes three of them
    return Work(operations.get_total_flops(), 0, traffic.num_bytes + update, traffic.launches), parameters


def _whole(loss: Any, outputs: Any, batch: Any, model: Any) -> Tensor:
    return cast(Tensor, loss(outputs, batch, model))


# ---- the scan -------------------------------------------------------------------------------------------------------


class Scan(NamedTuple):
    """A scan, and the step by which it is reconstructed.

    Attributes:
        points: Points along each edge.
        pixels: Pixels along each edge of a pattern.
        step_pixels: Distance of neighbouring points, in pixels of the object.
        modes: Probe modes.
        batch_size: Patterns in a step of the whole run.
    """

    points: int = 512
    pixels: int = 256
    step_pixels: int = 6
    modes: int = 4
    batch_size: int = 512

    @property
    def object_pixels(self) -> int:
        """Pixels of the object."""
        return int((self.step_pixels * (self.points - 1) + self.pixels) ** 2)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return ceil(self.points**2 / self.batch_size)

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradients that are added up over processes: phase and absorption, probe, displacements."""
        return 4 * (2 * self.object_pixels + 2 * self.modes * self.pixels**2 + 2 * self.points**2)

    def work(self, patterns: int) -> Work:
        """Return what a step computes for some patterns.

        For each pattern and mode, there are four transforms (probe to its ramp and back, to the detector, and the way
        back; each is two passes over memory) and three complex products. Adam updates the whole object in each step.
        """
        num = self.pixels**2
        of_mode = 4 * fft_flops(num) + 3 * 6 * num
        transforms = 4 * 2 * (8 + 8) * num  # bytes: rows, then columns, each read and written
        products = 3 * (8 + 8 + 8) * num
        update = 7 * self.gradient_bytes + 4 * 8 * self.object_pixels  # and transmission and its gradient
        return Work(
            0, patterns * self.modes * of_mode, patterns * self.modes * (transforms + products) + update, _OF_A_STEP
        )


_OF_A_STEP = 150  # operations that a ptychographic step starts, for any batch


# ---- the page -------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A step on some GPUs."""

    processes: int
    share: int
    compute: float
    bound: str
    ring: float
    tree: float

    @property
    def step(self) -> float:
        """Time of a step with the ring."""
        return self.compute + self.ring

    @property
    def share_of_ring(self) -> float:
        """Share of the ring in the step."""
        return self.ring / self.step

    @property
    def with_tree(self) -> float:
        """Time of a step with the binary tree, as a multiple of that with the ring."""
        return (self.compute + self.tree) / self.step


def rows(shares: Mapping[int, int], work: Callable[[int], Work], num_bytes: int, gpu: GPU, links: Links) -> list[Row]:
    """Return the times of a step.

    Args:
        shares: Number of processes -> items of each.
        work: Items -> what they take.
        num_bytes: Bytes of the gradients.
        gpu: What a GPU does.
        links: How GPUs exchange bytes.
    """
    found = []
    for processes, share in shares.items():
        compute, bound = work(share).seconds(gpu)
        ring, tree = ring_seconds(num_bytes, processes, links), tree_seconds(num_bytes, processes, links)
        found.append(Row(processes, share, compute, bound, ring, tree))
    return found


def table(found: Sequence[Row], what: str) -> Iterator[str]:
    """Yield the lines of a table of Markdown."""
    titles = ("GPUs", f"{what} of each", "computing", "bounded by", "ring", "binary tree", "step", f"{what} a second")
    yield f"| {' | '.join(titles)} | efficiency |"
    yield "|---|---|---|---|---|---|---|---|---|"
    alone = found[0].share / found[0].compute
    for each in found:
        rate = each.processes * each.share / each.step
        yield (
            f"| {each.processes} | {each.share} | {_ms(each.compute)} | {each.bound} | {_ms(each.ring)} | "
            f"{_ms(each.tree)} | {_ms(each.step)} | {rate:,.0f} | {rate / alone / each.processes * 100:.0f} % |"
        )


def _ms(seconds: float) -> str:
    return "–" if seconds == 0 else f"{seconds * 1e3:.3g} ms"


def page(gpu: GPU, links: Links) -> Iterator[str]:
    """Yield the lines of the page."""
    recipe = resolve(RECIPE, ("data.path=.",)).recipe
    patch, batch = cast(Any, recipe.data).patch_size, cast(Any, recipe.data).batch_size
    of_patches, parameters = cache(lambda number: counted(number)[0]), counted(1)[1]
    one, scan = of_patches(1), Scan()
    num = scan.pixels**2

    def times(shares: Mapping[int, int], work: Callable[[int], Work], num_bytes: int) -> list[Row]:
        return rows(shares, work, num_bytes, gpu, links)

    yield from ("# Several GPUs on paper", "")
    yield from paragraph(
        "How long a step takes on 1, 8 and 64 GPUs, from bytes and operations. This page is written by `python",
        "benchmarks/several_processes_model.py`. **Nothing here was measured**: the model shows what bounds a step and",
        "where more GPUs stop paying, and single times may be wrong by a factor of two.",
    )
    yield from paragraph(
        f"**Assumed of a GPU** (an H100 SXM): {gpu.tensor_flops / 1e12:.0f} TFLOP/s in convolutions, 35 % of",
        "the peak of",
        f"TF32, which torch uses for them; {gpu.vector_flops / 1e12:.0f} TFLOP/s in other operations, 50 % of",
        "the peak of",
        f"fp32; {gpu.memory_bytes / 1e12:.2f} TB/s of memory, 70 % of its peak;",
        f"{gpu.launch_seconds * 1e6:.0f} µs to start",
        "an operation. The longest of the three (operations, memory, launches) is the time of computing.",
    )
    yield from paragraph(
        f"**Assumed of the links**: {links.per_node} GPUs in a node; {links.inside_bytes / 1e9:.0f} GB/s each way and",
        f"{links.inside_seconds * 1e6:.0f} µs between two of them (NVLink 4, 80 % of its peak);",
        f"{links.outside_bytes / 1e9:.0f} GB/s and {links.outside_seconds * 1e6:.0f} µs between GPUs of",
        "different nodes",
        "(a port of 400 Gbit/s InfiniBand for each GPU, 80 %). Loading of data, validation and checkpoints",
        "are left out.",
    )
    yield from paragraph(
        "**Gradients are added up** in one of two ways. *Ring*: each GPU sends 2 (N - 1) / N of their bytes",
        "in 2 (N - 1)",
        "messages, at the pace of the slowest link. *Binary tree*, as `[run] shards` adds them up in a fixed",
        "order: each",
        "GPU sends all of them in each of log2 N rounds, first within the node. A step is computing and then the ring;",
        "what is hidden behind the backward pass comes off. Efficiency is relative to the one GPU of the table.",
    )
    yield from ("## recipes/brats_unet.toml", "")
    yield from paragraph(
        f"A patch of {shape_in_words(patch)}: {one.tensor_flops / 1e12:.3g} TFLOP forward and backward, counted by",
        f"`FlopCounterMode` on tensors without values; {one.memory_bytes / 1e9:.3g} GB read and written if no",
        "operations",
        f"are fused; {one.launches:.0f} operations. The gradients have {parameters / 1e6:.1f} MB.",
    )
    yield from (f"The batch grows with the GPUs, {batch} patches each:", "")
    grown = times(dict.fromkeys(PROCESSES, batch), of_patches, parameters)
    yield from (*table(grown, "patches"), "", "The batch of the whole run stays at 64 patches:", "")
    yield from (*table(times({each: 64 // each for each in PROCESSES}, of_patches, parameters), "patches"), "")
    yield from (f"## A scan of {scan.points} × {scan.points} points, patterns of {scan.pixels}²", "")
    yield from paragraph(
        f"{scan.points**2:,} patterns, {scan.points**2 * num * 4 / 1e9:.0f} GB in single precision; {scan.modes} probe",
        f"modes; neighbouring points {scan.step_pixels} pixels apart, so that the object has",
        f"{scan.object_pixels / 1e6:.1f} million pixels (phase and absorption). A transform of a pattern is",
        f"{fft_flops(num) / 1e6:.2f} MFLOP, 5 n log2 n; a pattern has four for each mode, and three complex products.",
        f"The gradients have {scan.gradient_bytes / 1e6:.0f} MB, nearly all of them of the object, for any batch. Adam",
        f"updates the whole object in each step, on every GPU. A step starts {_OF_A_STEP} operations (assumed).",
    )
    yield from (f"Batches of {scan.batch_size} patterns of the whole run, {scan.steps} steps an epoch:", "")
    fixed = times({each: scan.batch_size // each for each in PROCESSES}, scan.work, scan.gradient_bytes)
    yield from (*table(fixed, "patterns"), "", f"Batches that grow with the GPUs, {scan.batch_size} patterns each:", "")
    wide = times(dict.fromkeys(PROCESSES, scan.batch_size), scan.work, scan.gradient_bytes)
    yield from (*table(wide, "patterns"), "", "## What follows", "")
    eight, many = grown[1:]
    yield from paragraph(
        f"- Segmentation: adding up {parameters / 1e6:.0f} MB takes {eight.share_of_ring * 100:.2g} % of a step on",
        f"8 GPUs, and {many.share_of_ring * 100:.0f} % on 64, where the links between nodes decide. Adding up within",
        "the nodes first would",
        f"take {hierarchical_seconds(parameters, 64, links) * 1e3:.2g} ms there in place of {many.ring * 1e3:.2g}.",
    )
    yield from paragraph(
        f"- The binary tree sends {tree_volume(1, 8) / ring_volume(1, 8):.2g} times the bytes of a ring on 8 GPUs and",
        f"{tree_volume(1, 64) / ring_volume(1, 64):.2g} times on 64, where half of its rounds stay within",
        "nodes, in fewer",
        f"messages. The same bits on any number of GPUs cost {eight.tree / eight.ring:.2g} and",
        f"{many.tree / many.ring:.2g} times the exchange, which is {eight.with_tree:.2f} and",
        f"{many.with_tree:.2f} times",
        "the step of the segmentation, and",
        f"{fixed[1].with_tree:.2f} and {fixed[2].with_tree:.2f} times that of the scan in batches of",
        f"{scan.batch_size}.",
    )
    yield from paragraph(
        f"- Ptychography: with {scan.batch_size} patterns in a step of the whole run, adding up the object's",
        f"gradients is {fixed[1].share_of_ring * 100:.0f} % of the step on 8 GPUs and",
        f"{fixed[2].share_of_ring * 100:.0f} % on 64, where a step takes {fixed[2].step / fixed[1].step:.2g} times",
        "that on 8. More GPUs pay with larger batches; or GPUs would have to exchange only the part of the object",
        "that their patterns touch, which this project does not do.",
    )


def paragraph(*lines: str) -> list[str]:
    """Return the lines of a paragraph of Markdown, or of an item of a list."""
    text = " ".join(lines)
    is_item = text.startswith("- ")
    return [*wrap(text, 120, subsequent_indent="  " * is_item, break_on_hyphens=False), *([] if is_item else [""])]


if __name__ == "__main__":
    print("\n".join(page(GPU(), Links())).rstrip())
