"""The kind of data that a ptychographic model accepts: a reader of scans is a subclass with one method, ``read``."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from trainkit import HARMLESS, KEEPS_VALUES, Context, Data, DataError, EpochSize, Problem, component
from trainkit_ptychography.detector_propagations.far_field import FarField
from trainkit_ptychography.detector_propagations.kind import DetectorPropagation
from trainkit_ptychography.scans.half import Half

if TYPE_CHECKING:
    from trainkit import Depth, Progress, Recipe
    from trainkit_ptychography.scans.kind_live import LiveDiffraction
    from trainkit_ptychography.scans.scan import Recording


@component
class DiffractionData(Data):
    """Diffraction patterns with the positions they were taken at.

    Attributes:
        batch_size: Patterns in a step. Batches of an epoch differ in size by at most one.
        batches: Which points a step sees together: "random"; "compact" for neighbours, which overlap most, so that each
            step settles one place of the object; "sparse" for points far from each other, whose gradients disturb each
            other least. Batches are made anew in each epoch.
        validation_fraction: Share of the scan points held out to measure ``val/loss``; chosen by the run's seed.
        patterns_on: Where patterns are kept during a run: "device", "host" (memory), or "disk" (they are read from
            their file in batches, ahead of time). "auto" is the first of these where they fit. The results are the
            same bits in all cases.
        half: Half of the evidence, for ``trainkit resolution``; not given: all of it.
    """

    halver: ClassVar[str | None] = "fourier_ring"
    divides_batches: ClassVar[bool] = True

    batch_size: int = attrs.field(default=32, validator=attrs.validators.ge(1), metadata=KEEPS_VALUES)
    batches: Literal["random", "compact", "sparse"] = attrs.field(default="random", metadata=KEEPS_VALUES)
    validation_fraction: float = attrs.field(
        default=0.05, validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)]
    )

    patterns_on: Literal["auto", "device", "host", "disk"] = attrs.field(default="auto", metadata=HARMLESS)
    half: Half | None = None

    def splits(self) -> tuple[str, ...]:
        """Return "train", and "val" where points are held out."""
        return ("train", "val") if self.validation_fraction > 0 else ("train",)

    def epoch_size(self) -> EpochSize | None:
        """Return how long an epoch is, by the number of patterns.

        Raises:
            DataError: The scan cannot be read.
        """
        if self.half is not None and self.half.of == "points":
            return None
        number = len(self.read().intensities_NYX)
        trained = number - (max(1, round(number * self.validation_fraction)) if self.validation_fraction else 0)
        return EpochSize(ceil(trained / self.batch_size), trained, "scan points")

    def propagation_to_detector(self) -> DetectorPropagation:
        """Return how the wave behind the specimen reaches the detector."""
        return FarField()

    def knows_truth(self) -> bool:
        """Return whether these settings give the true phase and positions, to compare a reconstruction with."""
        return False

    @abstractmethod
    def read(self) -> Recording:
        """Read the scan, in the conventions of `Recording`.

        Raises:
            DataError: The file is missing, damaged or does not fit the settings.
        """

    def recall(self, facts: Mapping[str, Any]) -> Any:
        """Raise: a ptychographic model cannot be built without its scan.

        Raises:
            DataError: Always.
        """
        raise DataError(
            "a ptychographic model is a reconstruction of one scan (its object covers the scanned area, and each scan "
            "point has its own position), so it cannot be built from a checkpoint alone: open the scan with [data]"
        )

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[str | Problem | Progress]:
        """Yield a summary of the scan, and doubts about it."""
        from trainkit_ptychography.scans.half_live import HalfOfCounts
        from trainkit_ptychography.scans.inspection import inspect

        recording = self.read()
        slices = getattr(getattr(recipe, "model", None), "slices", 1)  # of the models that have some
        yield from inspect(recording, self.batch_size, self.validation_fraction, depth, slices)
        if self.half is not None and self.half.of == "counts" and depth != "headers":
            HalfOfCounts(recording.intensities_NYX, recording.scan, self.half.part, recipe.run.seed)  # or raises

    def build(self, context: Context) -> LiveDiffraction:
        """Open the scan, and bring its patterns to where they are kept."""
        from trainkit_ptychography.scans.half_live import HalfOfCounts
        from trainkit_ptychography.scans.inspection import doubt_about_batches
        from trainkit_ptychography.scans.kind_live import LiveDiffraction
        from trainkit_ptychography.scans.patterns import PreparedPatterns
        from trainkit_ptychography.scans.pixels import look_at_pixels
        from trainkit_ptychography.scans.scan import checked
        from trainkit_ptychography.scans.storage import choose_storage, read_if_it_fits
        from trainkit_ptychography.scans.summary import doubts

        recording = self.read()
        patterns = recording.intensities_NYX
        pixels = look_at_pixels(patterns, every=False) if isinstance(patterns, PreparedPatterns) else None
        storage = choose_storage(recording, self.patterns_on, context.device)
        recording = read_if_it_fits(recording, storage)
        if self.half is not None and self.half.of == "counts":
            halved = HalfOfCounts(recording.intensities_NYX, recording.scan, self.half.part, context.seed)
            recording = recording._replace(intensities_NYX=halved)
        scan = checked(recording, stored=patterns)
        of_batches = doubt_about_batches(len(patterns), self.batch_size, self.validation_fraction)
        for doubt in (*([of_batches] if of_batches else []), *doubts(scan, pixels)):
            logging.getLogger("trainkit").warning("%s: %s", scan.scan.source, doubt)
        every_second = self.half.part if self.half is not None and self.half.of == "points" else None
        return LiveDiffraction(
            scan,
            context,
            self.batch_size,
            self.validation_fraction,
            storage=storage,
            batches=self.batches,
            every_second=every_second,
            is_half=self.half is not None,
            overwrites=recording.intensities_NYX is not patterns,  # they were read for this alone
        )
