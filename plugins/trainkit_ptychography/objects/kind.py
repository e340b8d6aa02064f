"""The kind "object": how the specimen's transmission is parametrised. Other packages add ways of their own."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, runtime_checkable

from trainkit import Component, component

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from trainkit_ptychography.direct.evidence import Evidence


class ObjectPlacement(NamedTuple):
    """Where the pixels of an object are in the data's coordinates.

    Attributes:
        origin_2: Position, in the data's coordinates, of pixel [0, 0], in pixels.
        positions_N2: Where the probe's centre was for each pattern, in pixels, in the data's coordinates.
        pixel_size_angstrom: Size of a pixel; None if unknown.
    """

    origin_2: NDArray[np.float64]
    positions_N2: NDArray[np.float64]
    pixel_size_angstrom: float | None


class ObjectGeometry(NamedTuple):
    """What an object covers, and where.

    Attributes:
        shape: Rows and columns.
        patch_shape: Rows and columns of a patch.
        dtype: Real dtype to compute in.
        device: Device of its parameters.
        seed: The run's seed, for a private generator.
        placement: Where its pixels are; None: not known, so it cannot begin with the object of a file.
        slices: Number of slices of the specimen.
        slice_thickness_angstrom: Distance from one slice to the next as the recipe tells it; None for a thin specimen.
        seen: Returns what an object can be made from in one go: patterns and probe, for each scan that has a probe of
            its own; None: the model does not give it.
    """

    shape: tuple[int, int]
    patch_shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    seed: int
    placement: ObjectPlacement | None = None
    slices: int = 1
    slice_thickness_angstrom: float | None = None
    seen: Callable[[], Sequence[Evidence]] | None = None


class LiveObject(Protocol):
    """What the model asks of an object; its parameters are the group "object".

    It may also have ``on_epoch_start(state)`` and ``on_epoch_end(state)``, which the model calls.
    """

    def __call__(self, corner_B2: Tensor) -> Tensor:
        """Return the complex transmission (S, B, Y, X) of the patches that begin at these integer rows and columns.

        S counts the slices, in the order in which the wave passes through them. Each patch lies within the object.
        """
        ...

    def phase(self) -> Tensor:
        """Return the phase of each slice of the whole object (S, H, W) in rad.

        It is not wrapped if the parametrisation can tell a phase from one that is 2π larger.
        """
        ...

    def amplitude(self) -> Tensor:
        """Return the amplitude of each slice's transmission (S, H, W), 1 for vacuum."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Return what is trained."""
        ...


@runtime_checkable
class SlicedObject(LiveObject, Protocol):
    """A `LiveObject` that can have several slices. Its patches are cut out slice by slice, within the forward model."""

    @property
    def geometry(self) -> ObjectGeometry:
        """What the object was made for."""
        ...

    def slices(self, corner_B2: Tensor | None = None) -> Tensor:
        """Return phase in rad and, if the object absorbs, absorption, −log(amplitude), of all slices (K, S, H, W).

        Args:
            corner_B2: First rows and columns of patches: only their pixels need to be right. None: all.
        """
        ...


@runtime_checkable
class PixelwiseObject(LiveObject, Protocol):
    """A `LiveObject` whose pixels are its parameters, so that constraints can change them."""

    def pixels(self) -> Mapping[str, Tensor]:
        """Return "phase" (S, H, W) in rad and, if the object absorbs, "absorption", −log(amplitude), likewise.

        They are views of the parameters: what is written into them, with gradients off, changes the object.
        """
        ...


@component
class Object(Component):
    """How the specimen's complex transmission is parametrised."""

    entry_points: ClassVar[str] = "trainkit.ptychography.objects"
    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True
    has_pixels: ClassVar[bool] = False
    """Whether ``build`` makes a `PixelwiseObject`."""
    takes_slices: ClassVar[bool] = False
    """Whether ``build`` makes a `SlicedObject`, of as many slices as the geometry says."""

    made_from_patterns: ClassVar[bool] = False
    """Whether it begins with what the patterns show that are trained on; so only others can tell how well it fits."""

    def begins_with(self) -> str | None:
        """Return what it begins with, in words; None: it is vacuum."""
        return None

    @abstractmethod
    def build(self, geometry: ObjectGeometry) -> nn.Module:
        """Make a module that is a `LiveObject`."""
