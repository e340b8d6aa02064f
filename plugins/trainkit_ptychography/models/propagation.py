"""How waves get from slice to slice in a model: thickness and tilt, which can be trained, and how many slices count.

Shapes: N = scan points, B = patterns of a batch, M = probe modes, K = 2 (phase, absorption) or 1 (phase), S = slices,
C = slices that the wave passes now, R = scans that were joined, H, W = rows and columns of the object, Y, X = those of
the detector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit import DataError
from trainkit_ptychography.physics.forward import fourier_ramp
from trainkit_ptychography.physics.propagation import propagate
from trainkit_ptychography.propagators.coarse_slices import CoarseSlices, slices_in
from trainkit_ptychography.propagators.kind import Propagator, WaveGeometry
from trainkit_ptychography.scans.kind_live import LiveDiffraction


class Propagation(nn.Module):
    """Equally spaced slices, and the direction of the beam through them.

    In a coarse stage the wave passes fewer slices, each of which is the sum of neighbours and lies in their middle.

    Attributes:
        thickness: Of the whole specimen in Å, of which each slice has the same share.
        tilt: (2,) direction of the beam in mrad (row, column): from one slice to the next, it moves towards larger rows
            and columns by the tangent of it, times their distance.
        scan_tilts: (R, 2) by how much the direction differs from it in each of several scans, in mrad; None: it does
            not.
        point_tilts: (N, 2) by how much the direction differs from these at each scan point, in mrad.
    """

    scan_N: Tensor | None

    def __init__(
        self,
        data: LiveDiffraction,
        propagator: Propagator,
        slices: int,
        thickness_angstrom: float,
        tilt_mrad: tuple[float, float],
        coarse: Mapping[str, CoarseSlices] | None = None,
        scan_tilts_mrad: Sequence[tuple[float, float]] = (),
    ) -> None:
        super().__init__()
        size, wavelength = data.scan.pixel_size_angstrom, data.scan.wavelength_angstrom
        if size is None or wavelength is None:
            lacking = "the pixel size" if size is None else "the wavelength (energy_kev)"
            raise DataError(
                f"{data.scan.source}: {lacking} is not known, and without it waves cannot be propagated through "
                f"{slices} slices: say it in [data], or set model.slices = 1"
            )
        self._slices, self._size, self._coarse = slices, size, coarse or {}
        self._like = torch.empty(0, dtype=data.dtype, device=data.device)
        self.enter_epoch(0)
        self._propagator = propagator.build(WaveGeometry(data.detector_shape, size, wavelength))
        self._shape = data.detector_shape

        def parameter(value: Tensor) -> nn.Parameter:
            return nn.Parameter(value.to(data.device, data.dtype))

        self.thickness = parameter(torch.tensor(thickness_angstrom))
        self.tilt = parameter(torch.tensor(tilt_mrad))
        scan_N = None
        if scan_tilts_mrad:
            if data.scan.scan_N is None or data.scan.num_scans != len(scan_tilts_mrad):
                raise DataError(
                    f"{data.scan.source} is made of {data.scan.num_scans} scans, and model.scan_tilts_mrad has "
                    f'{len(scan_tilts_mrad)} tilts: join as many scans, patterns = ["…", "…"], as there are tilts'
                )
            scan_N = torch.from_numpy(data.scan.scan_N).to(data.device)
        self.scan_tilts = parameter(torch.tensor(scan_tilts_mrad)) if scan_tilts_mrad else None
        self.register_buffer("scan_N", scan_N, persistent=False)
        self.point_tilts = parameter(torch.zeros(len(data.scan.positions_N2), 2))
        self._points_differ = False  # whether tilts of single points train, or have trained
        self.register_load_state_dict_post_hook(_restored)  # type: ignore[no-untyped-call]

    @property
    def slices(self) -> int:
        """The number of slices."""
        return self._slices

    @property
    def distance(self) -> Tensor:
        """The distance from one slice of the object to the next in Å."""
        return self.thickness / self._slices

    @property
    def passed(self) -> int:
        """The number of slices that the wave passes now."""
        return self._passed

    def enter_epoch(self, epoch: int) -> None:
        """Let the wave pass as many slices as the stages say for an epoch."""
        self._passed = slices_in(epoch, self._coarse, self._slices)
        self._shares_CS = None
        if self._passed < self._slices:
            self._shares_CS = shares(self._passed, self._slices).to(self._like)

    def merged(self, maps_KSHW: Tensor) -> Tensor:
        """Return the maps of the slices that the wave passes now (K, C, H, W): sums of neighbours."""
        if self._shares_CS is None:
            return maps_KSHW
        merged_KCP: Tensor = self._shares_CS @ maps_KSHW.flatten(2)
        return merged_KCP.reshape(-1, self._passed, *maps_KSHW.shape[2:])

    def at_first_slice(self, probe_MYX: Tensor, shift_B2: Tensor, index_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probe at the first slice that the wave passes, and by how much it is shifted there (B, 2).

        Args:
            probe_MYX: The probe at the first slice of the object.
            shift_B2: By how much it is shifted there, in pixels.
            index_B: Scan points.
        """
        if self._shares_CS is None:
            return probe_MYX, shift_B2
        way = 0.5 * (self.thickness / self._passed - self.distance)
        return propagate(probe_MYX, self._propagator(way[None])), shift_B2 + self._moved(way, self._tilts(index_B))

    def kernel(self, index_B: Tensor) -> Tensor:
        """Return the factor of a wave's Fourier transform from one passed slice to the next: (1, Y, X), or (B, Y, X).

        Args:
            index_B: Scan points.
        """
        return self._kernel(self._passed, self._tilts(index_B))

    def common_kernel(self) -> Tensor:
        """Return the factor from one slice to the next, without tilts of single scans and points (1, Y, X)."""
        return self._kernel(self._slices, self.tilt[None])

    def _tilts(self, index_B: Tensor) -> Tensor:
        """Return the tilt at scan points (B, 2), or (1, 2) if it is the same at all."""
        # Not seen from the values: looking at them would wait for the device in each step.
        self._points_differ = self._points_differ or self.point_tilts.requires_grad
        tilt_B2 = self.tilt[None]
        if self.scan_tilts is not None and self.scan_N is not None:
            tilt_B2 = tilt_B2 + self.scan_tilts.index_select(0, self.scan_N.index_select(0, index_B))
        return tilt_B2 + self.point_tilts.index_select(0, index_B) if self._points_differ else tilt_B2

    def _kernel(self, slices: int, tilt_B2: Tensor) -> Tensor:
        ramp_BYX = fourier_ramp(self._moved(self.thickness / slices, tilt_B2), self._shape)
        return self._propagator((self.thickness / slices)[None]) * ramp_BYX

    def _moved(self, distance: Tensor, tilt_B2: Tensor) -> Tensor:
        """Return by how many pixels a tilted beam moves on its way (B, 2)."""
        return distance * torch.tan(1e-3 * tilt_B2) / self._size

    @torch.no_grad()
    def in_the_middle(self, probe_MYX: Tensor) -> Tensor:
        """Return the probe in the middle of the specimen's thickness, in vacuum."""
        return propagate(probe_MYX, self._propagator(0.5 * (self.thickness - self.distance)[None]))

    @torch.no_grad()
    def tilts(self) -> NDArray[np.float64]:
        """Return the direction of the beam at each scan point (N, 2), or at all (2,), in mrad."""
        tilts: Tensor = self.tilt
        if self.scan_tilts is not None and self.scan_N is not None:
            tilts = tilts + self.scan_tilts[self.scan_N]
        if bool(self.point_tilts.any()):
            tilts = tilts + self.point_tilts
        return tilts.cpu().double().numpy().copy()

    @torch.no_grad()
    def put_in_order(self) -> None:
        """Leave what all scans have in common to the tilt, if both train: patterns stay as they are."""
        if self.scan_tilts is not None and self.scan_tilts.requires_grad and self.tilt.requires_grad:
            common_2 = self.scan_tilts.mean(0)
            self.scan_tilts.sub_(common_2)
            self.tilt.add_(common_2)

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Return what has become of the parameters that train."""
        found = {}
        if self.thickness.requires_grad:
            found["specimen/thickness_angstrom"] = float(self.thickness)
        if self.tilt.requires_grad:
            found["specimen/tilt_rows_mrad"], found["specimen/tilt_columns_mrad"] = self.tilt.tolist()
        if self.scan_tilts is not None and self.scan_tilts.requires_grad:
            for number, (rows, columns) in enumerate((self.tilt + self.scan_tilts).tolist(), 1):
                found[f"specimen/tilt_of_scan_{number}_rows_mrad"] = rows
                found[f"specimen/tilt_of_scan_{number}_columns_mrad"] = columns
        if self.point_tilts.requires_grad:
            found["specimen/point_tilts_rms_mrad"] = float(self.point_tilts.square().mean().sqrt())
        return found

    @torch.no_grad()
    def check(self) -> None:
        """Check that the thickness is still positive.

        Raises:
            DataError: It is not.
        """
        if not float(self.thickness) > 0:
            raise DataError(
                f"the thickness has become {float(self.thickness):.4g} Å: lower the learning rate of group thickness "
                "(Adam changes it by about that many Å a step), or do not train it"
            )


def shares(passed: int, slices: int) -> Tensor:
    """Return which share of each slice belongs to each of fewer, thicker ones (C, S).

    Example:
        >>> shares(2, 3).tolist()
        [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]
    """
    edges = torch.arange(passed + 1, dtype=torch.float64) * slices / passed
    below_S = torch.arange(slices, dtype=torch.float64)
    within_CS = torch.minimum(edges[1:, None], below_S + 1) - torch.maximum(edges[:-1, None], below_S)
    return within_CS.clamp_min(0)


def _restored(propagation: Propagation, _: object) -> None:
    propagation._points_differ = bool(propagation.point_tilts.any())
