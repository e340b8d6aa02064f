"""How waves get from slice to slice in a model: thickness and tilt, which can be trained.

Shapes: N = scan points, B = patterns of a batch, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit import DataError
from trainkit_ptychography.physics.forward import fourier_ramp
from trainkit_ptychography.physics.propagation import propagate
from trainkit_ptychography.propagators.kind import Propagator, WaveGeometry
from trainkit_ptychography.scans.kind_live import LiveDiffraction


class Propagation(nn.Module):
    """Equally spaced slices, and the direction of the beam through them.

    Attributes:
        thickness: Of the whole specimen in Å, of which each slice has the same share.
        tilt: (2,) direction of the beam in mrad (row, column): from one slice to the next, it moves towards larger rows
            and columns by the tangent of it, times their distance.
        point_tilts: (N, 2) by how much the direction differs from it at each scan point, in mrad.
    """

    def __init__(
        self,
        data: LiveDiffraction,
        propagator: Propagator,
        slices: int,
        thickness_angstrom: float,
        tilt_mrad: tuple[float, float],
    ) -> None:
        super().__init__()
        size, wavelength = data.scan.pixel_size_angstrom, data.scan.wavelength_angstrom
        if size is None or wavelength is None:
            lacking = "the pixel size" if size is None else "the wavelength (energy_kev)"
            raise DataError(
                f"{data.scan.source}: {lacking} is not known, and without it waves cannot be propagated through "
                f"{slices} slices: say it in [data], or set model.slices = 1"
            )
        self._slices, self._size = slices, size
        self._propagator = propagator.build(WaveGeometry(data.detector_shape, size, wavelength))
        self._shape = data.detector_shape

        def parameter(value: Tensor) -> nn.Parameter:
            return nn.Parameter(value.to(data.device, data.dtype))

        self.thickness = parameter(torch.tensor(thickness_angstrom))
        self.tilt = parameter(torch.tensor(tilt_mrad))
        self.point_tilts = parameter(torch.zeros(len(data.scan.positions_N2), 2))
        self._points_differ = False  # whether tilts of single points train, or have trained
        self.register_load_state_dict_post_hook(_restored)  # type: ignore[no-untyped-call]

    @property
    def slices(self) -> int:
        """The number of slices."""
        return self._slices

    @property
    def distance(self) -> Tensor:
        """The distance from one slice to the next in Å."""
        return self.thickness / self._slices

    def kernel(self, index_B: Tensor) -> Tensor:
        """Return the factor of a wave's Fourier transform from one slice to the next: (1, Y, X), or (B, Y, X).

        Args:
            index_B: Scan points.
        """
        # Not seen from the values: looking at them would wait for the device in each step.
        self._points_differ = self._points_differ or self.point_tilts.requires_grad
        if self._points_differ:
            return self._kernel(self.tilt + self.point_tilts.index_select(0, index_B))
        return self.common_kernel()

    def common_kernel(self) -> Tensor:
        """Return the factor without the tilts of single points (1, Y, X)."""
        return self._kernel(self.tilt[None])

    def _kernel(self, tilt_B2: Tensor) -> Tensor:
        moved_B2 = self.distance * torch.tan(1e-3 * tilt_B2) / self._size  # from one slice to the next, in pixels
        return self._propagator(self.distance[None]) * fourier_ramp(moved_B2, self._shape)

    @torch.no_grad()
    def in_the_middle(self, probe_MYX: Tensor) -> Tensor:
        """Return the probe in the middle of the specimen's thickness, in vacuum."""
        return propagate(probe_MYX, self._propagator(0.5 * (self.thickness - self.distance)[None]))

    @torch.no_grad()
    def tilts(self) -> NDArray[np.float64]:
        """Return the direction of the beam at each scan point (N, 2), or at all (2,), in mrad."""
        differ = bool(self.point_tilts.any())
        tilts: NDArray[np.float64] = (self.tilt + self.point_tilts if differ else self.tilt).cpu().double().numpy()
        return tilts.copy()

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Return what has become of the parameters that train."""
        found = {}
        if self.thickness.requires_grad:
            found["specimen/thickness_angstrom"] = float(self.thickness)
        if self.tilt.requires_grad:
            found["specimen/tilt_rows_mrad"], found["specimen/tilt_columns_mrad"] = self.tilt.tolist()
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


def _restored(propagation: Propagation, _: object) -> None:
    propagation._points_differ = bool(propagation.point_tilts.any())
