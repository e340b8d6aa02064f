"""Geometry that patterns show without a reconstruction: rotation by centres of mass, defocus by a weak-phase fit.

The centres of mass of patterns are slopes of a phase, so they have no curl if positions lie along the axes of the
detector as they are told. Turning the scan by an angle mixes curl and divergence, so the angle at which the curl is
least follows from sums over all points, for the scan as it is and for one whose rows and columns are exchanged.

The changes of the bright field are those of a weak phase, G(k, q) = i φ̂(q) Γ(k, q), for the right defocus: for others
the phase that fits best explains less of them. Nothing depends on the unknown phase, and the sign of the defocus shows.

A scan that is turned by 180° more, with the other sign of the defocus and of the phase, makes the same patterns: of the
two the one is meant that is turned by 90° at most.

Shapes: N = scan points, K = pixels of the bright field, Q = frequencies, Y, X = rows and columns of the detector, A =
angles, D = defoci.

Source:
    Lazić, Bosch, Lazar, Ultramicroscopy 160 (2016) 265 (curl); Yang et al., Nature Communications 7 (2016) 12532
    (aberrations from the phases of side bands).
"""

from __future__ import annotations

import time
from math import degrees, pi

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit_ptychography.direct.dpc_live import centres_of_mass
from trainkit_ptychography.direct.evidence import Evidence
from trainkit_ptychography.physics.weak_phase import bright_field, some_of
from trainkit_ptychography.scans.positions import oriented

_FOR_ROTATION, _FOR_DEFOCUS = 1024, 400  # scan points
_FEWEST = 25
_NEIGHBOURS = 8
_ON_A_LINE = 50.0  # condition of neighbours that tell no slope across a line
_SURE, _SYSTEMATIC = 2.0, 3.0  # standard errors, and degrees: a strong phase, or a fine one, biases the angle
_CLEAR_CURL = 0.5  # of the largest curl at any angle
_PIXELS, _FREQUENCIES = 200, 400
_LOWEST, _HIGHEST = 0.1, 1.6  # of the aperture's radius, of frequencies that tell the defocus
_CLEAR_FIT = 2.5  # times what is explained of patterns in disorder
_SEED = 0xD15
_FINEST_ANGSTROM = 0.5
_ANGLES = 181
_PARTS = 4


@attrs.frozen(eq=False)
class Rotation:
    """How the scan lies against the detector.

    Attributes:
        degrees: By how much it is turned, from the column axis towards the row axis, beyond what is told.
        error_degrees: Standard error of that, from four parts of the scan.
        exchanged: Whether its rows and columns are exchanged before that.
        curl: The mean square of the curl there, as a share of its largest at any angle.
        told_curl: The same as it is told.
        angles_A: Angles in degrees from −90 to 90, and
        curls_2A: that share at them: as the scan is told, and with rows and columns exchanged.
    """

    degrees: float
    error_degrees: float
    exchanged: bool
    curl: float
    told_curl: float
    angles_A: NDArray[np.float64]
    curls_2A: NDArray[np.float64]

    @property
    def is_clear(self) -> bool:
        """Whether the curl nearly vanishes at one angle alone."""
        return self.curl < _CLEAR_CURL

    @property
    def as_told(self) -> bool:
        """Whether the scan lies as it is told, as far as can be seen."""
        return not self.exchanged and abs(self.degrees) < _SURE * self.error_degrees + _SYSTEMATIC


@attrs.frozen(eq=False)
class Defocus:
    """Which defocus explains most of the changes of the bright field.

    Attributes:
        change_angstrom: The true underfocus less the one that is told.
        explained: Share of the changes that a weak phase explains there.
        by_chance: The largest share, at any defocus, of the same patterns in disorder.
        changes_D: Those that were tried, and
        explained_D: what each explains.
    """

    change_angstrom: float
    explained: float
    by_chance: float
    changes_D: NDArray[np.float64]
    explained_D: NDArray[np.float64]

    @property
    def is_clear(self) -> bool:
        """Whether a weak phase at this defocus explains much more than it could by chance."""
        return self.explained > _CLEAR_FIT * self.by_chance


