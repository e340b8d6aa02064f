"""A probe that changes over the scan (orthogonal probe relaxation, OPR): what is trained of it.

The probe of a scan point is the mean probe, plus a few OPR modes with weights of the point's own:

    probe_jm = mean_m + Σ_k weight_jk · mode_mk

Each OPR mode has a part for each of the probe's incoherent modes, so that a unitary rotation among these, which changes
no pattern, can be made of both together. Weights are real: a change of phase has an OPR mode that is imaginary with
respect to the mean probe.

Shapes: N = scan points, B = patterns of a batch, K = OPR modes, M = incoherent modes of the probe, Y, X = rows and
columns of the detector, D = 2·M·Y·X, the real numbers of a probe.
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
    """

    num_modes: int
    num_points: int
    train_index: Tensor
    seed: int


class OPR(nn.Module):
    """Orthogonal modes by which the probe of a scan point differs from the mean probe.

    Attributes:
        modes: (M, K, Y, X, 2), in the unit of `ProbeModes.modes`; the power of each, over all M, is that of the probe.
        weights: (N, K) share of the probe's amplitude; 0 at first.
        begun: Whether the modes began as what patterns ask for (`begin`).

    Source:
        Odstrčil, Baksh, Boden, Card, Chad, Frey, Brocklesby, Optics Express 24 (2016) 8360.
    """

    begun: Tensor
    trained_T: Tensor

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
        self._train_index = choice.train_index
        generator = torch.Generator().manual_seed(random_seed(choice.seed, _SEED))
        noise_KMYX2 = torch.randn(choice.num_modes, *probe_MYX.shape, 2, dtype=torch.float64, generator=generator)
        made_KMYX = _within_light(torch.view_as_complex(noise_KMYX2), torch.from_numpy(probe_MYX))
        modes_MKYX2 = self._of_power_one(torch.view_as_real(made_KMYX)).movedim(0, 1).contiguous()
        self.modes = nn.Parameter(modes_MKYX2.to(device, dtype))
        self.weights = nn.Parameter(torch.zeros(choice.num_points, choice.num_modes, dtype=dtype, device=device))
        self.register_buffer("begun", torch.tensor(False))
        self.register_buffer("trained_T", choice.train_index.to(device), persistent=False)
        self.register_load_state_dict_post_hook(_restored)  # type: ignore[no-untyped-call]

    def varies(self) -> bool:
        """Return whether weights can be other than 0."""
        self._varies = self._varies or self.weights.requires_grad
        return self._varies

    def of_patterns(self, mean_MYX: Tensor, modes_MKYX: Tensor, index_B: Tensor) -> Tensor:
        """Return the probe of each pattern (M, B, Y, X).

        Args:
            mean_MYX: The mean probe, complex.
            modes_MKYX: `modes` in its unit, complex.
            index_B: Scan points.
        """
        weights_MBK = self.weights.index_select(0, index_B).expand(len(mean_MYX), -1, -1)
        mean_M1D, modes_MKD = (
            torch.view_as_real(mean_MYX).flatten(1)[:, None],
            torch.view_as_real(modes_MKYX).flatten(2),
        )
        probe_MBD = torch.baddbmm(mean_M1D, weights_MBK, modes_MKD)
        return torch.view_as_complex(probe_MBD.view(len(mean_MYX), len(index_B), *mean_MYX.shape[1:], 2))

    @torch.no_grad()
    def mean_power(self, probe_MYX2: Tensor, counted_YX1: Tensor | None = None) -> Tensor:
        """Return the power of the probe, in the mean over the points that are trained on, in the unit of `modes`.

        Args:
            probe_MYX2: The mean probe.
            counted_YX1: 1 for pixels that count, else 0; None: all do.
        """
        counted = probe_MYX2.new_ones(()) if counted_YX1 is None else counted_YX1
        weights_NK, modes_KD = self._trained_weights(), (self.modes * counted).movedim(0, 1).flatten(1)
        probe_D = (probe_MYX2 * counted).flatten()
        second_KK = weights_NK.T @ weights_NK / len(weights_NK)
        cross_K = modes_KD @ probe_D
        return probe_D.square().sum() + 2 * weights_NK.mean(0) @ cross_K + (second_KK * (modes_KD @ modes_KD.T)).sum()

    @torch.no_grad()
    def begin(self, probe_MYX2: Tensor, fit: Callable[[Tensor, Tensor], Tensor], shifts_belong_to_points: bool) -> None:
        """Begin with the changes of the probe that patterns ask for.

        To some of the patterns, smooth changes of the probe's phase and amplitude in the aperture are fitted; their
        principal components are the modes, and then weights of these are fitted to each pattern that is trained on.

        Args:
            probe_MYX2: The mean probe, in the unit of `modes`.
            fit: Takes directions (J, M, Y, X), complex and of power 1, and scan points (P,), and returns by how much
                the probe of each point changes along each direction (P, J).
            shifts_belong_to_points: Whether what a mere shift of the probe explains is left to positions.
        """
        self.begun.fill_(True)
        probe_MYX = torch.view_as_complex(probe_MYX2.double().cpu())
        shape = probe_MYX2.shape
        candidates_JD = self._of_power_one(_smooth_changes(probe_MYX, shifts_belong_to_points)).flatten(1)
        trained = self._train_index
        some = trained[torch.linspace(0, len(trained) - 1, min(_MOST_ASKED, len(trained))).round().long()]

        def fitted(directions_JD: Tensor, points_P: Tensor) -> Tensor:
            directions = torch.view_as_complex(directions_JD.view(-1, *shape) * self._scale)
            found_PJ = fit(directions, points_P).double().cpu()
            return found_PJ - found_PJ.mean(0)

        components_JJ = torch.linalg.svd(fitted(candidates_JD, some), full_matrices=False).Vh
        num = min(self.modes.shape[1], len(components_JJ))
        modes_KD = components_JJ[:num] @ candidates_JD
        self.modes[:, :num] = modes_KD.view(num, *shape).movedim(0, 1).to(self.modes)
        weights_NK = torch.zeros(self.weights.shape, dtype=torch.float64)
        weights_NK[trained, :num] = fitted(modes_KD, trained)
        self.weights.copy_(interpolated(weights_NK, trained))

    @torch.no_grad()
    def put_in_order(self, probe_MYX2: Tensor, mean_moves: bool, shifts_belong_to_points: bool) -> None:
        """Make the OPR modes orthogonal, the strongest first, and take the mean out of the weights; in place.

        This changes no pattern that is trained on, unless shifts are taken out. The weights of held-out points are
        interpolated between those of the points that were measured before and after them: no weight is ever fitted to
        a held-out pattern.

        Args:
            probe_MYX2: The mean probe, which receives the mean of the weights.
            mean_moves: Whether it may change.
            shifts_belong_to_points: Whether what a mere shift of the probe explains is left to positions.
        """
        modes_KD = self.modes.movedim(0, 1).flatten(1).double().cpu()
        weights_NK = self.weights.double().cpu()
        trained = self._train_index
        if shifts_belong_to_points:
            modes_KD = _without(modes_KD, _shifts(torch.view_as_complex(probe_MYX2.double().cpu())))
        if mean_moves:
            mean_K = weights_NK[trained].mean(0)
            probe_MYX2 += (mean_K @ modes_KD).view(probe_MYX2.shape).to(probe_MYX2)
            weights_NK = weights_NK - mean_K
        modes_KD, turned_KK = _principal(modes_KD, weights_NK[trained], 1 / self._scale)
        weights_NK = weights_NK @ turned_KK
        weights_NK = interpolated(weights_NK, trained)
        num = len(modes_KD)
        self.modes.copy_(modes_KD.view(num, *probe_MYX2.shape).movedim(0, 1))
        self.weights.copy_(weights_NK)

    @torch.no_grad()
    def strengths(self) -> list[float]:
        """Return the root mean square weight of each mode: by which share of its amplitude the probe changes."""
        rms_K: list[float] = self._trained_weights().square().mean(0).sqrt().tolist()
        return rms_K

    def _trained_weights(self) -> Tensor:
        if len(self._train_index) == len(self.weights):
            return self.weights
        return self.weights.index_select(0, self.trained_T)

    def _of_power_one(self, modes_KMYX2: Tensor) -> Tensor:
        """Return modes that are orthonormal as real vectors, so scaled that the power of each stands for 1."""
        orthonormal_DK = torch.linalg.qr(modes_KMYX2.flatten(1).T).Q
        modes: Tensor = (orthonormal_DK.T / self._scale).reshape(modes_KMYX2.shape)
        return modes


def _restored(opr: OPR, _: object) -> None:
    opr._varies = bool(opr.weights.any())


def interpolated(weights_NK: Tensor, train_index: Tensor) -> Tensor:
    """Return weights with those of all other points interpolated linearly, in the order of the measurement.

    Args:
        weights_NK: The weights.
        train_index: The points whose weights stay.
    """
    num, trained = len(weights_NK), np.sort(train_index.cpu().numpy())
    if len(trained) == num:
        return weights_NK
    known_TK = weights_NK[trained].numpy()
    columns = [np.interp(np.arange(num), trained, column) for column in known_TK.T]
    found = torch.from_numpy(np.stack(columns, axis=1))
    found[trained] = weights_NK[trained]
    return found


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
