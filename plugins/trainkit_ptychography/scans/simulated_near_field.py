"""A simulated near-field scan of a few dozen spheres, with everything known: for trying things out and for tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs
from attrs.validators import ge, gt

from trainkit import Problem, component
from trainkit_ptychography.detector_propagations.kind import DetectorPropagation
from trainkit_ptychography.detector_propagations.near_field import NearField
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.scans.scan import Recording


@component
class SimulatedNearField(DiffractionData):
    """X-ray images of spheres behind a beam that a diffuser has structured, at places strewn at random.

    The beam reaches beyond the detector on all sides. The same settings give the same scan. The truth is known, so the
    hook ``ptychography_truth`` can say how good a reconstruction is.

    Attributes:
        num_points: Number of scan points.
        range_pixels: Rows, and columns, over which scan points are strewn, in object pixels.
        detector_size: Rows, and columns, of the detector.
        margin_pixels: Pixels around the detector that the wave's array has in addition, as ``prepare.pad`` of data in
            files adds them: light there reaches the detector, too.
        detector_pixel_um: Size of a detector pixel.
        detector_distance_m: Distance from specimen to detector.
        detector_propagation: How the wave behind the specimen reaches the detector.
        energy_kev: Energy of the photons.
        photons_per_pixel: Mean photons in a detector pixel.
        position_error_pixels: Standard deviation of the error of the given positions, along each axis.
        radius_pixels: Radius of the largest sphere in object pixels; the smallest has a third of it.
        seed: Seed of beam, spheres, position errors and noise; it is not the run's seed.
    """

    num_points: int = attrs.field(default=80, validator=ge(2))
    range_pixels: float = attrs.field(default=64.0, validator=gt(0.0))
    detector_size: int = attrs.field(default=64, validator=ge(16))
    margin_pixels: int = attrs.field(default=8, validator=ge(0))
    detector_pixel_um: float = attrs.field(default=6.5, validator=gt(0.0))
    detector_distance_m: float = attrs.field(default=1.0, validator=gt(0.0))
    detector_propagation: DetectorPropagation = NearField(focus_distance_mm=250.0)
    energy_kev: float = attrs.field(default=10.0, validator=gt(0.0))
    photons_per_pixel: float = attrs.field(default=2000.0, validator=gt(0.0))
    position_error_pixels: float = attrs.field(default=0.3, validator=ge(0.0))
    radius_pixels: float = attrs.field(default=8.0, validator=gt(0.0))
    seed: int = attrs.field(default=0, validator=ge(0))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that patterns are not to be read from a file, and are of the near field."""
        if self.patterns_on == "disk":
            yield Problem("simulated patterns are in no file", "patterns_on")
        if not self.detector_propagation.patterns_are_images:
            yield Problem('is simulated by "diffraction_simulated"', "detector_propagation")

    def propagation_to_detector(self) -> DetectorPropagation:
        """Return what the recipe says."""
        return self.detector_propagation

    def knows_truth(self) -> bool:
        """Return True: it is a simulation."""
        return True

    def read(self) -> Recording:
        """Simulate."""
        from trainkit_ptychography.scans.simulated_near_field_live import simulate

        return simulate(self)