@attrs.frozen(eq=False)
class DirectGeometry:
    """What patterns show of the geometry.

    Attributes:
        rotation: Of the scan; None: there are too few points.
        defocus: None: the same, or no pixel size or wavelength is known.
        told_defocus_angstrom: What is told; None: nothing is.
        cpu_seconds: What it took.
    """

    rotation: Rotation | None
    defocus: Defocus | None
    told_defocus_angstrom: float | None
    cpu_seconds: float

    def in_words(self) -> str:
        """Return it as a line says it."""
        if self.rotation is None:
            return f"not looked for: fewer than {_FEWEST} patterns tell too little"
        turn = self.rotation
        curl = f"the curl of centres of mass is {turn.curl:.2f} of its largest"
        if not turn.is_clear:
            return f"rotation cannot be told ({curl} at best); if it is as told, {self._defocus_in_words()}"
        exchanged = "rows and columns of the scan are exchanged, and then it" if turn.exchanged else "the scan"
        angle = f"{turn.degrees:.1f} ± {turn.error_degrees:.1f}°"
        as_told = "" if turn.as_told else f", as told {turn.told_curl:.2f}"
        words = (
            f"the scan lies as told (turned by {angle}" if turn.as_told else f"{exchanged} is turned by {angle} (there"
        )
        return f"{words}{';' if turn.as_told else ''} {curl}{as_told}); {self._defocus_in_words()}"

    def _defocus_in_words(self) -> str:
        if self.defocus is None:
            return "defocus not known without pixel size and energy"
        if not self.defocus.is_clear:
            return "defocus cannot be told"
        change = self.defocus.change_angstrom
        if self.told_defocus_angstrom is None:
            return f"defocus {change:+.0f} Å from that of the told probe"
        return f"defocus {self.told_defocus_angstrom + change:.0f} Å (told {self.told_defocus_angstrom:.0f})"


@torch.no_grad()
def find_geometry(seen: Evidence) -> DirectGeometry:
    """Return what the patterns in the middle of a scan show of its geometry."""
    begun = time.process_time()
    rotation = defocus = None
    if len(seen.points_N) >= _FEWEST:
        rotation = _rotation(seen, _middle(seen, _FOR_ROTATION))
        turned = (rotation.exchanged, rotation.degrees) if rotation.is_clear else (False, 0.0)
        size, wavelength = seen.data.scan.pixel_size_angstrom, seen.data.scan.wavelength_angstrom
        if size is not None and wavelength is not None:
            fit = _WeakPhaseFit(seen, _middle(seen, _FOR_DEFOCUS), *turned, size, wavelength)
            defocus = fit.best(seen.told_defocus_angstrom or 0.0)
    return DirectGeometry(rotation, defocus, seen.told_defocus_angstrom, time.process_time() - begun)


def _middle(seen: Evidence, num: int) -> Tensor:
    places_N2 = seen.places(seen.points_N)
    away_N = np.hypot(*(places_N2 - np.median(places_N2, axis=0)).T)
    return seen.points_N[torch.from_numpy(np.sort(np.argsort(away_N, kind="stable")[:num]))]


def _rotation(seen: Evidence, points_N: Tensor) -> Rotation:
    places_N2 = seen.places(points_N)
    slopes_N22, places_N2 = slopes_between(places_N2, centres_of_mass(seen, points_N).cpu().double().numpy())
    quarter_N = (places_N2 > np.median(places_N2, axis=0)) @ np.array([1, 2])
    angles_A = np.linspace(-90.0, 90.0, _ANGLES)
    ways_2A = np.stack([np.cos(np.radians(angles_A)), np.sin(np.radians(angles_A))])
    found, curls = [], []
    for exchanged in (False, True):
        rows_N2, columns_N2 = (slopes_N22[:, axis, :: -1 if exchanged else 1] for axis in (0, 1))
        # After a turn by t the curl is c·cos t − d·sin t, from curl c and divergence d as they are.
        curl_N, divergence_N = rows_N2[:, 1] - columns_N2[:, 0], rows_N2[:, 0] + columns_N2[:, 1]
        terms_2N = np.stack([curl_N, -divergence_N])
        curl, largest, angle, both_22 = _least(terms_2N)
        parts = np.radians([2 * (_least(terms_2N[:, quarter_N == each])[2] - angle) for each in range(_PARTS)])
        error = degrees(np.sqrt((np.sin(parts) ** 2).mean() / (_PARTS - 1))) / 2
        curls.append((ways_2A * (both_22 @ ways_2A)).sum(axis=0) / largest)
        found.append((curl, angle, error, exchanged, float(both_22[0, 0]) / largest))
    curl, angle, error, exchanged, _ = min(found)
    return Rotation(angle, error, exchanged, curl, found[0][4], angles_A, np.stack(curls))


