"""The kind "detector propagation": how the wave behind the specimen reaches the detector. Other packages add theirs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from trainkit import Component, component

if TYPE_CHECKING:
    from torch import Tensor


class ExitWave(NamedTuple):
    """The wave behind the specimen, and the detector.

    Attributes:
        shape: Rows and columns of a pattern, and of the wave.
        pixel_size_angstrom: Size of an object pixel; None if unknown.
        wavelength_angstrom: None if unknown.
        detector_distance_m: Distance from specimen to detector; None if unknown.
        source: What the scan was read from, as messages call it.
    """

    shape: tuple[int, int]
    pixel_size_angstrom: float | None
    wavelength_angstrom: float | None
    detector_distance_m: float | None
    source: str


@component
class DetectorPropagation(Component):
    """How the wave behind the specimen reaches the detector."""

    entry_points: ClassVar[str] = "trainkit.ptychography.detector_propagations"
    patterns_are_images: ClassVar[bool] = False
    """Whether a detector pixel stands for a place in the object, not for an angle. Then a larger detector sees more of
    the object, and binning makes object pixels larger."""
    distance_trains: ClassVar[bool] = False
    """Whether ``transfer`` can be asked for another distance, and is differentiable in it."""

    @abstractmethod
    def object_pixel_angstrom(
        self, detector_pixel_um: float, num_pixels: int, wavelength_angstrom: float, detector_distance_m: float
    ) -> float:
        """Return the size of an object pixel, for patterns as they were recorded.

        Args:
            detector_pixel_um: Size of a detector pixel, along an axis.
            num_pixels: Number of detector pixels along this axis.
            wavelength_angstrom: The wavelength.
            detector_distance_m: Distance from specimen to detector.
        """

    @abstractmethod
    def transfer(self, wave: ExitWave, stretched: Tensor | None = None) -> Tensor | None:
        """Return the factor of the wave's Fourier transform on its way to the detector; None: it goes to the far field.

        Args:
            wave: The wave.
            stretched: Factor of the (effective) distance, a scalar: the result is differentiable in it, and has its
                precision and device. None: the distance as it is told. Given only if ``distance_trains``.

        Returns:
            Complex (Y, X) in double precision, zero frequency at [0, 0]. It also moves the wave's pixel (Y//2, X//2) to
            [0, 0], where patterns have the middle of the detector.

        Raises:
            DataError: Something that it needs is not known.
        """

    def squared_pixels(self, wave: ExitWave) -> float | None:
        """Return λ times the distance in object pixels squared; None: patterns are no Fresnel images.

        Raises:
            DataError: Something that it needs is not known.
        """
        return None

    def lines(self, wave: ExitWave) -> Iterable[str]:
        """Yield lines by which people recognise their experiment."""
        return ()

    def doubts(self, wave: ExitWave, counted_shape: tuple[int, int]) -> Iterable[str]:
        """Yield what looks wrong with it, each with what to change.

        Args:
            wave: The wave.
            counted_shape: Rows and columns of a pattern that the detector measured.
        """
        return ()
