"""A probe that changes over the scan (orthogonal probe relaxation, OPR): what is trained of it.

The probe of a scan point is the mean probe, plus a few OPR modes with weights of the point's own:

    probe_jm = mean_m + Σ_k weight_jk · mode_mk

Each OPR mode has a part for each of the probe's incoherent modes, so that a unitary rotation among these, which changes
no pattern, can be made of both together. Weights are real: a change of phase has an OPR mode that is imaginary with
respect to the mean probe.

If several scans have probes of their own, each has OPR modes of its own as well, and a point has weights of those of
its scan. They are kept in one array, in the order of the scans, as those of the probe are.

Shapes: N = scan points, P = some of them, T = those of a scan that are trained on, B = patterns of a batch, K = OPR
modes, M = incoherent modes of the probe (of all scans, or of one of them), S = scans, Y, X = rows and columns of the
detector, D = 2·M·Y·X, the real numbers of a probe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit import random_seed

_SEED = 0x0B12  # keeps what is drawn here apart from all else
_DARK = 0.02  # of the largest amplitude of the probe's Fourier transform: below it, there is nothing to change
_HIGHEST = 4  # degree of the changes with which modes begin
_FARTHEST = 3.0  # times the width of the aperture: beyond that, high powers would say much of little light
_MOST_ASKED = 1024  # patterns that say what the modes begin as


class OPRChoice(NamedTuple):
    """How a probe may change over a scan.

    Attributes:
        num_modes: Number of OPR modes.
        num_points: Number of scan points.
        train_index: The points that are trained on, on the CPU.
        seed: The run's seed.
        scan_N: Which scan each point belongs to, on the CPU, if scans have probes of their own; None: there is one.
    """

    num_modes: int
    num_points: int
    train_index: Tensor
    seed: int
    scan_N: Tensor | None = None


class _OfScan(NamedTuple):
    """The part of one scan.

    Attributes:
        modes_MKYX2: Its OPR modes, a view.
        points_P: Its points, on the CPU.
        trained_T: Those that are trained on, on the CPU, in the order of the choice.
        on_device_T: The same on the device.
    """

    modes_MKYX2: Tensor
    points_P: Tensor
    trained_T: Tensor
    on_device_T: Tensor


class OPR(nn.Module):
    """Orthogonal modes by which the probe of a scan point differs from the mean probe.

    Attributes:
        modes: (M, K, Y, X, 2), in the unit of `ProbeModes.modes`; the power of each, over all M of a scan, is that of
            the probe.
        weights: (N, K) share of the probe's amplitude; 0 at first.
        begun: Whether the modes began as what patterns ask for (`begin`).

    Source:
        Odstrčil, Baksh, Boden, Card, Chad, Frey, Brocklesby, Optics Express 24 (2016) 8360.
    """

    begun: Tensor

    def __init__(
        self,
        choice: OPRChoice,
        probe_MYX: NDArray[np.complex128],
        scale: float,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        self._scale = scale
        self._varies = False  # whether weights train, or have trained: looking at them would wait for the device
        self._points, trained = _of_each_scan(choice)
        self._num_scans = len(self._points)
        generator = torch.Generator().manual_seed(random_seed(choice.seed, _SEED))
        made = []
        for of_scan_MYX in torch.from_numpy(probe_MYX).chunk(self._num_scans):
            noise_KMYX2 = torch.randn(choice.num_modes, *of_scan_MYX.shape, 2, dtype=torch.float64, generator=generator)
            made_KMYX = _within_light(torch.view_as_complex(noise_KMYX2), of_scan_MYX)
            made.append(self._of_power_one(torch.view_as_real(made_KMYX)).movedim(0, 1))
        self.modes = nn.Parameter(torch.cat(made).contiguous().to(device, dtype))
        self.weights = nn.Parameter(torch.zeros(choice.num_points, choice.num_modes, dtype=dtype, device=device))
        self.register_buffer("begun", torch.tensor(False))
        self._trained = trained
        for number, trained_T in enumerate(trained):
            self.register_buffer(f"trained_{number}_T", trained_T.to(device), persistent=False)
        self.register_load_state_dict_post_hook(_restored)  # type: ignore[no-untyped-call]

    def varies(self) -> bool:
        """Return whether weights can be other than 0."""
        self._varies = self._varies or self.weights.requires_grad
        return self._varies

    def of_patterns(self, mean_MYX: Tensor, modes_MKYX: Tensor, index_B: Tensor, scan_B: Tensor | None) -> Tensor:
        """Return the probe of each pattern (M, B, Y, X).

        Args:
            mean_MYX: The mean probe, complex; of all scans.
            modes_MKYX: `modes` in its unit, complex.
            index_B: Scan points.
            scan_B: Which scan each belongs to; None: there is one.
        """
        num = len(mean_MYX) // self._num_scans
        mean_M1D, modes_MKD = (
            torch.view_as_real(mean_MYX).flatten(1)[:, None],
            torch.view_as_real(modes_MKYX).flatten(2),
        )
        weights_BK = self.weights.index_select(0, index_B)
        if scan_B is None:
            probe_MBD = torch.baddbmm(mean_M1D, weights_BK.expand(num, -1, -1), modes_MKD)
        else:  # weights of the mean probes and modes of all scans, of which those of another scan are 0
            own_BS = (scan_B[:, None] == torch.arange(self._num_scans, device=scan_B.device)).to(weights_BK)
            shares_BJ = torch.cat((torch.ones_like(weights_BK[:, :1]), weights_BK), 1)  # J = 1 + K
            all_SMJD = torch.cat((mean_M1D, modes_MKD), 1)
            all_SMJD = all_SMJD.view(self._num_scans, num, *all_SMJD.shape[1:])
            shares_BP = (own_BS[:, :, None] * shares_BJ[:, None]).flatten(1)  # P = S·J
            probe_MBD = shares_BP @ all_SMJD.transpose(0, 1).flatten(1, 2)
        return torch.view_as_complex(probe_MBD.view(num, len(index_B), *mean_MYX.shape[1:], 2))

    @torch.no_grad()
    def mean_power(self, probe_MYX2: Tensor, scan: int, counted_YX1: Tensor | None = None) -> Tensor:
        """Return the power of a scan's probe, in the mean over its points that are trained on, in the unit of `modes`.

        Args:
            probe_MYX2: Its mean probe.
            scan: Which scan it is.
            counted_YX1: 1 for pixels that count, else 0; None: all do.
        """
        counted = probe_MYX2.new_ones(()) if counted_YX1 is None else counted_YX1
        part = self._of_scan(scan)
        weights_NK, modes_KD = self._weights_of(part), (part.modes_MKYX2 * counted).movedim(0, 1).flatten(1)
        probe_D = (probe_MYX2 * counted).flatten()
        if not len(weights_NK):
            return probe_D.square().sum()
        second_KK = weights_NK.T @ weights_NK / len(weights_NK)
        cross_K = modes_KD @ probe_D
        return probe_D.square().sum() + 2 * weights_NK.mean(0) @ cross_K + (second_KK * (modes_KD @ modes_KD.T)).sum()

    @torch.no_grad()
    def scale_modes(self, factor: Tensor, scan: int) -> None:
        """Multiply the OPR modes of a scan by a factor."""
        self._of_scan(scan).modes_MKYX2.mul_(factor)

    @torch.no_grad()
    def begin(
        self, probe_MYX2: Tensor, fit: Callable[[Tensor, Tensor, int], Tensor], shifts_belong_to_points: bool
    ) -> None:
        """Begin with the changes of the probe that patterns ask for.

        To some of the patterns of each scan, smooth changes of the probe's phase and amplitude in the aperture are
        fitted; their principal components are the modes, and then weights of these are fitted to each pattern that is
        trained on.

        Args:
            probe_MYX2: The mean probe, of all scans, in the unit of `modes`.
            fit: Takes directions (J, M, Y, X), complex and of power 1, scan points (P,), and the scan to which they
                belong, and returns by how much the probe of each point changes along each direction (P, J).
            shifts_belong_to_points: Whether what a mere shift of the probe explains is left to positions.
        """
        self.begun.fill_(True)
        weights_NK = torch.zeros(self.weights.shape, dtype=torch.float64)
        for scan, of_scan_MYX2 in enumerate(probe_MYX2.chunk(self._num_scans)):
            part = self._of_scan(scan)
            if not len(part.trained_T):
                continue
            shape = of_scan_MYX2.shape
            probe_MYX = torch.view_as_complex(of_scan_MYX2.double().cpu())
            candidates_JD = self._of_power_one(_smooth_changes(probe_MYX, shifts_belong_to_points)).flatten(1)
            places = torch.linspace(0, len(part.trained_T) - 1, min(_MOST_ASKED, len(part.trained_T))).round().long()

            def fitted(directions_JD: Tensor, points_P: Tensor, shape: torch.Size = shape, scan: int = scan) -> Tensor:
                directions = torch.view_as_complex(directions_JD.view(-1, *shape) * self._scale)
                found_PJ = fit(directions, points_P, scan).double().cpu()
                return found_PJ - found_PJ.mean(0)

            found_PJ = fitted(candidates_JD, part.trained_T[places])
            components_JJ = torch.linalg.svd(found_PJ, full_matrices=False).Vh
            num = min(self.modes.shape[1], len(components_JJ))
            modes_KD = components_JJ[:num] @ candidates_JD
            part.modes_MKYX2[:, :num] = modes_KD.view(num, *shape).movedim(0, 1).to(self.modes)
            weights_NK[part.trained_T, :num] = fitted(modes_KD, part.trained_T)
            weights_NK[part.points_P] = interpolated(weights_NK, part.points_P, part.trained_T)
        self.weights.copy_(weights_NK)

    @torch.no_grad()
    def put_in_order(self, probe_MYX2: Tensor, mean_moves: bool, shifts_belong_to_points: bool) -> None:
        """Make the OPR modes orthogonal, the strongest first, and take the mean out of the weights; in place.

        This changes no pattern that is trained on, unless shifts are taken out. The weights of held-out points are
        interpolated between those of the points that were measured before and after them in the same scan: no weight is
        ever fitted to a held-out pattern.

        Args:
            probe_MYX2: The mean probe, of all scans, which receives the mean of the weights.
            mean_moves: Whether it may change.
            shifts_belong_to_points: Whether what a mere shift of the probe explains is left to positions.
        """
        all_NK = self.weights.double().cpu()
        for scan, of_scan_MYX2 in enumerate(probe_MYX2.chunk(self._num_scans)):
            part = self._of_scan(scan)
            if not len(part.trained_T):
                continue
            modes_KD = part.modes_MKYX2.movedim(0, 1).flatten(1).double().cpu()
            if shifts_belong_to_points:
                modes_KD = _without(modes_KD, _shifts(torch.view_as_complex(of_scan_MYX2.double().cpu())))
            if mean_moves:
                mean_K = all_NK[part.trained_T].mean(0)
                of_scan_MYX2 += (mean_K @ modes_KD).view(of_scan_MYX2.shape).to(of_scan_MYX2)
                all_NK[part.points_P] -= mean_K
            modes_KD, turned_KK = _principal(modes_KD, all_NK[part.trained_T], 1 / self._scale)
            all_NK[part.points_P] = all_NK[part.points_P] @ turned_KK
            all_NK[part.points_P] = interpolated(all_NK, part.points_P, part.trained_T)
            part.modes_MKYX2.copy_(modes_KD.view(len(modes_KD), *of_scan_MYX2.shape).movedim(0, 1))
        self.weights.copy_(all_NK)

    @torch.no_grad()
    def strengths(self) -> list[float]:
        """Return the root mean square weight of each mode: by which share of its amplitude the probe changes."""
        trained_NK = torch.cat([self._weights_of(self._of_scan(scan)) for scan in range(self._num_scans)])
        rms_K: list[float] = trained_NK.square().mean(0).sqrt().tolist()
        return rms_K

    def _of_scan(self, scan: int) -> _OfScan:
        modes = self.modes.chunk(self._num_scans)[scan]
        return _OfScan(modes, self._points[scan], self._trained[scan], getattr(self, f"trained_{scan}_T"))

    def _weights_of(self, part: _OfScan) -> Tensor:
        """Return the weights of the points of a scan that are trained on (T, K)."""
        if len(part.trained_T) == len(self.weights):
            return self.weights
        return self.weights.index_select(0, part.on_device_T)

    def _of_power_one(self, modes_KMYX2: Tensor) -> Tensor:
        """Return modes that are orthonormal as real vectors, so scaled that the power of each stands for 1."""
        orthonormal_DK = torch.linalg.qr(modes_KMYX2.flatten(1).T).Q
        modes: Tensor = (orthonormal_DK.T / self._scale).reshape(modes_KMYX2.shape)
        return modes


def _of_each_scan(choice: OPRChoice) -> tuple[list[Tensor], list[Tensor]]:
    """Return the points of each scan, and those of them that are trained on."""
    if choice.scan_N is None:
        return [torch.arange(choice.num_points)], [choice.train_index]
    scans = range(int(choice.scan_N.max()) + 1)
    of_trained_T = choice.scan_N[choice.train_index]
    return (
        [torch.nonzero(choice.scan_N == scan).flatten() for scan in scans],
        [choice.train_index[of_trained_T == scan] for scan in scans],
    )


def _restored(opr: OPR, _: object) -> None:
    opr._varies = bool(opr.weights.any())


def interpolated(weights_NK: Tensor, points_P: Tensor, train_index: Tensor) -> Tensor:
    """Return weights of points, of which only some are known: the others are interpolated in the order of the scan.

    Args:
        weights_NK: The weights, on the CPU.
        points_P: The points of a scan, in the order of the measurement.
        train_index: Those of them whose weights are known, and stay.
    """
    known = np.sort(train_index.cpu().numpy())
    if len(known) == len(points_P):
        return weights_NK[points_P]
    columns = [np.interp(points_P.numpy(), known, column) for column in weights_NK[known].numpy().T]
    found_PK = torch.from_numpy(np.stack(columns, axis=1))
    is_known_P = torch.isin(points_P, train_index.cpu())
    return torch.where(is_known_P[:, None], weights_NK[points_P], found_PK)


def _principal(modes_KD: Tensor, weights_NK: Tensor, size: float) -> tuple[Tensor, Tensor]:
    """Return orthogonal modes of a given size, and the matrix (K, K) by which weights are multiplied from the right.

    Weights times modes stay what they are.
    """
    basis_DK, upper_KK = torch.linalg.qr(modes_KD.T)  # weights @ modes = (weights @ upperᵀ) @ basisᵀ
    along_NK = weights_NK @ upper_KK.T
    variance_KK = along_NK.T @ along_NK
    if float(variance_KK.diagonal().amax()) > 0:
        turn_KK = torch.linalg.eigh(variance_KK).eigenvectors.flip(1)
    else:
        turn_KK = torch.eye(len(modes_KD), dtype=modes_KD.dtype)
    new_KD = (basis_DK @ turn_KK).T
    signs_K = 1 - 2 * ((new_KD * modes_KD).sum(1) < 0).to(new_KD)  # each keeps its sign, as moments expect
    return size * signs_K[:, None] * new_KD, upper_KK.T @ turn_KK * signs_K / size


def _without(vectors_KD: Tensor, others_JD: Tensor) -> Tensor:
    """Return vectors without their parts along others."""
    basis_DJ = torch.linalg.qr(others_JD.T).Q
    rest: Tensor = vectors_KD - (vectors_KD @ basis_DJ) @ basis_DJ.T
    return rest


def _shifts(probe_MYX: Tensor) -> Tensor:
    """Return by what a probe changes if it moves down, and right (2, D)."""
    spectrum_MYX = torch.fft.fft2(probe_MYX)
    moved = []
    for axis in (1, 2):
        frequency = torch.fft.fftfreq(probe_MYX.shape[axis], dtype=torch.float64)
        slope = frequency.reshape([-1 if each == axis else 1 for each in range(3)])
        moved.append(torch.view_as_real(torch.fft.ifft2(1j * slope * spectrum_MYX)).flatten())
    return torch.stack(moved)


def _smooth_changes(probe_MYX: Tensor, shifts_belong_to_points: bool) -> Tensor:
    """Return smooth changes of a probe's phase and amplitude in the aperture (J, M, Y, X, 2), real and imaginary parts.

    They are products of powers of both frequencies: of degree 2 (defocus, astigmatism) to 4 for the phase, and of 0 to
    2 for the amplitude. A phase of degree 1 is a shift.
    """
    spectrum_MYX = torch.fft.fft2(probe_MYX)
    weight_YX = spectrum_MYX.abs().square().sum(0)
    weight_YX = weight_YX / weight_YX.sum()
    axes = []
    for axis, size in enumerate(probe_MYX.shape[1:]):
        frequency = torch.fft.fftfreq(size, dtype=torch.float64).reshape((-1, 1) if axis == 0 else (1, -1))
        middle = (weight_YX * frequency).sum()
        width = (weight_YX * (frequency - middle).square()).sum().sqrt().clamp_min(1 / size)
        axes.append(((frequency - middle) / width).clamp(-_FARTHEST, _FARTHEST))
    factors = []
    for degree in range(_HIGHEST + 1):
        products = [axes[0] ** (degree - right) * axes[1] ** right for right in range(degree + 1)]
        if degree >= 1 + shifts_belong_to_points:
            factors += [1j * each for each in products]
        if degree <= _HIGHEST // 2:
            factors += [each + 0j for each in products]
    changes_JMYX = torch.fft.ifft2(torch.stack(factors)[:, None] * spectrum_MYX)
    turned_D = torch.view_as_real(1j * probe_MYX).flatten()  # a common phase is not seen
    changes_JD = _without(torch.view_as_real(changes_JMYX).flatten(1), turned_D[None])
    return changes_JD.view(-1, *probe_MYX.shape, 2)


def _within_light(waves_KMYX: Tensor, probe_MYX: Tensor) -> Tensor:
    """Return waves without the frequencies at which the probe has no light, where there is nothing to change."""
    light_YX = torch.fft.fft2(probe_MYX).abs().square().sum(0)
    within: Tensor = torch.fft.ifft2(torch.fft.fft2(waves_KMYX) * (light_YX > _DARK**2 * light_YX.amax()))
    return within
