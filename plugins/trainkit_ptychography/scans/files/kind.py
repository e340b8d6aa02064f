"""What all scans in files have in common: the settings that bring any layout to one convention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import attrs

from trainkit import INPUT_PATH, Problem, component, structure_settings
from trainkit_ptychography.detector_propagations.far_field import FarField
from trainkit_ptychography.detector_propagations.kind import DetectorPropagation
from trainkit_ptychography.scans.kind import DiffractionData
from trainkit_ptychography.scans.leave_out import LeaveOut
from trainkit_ptychography.scans.pairing import Pairing
from trainkit_ptychography.scans.prepare import Prepare, pair_of_counts

if TYPE_CHECKING:
    from trainkit import Recipe

LengthUnit = Literal["angstrom", "nm", "um", "mm", "m", "pixels"]
"""Units that positions may have; "pixels" are those of the object."""

_positive = attrs.validators.optional(attrs.validators.gt(0.0))


def _step(
    instance: object, attribute: attrs.Attribute[float | tuple[float, float]], value: float | tuple[float, float]
) -> None:
    if any(not abs(each) > 0 for each in (value if isinstance(value, tuple) else (value,))):
        raise ValueError(f"must not be 0, got {value}")


def _positive_pair(
    instance: object, attribute: attrs.Attribute[Any], value: float | tuple[float, float] | None
) -> None:
    if value is not None and any(not each > 0 for each in (value if isinstance(value, tuple) else (value,))):
        raise ValueError(f"must be above 0, got {list(value) if isinstance(value, tuple) else value}")


def _axes_of_probe(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and sorted(value) not in (list("xy"), list("mxy")):
        raise ValueError(
            f'must have each of the letters y, x once, and m if there are modes: "myx" or "mxy"; got "{value}"'
        )


@component
class Raster:
    """A regular scan, for files without an array of positions.

    Attributes:
        step: Distance between points in ``positions_unit``: one number, or [slow, fast].
        shape: Points along the slow and the fast axis, the slow one being the rows. If left out, the patterns' own.
        snake: Whether every second line was scanned backwards.
    """

    step: float | tuple[float, float] = attrs.field(validator=_step)
    shape: tuple[int, int] | None = attrs.field(default=None, validator=pair_of_counts)
    snake: bool = False


@component
class UntoldPoints(Raster):
    """Stands in for the points of a scan that nobody has told yet, where patterns alone are looked at."""


@component
class FileDiffraction(DiffractionData):
    """Patterns and positions from a file.

    Positions go through ``positions_order``, ``positions_flip`` and ``positions_rotation_deg``, in this order.

    Attributes:
        path: The file.
        more_files: Files that continue the scan: patterns, positions, masks and marks of each, under the same names,
            are joined to those of ``path``, in this order. All else is that of ``path``.
        patterns: Array of the patterns: (points, rows, columns), or (scan rows, scan columns, rows, columns). Leading
            axes of length 1 are dropped. Several arrays, in a list, are joined in this order.
        pattern_axes: Order of the axes of that array if it differs, one letter each: "n" points, or "r" and "c" rows
            and columns of the scan; "y" and "x" rows and columns of the detector. "nxy" transposes patterns, "xyn"
            suits files written by Matlab.
        pattern_flip: Axes along which patterns are turned around, about the beam: "rows" (upside down), "columns".
        values: Whether these are intensities, or amplitudes (their square roots).
        zero_frequency: Where the undiffracted beam is: "centre" for pixel (rows//2, columns//2), "corner" for [0, 0],
            "centre_of_mass" of the mean pattern (a background pulls it to the middle: subtract that), or [row,
            column]. The last two are rounded to whole pixels.
        positions: Array of the probe's positions, (row, column) for each pattern; or two arrays, [rows, columns]; or,
            if ``patterns`` are in several arrays, as many arrays of positions.
        positions_path: Another file with the positions: a table (``.csv``, ``.tsv``, ``.txt``), ``.npy``, ``.npz``, or
            an HDF5 file, for example ``result.h5`` of an earlier run. ``positions`` then names an array in it, or two
            columns of a table, [rows, columns]; it may be left out where names tell. Units that the file says, for
            example in the heading "y_nm" of a column, take precedence over ``positions_unit``. Positions of earlier
            results are taken as they are, not flipped or turned again.
        raster: A regular scan, instead of positions.
        positions_unit: Unit of positions and raster; if left out, "angstrom". "pixels" are object pixels as patterns
            have them before they are cropped or padded.
        positions_order: Whether the array holds "row_column" or "column_row" (x, y).
        positions_flip: Axes that run the other way: "rows", "columns".
        positions_rotation_deg: By how much the scan is turned against the detector: from the column axis (right)
            towards the row axis (down).
        positions_scale: By what distances of scan points are multiplied, if the scan's scale is not calibrated.
        scan_shifts_angstrom: For several scans of one specimen whose positions are not in one frame: by how much each
            scan is moved, [[rows, columns], …] in the order of the scans, along the axes of the object. ``check
            --data`` says by how much scans look shifted, and group ``scan_shifts`` (``model.scan_shifts``) trains what
            is left.
        pixel_size_angstrom: Size of an object pixel, for patterns before they are cropped or padded; [rows, columns]
            if the two differ. One number for a rectangular detector is that of the side that is neither cropped nor
            padded. Either this, or dk_per_angstrom, or detector_pixel_um and detector_distance_m; or none if positions
            are in pixels.
        dk_per_angstrom: Size of a detector pixel in 1/Å, before binning, or [rows, columns]; an object pixel is 1 /
            (rows · dk).
        detector_pixel_um: Size of a detector pixel, before binning, or [rows, columns]; needs the wavelength too.
        detector_distance_m: Distance from specimen to detector.
        detector_propagation: How the wave behind the specimen reaches the detector: ``{ use = "near_field" }`` for
            patterns that are images of the specimen. A pixel size that is given is then that of whole frames as well,
            which cropping and padding do not change.
        energy_kev: Energy of the radiation. Either this, or wavelength_angstrom, or none if nothing needs it.
        radiation: Whether energy_kev is that of "electrons" or of "photons".
        wavelength_angstrom: Wavelength, instead of the energy.
        semiangle_mrad: The aperture's half opening angle: for checks, and for an aperture probe without one of its own.
        defocus_angstrom: Underfocus, likewise.
        probe: Array of a guess of the probe: complex, (…, rows, columns), centred at (rows//2, columns//2); flipped,
            cropped, binned and padded as the patterns are.
        probe_axes: Order of the axes of that array if it differs: "m" modes, "y" and "x" rows and columns. "mxy" suits
            files in which Matlab wrote (rows, columns, modes).
        truth_phase: Array of the object's true phase in rad, if it is known: pixel [i, j] at position (i, j) pixels. Of
            a thick specimen (slice, row, column): equally thick slices, the one that the beam meets first in front.
        truth_positions: Array of the true positions, if they are known, in the form of ``positions``.
        prepare: What is done to patterns: background, bad pixels, cropping, binning, padding.
        leave_out: Which patterns are not used.
        pairing: Which scan points have no pattern, and which patterns no scan point.
    """

    says_geometry: ClassVar[bool] = False
    """Whether files say themselves where patterns and positions are, and how large a pixel is."""

    unsaid_unit: ClassVar[LengthUnit] = "angstrom"
    """The unit of positions and raster if ``positions_unit`` does not say one."""

    path: Path = attrs.field(metadata=INPUT_PATH)
    more_files: tuple[Path, ...] = attrs.field(default=(), metadata=INPUT_PATH)
    patterns: str | tuple[str, ...] | None = None
    pattern_axes: str | None = None
    pattern_flip: tuple[Literal["rows", "columns"], ...] = ()
    values: Literal["intensity", "amplitude"] = "intensity"
    zero_frequency: Literal["centre", "corner", "centre_of_mass"] | tuple[float, float] = "centre"
    positions: str | tuple[str, ...] | None = None
    positions_path: Path | None = attrs.field(default=None, metadata=INPUT_PATH)
    raster: Raster | None = None
    positions_unit: LengthUnit | None = None
    positions_order: Literal["row_column", "column_row"] = "row_column"
    positions_flip: tuple[Literal["rows", "columns"], ...] = ()
    positions_rotation_deg: float = 0.0
    positions_scale: float = attrs.field(default=1.0, validator=attrs.validators.gt(0.0))
    scan_shifts_angstrom: tuple[tuple[float, float], ...] = ()
    pixel_size_angstrom: float | tuple[float, float] | None = attrs.field(default=None, validator=_positive_pair)
    dk_per_angstrom: float | tuple[float, float] | None = attrs.field(default=None, validator=_positive_pair)
    detector_pixel_um: float | tuple[float, float] | None = attrs.field(default=None, validator=_positive_pair)
    detector_distance_m: float | None = attrs.field(default=None, validator=_positive)
    detector_propagation: DetectorPropagation = FarField()
    energy_kev: float | None = attrs.field(default=None, validator=_positive)
    radiation: Literal["electrons", "photons"] = "electrons"
    wavelength_angstrom: float | None = attrs.field(default=None, validator=_positive)
    semiangle_mrad: float | None = attrs.field(default=None, validator=_positive)
    defocus_angstrom: float | None = None
    probe: str | None = None
    probe_axes: str | None = attrs.field(default=None, validator=_axes_of_probe)
    truth_phase: str | None = None
    truth_positions: str | None = None
    prepare: Prepare = Prepare()
    leave_out: LeaveOut = LeaveOut()
    pairing: Pairing = Pairing()

    @classmethod
    def contents(cls, settings: Mapping[str, Any]) -> Iterator[Any]:
        """Look into a few dozen patterns, and yield `ScanContents`, or a doubt where they cannot be opened."""
        from trainkit_ptychography.scans.files.contents_live import contents_of

        data = structure_settings(cls, settings, "data")
        yield from contents_of(data, "zero_frequency" in settings)

    def file_says_geometry(self) -> bool:
        """Return whether the file says itself where patterns and positions are, and how large a pixel is."""
        return self.says_geometry

    def with_points(self) -> FileDiffraction:
        """Return the same, with something in place of points and units that nobody told: to look at patterns alone."""
        changed: Any = self
        if self.file_says_geometry():
            return self
        if self.positions is None and self.positions_path is None and self.raster is None:
            changed = attrs.evolve(changed, raster=UntoldPoints(step=1.0))
        if any(needs_size(changed)):
            changed = attrs.evolve(changed, positions_unit="pixels")
        return cast(FileDiffraction, changed)

    def knows_axes(self) -> bool:
        """Return whether the settings, or the file, say which axes of the patterns are those of the detector."""
        return True

    @property
    def unit(self) -> LengthUnit:
        """The unit of positions and raster."""
        return self.positions_unit or self.unsaid_unit

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check what is given twice, or not at all."""
        yield from self._geometry_problems()
        yield from self._layout_problems()
        if (self.truth_phase is None) != (self.truth_positions is None):
            yield Problem(
                "truth_phase and truth_positions are useful only together",
                "truth_phase" if self.truth_positions is None else "truth_positions",
            )
        elif self.truth_phase is not None:
            images = self.detector_propagation.patterns_are_images
            changed = [
                name
                for name, value in (
                    ("prepare.crop", self.prepare.crop and not images),
                    ("prepare.pad", self.prepare.pad and not images),
                    ("prepare.bin", self.prepare.bin > 1 and images),
                    ("positions_flip", self.positions_flip),
                    ("positions_rotation_deg", self.positions_rotation_deg),
                    ("positions_order", self.positions_order == "column_row"),
                )
                if value
            ]
            if changed:
                yield Problem(
                    f"the true phase does not fit after {', '.join(changed)}: leave truth_phase and "
                    "truth_positions out",
                    "truth_phase",
                )

    def _geometry_problems(self) -> Iterable[Problem]:
        sizes = [
            name
            for name in ("pixel_size_angstrom", "dk_per_angstrom", "detector_distance_m")
            if getattr(self, name) is not None
        ]
        if self.detector_propagation.patterns_are_images:
            if self.dk_per_angstrom is not None:
                yield Problem("is of the far field: give pixel_size_angstrom or detector_pixel_um", "dk_per_angstrom")
            if self.zero_frequency != "centre":
                yield Problem(
                    'patterns that are images have no undiffracted beam: leave it out ("centre")', "zero_frequency"
                )
        elif len(sizes) > 1:
            yield Problem(f"give {' or '.join(sizes)}, not both", sizes[1])
        if self.energy_kev is not None and self.wavelength_angstrom is not None:
            yield Problem("give energy_kev or wavelength_angstrom, not both", "wavelength_angstrom")

    def _layout_problems(self) -> Iterable[Problem]:
        if self.pattern_axes is not None and sorted(self.pattern_axes) not in (list("nxy"), sorted("rcyx")):
            yield Problem(
                'must have each of the letters n, y, x once, or each of r, c, y, x, for example "xyn" or "rcyx"',
                "pattern_axes",
            )
        if self.raster is not None and (self.positions is not None or self.positions_path is not None):
            yield Problem("give positions or a raster, not both")
        files = (self.path, *self.more_files)
        if len(set(files)) < len(files):
            twice = next(each for each in self.more_files if files.count(each) > 1)
            yield Problem(f'"{twice.name}" is named twice, so its patterns would be too', "more_files")
        if isinstance(self.patterns, tuple) and len(set(self.patterns)) < len(self.patterns):
            yield Problem("names an array twice", "patterns")
        crop, pad = self.prepare.crop, self.prepare.pad
        if crop is not None and any(each % self.prepare.bin for each in crop):
            yield Problem(f"must be multiples of bin = {self.prepare.bin}", "prepare.crop")
        if crop is not None and pad is not None:
            kept = tuple(each // self.prepare.bin for each in crop)
            if any(to < size for to, size in zip(pad, kept, strict=True)):
                yield Problem(f"is smaller than what is cropped and binned, {kept[0]} × {kept[1]}", "prepare.pad")

    def propagation_to_detector(self) -> DetectorPropagation:
        """Return what the recipe says."""
        return self.detector_propagation

    def knows_truth(self) -> bool:
        """Return whether both truths are named."""
        return self.truth_phase is not None and self.truth_positions is not None


def needs_size(settings: FileDiffraction) -> Iterable[Problem]:
    """Yield what is missing where only the recipe can tell the pixel size."""
    if settings.unit == "pixels":
        return
    if settings.detector_distance_m is not None or settings.detector_pixel_um is not None:
        if settings.detector_pixel_um is None or settings.detector_distance_m is None:
            yield Problem("detector_pixel_um and detector_distance_m are useful only together", "positions_unit")
        elif settings.energy_kev is None and settings.wavelength_angstrom is None:
            yield Problem("detector_distance_m needs energy_kev or wavelength_angstrom", "detector_distance_m")
    elif settings.pixel_size_angstrom is None and settings.dk_per_angstrom is None:
        yield Problem(
            f"positions in {settings.unit} need pixel_size_angstrom or dk_per_angstrom (or "
            'detector_pixel_um and detector_distance_m); or say "pixels"',
            "positions_unit",
        )


def needs_positions(settings: FileDiffraction) -> Iterable[Problem]:
    """Yield what is missing where only the recipe can tell where the positions are."""
    if settings.positions is None and settings.positions_path is None and settings.raster is None:
        yield Problem("either positions names a dataset, or raster = { step = …, shape = […] } says where they are")
