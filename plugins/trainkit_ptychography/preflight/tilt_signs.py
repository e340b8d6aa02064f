"""Whether several scans of a tilted specimen were tilted the way that is told: signs and axes of tilt pairs.

Each scan alone says nothing: a tilted beam through straight columns makes the patterns of a straight beam through
columns that lean. Together they do: with wrong signs, the columns would have to lean one way for one scan and the other
way for another. So an object of several slices is reconstructed from a few hundred patterns of all scans at once, for
each way in which the tilts can lie, and patterns that were held out tell these ways apart.

A tilt also moves what a scan shows, and so does a specimen that moved between the scans. So each way is tried out with
positions as they are told, and with scans that are moved to where they show the same.

Shapes: N = patterns, T = those held out, B = those of a step, R = scans, S = slices, M = probe modes, V, U = rows and
columns of the part of the detector that is used, H, W = those of the object.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit import Problem, Progress
from trainkit_ptychography.physics.displacement import displacement
from trainkit_ptychography.physics.forward import fourier_ramp
from trainkit_ptychography.physics.geometry import place
from trainkit_ptychography.physics.multislice import multislice_intensities
from trainkit_ptychography.physics.propagation import fresnel_kernel
from trainkit_ptychography.physics.trial import Trial, held_out
from trainkit_ptychography.preflight.geometry import ORIENTATIONS, Geometry
from trainkit_ptychography.preflight.look import FEWEST
from trainkit_ptychography.preflight.sample import Sample, parts_of_scans
from trainkit_ptychography.preflight.search import sureness, visibility

if TYPE_CHECKING:
    from trainkit_ptychography.probes.kind import Probe
    from trainkit_ptychography.scans.scan import Recording

_PATTERNS = 400  # of all scans together
_FEWEST_OF_SCAN = 49
_PIXELS = 2**20  # of all patterns together
_MOST_SLICES = 8
_MOVE = 0.5  # Å, by which a tilted beam may move from one slice to the next
_EPOCHS = 4
_BATCH = 24
_RATE = 0.03  # rad, by Adam
_SHIFT_RATE = 0.1  # pixels, likewise
_SURE = 4.5  # standard errors
_LARGEST_SHARE = 0.95  # of the gain of the best way, that one has which is wrong
_SEED = 0x717

Tilts = tuple[tuple[float, float], ...]


class Way(NamedTuple):
    """A way in which the tilts may lie.

    Attributes:
        tilts_mrad: Of each scan, (rows, columns), without what all have in common.
        words: How it differs from what is told.
    """

    tilts_mrad: Tilts
    words: str


def ways(tilts_mrad: Sequence[tuple[float, float]]) -> list[Way]:
    """Return the ways in which tilts may lie that differ from each other; the first is as told.

    Example:
        >>> [each.tilts_mrad for each in ways([(-15.0, 0.0), (15.0, 0.0)])][:2]
        [((-15.0, 0.0), (15.0, 0.0)), ((15.0, 0.0), (-15.0, 0.0))]
    """
    found: list[Way] = []
    for swapped, flips in ORIENTATIONS:
        signs = (-1.0 if "rows" in flips else 1.0, -1.0 if "columns" in flips else 1.0)
        tilts = tuple((signs[0] * each[swapped] + 0.0, signs[1] * each[not swapped] + 0.0) for each in tilts_mrad)
        words = ["rows and columns exchanged"] if swapped else []
        words += [f"the opposite sign along {' and '.join(flips)}"] if flips else []
        if all(tilts != each.tilts_mrad for each in found):
            found.append(Way(tilts, ", ".join(words)))
    return found


def inspect_tilts(
    recording: Recording,
    probe: Probe,
    seed: int,
    thickness_angstrom: float,
    tilt_mrad: tuple[float, float],
    scan_tilts_mrad: Sequence[tuple[float, float]],
) -> Generator[str | Problem | Progress, None, Tilts]:
    """Yield whether tilts lie as told, and a doubt if another way fits clearly better; return the tilts that fit.

    Args:
        recording: Several scans.
        probe: The probe's settings.
        seed: The run's seed.
        thickness_angstrom: Thickness of the specimen.
        tilt_mrad: What all scans have in common.
        scan_tilts_mrad: The tilts as told.
    """
    as_told, num_scans = tuple(scan_tilts_mrad), recording.scan.num_scans
    num_of_scan = max(_FEWEST_OF_SCAN, _PATTERNS // num_scans)
    parts = parts_of_scans(recording, probe, seed, 0.0, num_of_scan, _PIXELS // num_scans)
    scan = recording.scan
    if parts is None or min(len(each.points_N) for each in parts) < FEWEST:
        yield "tilts        not compared with the patterns: too few of them"
        return as_told
    if scan.pixel_size_angstrom is None or scan.wavelength_angstrom is None:
        return as_told  # it is asked for elsewhere
    most_mrad = float(np.abs(np.array(tilt_mrad) + np.array(scan_tilts_mrad)).max())
    together = _Tilted(parts, thickness_angstrom, tilt_mrad, most_mrad)
    tried = list[tuple[Way, Trial]]()
    all_ways = ways(scan_tilts_mrad)
    for number, way in enumerate(all_ways):
        yield Progress(number, len(all_ways), "ways in which the tilts may lie")
        tried.append((way, together.try_out(way.tilts_mrad)))
    told, (best_way, best) = tried[0][1], min(tried, key=lambda each: each[1].misfit)
    num = sum(len(each.points_N) for each in parts)
    figures = f"misfit of held-out patterns {told.misfit:.3g} as told, {best.misfit:.3g} so, {best.empty:.3g} of vacuum"
    if visibility(best) < _SURE:
        yield f"tilts        not judged: {num} patterns hardly differ from those of vacuum"
    elif best is not told and sureness(told, best) > _SURE and told.gain < _LARGEST_SHARE * best.gain:
        pasted = ", ".join(f"[{rows:g}, {columns:g}]" for rows, columns in best_way.tilts_mrad)
        yield Problem(
            f"the patterns contradict how the scans were tilted: {best_way.words} fits clearly better ({figures}): "
            f"paste scan_tilts_mrad = [{pasted}]",
            "scan_tilts_mrad",
            "warning",
        )
        return best_way.tilts_mrad
    else:
        others = [each for each in tried[1:] if sureness(told, each[1]) > -_SURE]
        if others:
            words = "; ".join(f"{way.words} ({trial.misfit:.3g})" for way, trial in others)
            yield (
                f"tilts        {num} patterns do not tell their signs and axes surely: misfit {told.misfit:.3g} as "
                f"told, and {words}"
            )
        else:
            nearest = min((trial.misfit for _, trial in tried[1:]), default=told.empty)
            yield (
                f"tilts        as told, by a trial with {num} patterns: misfit {told.misfit:.3g}, with other signs and "
                f"axes {nearest:.3g} at least"
            )
    return as_told


class _Tilted:
    """Patterns of several scans of a specimen that was tilted between them.

    Args:
        parts: Patterns of each scan, on the same part of the detector.
        thickness_angstrom: Thickness of the specimen.
        tilt_mrad: What all scans have in common.
        most_mrad: The largest tilt of a scan along an axis.
    """

    def __init__(
        self, parts: Sequence[Sample], thickness_angstrom: float, tilt_mrad: tuple[float, float], most_mrad: float
    ) -> None:
        self._thickness, self._tilt_2 = thickness_angstrom, np.array(tilt_mrad)
        scan = parts[0].scan
        assert scan.pixel_size_angstrom is not None
        assert scan.wavelength_angstrom is not None
        self._pixel_2 = scan.pixel_size_angstrom / parts[0].scale()
        self._wavelength = scan.wavelength_angstrom
        semiangle = 1e-3 * (parts[0].told_semiangle() or 20.0)
        resolved = self._wavelength / semiangle**2
        move = thickness_angstrom * np.tan(1e-3 * most_mrad)
        self._slices = min(max(2, ceil(2 * thickness_angstrom / resolved), ceil(move / _MOVE)), _MOST_SLICES)
        self._amplitudes_NVU = torch.cat([each.amplitudes_NVU for each in parts])
        masks = [each.mask_NVU for each in parts]
        self._mask_NVU = None
        if any(each is not None for each in masks):
            whole = [torch.ones_like(each.amplitudes_NVU, dtype=torch.bool) for each in parts]
            self._mask_NVU = torch.cat([one if mask is None else mask for one, mask in zip(whole, masks, strict=True)])
        self._scan_N = np.repeat(np.arange(len(parts)), [len(each.points_N) for each in parts])
        self._positions_N2 = np.concatenate([each.part.scan.positions_N2 * each.scale() for each in parts])
        self._probes = [torch.from_numpy(each.cut_down(Geometry()).astype(np.complex64)) for each in parts]
        # Where each scan shows the middle of the specimen, as if it were thin and not tilted.
        shown = [each.in_depth(0.5 * thickness_angstrom).try_out(Geometry()).found for each in parts]
        self._seen_R2 = np.zeros((len(parts), 2))
        for number, (_, other) in enumerate(pairwise([shown[0], *shown[1:]]), 1):
            assert shown[0] is not None
            assert other is not None
            found = displacement(shown[0], other)
            if found is not None:
                self._seen_R2[number] = found.displacement_2

    def try_out(self, tilts_mrad: Tilts) -> Trial:
        """Reconstruct an object as if the tilts were right, with positions as told and moved; return the better one."""
        tilts_R2 = self._tilt_2 + np.array(tilts_mrad)
        moves_R2 = np.tan(1e-3 * tilts_R2) * self._thickness / self._pixel_2  # on the way through the specimen
        off_R2 = self._seen_R2 + 0.5 * (moves_R2 - moves_R2[0])
        as_told = self._reconstruct(moves_R2, np.zeros_like(off_R2), shifts_train=False)
        return min(as_told, self._reconstruct(moves_R2, -off_R2, shifts_train=True), key=lambda each: each.misfit)

    def _reconstruct(self, moves_R2: NDArray[np.float64], shifts_R2: NDArray[np.float64], shifts_train: bool) -> Trial:
        shape = (self._amplitudes_NVU.shape[1], self._amplitudes_NVU.shape[2])
        placement = place(self._positions_N2 + shifts_R2[self._scan_N], shape, margin=2)
        distance = self._thickness / self._slices
        size = float(self._pixel_2.mean())
        kernel_1VU = fresnel_kernel(shape, size, self._wavelength, torch.tensor([distance]))
        kernel_RVU = kernel_1VU * fourier_ramp(torch.from_numpy(moves_R2 / self._slices).float(), shape)
        corner_N2 = torch.from_numpy(placement.corner_N2)
        shift_N2 = torch.from_numpy(placement.remainder_N2).float()
        scan_N = torch.from_numpy(self._scan_N)
        probes_RMVU = torch.stack([each / each.abs().square().sum().sqrt() for each in self._probes])
        phase = torch.zeros(1, self._slices, *placement.shape_HW, requires_grad=True)
        further_R2 = torch.zeros(len(moves_R2), 2, requires_grad=shifts_train)
        asked = [{"params": [phase], "lr": _RATE}]
        asked += [{"params": [further_R2], "lr": _SHIFT_RATE}] if shifts_train else []
        optimizer = torch.optim.Adam(asked)
        held_T = torch.from_numpy(np.sort(held_out(len(scan_N))))
        train = torch.ones(len(scan_N), dtype=torch.bool)
        train[held_T] = False
        generator = torch.Generator().manual_seed(_SEED)

        def misfits(index_B: Tensor, maps: Tensor) -> Tensor:
            expected_BVU = multislice_intensities(
                probes_RMVU[scan_N[index_B]].transpose(0, 1),
                shift_N2[index_B] + further_R2[scan_N[index_B]],
                maps,
                corner_N2[index_B],
                kernel_RVU[scan_N[index_B]],
                "stored",
            )
            difference_BVU = ((expected_BVU + 1e-9).sqrt() - self._amplitudes_NVU[index_B]).square()
            if self._mask_NVU is not None:
                difference_BVU = difference_BVU * self._mask_NVU[index_B]
            total_B: Tensor = difference_BVU.sum((1, 2))
            return total_B

        def of_held_out(maps: Tensor) -> NDArray[np.float64]:
            with torch.no_grad():
                found = torch.cat([misfits(index_B, maps) for index_B in torch.split(held_T, _BATCH)])
            return found.double().numpy()

        empty_T = of_held_out(torch.zeros_like(phase))
        points = train.nonzero()[:, 0]
        for _ in range(_EPOCHS):
            for index_B in torch.split(points[torch.randperm(len(points), generator=generator)], _BATCH):
                optimizer.zero_grad()
                misfits(index_B, phase).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return Trial(of_held_out(phase.detach()), empty_T, 0.0)
