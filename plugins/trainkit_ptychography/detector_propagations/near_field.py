"""The near field: patterns are Fresnel images of the specimen."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import gt, optional

from trainkit import DataError, component
from trainkit_ptychography.detector_propagations.kind import DetectorPropagation, ExitWave

if TYPE_CHECKING:
    from torch import Tensor

_positive = optional(gt(0.0))
_SPREAD = 2.0  # widths of a Fresnel zone


@component
class NearField(DetectorPropagation):
    """The detector is so near to the specimen that patterns are images of it, blurred by Fresnel diffraction.

    With a parallel beam an object pixel is as large as one of the detector. With a beam that diverges from a focus,
    ``focus_distance_mm`` in front of the specimen, images are magnified, M = (z₁ + z₂) / z₁, and by the Fresnel scaling
    theorem they are those of a parallel beam at the effective distance z₁ z₂ / (z₁ + z₂) = z₂ / M, with object pixels
    of the detector's size over M. The spherical curvature of the beam is then not part of the probe.

    The distance z₂ is ``data.detector_distance_m``, which some files give themselves, as they do the detector's pixels.

    Light that leaves the wave's array at one edge returns at the opposite one, so pad patterns (``prepare.pad``) by as
    many pixels as light spreads; ``check --data`` says how many these are. A probe for patterns without an aperture is
    ``{ use = "mean_pattern" }``.

    Source: Stockmar et al., Scientific Reports 3 (2013) 1927 (near-field ptychography); Paganin, "Coherent X-Ray
    Optics" (2006), appendix B (Fresnel scaling theorem).

    Attributes:
        focus_distance_mm: z₁, from the focus (or a small source) to the specimen behind it. Not given: the beam is
            parallel.
        effective_distance_mm: The effective distance, instead of what the geometry gives: for files that do not say how
            far the detector is, with ``data.pixel_size_angstrom``.
    """

    patterns_are_images: ClassVar[bool] = True
    distance_trains: ClassVar[bool] = True

    focus_distance_mm: float | None = attrs.field(default=None, validator=_positive)
    effective_distance_mm: float | None = attrs.field(default=None, validator=_positive)

    def magnification(self, detector_distance_m: float) -> float:
        """Return M = (z₁ + z₂) / z₁."""
        return 1.0 if self.focus_distance_mm is None else 1.0 + 1e3 * detector_distance_m / self.focus_distance_mm

    def effective_distance_m(self, detector_distance_m: float | None) -> float | None:
        """Return z₂ / M; None: it is not known."""
        if self.effective_distance_mm is not None:
            return 1e-3 * self.effective_distance_mm
        return None if detector_distance_m is None else detector_distance_m / self.magnification(detector_distance_m)

    def object_pixel_angstrom(
        self, detector_pixel_um: float, num_pixels: int, wavelength_angstrom: float, detector_distance_m: float
    ) -> float:
        """Return the detector's pixel over the magnification."""
        return detector_pixel_um * 1e4 / self.magnification(detector_distance_m)

    def transfer(self, wave: ExitWave, stretched: Tensor | None = None) -> Tensor:
        """Return Fresnel's; the size of object pixels stays when the distance is stretched."""
        import torch

        from trainkit_ptychography.physics.propagation import fresnel_kernel, middle_to_corner

        size, wavelength, distance_m = self._known(wave)
        stretched = torch.ones((), dtype=torch.float64) if stretched is None else stretched
        kernel_YX = fresnel_kernel(wave.shape, size, wavelength, (1e10 * distance_m * stretched)[None])[0]
        return kernel_YX * middle_to_corner(wave.shape).to(kernel_YX)

    def squared_pixels(self, wave: ExitWave) -> float:
        """Return λz: light of the highest frequency goes half as many pixels to the side."""
        size, wavelength, distance_m = self._known(wave)
        return wavelength * distance_m * 1e10 / size**2

    def lines(self, wave: ExitWave) -> Iterable[str]:
        """Yield the distance, the magnification, and how far light spreads."""
        _, _, distance_m = self._known(wave)
        magnified = ""
        if self.focus_distance_mm is not None and wave.detector_distance_m is not None:
            magnified = f", magnified {self.magnification(wave.detector_distance_m):.4g} times"
        square = self.squared_pixels(wave)
        yield f"near field   effective distance {1e3 * distance_m:.4g} mm{magnified}"
        yield (
            f"             a Fresnel zone is {square**0.5:.3g} pixels wide (√(λz)), the finest detail spreads by "
            f"{0.5 * square:.3g}"
        )

    def doubts(self, wave: ExitWave, counted_shape: tuple[int, int]) -> Iterable[str]:
        """Yield a doubt if the array cannot hold what spreads."""
        square = self.squared_pixels(wave)
        if square > min(wave.shape):
            yield (
                f"λ · distance is {square:.4g} object pixels squared, more than the {min(wave.shape)} pixels of a "
                "pattern: the finest details spread over more than all of it, and the transfer function is sampled too "
                f"coarsely: pad patterns to more than {ceil(square)} pixels (prepare.pad), or bin them; if the "
                "distances are right, these may be patterns of the far field (detector_propagation = { use = "
                '"far_field" })'
            )
            return
        spread = ceil(_SPREAD * square**0.5)
        if any(wave.shape[axis] - counted_shape[axis] < 2 * spread for axis in (0, 1)):
            to = [size + 2 * spread for size in counted_shape]
            yield (
                f"light spreads over about {spread} pixels ({_SPREAD:g} Fresnel zones), and what leaves the array at "
                "one edge returns at the opposite one, so the edges of patterns, and the object there, are wrong: pad "
                f"patterns by so many pixels on each side, prepare.pad = {to}"
            )

    def _known(self, wave: ExitWave) -> tuple[float, float, float]:
        """Return pixel size in Å, wavelength in Å and effective distance in m."""
        distance_m = self.effective_distance_m(wave.detector_distance_m)
        needed = {
            "data.pixel_size_angstrom (or detector_pixel_um)": wave.pixel_size_angstrom,
            "data.energy_kev (or wavelength_angstrom)": wave.wavelength_angstrom,
            "data.detector_distance_m (or data.detector_propagation.effective_distance_mm)": distance_m,
        }
        if missing := [name for name, value in needed.items() if value is None]:
            raise DataError(
                f"{wave.source} does not give all that propagation in the near field needs; set {', '.join(missing)}"
            )
        assert wave.pixel_size_angstrom is not None
        assert wave.wavelength_angstrom is not None
        assert distance_m is not None
        return wave.pixel_size_angstrom, wave.wavelength_angstrom, distance_m
