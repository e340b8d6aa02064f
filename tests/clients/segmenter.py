"""A toy 3-D patch segmenter, as settings: spheres in noisy volumes, found by a tiny two-headed network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trainkit import Batch, Context, Data, Inference, LiveMetric, Loss, Metric, Model, Outputs, component

if TYPE_CHECKING:
    from torch import Tensor, nn

    from clients.segmenter_parts import LiveVolumes


@component
class Volumes(Data):
    """Synthetic volumes with a sphere in each; random patches of them, by two workers, and whole ones held out.

    Attributes:
        size: Edge of a volume, voxels.
        patch: Edge of a patch, voxels.
        steps: Batches in an epoch.
        num_workers: Processes that cut patches; any number gives the same ones.
    """

    size: int = 12
    patch: int = 8
    batch_size: int = 2
    steps: int = 3
    num_workers: int = 2

    def splits(self) -> tuple[str, ...]:
        return ("train", "val")

    def build(self, context: Context) -> LiveVolumes:
        from clients.segmenter_parts import LiveVolumes

        return LiveVolumes(self, context)


@component
class TwoHeads(Model):
    """An encoder with BatchNorm and dropout, and a head that gives logits at full and at half resolution."""

    accepts: ClassVar[type[Data]] = Volumes
    dropout: float = 0.2

    def groups(self) -> Mapping[str, bool]:
        return {"encoder": True, "head": True}

    def build(self, data: LiveVolumes) -> nn.Module:
        from clients.segmenter_parts import Network

        return Network(self.dropout)

    def parameter_groups(self, model: Any) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"encoder": model.encoder.parameters(), "head": model.head.parameters()}


@component
class DeepSupervision(Loss):
    """Cross-entropy or one minus soft Dice of every head, the coarser one at half the weight."""

    kind: Literal["cross_entropy", "dice"] = "cross_entropy"

    def build(self, data: LiveVolumes) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
        from clients.segmenter_parts import deep_supervision

        return deep_supervision(self.kind)


@component
class Dice(Metric):
    """Overlap of the sphere found and the true one, over all voxels of a split."""

    def names(self) -> tuple[str, ...]:
        return ("dice",)

    def build(self, data: LiveVolumes) -> LiveMetric:
        from clients.segmenter_parts import LiveDice

        return LiveDice()


@component
class SlidingWindow(Inference):
    """Covers a volume with overlapping patches, and averages the logits where they overlap."""

    patch: int = 8
    stride: int = 4

    def build(self, data: Any) -> Callable[[nn.Module, Batch], Outputs]:
        from clients.segmenter_parts import sliding_window

        return sliding_window(self.patch, self.stride)
