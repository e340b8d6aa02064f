"""Trials with an object of several slices; patterns are of one scan, or of several of a specimen that was tilted.

Shapes: N = patterns, T = those held out, B = those of a step, R = scans, S = slices, M = probe modes, V, U = rows and
columns of the part of the detector that is used, H, W = those of the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit_ptychography.physics.displacement import displacement
from trainkit_ptychography.physics.forward import fourier_ramp
from trainkit_ptychography.physics.geometry import place
from trainkit_ptychography.physics.multislice import multislice_intensities
from trainkit_ptychography.physics.patches import patches_at
from trainkit_ptychography.physics.propagation import fresnel_kernel
from trainkit_ptychography.physics.trial import Trial, held_out
from trainkit_ptychography.preflight.geometry import Geometry
from trainkit_ptychography.preflight.sample import Sample

_MOST_SLICES = 8
_MOVE = 0.5  # Å, by which a tilted beam may move from one slice to the next
_EPOCHS = 4
_BATCH = 24
_RATE = 0.03  # rad, by Adam
_SHIFT_RATE = 0.1  # pixels, likewise
_SEED = 0x717

Tilts = tuple[tuple[float, float], ...]


class InSlices:
    """Patterns of one scan, or of several scans of a specimen that was tilted between them.

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
        self._parts = parts

    @cached_property
    def _seen(self) -> NDArray[np.float64]:
        """Where each scan shows the middle of the specimen beside the first one, as if it were thin and not tilted."""
        seen_R2 = np.zeros((len(self._parts), 2))
        first, *others = (each.in_depth(0.5 * self._thickness).try_out(Geometry()).found for each in self._parts)
        for number, other in enumerate(others, 1):
            assert first is not None
            assert other is not None
            found = displacement(first, other)
            if found is not None:
                seen_R2[number] = found.displacement_2
        return seen_R2

    def try_out(self, tilts_mrad: Tilts) -> Trial:
        """Reconstruct an object as if the tilts were right, with positions as told and moved; return the better one."""
        tilts_R2 = self._tilt_2 + np.array(tilts_mrad)
        moves_R2 = np.tan(1e-3 * tilts_R2) * self._thickness / self._pixel_2  # on the way through the specimen
        off_R2 = self._seen + 0.5 * (moves_R2 - moves_R2[0])
        as_told = self.reconstruct(moves_R2, np.zeros_like(off_R2), shifts_train=False)
        return min(as_told, self.reconstruct(moves_R2, -off_R2, shifts_train=True), key=lambda each: each.misfit)

    def reconstruct(self, moves_R2: NDArray[np.float64], shifts_R2: NDArray[np.float64], shifts_train: bool) -> Trial:
        """Reconstruct an object, and return how well it fits patterns that were held out.

        Args:
            moves_R2: By how many pixels (row, column) the beam of each scan moves on its way through the specimen.
            shifts_R2: By how many pixels the points of each scan are moved.
            shifts_train: Whether these shifts train.
        """
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
            expected_BVU, _ = multislice_intensities(
                probes_RMVU[scan_N[index_B]].transpose(0, 1),
                shift_N2[index_B] + further_R2[scan_N[index_B]],
                maps,
                patches_at(corner_N2[index_B], shape, placement.shape_HW[1]),
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
