"""The kind "propagator": how a wave gets from one slice of a specimen to the next. Other packages add their own."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from trainkit import Component, component

if TYPE_CHECKING:
    from torch import Tensor


class WaveGeometry(NamedTuple):
    """The waves that are propagated.

    Attributes:
        shape: Rows and columns.
        pixel_size_angstrom: Size of a pixel.
        wavelength_angstrom: Wavelength.
    """

    shape: tuple[int, int]
    pixel_size_angstrom: float
    wavelength_angstrom: float


class LivePropagator(Protocol):
    """What a multislice model asks of a propagator."""

    def __call__(self, distance_S: Tensor) -> Tensor:
        """Return the factor of a wave's Fourier transform, complex (S, Y, X), zero frequency at [0, 0].

        Args:
            distance_S: How far each wave goes along the beam in Å. The result is differentiable in it, and has its
                precision and device.
        """
        ...


@component
class Propagator(Component):
    """How a wave gets from one slice of a specimen to the next."""

    entry_points: ClassVar[str] = "trainkit.ptychography.propagators"
    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    def takes_no_power(self) -> bool:
        """Return whether |factor| = 1 everywhere, so that a wave can be propagated backwards without loss.

        A model then computes waves again from the exit wave, instead of keeping some of them for the way back.
        """
        return False

    @abstractmethod
    def build(self, geometry: WaveGeometry) -> LivePropagator:
        """Make the propagator for waves of one shape, pixel size and wavelength."""
