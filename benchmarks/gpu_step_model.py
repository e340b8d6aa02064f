"""The time of a step of ptychography on a GPU, worked out from its operations and bytes.

    python benchmarks/gpu_step_model.py > docs/gpu_step_model.md

Nothing is run on a GPU. The operations are those of real steps of ``recipes/ptycho_staged.toml``, counted on a CPU,
with what a GPU is asked for in place of what is done otherwise on a CPU. What a GPU does in a second is an assumption
(`GPU`), and the page says which.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from several_processes_model import GPU, Traffic, fft_flops, paragraph
from torch import Tensor
from torch.utils._pytree import tree_leaves

from trainkit.engine.build import build
from trainkit.engine.loop import train
from trainkit.engine.run_folder import created
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.models import ptychography_live
from trainkit_ptychography.physics.patches import patches_by_place

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "ptycho_staged.toml"
POINTS, PIXELS = 80, 64  # scan points and detector pixels along each edge
BATCHES, MODES = (32, 256, 4096), (1, 4)
SETS = (
    "run.device=cpu",
    "run.threads=2",
    "run.steps=3",
    "groups.probe.start_epoch=0",
    "groups.dr.start_epoch=0",
    "data.validation_fraction=0",
    "monitor.metric=train/loss",
    f"data.scan_shape=[{POINTS}, {POINTS}]",
    f"data.detector_size={PIXELS}",
    "drop=['run.epochs', 'loggers.tensorboard', 'hooks.truth', 'groups.object.then']",
)
REPEATED = 5  # operations of a step that a CUDA graph repeats
IN_A_GRAPH = 1.5e-6  # seconds from the start of one operation of a CUDA graph to that of the next, if both are short


class Step(NamedTuple):
    """What a step asks a GPU for.

    Attributes:
        launches: Number of operations.
        memory_bytes: Bytes that they read and write, without any cache.
        floor_bytes: Bytes of four transforms and three products for each pattern and mode.
        flops: Operations of the transforms; those of the others are few.
    """

    launches: int
    memory_bytes: float
    floor_bytes: float
    flops: float

    def on_device(self, gpu: GPU) -> float:
        """Return the seconds that the GPU itself takes."""
        return max(self.memory_bytes / gpu.memory_bytes, self.flops / gpu.vector_flops)

    def as_usual(self, gpu: GPU) -> float:
        """Return the seconds of a step whose operations are started one by one."""
        return max(self.launches * gpu.launch_seconds, self.on_device(gpu))

    def repeated(self, gpu: GPU) -> float:
        """Return the seconds of a step that a CUDA graph repeats."""
        return max(REPEATED * gpu.launch_seconds, self.launches * IN_A_GRAPH, self.on_device(gpu))


class _Transforms(Traffic):
    """Counts a transform as two passes over memory: its rows, then its columns."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = super().__torch_dispatch__(func, types, args, kwargs)
        if "_fft_" in str(func):
            self.num_bytes += sum(each.nbytes for each in tree_leaves((args, made)) if isinstance(each, Tensor))
        return made


def counted(batch: int, modes: int) -> Step:
    """Return what the last of three steps asks for."""
    with tempfile.TemporaryDirectory() as folder, patch.object(ptychography_live, "patches_at", patches_by_place):
        own = (f"run.dir={folder}", f"data.batch_size={batch}", f"model.probe.modes={modes}")
        resolved = resolve(RECIPE, (*SETS, *own))
        with created(resolved) as into:
            run = build(resolved, into)
            of_steps: list[Traffic] = []

            def watched(does: Callable[..., None], begins: bool) -> Callable[..., None]:
                def call(*args: Any) -> None:
                    if begins:
                        of_steps.append(_Transforms())
                    with of_steps[-1]:
                        does(*args)

                return call

            run.step.gradients = watched(run.step.gradients, begins=True)  # type: ignore[method-assign]
            run.step.update = watched(run.step.update, begins=False)  # type: ignore[method-assign]
            train(run)
    values = batch * modes * PIXELS**2
    floor_bytes = (4 * 2 * (8 + 8) + 3 * (8 + 8 + 8)) * values
    last = of_steps[-1]
    return Step(last.launches, last.num_bytes, floor_bytes, 4 * batch * modes * fft_flops(PIXELS**2))


def page(gpu: GPU) -> Iterator[str]:
    """Yield the lines of the page."""
    yield from ("# A step on a GPU, on paper", "")
    yield from paragraph(
        "How long a step of ptychography takes on a GPU, from its operations and bytes. This page is written by",
        "`python benchmarks/gpu_step_model.py`. **Nothing here was measured**: no GPU was at hand. The page shows",
        "what bounds a step, and what a CUDA graph (`run.cuda_graph`) can gain; single times may be wrong by a factor",
        "of two.",
    )
    yield from paragraph(
        "**Counted**: what a step of `recipes/ptycho_staged.toml` asks a GPU for, with object, probe and positions on,",
        f"and patterns of {PIXELS}²; the sizes of all tensors that its operations read and write. A Fourier transform",
        "is two passes over its memory. The floor is four of them and three products for each pattern and mode.",
    )
    yield from paragraph(
        f"**Assumed** (an H100 SXM): {gpu.memory_bytes / 1e12:.2f} TB/s of memory, 70 % of its peak, and no cache;",
        f"{gpu.launch_seconds * 1e6:.0f} µs for torch to start an operation; {IN_A_GRAPH * 1e6:.1f} µs from one",
        f"operation of a graph to the next, and {REPEATED} that start beside it. The longest of these is the time of a",
        "step. With one mode and batches of 32, all arrays fit into the cache (50 MB), so memory is not the bound.",
    )
    titles = (
        "modes",
        "batch",
        "operations",
        "MB",
        "× the floor's",
        "memory, ms",
        "a step, ms",
        "in a graph, ms",
        "gain",
    )
    yield f"| {' | '.join(titles)} |"
    yield f"|{'---|' * len(titles)}"
    rows = {}
    for modes in MODES:
        for batch in BATCHES:
            rows[modes, batch] = step = counted(batch, modes)
            usual, graph = step.as_usual(gpu), step.repeated(gpu)
            yield (
                f"| {modes} | {batch:,} | {step.launches} | {step.memory_bytes / 1e6:,.0f} | "
                f"{step.memory_bytes / step.floor_bytes:.1f} | {step.on_device(gpu) * 1e3:.3g} | {usual * 1e3:.3g} | "
                f"{graph * 1e3:.3g} | {usual / graph:.1f} × |"
            )
    small, large = rows[1, BATCHES[0]], rows[1, BATCHES[-1]]
    yield from ("", "## What follows", "")
    yield from paragraph(
        f"- A step of {BATCHES[0]} patterns is bound by its {small.launches} launches: the GPU itself would need",
        f"{small.on_device(gpu) / small.as_usual(gpu) * 100:.0f} % of the time. A graph makes it",
        f"{small.as_usual(gpu) / small.repeated(gpu):.0f} times as fast; larger batches do as well, as far as the",
        "reconstruction allows them.",
    )
    yield from paragraph(
        f"- A step of {BATCHES[-1]:,} patterns is bound by memory, and takes",
        f"{large.memory_bytes / large.floor_bytes:.1f} times the floor's bytes. What would bring it nearer are",
        "kernels that do several passes in one, such as those of torch.compile.",
    )
    yield from paragraph("- How that compares with PtyRAD and torch.compile takes a GPU to find out.")


if __name__ == "__main__":
    print("\n".join(page(GPU())).rstrip())
