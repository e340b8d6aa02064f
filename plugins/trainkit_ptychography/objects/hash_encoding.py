"""The object as a multiresolution hash encoding: its settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs
from attrs.validators import ge, gt, in_, instance_of, le, optional

from trainkit import Problem, component, free_host_memory
from trainkit_ptychography.objects.encoding.levels import Level, levels, memory_needed, too_large
from trainkit_ptychography.objects.encoding.tinycudann_installed import HOW_TO_GET, is_installed
from trainkit_ptychography.objects.kind import Object, ObjectGeometry

if TYPE_CHECKING:
    from torch import nn

    from trainkit import Recipe, RunSettings


@component
class FineFrom:
    """Coarse to fine: which levels take part from the start, and over which epochs the finer ones join them.

    A level that has not joined yet gives zeros and is not trained, so the optimizer has no state for it.

    Attributes:
        start_epoch: The epoch in which the first of the finer levels joins.
        stop_epoch: The first epoch in which all levels take part; it must come after ``start_epoch``.
        coarse_levels: Number of levels that take part before ``start_epoch``.
    """

    start_epoch: int = attrs.field(default=0, validator=ge(0))
    stop_epoch: int = attrs.field(validator=ge(1))
    coarse_levels: int = attrs.field(default=4, validator=ge(1))

    def levels(self, epoch: int, num: int) -> int:
        """Return how many of ``num`` levels take part in an epoch.

        Example:
            >>> [FineFrom(start_epoch=2, stop_epoch=4, coarse_levels=1).levels(epoch, 7) for epoch in range(6)]
            [1, 1, 3, 5, 7, 7]
        """
        steps = self.stop_epoch - self.start_epoch + 1
        joined = min(max(epoch - self.start_epoch + 1, 0), steps)
        coarse = min(self.coarse_levels, num)
        return coarse + (num - coarse) * joined // steps


@component
class HashEncoding(Object):
    """Phase and absorption computed by a small network from features on trainable grids, coarse to fine.

    Neighbouring pixels share parameters, so it needs fewer epochs and less tuning than "pixels". In a study on
    `mos2_sim.h5` (docs/hash_or_pixels.md), with the same untuned settings for both, its phase was better at every dose.
    With tuned settings and many electrons, both find the same object, but an epoch takes two to four times as long.
    With few electrons it is far better than pixels alone, but no better than pixels with the loss "tv". Fewer or
    coarser levels suppress noise and detail alike. Learning rates of 1e-3 (1e5 electrons per Å²) to 1e-2 (1e3) suit it.

    With several slices, grids are three-dimensional, and a slice counts like a pixel: coarse grids join neighbouring
    slices. Tables for that many pixels are larger: ``log2_hashmap_size`` of about 17.

    Source: Müller, Evans, Schied, Keller, ACM Trans. Graph. 41 (2022) 102.

    Attributes:
        levels: Number of grids, each finer than the one before.
        features: Numbers stored at each vertex of a grid: 1, 2, 4 or 8.
        log2_hashmap_size: Binary logarithm of the largest number of entries in a grid's table. In a grid with more
            vertices, vertices share entries.
        base_resolution: Vertices along a side of the coarsest grid, which covers the object's longer side.
        per_level_scale: How much finer each grid is than the one before, above 1. None: ``vertices_per_pixel`` decides.
        vertices_per_pixel: Vertices of the finest grid per pixel, along a side: above 0 and at most 1. A lower value
            suppresses noise and detail; 0.8 to 0.9 suited 1e4 to 1e5 electrons per Å², 0.6 suited 1e3.
        interpolation: From vertices to pixels: "linear", "smoothstep" (rounder) or "nearest" (steps).
        neurons: Width of the network's hidden layers.
        hidden_layers: Number of hidden layers. 0: phase and absorption are linear in the features.
        kind: "phase_and_amplitude", or "phase_only" for a specimen that absorbs nothing.
        fine_from: Lets finer levels join during the run. None: all take part from the start.
        backend: What evaluates the encoding: "torch"; "tinycudann", NVIDIA's CUDA kernels; or "auto", which takes
            tinycudann if it is installed, the run is on CUDA and ``run.deterministic`` is not set, else torch. The
            run's log says which, and why. A checkpoint of one backend can be resumed with the other. With tinycudann,
            a run that is repeated or resumed does not give the same bits.
    """

    takes_slices: ClassVar[bool] = True

    levels: int = attrs.field(default=16, validator=[ge(1), le(32)])
    features: int = attrs.field(default=2, validator=in_((1, 2, 4, 8)))
    log2_hashmap_size: int = attrs.field(default=15, validator=[ge(3), le(30)])
    base_resolution: int = attrs.field(default=16, validator=ge(1))
    per_level_scale: float | None = attrs.field(default=None, validator=optional(gt(0.0)))
    vertices_per_pixel: float = attrs.field(default=1.0, validator=[gt(0.0), le(1.0)])
    interpolation: Literal["nearest", "linear", "smoothstep"] = "linear"
    neurons: int = attrs.field(default=64, validator=ge(1))
    hidden_layers: int = attrs.field(default=2, validator=ge(0))
    kind: Literal["phase_and_amplitude", "phase_only"] = "phase_and_amplitude"
    fine_from: FineFrom | None = attrs.field(default=None, validator=optional(instance_of(FineFrom)))
    backend: Literal["auto", "torch", "tinycudann"] = "auto"

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check the grids, the epochs in which they join, and the backend."""
        yield from self._problems_of_scale(2 if getattr(recipe.model, "slices", 1) == 1 else 3)
        yield from self._problems_of_backend(recipe.run)
        fine = self.fine_from
        if fine is None:
            return
        if fine.stop_epoch <= fine.start_epoch:
            yield Problem(f"must come after the start: its start_epoch is {fine.start_epoch}", "fine_from.stop_epoch")
        elif fine.stop_epoch >= recipe.run.num_epochs():
            yield Problem(
                f"the run ends before, after {recipe.run.num_epochs()} epochs: the finest levels will never be trained",
                "fine_from.stop_epoch",
                "warning",
            )
        if fine.coarse_levels >= self.levels:
            yield Problem(
                f"there are {self.levels} levels in all, so none would be left to join", "fine_from.coarse_levels"
            )

    def _problems_of_scale(self, dimensions: int) -> Iterable[Problem]:
        scale = self.per_level_scale
        if scale is None:
            return  # no table then has more entries than the object has pixels
        if self.vertices_per_pixel != 1.0:
            yield Problem(
                "per_level_scale already says how fine the finest grid is; give only one of them", "vertices_per_pixel"
            )
        if scale <= 1:
            yield Problem(
                f"each level must be finer than the one before: above 1, got {scale}; leave it out for a scale that "
                "ends at the pixels",
                "per_level_scale",
            )
        elif self.base_resolution * scale ** (self.levels - 1) > 2**24:
            yield Problem(
                f"makes the finest of {self.levels} levels {self.base_resolution * scale ** (self.levels - 1):.2g} "
                "vertices wide, beyond what its arithmetic can tell apart; lower it, or levels",
                "per_level_scale",
            )
        else:
            needed = memory_needed(self.grids(scale, dimensions), self.features)
            if needed > (free := free_host_memory()):
                yield Problem(too_large(needed, free, "here"), "log2_hashmap_size")

    def _problems_of_backend(self, run: RunSettings) -> Iterable[Problem]:
        if run.cuda_graph and self.backend != "torch":
            yield Problem('with run.cuda_graph = true, only backend = "torch" can be recorded', "backend")
        if self.backend != "tinycudann":
            return
        if not is_installed():
            yield Problem(f'tinycudann is not installed ("auto" takes torch instead); {HOW_TO_GET}', "backend")
        if run.device in ("cpu", "mps"):
            yield Problem(f'tinycudann needs CUDA, and run.device is "{run.device}"; "auto" takes torch', "backend")
        if run.deterministic:
            yield Problem(
                'tinycudann adds up gradients in no fixed order, and run.deterministic is true; "auto" takes torch',
                "backend",
            )

    def timeline(self, epochs: int) -> Iterable[tuple[int, str]]:
        """Yield when finer levels join."""
        if self.fine_from is None:
            return
        before = 0
        for epoch in range(epochs):
            now = self.fine_from.levels(epoch, self.levels)
            if now != before:
                yield epoch, f"object: {now} of {self.levels} levels"
            before = now

    def grids(self, per_level_scale: float, dimensions: int = 2) -> tuple[Level, ...]:
        """Return the grids for a scale between them; of several slices, they have three dimensions."""
        return levels(self.levels, self.base_resolution, per_level_scale, self.log2_hashmap_size, dimensions)

    def build(self, geometry: ObjectGeometry) -> nn.Module:
        """Make the encoding and the network, which begin as nearly vacuum.

        Raises:
            RecipeError: The object has no more pixels along its side than the coarsest grid has vertices; the device's
                memory is too small; or the backend that the settings ask for cannot be used.
        """
        from trainkit_ptychography.objects.hash_encoding_live import HashObject

        return HashObject(self, geometry)
