"""Single-slice ptychography: the network, and what it keeps in order while it is trained.

Shapes: N = scan points, B = patterns of a batch, M = probe modes, H, W = rows and columns of the object, Y, X = those
of the detector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit import Batch, DataError, State
from trainkit_ptychography import pictures
from trainkit_ptychography.forward import intensities
from trainkit_ptychography.geometry import affine_part, place
from trainkit_ptychography.live_diffraction import LiveDiffraction
from trainkit_ptychography.objects import LiveObject
from trainkit_ptychography.probe_modes import ProbeModes
from trainkit_ptychography.result import Result, write_result


class SingleSliceModule(nn.Module):
    """Object, probe and positions, and the patterns they make.

    The position of a point is start + dr. It is split anew at each step into the integer corner of its patch and a
    rest within ±0.5 pixel, by which the probe is shifted: so a patch is always centred on its probe, however far the
    point has moved, and dr gets its gradient through the shift.

    Attributes:
        object: The transmission, a `LiveObject`.
        probe: The modes.
        dr: (N, 2) displacement of each scan point, in pixels (row, column).
        origin_2: Position, in the data's coordinates, of the object's pixel [0, 0].
    """

    corner_N2: Tensor
    remainder_N2: Tensor
    last_corner_2: Tensor

    def __init__(
        self,
        data: LiveDiffraction,
        make_object: Callable[[tuple[int, int]], nn.Module],
        probe: ProbeModes,
        object_margin: int,
        project_affine: bool,
    ) -> None:
        super().__init__()
        placement = place(data.scan.positions_N2, data.detector_shape, object_margin)
        self.object = make_object(placement.shape_HW)
        self.probe = probe
        self.dr = nn.Parameter(torch.zeros(len(placement.corner_N2), 2, dtype=data.dtype, device=data.device))
        self.origin_2 = placement.origin_2
        self._data = data
        self._shape_HW = placement.shape_HW
        self._margin = object_margin
        self._project_affine = project_affine
        self._projected = False  # whether it was done already at the end of this epoch

        last = [whole - patch for whole, patch in zip(placement.shape_HW, data.detector_shape, strict=True)]
        for name, value in (
            ("corner_N2", torch.from_numpy(placement.corner_N2)),
            ("remainder_N2", torch.from_numpy(placement.remainder_N2).to(data.dtype)),
            ("last_corner_2", torch.tensor(last)),
        ):
            self.register_buffer(name, value.to(data.device), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``intensities`` (B, Y, X) for the scan points ``batch["index"]``; a mean pattern's total is 1."""
        corner_B2, shift_B2 = self._split(batch["index"])
        return {"intensities": intensities(self.probe(), shift_B2, self.object(corner_B2))}

    def _split(self, index_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the integer corner of each patch, and the probe's shift within it."""
        off_B2 = self.remainder_N2.index_select(0, index_B) + self.dr.index_select(0, index_B)
        start_B2 = self.corner_N2.index_select(0, index_B)
        # A patch that would leave the object within an epoch stays at its edge, and the probe moves within it, which
        # is the same physics; at the epoch's end `check_patches` says so. To look at each step would be to wait for
        # the device.
        corner_B2 = torch.minimum(
            (start_B2 + off_B2.detach().round().long()).clamp_min(0),
            self.last_corner_2,
        )
        return corner_B2, off_B2 - (corner_B2 - start_B2)

    # ---- what is kept in order while training -----------------------------------------------------------------------

    def on_step_end(self, state: State) -> None:
        """Keep the probe's power, while it trains."""
        if self.probe.modes.requires_grad:
            self.probe.keep_power()

    def on_validation_start(self, state: State) -> None:
        """Take the affine part out before held-out points, which never move, are looked at."""
        self._finish_positions()

    def on_epoch_end(self, state: State) -> None:
        """Take the affine part out where that was not done yet, and make the probe's modes orthogonal."""
        self._finish_positions()
        self._projected = False
        if self.probe.modes.requires_grad:
            self.probe.orthogonalise()

    def _finish_positions(self) -> None:
        if self.dr.requires_grad and not self._projected:
            if self._project_affine:
                self.project_affine()
            self.check_patches()
            self._projected = True

    @torch.no_grad()
    def project_affine(self) -> None:
        """Take out of dr what moves the whole scan: shift, rotation, scale and shear.

        Points that are held out stay as they are, and have no say in the fit.
        """
        trained = self._data.train_index
        positions_N2 = torch.from_numpy(self._data.scan.positions_N2)[trained.cpu()]
        motion_N2, _ = affine_part(self.dr[trained].cpu(), positions_N2)  # on the CPU: not all devices have float64
        self.dr[trained] -= motion_N2.to(self.dr)

    @torch.no_grad()
    def check_patches(self) -> None:
        """Look whether all patches lie within the object.

        Raises:
            DataError: One does not; names the pattern and the distance.
        """
        corner_N2 = self.corner_N2 + (self.remainder_N2 + self.dr).round().long()
        beyond_N = torch.maximum(-corner_N2, corner_N2 - self.last_corner_2).amax(1)
        worst = int(beyond_N.argmax())
        if (distance := int(beyond_N[worst])) > 0:
            down, right = self.dr[worst].tolist()
            raise DataError(
                f"pattern {worst} has moved by ({down:.1f}, {right:.1f}) pixels, and its patch leaves the object by "
                f"{distance} pixel{'s' if distance > 1 else ''}: raise model.object_margin (now {self._margin}), or "
                "lower the learning rate of group dr if no position can be that wrong"
            )

    # ---- what it shows ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def positions(self) -> NDArray[np.float64]:
        """Return where the probe's centre is for each pattern, in pixels, in the data's coordinates."""
        moved: NDArray[np.float64] = self._data.scan.positions_N2 + self.dr.double().cpu().numpy()
        return moved

    @torch.no_grad()
    def maps(self) -> Mapping[str, NDArray[np.floating]]:
        """Return the object's "phase" in rad and "amplitude", both (H, W)."""
        live = cast(LiveObject, self.object)
        return {"phase": live.phase().cpu().numpy(), "amplitude": live.amplitude().cpu().numpy()}

    @torch.no_grad()
    def probe_modes(self) -> NDArray[np.complexfloating]:
        """Return the probe's modes, centred at pixel (Y//2, X//2)."""
        modes: NDArray[np.complexfloating] = self.probe().cpu().numpy()
        return modes

    def result(self) -> Result:
        """Return all that was reconstructed."""
        maps = self.maps()
        positions_N2 = torch.from_numpy(self._data.scan.positions_N2)
        _, matrix_23 = affine_part(self.dr.detach().cpu(), positions_N2)
        return Result(
            object_HW=maps["amplitude"] * np.exp(1j * maps["phase"]),
            probe_MYX=self.probe_modes(),
            positions_N2=self.positions() - self.origin_2,
            nominal_N2=self._data.scan.positions_N2 - self.origin_2,
            held_out_index=self._data.held_out_index.cpu().numpy(),
            affine_23=matrix_23.numpy(),
            origin_2=self.origin_2,
            pixel_size_angstrom=self._data.scan.pixel_size_angstrom,
            wavelength_angstrom=self._data.scan.wavelength_angstrom,
            source=self._data.scan.source,
        )

    def on_picture(self, state: State) -> None:
        """Show phase, amplitude, probe and positions."""
        self._finish_positions()
        scan, maps = self._data.scan, self.maps()
        seen = pictures.scanned_part(scan.positions_N2 - self.origin_2, self._shape_HW)
        state.picture("object_phase", pictures.grey(maps["phase"][seen]))
        state.picture("object_amplitude", pictures.grey(maps["amplitude"][seen]))
        state.picture("probe", pictures.complex_modes(self.probe_modes()))
        true_N2 = None if scan.truth is None else scan.truth.positions_N2
        state.picture("positions", pictures.positions(scan.positions_N2, self.positions(), true_N2))

    def on_run_end(self, state: State) -> None:
        """Write ``result.h5`` into the run folder, unless the run failed."""
        if state.context.rank == 0 and not state.ended.startswith("failed"):
            write_result(state.folder / "result.h5", self.result())
