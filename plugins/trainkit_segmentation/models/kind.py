"""The kind of networks for volumes: their channels come from the data; they have groups."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit import Data, Model, Problem, RecipeError, component, shape_in_words
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.sizes import Size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainkit import Depth, ExampleBatch, Progress, Recipe, StepMemory
    from trainkit_segmentation.data.kind_live import LiveSegmentation
    from trainkit_segmentation.models.kind_live import SegmentationNetwork


@component
class SegmentationModel(Model):
    """A network from patches of volumes to a score for each class. Channels and classes are those of the data."""

    accepts: ClassVar[type[Data]] = SegmentationData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("monai", "safetensors")
    facts_of_weights: ClassVar[Mapping[str, type]] = {"channels": list, "classes": list, "exclusive": bool}
    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True
    package: ClassVar[str] = "MONAI"
    """Whose network it is, for messages."""
    decoder: ClassVar[str] = r"(?!)"
    """Pattern of the names of the decoder's parameters; the default matches none."""
    head: ClassVar[str] = r"(?!)"
    """Pattern of the names of parameters whose shape depends on the number of classes; the default matches none."""

    takes_planes: ClassVar[bool] = False
    """Whether `network` makes a network of planes for patches that are one voxel thick; see `flat_axis`."""

    def groups(self) -> Mapping[str, bool]:
        """Return the groups; all train from the start."""
        return {"encoder": True, "decoder": True, "head": True}

    def group_of(self, name: str) -> str:
        """Return the group of a parameter of the network."""
        if re.match(self.head, name):
            return "head"
        return "decoder" if re.match(self.decoder, name) else "encoder"

    def divisors(self) -> Size:
        """Return the numbers that the size of a patch must be a multiple of, along each axis."""
        return (1, 1, 1)

    def flat_axis(self, size: Size) -> int | None:
        """Return the axis along which patches are one voxel thick, if the network is one of planes then; else None.

        A network that takes such patches as volumes, since it is not coarsened along this axis, stays one of volumes.
        """
        flat = [axis for axis in range(3) if size[axis] == 1 and self.divisors()[axis] != 1]
        return flat[0] if len(flat) == 1 and self.takes_planes else None

    def spatial_dims(self, size: Size) -> int:
        """Return the number of axes of the network for patches of a size: 2 if it is one of planes, else 3."""
        return 3 if self.flat_axis(size) is None else 2

    def refusal(self, size: Size) -> str | None:
        """Return why the network cannot take patches of a size, and which it can; None if no reason is known.

        Example:
            >>> from trainkit_segmentation.models.vnet import VNet
            >>> VNet().refusal((48, 48, 40))
            'a patch of 48 × 48 × 40 does not fit the network, which takes multiples of 16 × 16 × 16: 48 × 48 × 48 does'
        """
        flat = self.flat_axis(size)
        divisors = tuple(1 if axis == flat else divisor for axis, divisor in enumerate(self.divisors()))
        if all(edge % divisor == 0 for edge, divisor in zip(size, divisors, strict=True)):
            return None
        if 1 in size and not self.takes_planes:
            return (
                f"a patch of {shape_in_words(size)} is a plane, which the network does not take; unet, attention_unet, "
                "dynunet, segresnet and swin_unetr do"
            )
        fitting = tuple(-(-edge // divisor) * divisor for edge, divisor in zip(size, divisors, strict=True))
        return (
            f"a patch of {shape_in_words(size)} does not fit the network, which takes multiples of "
            f"{shape_in_words(divisors)}: {shape_in_words(fitting)} does"
        )

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield reasons why the network cannot be made or cannot take the data's patches."""
        if isinstance(recipe.data, SegmentationData) and (reason := self.refusal(recipe.data.patch_size)):
            yield Problem(f"{reason}; set data.patch_size")

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[str | Problem | Progress]:
        """Say how much memory training and validation take."""
        if isinstance(recipe.data, SegmentationData):
            from trainkit_segmentation.models.memory import memory_needs

            yield from memory_needs(self, recipe.data, recipe, depth)

    def step_memory(self, recipe: Recipe, batch_size: int) -> StepMemory | None:
        """Return what training takes, measured on tensors without values."""
        if not isinstance(recipe.data, SegmentationData):
            return None
        from trainkit_segmentation.models.memory import step_memory

        return step_memory(self, recipe.data, recipe, batch_size)

    @abstractmethod
    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network: (B, in_channels, X, Y, Z) -> (B, out_channels, X, Y, Z), or several of these.

        If the patch has a `flat_axis`, the network is one of planes: this axis is left out.
        """

    def build(self, data: LiveSegmentation | SegmentationFacts) -> SegmentationNetwork:
        """Make the network for the data, and check that it takes patches of the data's size.

        Args:
            data: The opened data, or its facts: the network is the same.

        Raises:
            RecipeError: The network cannot be made with these settings, or does not take the patches.
        """
        from trainkit_segmentation.models.kind_live import SegmentationNetwork, check_patch
        from trainkit_segmentation.models.planes import take_volumes

        if reason := self.refusal(data.patch_size):
            raise RecipeError(f"{reason}; set data.patch_size")
        out_channels = len(data.classes) + data.exclusive
        try:
            network = self.network(data.num_channels, out_channels, data.patch_size)
        except Exception as error:  # whatever MONAI, or another library, raises about settings of the recipe
            raise RecipeError(
                f"{type(self).__name__}: {self.package} cannot make it for {data.num_channels} channels in, "
                f"{out_channels} out and patches of {shape_in_words(data.patch_size)}: {type(error).__name__}: {error}"
            ) from error
        if (flat := self.flat_axis(data.patch_size)) is not None:
            take_volumes(network, flat)
        check_patch(network, data.num_channels, out_channels, data.patch_size)
        return SegmentationNetwork(network)

    def example(self, data: SegmentationFacts) -> ExampleBatch:
        """Return two patches without values, and what the scores mean."""
        from trainkit_segmentation.models.example import example

        return example(self, data)

    def adapt_weights(
        self, weights: Mapping[str, Tensor], model: nn.Module, facts: Mapping[str, Any], data: Any
    ) -> tuple[Mapping[str, Tensor], Iterable[str]]:
        """Fit weights to other channels and classes: those of the same name are taken, the others begin anew."""
        from trainkit_segmentation.models.transfer import adapt_weights

        return adapt_weights(self, weights, model, facts, data)

    def recomputed_blocks(self, model: Any) -> Iterable[nn.Module]:
        """Return the outermost parts that MONAI, or nnU-Net's library, calls building blocks."""
        return _outermost(model.network)

    def parameter_groups(self, model: Any) -> Mapping[str, Iterable[nn.Parameter]]:
        """Return the parameters of each group."""
        found: dict[str, list[nn.Parameter]] = {group: [] for group in self.groups()}
        for name, parameter in model.network.named_parameters():
            found[self.group_of(name)].append(parameter)
        return found


_BUILDING_BLOCKS = ("monai.networks.blocks.", "dynamic_network_architectures.building_blocks.")


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost building blocks within a network that hold more than one layer."""
    for child in module.children():
        if f"{type(child).__module__}.".startswith(_BUILDING_BLOCKS) and sum(1 for _ in child.modules()) > 2:
            yield child
        else:
            yield from _outermost(child)
