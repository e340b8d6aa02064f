"""The probe as it is trained: mutually incoherent modes of fixed total power.

Shapes: M = modes, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit_ptychography.probes.defocus_spread import DefocusSpread
from trainkit_ptychography.probes.lens_change import LensChange
from trainkit_ptychography.probes.opr import OPR, OPRChoice
from trainkit_ptychography.probes.wave_sampling import WaveSampling


class ProbeModes(nn.Module):
    """Modes whose total power is 1, like the mean total of the patterns.

    If several scans have probes of their own, the modes of the first come first, and the power of each is the mean
    total of the patterns of its scan. In the near field, where a pixel of the detector shows a place of the probe, the
    power is that on pixels that count: what lies beyond the detector has more.

    Attributes:
        sampling: What turns its pixels into lengths and angles.
        lens: Aberrations that are trained, and change all modes; None: there are none.
        opr: By what the probe changes over the scan; None: it does not.
        spread: The spread of the defocus, by which each mode becomes several where they are seen; None: there is none.
        modes: (M, Y, X, 2), real and imaginary parts, scaled so that at first the largest magnitude is 1. So a
            learning rate is a share of the probe's peak, whatever its size (1e-3 is a good one).
    """

    scale: Tensor

    def __init__(
        self,
        modes_MYX: NDArray[np.complexfloating],
        dtype: torch.dtype,
        device: torch.device,
        sampling: WaveSampling | None = None,
        aberrations: Sequence[str] = (),
        scan_powers: Sequence[float] = (1.0,),
        opr: OPRChoice | None = None,
        defocus_spread_angstrom: float = 0.0,
        defocus_spread_nodes: int = 1,
        counted_YX: NDArray[np.bool_] | None = None,
    ) -> None:
        super().__init__()
        self._scan_powers = tuple(scan_powers)
        self._counted_YX1: Tensor | None = None
        self.sampling = WaveSampling() if sampling is None else sampling
        normal_MYX = np.asarray(modes_MYX, dtype=np.complex128)
        power_MYX = np.abs(normal_MYX) ** 2
        if counted_YX is not None:
            power_MYX = power_MYX * counted_YX
            self._counted_YX1 = torch.from_numpy(counted_YX).to(device, dtype)[..., None]
        normal_MYX = normal_MYX * np.sqrt(sum(scan_powers) / power_MYX.sum())
        scale = float(np.abs(normal_MYX).max())
        scaled_MYX = torch.from_numpy(normal_MYX / scale)
        self.modes = nn.Parameter(torch.view_as_real(scaled_MYX).to(device, dtype, copy=True))
        self.register_buffer("scale", torch.tensor(scale, dtype=dtype, device=device), persistent=False)
        self.lens = None
        if aberrations:
            self.lens = LensChange(normal_MYX, aberrations, self.sampling, dtype, device)
        self.opr = None if opr is None else OPR(opr, normal_MYX, scale, dtype, device)
        self.spread = None
        if defocus_spread_angstrom > 0:
            shape = (normal_MYX.shape[1], normal_MYX.shape[2])
            choice = (defocus_spread_angstrom, defocus_spread_nodes)
            self.spread = DefocusSpread(*choice, shape, self.sampling, dtype, device)

    @property
    def num_scans(self) -> int:
        """Number of scans that have probes of their own; 1: one probe for all."""
        return len(self._scan_powers)

    def forward(self) -> Tensor:
        """Return the modes, complex (M, Y, X), centred at pixel (Y//2, X//2)."""
        return self.lensed(torch.view_as_complex(self.modes) * self.scale)

    def lensed(self, waves_MYX: Tensor) -> Tensor:
        """Return waves (…, Y, X) as the changed lens makes them."""
        return waves_MYX if self.lens is None else self.lens(waves_MYX)

    def spread_out(self, modes_MYX: Tensor) -> Tensor:
        """Return modes (M, Y, X) or (M, B, Y, X) as they are seen, that is with the spread of the defocus."""
        return modes_MYX if self.spread is None else self.spread(modes_MYX)

    def of_patterns(self, scan_B: Tensor | None, index_B: Tensor) -> Tensor:
        """Return the modes with which patterns were taken: complex (M, Y, X), or (M, B, Y, X) if each has its own.

        Args:
            scan_B: Which scan each pattern belongs to; not used if there is one probe for all.
            index_B: Scan points.
        """
        modes_MYX: Tensor = self()
        if self.opr is not None and self.opr.varies():
            return self.spread_out(self.opr.of_patterns(modes_MYX, self._opr_modes(), index_B, scan_B))
        modes_MYX = self.spread_out(modes_MYX)
        if len(self._scan_powers) == 1 or scan_B is None:
            return modes_MYX
        modes_PMYX = modes_MYX.view(len(self._scan_powers), -1, *modes_MYX.shape[1:])
        return modes_PMYX.index_select(0, scan_B).transpose(0, 1)

    def _opr_modes(self) -> Tensor:
        """Return the OPR modes, complex (M, K, Y, X)."""
        assert self.opr is not None
        return self.lensed(torch.view_as_complex(self.opr.modes) * self.scale)

    @torch.no_grad()
    def opr_powers(self) -> Tensor:
        """Return the power of each OPR mode (K,)."""
        assert self.opr is not None
        return (self.opr.modes * self.scale).square().sum((0, 2, 3, 4))

    @torch.no_grad()
    def changes(self) -> tuple[Tensor, Tensor] | None:
        """Return OPR modes (K, M, Y, X) and their weights (N, K); None: the probe does not change."""
        return None if self.opr is None else (self._opr_modes().transpose(0, 1), self.opr.weights.detach())

    @torch.no_grad()
    def keep_power(self) -> None:
        """Scale the power of each scan's probe back: the object's amplitude could make up for any other."""
        for scan, (modes, wanted) in enumerate(
            zip(self.modes.chunk(len(self._scan_powers)), self._scan_powers, strict=True)
        ):
            if self.opr is not None and self.opr.varies():  # the mean power over the scan
                power = self.opr.mean_power(modes, scan, self._counted_YX1) * self.scale.square()
                factor = power.rsqrt() if wanted == 1 else wanted**0.5 * power.rsqrt()
                modes.mul_(factor)
                self.opr.scale_modes(factor, scan)
                continue
            power_MYX2 = (modes * self.scale).square()
            power = (power_MYX2 if self._counted_YX1 is None else power_MYX2 * self._counted_YX1).sum()
            modes.mul_(power.rsqrt() if wanted == 1 else wanted**0.5 * power.rsqrt())

    @torch.no_grad()
    def orthogonalise(self) -> None:
        """Make the modes orthogonal, the strongest first, by a unitary rotation among them.

        Only the incoherent sum of the modes is measured, and a unitary rotation leaves it as it is, so this changes no
        pattern and no loss. Once an epoch is enough, and hardly disturbs an optimizer's per-parameter moments, which do
        not rotate with the modes: from the second time on the rotation is close to the identity, because each mode
        keeps its phase (its overlap with what it was is real and positive).

        Source:
            Thibault, Menzel, Nature 494 (2013) 68; Odstrčil et al., Optics Express 24 (2016) 8360.
        """
        num = len(self._scan_powers)
        changes = [None] * num if self.opr is None else self.opr.modes.chunk(num)
        for modes, of_scan in zip(self.modes.chunk(num), changes, strict=True):
            self._orthogonalise(modes, of_scan)

    def _orthogonalise(self, modes: Tensor, changes: Tensor | None) -> None:
        if len(modes) == 1:
            return
        modes_MS = torch.view_as_complex(modes).flatten(1)
        gram_MM = (modes_MS @ modes_MS.conj().T).cpu().to(torch.complex128)
        rotation_MM = torch.linalg.eigh(gram_MM).eigenvectors.flip(1).conj().T  # a row for each new mode
        own_M = rotation_MM.diagonal()
        rotation_MM = rotation_MM * torch.where(own_M.abs() > 0, own_M.conj().sgn(), 1)[:, None]
        turning = [modes] if changes is None else [modes, changes]  # what changes over the scan turns as well
        for each in turning:
            turned_MS = rotation_MM.to(modes_MS) @ torch.view_as_complex(each).flatten(1)
            each.copy_(torch.view_as_real(turned_MS.view(each.shape[:-1])))
