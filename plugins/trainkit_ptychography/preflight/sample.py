"""A few hundred neighbouring patterns of a scan, cut down to where there is light: what geometries are tried out on.

A detector that is finer than the probe's extent calls for is binned: trials then take a fraction of the time, and all
patterns can be among them.

Shapes: N = patterns of the sample, M = probe modes, Y, X = rows and columns of the detector, V, U = those of the part
of the detector that is used, in pixels of a trial.
"""

from __future__ import annotations

from itertools import product
from math import ceil, pi
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit import Context
from trainkit_ptychography.physics.fast_length import fast_length
from trainkit_ptychography.physics.geometry_fit import fit_geometry
from trainkit_ptychography.physics.propagation import fresnel_kernel, propagate
from trainkit_ptychography.physics.trial import Trial, try_out
from trainkit_ptychography.preflight.geometry import Geometry
from trainkit_ptychography.preflight.single_scans import one_scan
from trainkit_ptychography.preflight.variation import variation
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.kind import Probe
from trainkit_ptychography.probes.lens import Lens
from trainkit_ptychography.scans.few_counts import counts_in, misfit_of_noise
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.light import light, unusual
from trainkit_ptychography.scans.prepare_live import axis, prepared_probe
from trainkit_ptychography.scans.sampling import beam_offset, mirrored_where_hidden
from trainkit_ptychography.scans.scan import Checked, Recording, Scan, checked

_LIGHT = 0.998  # share of the light that the used part of the detector sees
_ROOM = 1.25  # the used part, over the diameter of that light
_LEAST_PIXELS = 24
_LEAST_BINNED_PIXELS = 32
_FIELD = 1.25  # of view, over the diameter of the probe
_MOST_DEFOCUS_STEPS = 3  # by which a probe may be more out of focus than it is told
_SEEN_OF_PROBE = 0.98  # share of its intensity
_MOST_MODES = 4
_PIXELS = 2**20  # of all patterns together, so that a trial takes about a tenth of a second
_LEAST_PATTERNS = 100
_MOST_BYTES = 2**28  # of patterns on the whole detector
_ENOUGH = 0.5  # of the patterns that are asked for
_ELECTRONS = (1.0, 1e9)  # in a pattern
_SEED = 0xD15