def _least(terms_2N: NDArray[np.float64]) -> tuple[float, float, float, NDArray[np.float64]]:
    """Return the least mean square of a·cos t + b·sin t over its largest; the largest; t in degrees; the covariance."""
    both_22 = terms_2N @ terms_2N.T / max(terms_2N.shape[1], 1)
    powers, turns = np.linalg.eigh(both_22)
    angle = degrees(np.arctan2(turns[1, 0], turns[0, 0]))
    largest = max(float(powers[1]), 1e-30)
    return float(powers[0]) / largest, largest, (angle + 90) % 180 - 90, both_22


def slopes_between(
    places_N2: NDArray[np.float64], values_N2: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the slopes (…, 2, 2) of a vector field along rows and columns, from each point's neighbours; and where.

    Points whose neighbours lie on a line are left out.

    Args:
        places_N2: Where values are known, in any order.
        values_N2: The values.
    """
    from scipy.spatial import KDTree  # its import takes 0.3 s, and most runs need none

    num = min(_NEIGHBOURS + 1, len(places_N2))
    _, near_NK = KDTree(places_N2).query(places_N2, k=num)
    away_NK2, values_NK2 = (
        each[near_NK] - each[near_NK].mean(axis=1, keepdims=True) for each in (places_N2, values_N2)
    )
    spread_N22 = np.einsum("nki,nkj->nij", away_NK2, away_NK2)
    across = np.linalg.eigvalsh(spread_N22)
    good_N = across[:, 0] * _ON_A_LINE > across[:, 1]
    products_N22 = np.einsum("nki,nkj->nij", away_NK2, values_NK2)[good_N]
    slopes_N22: NDArray[np.float64] = np.linalg.solve(spread_N22[good_N], products_N22).transpose(0, 2, 1)
    return slopes_N22, places_N2[good_N]


class _WeakPhaseFit:
    """The changes of the bright field as Fourier sums over scan points, and how much of them a weak phase explains."""

    def __init__(
        self, seen: Evidence, points_N: Tensor, exchanged: bool, degrees: float, size: float, wavelength: float
    ) -> None:
        shape_YX = seen.data.detector_shape
        self._shape_YX, self._wavelength = shape_YX, wavelength
        self._aperture_YX = torch.from_numpy(seen.aperture[0].astype(np.complex64))
        light_YX = (np.abs(seen.aperture) ** 2).sum(axis=0)
        self._pixels_K2 = torch.from_numpy(some_of(np.argwhere(bright_field(light_YX)), _PIXELS))
        along_Y, along_X = (torch.fft.fftfreq(num) for num in shape_YX)
        self._squared_YX = (along_Y[:, None] ** 2 + along_X**2) / size**2
        radius = float(np.sqrt(bright_field(light_YX).sum() / (pi * shape_YX[0] * shape_YX[1])))  # cycles a pixel
        self._half_angle = radius * wavelength / size
        self._largest = min(shape_YX) * size / (2 * self._half_angle)  # beyond, the probe does not fit into its array

        number_Q2 = np.stack(np.meshgrid(*(np.arange(num) - num // 2 for num in shape_YX), indexing="ij"), -1)
        number_Q2 = number_Q2.reshape(-1, 2)
        cycles_Q = np.hypot(*(number_Q2 / np.array(shape_YX)).T)
        half_Q = (number_Q2[:, 0] > 0) | ((number_Q2[:, 0] == 0) & (number_Q2[:, 1] > 0))  # the others are conjugates
        number_Q2 = some_of(
            number_Q2[half_Q & (cycles_Q > _LOWEST * radius) & (cycles_Q < _HIGHEST * radius)], _FREQUENCIES
        )
        self._numbers_Q2 = torch.from_numpy(number_Q2)
        places_N2 = oriented(seen.places(points_N), exchanged, (), degrees)
        places_N2 = places_N2 - places_N2.mean(axis=0)
        reach_2 = 1.05 * np.abs(places_N2).max(axis=0)
        taper_N = torch.from_numpy(np.cos(0.5 * pi * places_N2 / reach_2).prod(axis=1).astype(np.float32))
        turns_NQ = torch.from_numpy(places_N2 @ (number_Q2 / np.array(shape_YX)).T * (-2 * pi)).float()
        rows_K, columns_K = self._pixels_K2.to(seen.data.device).T
        changes_NK = torch.cat([each[:, rows_K, columns_K].cpu().float() for _, each in seen.differences(points_N)])
        order_N = torch.randperm(len(changes_NK), generator=torch.Generator().manual_seed(_SEED))
        waves_QN = torch.polar(taper_N[:, None].expand_as(turns_NQ), turns_NQ).T
        self._changes_QK = waves_QN @ (changes_NK - changes_NK.mean(0)).to(torch.complex64)
        self._disorder_QK = waves_QN @ (changes_NK - changes_NK.mean(0))[order_N].to(torch.complex64)

    def explained(self, change_angstrom: float) -> tuple[float, float]:
        """Return which share of the changes a weak phase explains, if the underfocus differs by so much.

        The second is that of the same patterns, each at the place of another: what their likeness alone explains.
        """
        turned_YX = pi * self._wavelength * change_angstrom * self._squared_YX
        wave_YX = self._aperture_YX * torch.polar(torch.ones_like(turned_YX), turned_YX)
        here_K = wave_YX[self._pixels_K2[:, 0], self._pixels_K2[:, 1]]
        before_QK, behind_QK = (self._at(wave_YX, side) for side in (-1, 1))
        overlap_QK = here_K.conj() * before_QK - here_K * behind_QK.conj()
        power_Q = overlap_QK.abs().square().sum(1)
        shares = [
            float(((overlap_QK.conj() * each_QK).sum(1).abs().square() / (power_Q + 0.01 * power_Q.max())).sum())
            / max(float(each_QK.abs().square().sum()), 1e-30)
            for each_QK in (self._changes_QK, self._disorder_QK)
        ]
        return shares[0], shares[1]

    def _at(self, wave_YX: Tensor, side: int) -> Tensor:
        """Return P(k ± q); frequencies beyond the detector are dark."""
        rows, columns = (self._pixels_K2[None, :, axis] + side * self._numbers_Q2[:, None, axis] for axis in (0, 1))
        signed_K2 = torch.stack(
            [(self._pixels_K2[:, axis] + num // 2) % num - num // 2 for axis, num in enumerate(self._shape_YX)], dim=1
        )
        beyond = torch.zeros(rows.shape, dtype=torch.bool)
        for axis, num in enumerate(self._shape_YX):
            place = signed_K2[None, :, axis] + side * self._numbers_Q2[:, None, axis]
            beyond |= (place < -(num // 2)) | (place >= num - num // 2)
        values_QK: Tensor = wave_YX[rows % self._shape_YX[0], columns % self._shape_YX[1]]
        return values_QK.masked_fill(beyond, 0)

    def best(self, told_angstrom: float) -> Defocus:
        """Return the change of the underfocus that explains most."""
        step = 0.7 * self._wavelength / (pi * self._half_angle**2)
        reach = max(self._largest, abs(told_angstrom))
        changes_D = np.arange(-reach, reach + step, step) - told_angstrom
        shares_D2 = np.array([self.explained(each) for each in changes_D])
        best = int(shares_D2[:, 0].argmax())
        change, explained = float(changes_D[best]), float(shares_D2[best, 0])
        while (step := step / 2) > _FINEST_ANGSTROM:
            for each in (change - step, change + step):
                if (found := self.explained(each)[0]) > explained:
                    change, explained = each, found
        return Defocus(change, explained, float(shares_D2[:, 1].max()), changes_D, shares_D2[:, 0])