@attrs.frozen(eq=False)
class Sample:
    """Neighbouring patterns, and what the recipe tells about them.

    Attributes:
        points_N: Which scan points they are.
        part: They as a scan of their own, on the whole detector.
        told: The probe's settings.
        seed: The run's seed, which some probes depend on.
        amplitudes_NVU: Square roots of the intensities where there is light; their mean total is 1.
        mask_NVU: Which pixels count; None: all.
        depth_angstrom: How deep in the specimen its middle is, where the object of a trial is.
        beam_2: By how many rows and columns the beam lies off the detector's middle; it is put there.
        binned: Pixels of the detector, along each axis, that make up one of a trial.
    """

    points_N: NDArray[np.int64]
    part: Checked
    told: Probe
    seed: int
    amplitudes_NVU: Tensor
    mask_NVU: Tensor | None
    depth_angstrom: float = 0.0
    beam_2: tuple[int, int] = (0, 0)
    binned: int = 1

    @property
    def scan(self) -> Scan:
        """What is known about them besides the patterns."""
        return self.part.scan

    def told_defocus(self) -> float | None:
        """Return the underfocus in Å that the recipe tells; None: the probe is not made from one."""
        return self.told.told_defocus(self.scan) if isinstance(self.told, Lens) else None

    def has_aperture(self) -> bool:
        """Return whether the probe's extent in the far field follows from a half opening angle."""
        return isinstance(self.told, Aperture)

    def told_semiangle(self) -> float | None:
        """Return the aperture's half opening angle in mrad that the recipe tells; None: it tells none."""
        told = self.told.semiangle_mrad if isinstance(self.told, Aperture) else None
        return self.scan.semiangle_mrad if told is None else told

    def electrons(self, misfit: float) -> float:
        """Return how many electrons a pattern has in the mean, or at least, if patterns are no counts.

        Args:
            misfit: Of patterns that a trial held out: with fewer electrons, noise alone would make more of it.
        """
        counts = counts_in(Recording(self.part.intensities_NYX, self.scan))
        if counts is not None:
            return self.part.survey.mean_total / counts.unit
        mean_VU = self.amplitudes_NVU.square().mean(0).double().numpy()

        def explained(electrons: float) -> float:
            return float(misfit_of_noise(electrons * mean_VU).sum()) / electrons

        fewest, most = _ELECTRONS
        while most / fewest > 1.01:
            middle = (fewest * most) ** 0.5
            fewest, most = (middle, most) if explained(middle) > misfit else (fewest, middle)
        return fewest

    def variation(self) -> float:
        """Return how much the patterns differ from each other, as a multiple of what noise alone does."""
        return variation(self.amplitudes_NVU, self.mask_NVU)

    def in_disorder(self) -> Sample:
        """Return the same patterns, each at the place of another."""
        order_N = np.random.default_rng(_SEED).permutation(len(self.points_N))
        scan = attrs.evolve(self.scan, positions_N2=self.scan.positions_N2[order_N])
        return attrs.evolve(self, part=self.part._replace(scan=scan))

    def try_out(self, geometry: Geometry) -> Trial:
        """Reconstruct an object as if a geometry were the right one."""
        probe_MVU, positions_N2 = self.cut_down(geometry), geometry.positions(self.scan) * self.scale()
        return try_out(self.amplitudes_NVU, self.mask_NVU, probe_MVU, positions_N2)

    def fit(self, geometry: Geometry, step_is_free: bool = True) -> Geometry:
        """Return the geometry nearby that patterns fit best: its rotation, and of an aperture's probe defocus and step.

        A rough guess of a probe fits better at any other distance of the points.

        Args:
            geometry: Where to begin.
            step_is_free: Whether the step is fitted too.
        """
        is_lens, chirp_VU = isinstance(self.told, Lens), None
        scan = geometry.scan(self.scan)
        size, wavelength = scan.pixel_size_angstrom, scan.wavelength_angstrom
        if is_lens and size is not None and wavelength is not None:
            along_V, along_U = (
                np.fft.fftfreq(n, size / scale)
                for n, scale in zip(self.amplitudes_NVU.shape[1:], self.scale(), strict=True)
            )
            chirp_VU = np.pi * wavelength * (along_V[:, None] ** 2 + along_U[None, :] ** 2)
        found = fit_geometry(
            self.amplitudes_NVU.square(),
            self.mask_NVU,
            self.cut_down(geometry),
            chirp_VU,
            geometry.positions(self.scan),
            self.scale(),
            step_is_free=step_is_free and chirp_VU is not None,
        )
        return attrs.evolve(
            geometry,
            defocus_change_angstrom=geometry.defocus_change_angstrom + found.defocus_angstrom,
            rotation_deg=geometry.rotation_deg + found.rotation_deg,
            step_factor=geometry.step_factor * found.step_factor,
        )

    def quarters(self) -> list[Sample]:
        """Return the four quarters of the scanned area, each with as many of the patterns, as samples of their own."""
        across_N, down_N = self.scan.positions_N2[:, 1], self.scan.positions_N2[:, 0]
        halves = np.array_split(np.argsort(down_N, kind="stable"), 2)
        parts = [np.sort(half[each]) for half in halves for each in np.array_split(np.argsort(across_N[half]), 2)]
        return [self._some(part) for part in parts]

    def nearest_to_middle(self, num: int) -> Sample:
        """Return the patterns whose scan points are nearest to the middle, as a sample of their own."""
        return self._some(np.sort(np.argsort(_away(self.scan), kind="stable")[:num]))

    def _some(self, index_K: NDArray[np.int64]) -> Sample:
        return attrs.evolve(
            self,
            points_N=self.points_N[index_K],
            part=_some(Recording(*self.part[:2]), index_K),
            amplitudes_NVU=self.amplitudes_NVU[index_K],
            mask_NVU=None if self.mask_NVU is None else self.mask_NVU[index_K],
        )

    def in_depth(self, depth_angstrom: float) -> Sample:
        """Return the same patterns, to be tried out with the object at another depth."""
        return attrs.evolve(self, depth_angstrom=depth_angstrom)

    def scale(self) -> NDArray[np.float64]:
        """Return pixels of a trial's object for a pixel of the scan's, along rows and columns."""
        whole_2, used_2 = np.array(self.part.intensities_NYX.shape[1:]), np.array(self.amplitudes_NVU.shape[1:])
        scale_2: NDArray[np.float64] = self.binned * used_2 / whole_2
        return scale_2

    def field_of_view(self) -> float:
        """Return how many pixels of the scan's object the array of a trial's probe has along its shorter axis."""
        return min(self.part.intensities_NYX.shape[1:]) / self.binned

    def coarsest_binning(self, num: int) -> int:
        """Return how many pixels of the detector may make up one, along each axis, if what is told is about right.

        The probe keeps a field of view that is larger than itself, even if it is out of focus by more than it is told,
        and on its way through the specimen. What is not made by a lens is not binned.

        Args:
            num: Number of patterns that are to be tried out together.
        """
        size, step, semiangle = self.scan.pixel_size_angstrom, self.defocus_step_angstrom(), self.told_semiangle()
        if size is None or step is None or semiangle is None:
            return 1
        further = _MOST_DEFOCUS_STEPS * step + self.depth_angstrom
        diameter = _diameter(self._probe(Geometry())) + 2e-3 * semiangle * further / size
        return self._binned_until(num, _FIELD * diameter)

    def coarsest_binning_within(self, num: int, defocus_angstrom: float) -> int:
        """Return the same if nothing is known of the probe but how far it may be out of focus, as geometry has it.

        Args:
            num: Number of patterns that are to be tried out together.
            defocus_angstrom: The largest defocus, of either sign.
        """
        size, semiangle = self.scan.pixel_size_angstrom, self.told_semiangle()
        if size is None or semiangle is None or self.told_defocus() is None:
            return 1
        return self._binned_until(num, 2e-3 * semiangle * defocus_angstrom / size)

    def _binned_until(self, num: int, field: float) -> int:
        """Return the binning at which trials are short, if a field of view of so many of the scan's pixels is left."""
        binned, used = 1, self.binned * min(self.amplitudes_NVU.shape[1:])
        whole = self.binned * self.field_of_view()
        while (
            (used / binned) ** 2 * num > _PIXELS
            and used // (binned + 1) >= _LEAST_BINNED_PIXELS
            and whole / (binned + 1) >= field
        ):
            binned += 1
        return binned

    def defocus_step_angstrom(self) -> float | None:
        """Return the change of defocus that shifts the phase at the aperture's edge by 2 rad; None: it has no defocus.

        A probe that is trained makes up for about as much.
        """
        semiangle, wavelength = self.told_semiangle(), self.scan.wavelength_angstrom
        if semiangle is None or wavelength is None or self.told_defocus() is None:
            return None
        return 2 * wavelength / (pi * (1e-3 * semiangle) ** 2)

    def cut_down(self, geometry: Geometry) -> NDArray[np.complexfloating]:
        """Return the probe's modes of a geometry on the pixels of a trial (M, V, U), centred at (V//2, U//2)."""
        shape_VU = (self.amplitudes_NVU.shape[1], self.amplitudes_NVU.shape[2])
        modes_MVU = prepared_probe(self._probe(geometry)[:_MOST_MODES], shape_VU, self.binned, (False, False))
        if self.binned % 2 == 0:  # sums of pixels lie half a pixel off the beam; a probe with a tilt has such patterns
            off = -pi / self.binned
            along_V, along_U = (np.exp(1j * off * (np.arange(size) - size // 2) / size) for size in shape_VU)
            modes_MVU = modes_MVU * (along_V[:, None] * along_U)
        return modes_MVU

    def _probe(self, geometry: Geometry) -> NDArray[np.complexfloating]:
        scan = geometry.scan(self.scan)
        probe = self.told
        if isinstance(probe, Lens):
            probe = probe.with_defocus(probe.told_defocus(self.scan) + geometry.defocus_change_angstrom)
        if isinstance(probe, Aperture) and (semiangle := self.told_semiangle()) is not None:
            semiangle *= geometry.semiangle_factor
            probe = attrs.evolve(probe, semiangle_mrad=semiangle)  # type: ignore[misc]  # mypy does not know @component
        modes_MYX = probe.build(_live(self.part._replace(scan=scan), self.seed))
        size, wavelength = scan.pixel_size_angstrom, scan.wavelength_angstrom
        if self.depth_angstrom == 0.0 or size is None or wavelength is None:
            return modes_MYX
        depth_1 = torch.tensor([self.depth_angstrom], dtype=torch.float64)
        shape_YX = (modes_MYX.shape[1], modes_MYX.shape[2])
        return propagate(torch.from_numpy(modes_MYX), fresnel_kernel(shape_YX, size, wavelength, depth_1)).numpy()


def middle_points(recording: Recording, num: int, about_2: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
    """Return the scan points nearest to the middle, which overlap as much as any, in order.

    Patterns that are unusually dark or bright are not among them. Those further out are read only if many are.

    Args:
        recording: The whole scan.
        num: Number of points, at most.
        about_2: A place (row, column), in pixels, that is taken instead of the middle.
    """
    patterns, scan = recording
    num = min(num, max(1, _MOST_BYTES // (4 * patterns.shape[1] * patterns.shape[2])))
    order = np.argsort(_away(scan, about_2), kind="stable")
    light_N, usual_N = np.empty(0), np.empty(0, bool)
    for start in range(0, len(order), num):
        patterns_BYX = patterns[order[start : start + num]]
        totals_B: NDArray[np.float64] = np.asarray(np.nansum(patterns_BYX, axis=(1, 2), dtype=np.float64))
        measured_YX = np.maximum((~np.isnan(patterns_BYX)).sum(axis=0), 1)
        mean_YX: NDArray[np.float64] = np.asarray(np.nansum(patterns_BYX, axis=0, dtype=np.float64)) / measured_YX
        if scan.frame_masks and mean_YX.any():
            totals_B = light([patterns_BYX], totals_B, mean_YX)
        light_N = np.append(light_N, totals_B)
        usual_N = ~unusual(light_N).in_any_way()
        if usual_N.sum() >= _ENOUGH * num:
            break
    return np.sort(order[: len(usual_N)][usual_N][:num])


def _away(scan: Scan, about_2: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return how far each point is from the middle, or from a place."""
    about_2 = np.median(scan.positions_N2, axis=0) if about_2 is None else about_2
    away_N: NDArray[np.float64] = np.hypot(*(scan.positions_N2 - about_2).T)
    return away_N


def sample(
    recording: Recording,
    points_N: NDArray[np.int64],
    probe: Probe,
    seed: int,
    depth_angstrom: float = 0.0,
    most_pixels: int = _PIXELS,
    least_shape: tuple[int, int] = (0, 0),
    binned: int = 1,
    about_2: NDArray[np.float64] | None = None,
) -> Sample:
    """Take some patterns of a scan, or those of them that are nearest to its middle.

    Args:
        recording: The whole scan.
        points_N: Which of its points, in order.
        probe: The probe's settings.
        seed: The run's seed.
        depth_angstrom: How deep in the specimen its middle is.
        most_pixels: Of all patterns together.
        least_shape: Rows and columns of a trial at least.
        binned: Pixels of the detector, along each axis, that make up one.
        about_2: A place (row, column), in pixels, that is taken instead of the middle.

    Raises:
        DataError: The patterns or the positions cannot be those of a scan.
    """
    away_N = _away(recording.scan, about_2)
    part = _some(recording, points_N)
    shape_YX = part.intensities_NYX.shape[1:]
    beam_2 = [
        round(each) for each in beam_offset(mirrored_where_hidden(part.survey.mean_YX, part.scan.mask_YX))
    ]  # where it should be is said elsewhere
    lit_VU = lit_part(np.roll(part.survey.mean_YX, [-each for each in beam_2], axis=(0, 1)))
    in_trial = [lit if binned == 1 else 2 * ceil(lit / (2 * binned)) for lit in lit_VU]  # even, as what is lit
    shape_VU = (
        max(min(in_trial[0], shape_YX[0] // binned), least_shape[0]),
        max(min(in_trial[1], shape_YX[1] // binned), least_shape[1]),
    )
    most = max(_LEAST_PATTERNS, most_pixels // (shape_VU[0] * shape_VU[1]))
    if most < len(points_N):
        nearest = np.sort(np.argsort(away_N[points_N], kind="stable")[:most])
        points_N, part = points_N[nearest], _some(Recording(*part[:2]), nearest)
    rows_bV, columns_bU = (
        (axis(whole, used, binned, None, False).place_bY + beam) % whole
        for used, whole, beam in zip(shape_VU, shape_YX, beam_2, strict=True)
    )
    patterns_NYX = part.intensities_NYX[np.arange(len(points_N))]
    intensities_NVU = np.zeros((len(points_N), *shape_VU), np.float32)
    measured = np.ones(intensities_NVU.shape, bool)
    for rows, columns in product(rows_bV, columns_bU):
        values_NVU = patterns_NYX[:, rows[:, None], columns]
        intensities_NVU += values_NVU
        measured &= np.isfinite(values_NVU)
        if part.scan.mask_YX is not None:
            measured &= part.scan.mask_YX[rows[:, None], columns]
    amplitudes_NVU = np.sqrt(np.where(measured, intensities_NVU, 0) / max(part.survey.mean_total, 1e-30))
    mask_NVU = None if measured.all() else torch.from_numpy(measured)
    amplitudes_NVU = amplitudes_NVU.astype(np.float32)
    known = (points_N, part, probe, seed, torch.from_numpy(amplitudes_NVU), mask_NVU)
    return Sample(*known, depth_angstrom, (beam_2[0], beam_2[1]), binned)


def coarse_sample(
    whole: Sample, recording: Recording, points_N: NDArray[np.int64], about_2: NDArray[np.float64] | None = None
) -> Sample:
    """Return the same patterns, and all that were asked for, binned as far as what is told leaves room.

    Args:
        whole: What `sample` returned for all pixels.
        recording: The whole scan.
        points_N: The points that it was asked for.
        about_2: The place that it was asked for.

    Returns:
        The patterns; the same object if they are not to be binned.
    """
    if (binned := whole.coarsest_binning(len(points_N))) == 1:
        return whole
    return sample(recording, points_N, whole.told, whole.seed, whole.depth_angstrom, binned=binned, about_2=about_2)


def parts_of_scans(
    recording: Recording, probe: Probe, seed: int, depth_angstrom: float, num: int, most_pixels: int
) -> list[Sample] | None:
    """Return patterns of each of several scans, which use the same part of the detector; None: a scan has too few.

    Args:
        recording: Several scans.
        probe: The probe's settings.
        seed: The run's seed.
        depth_angstrom: How deep in the specimen its middle is.
        num: Number of patterns of each scan, at most.
        most_pixels: Of all patterns of a scan together.
    """
    scans = [one_scan(recording, number) for number in range(recording.scan.num_scans)]
    points = [middle_points(each, num) for each in scans]

    def part(number: int, least_shape: tuple[int, int] = (0, 0)) -> Sample:
        told = (probe.of_scan(number), seed, depth_angstrom)
        return sample(scans[number], points[number], *told, most_pixels, least_shape)

    if not all(map(len, points)):
        return None
    parts = [part(number) for number in range(len(scans))]
    rows, columns = (max(each.amplitudes_NVU.shape[axis] for each in parts) for axis in (1, 2))
    return [
        each if each.amplitudes_NVU.shape[1:] == (rows, columns) else part(number, (rows, columns))
        for number, each in enumerate(parts)
    ]


def _some(recording: Recording, points_N: NDArray[np.int64]) -> Checked:
    """Return some of the patterns as a scan of their own."""
    return checked(Recording(recording.intensities_NYX[points_N], recording.scan.some(points_N)))


def _diameter(modes_MYX: NDArray[np.complexfloating]) -> float:
    """Return how many pixels nearly all the intensity of a probe takes, about the middle of its array."""
    intensity_YX = (np.abs(modes_MYX) ** 2).sum(axis=0)
    rows, columns = intensity_YX.shape
    reach_YX = np.maximum(np.abs(np.arange(rows) - rows // 2)[:, None], np.abs(np.arange(columns) - columns // 2))
    seen = np.cumsum(np.bincount(reach_YX.ravel(), weights=intensity_YX.ravel()))
    return 2.0 * float(np.searchsorted(seen, _SEEN_OF_PROBE * seen[-1])) + 1.0


def _live(part: Checked, seed: int) -> LiveDiffraction:
    """Return patterns as a probe's ``build`` is given them."""
    return LiveDiffraction(part, Context(seed, torch.device("cpu"), Path()), len(part.intensities_NYX), 0.0)


def lit_part(mean_YX: NDArray[np.float64]) -> tuple[int, int]:
    """Return how many rows and columns, around the beam, hold nearly all the light; even numbers."""
    shape = mean_YX.shape
    row_Y1, column_1X = (np.fft.fftfreq(size, 1 / size) for size in shape)
    reach_YX = np.maximum(np.abs(row_Y1)[:, None], np.abs(column_1X))
    order = np.argsort(reach_YX, axis=None)
    light = np.cumsum(mean_YX.ravel()[order])
    radius = reach_YX.ravel()[order][int(np.searchsorted(light, _LIGHT * light[-1]))]
    half = int(np.ceil(max(_ROOM * radius, _LEAST_PIXELS / 2)))
    wanted = 2 * fast_length(half)  # 58 pixels instead of 60 are transformed in four times the time
    rows, columns = (min(size, wanted) for size in shape)
    return rows, columns
