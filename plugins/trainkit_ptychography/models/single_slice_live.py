"""Single-slice ptychography: the network, and what it keeps in order while it is trained.

Shapes: N = scan points, B = patterns of a batch, M = probe modes, H, W = rows and columns of the object, Y, X = those
of the detector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import degrees, sqrt
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit import Batch, DataError, State
from trainkit_ptychography.models.held_out_positions import fit_displacement
from trainkit_ptychography.objects.kind import LiveObject
from trainkit_ptychography.output import pictures
from trainkit_ptychography.output.imagej_tiff import write_imagej_tiff
from trainkit_ptychography.output.result import Result, write_result
from trainkit_ptychography.physics.forward import intensities
from trainkit_ptychography.physics.geometry import Distortion, affine_part, distortion, place
from trainkit_ptychography.probes.modes import ProbeModes
from trainkit_ptychography.scans.kind_live import LiveDiffraction

_FIT_STEPS = 1  # steps that held-out positions take at each validation; they go on where the last one left them


class SingleSliceModule(nn.Module):
    """Object, probe and positions, and the patterns they make.

    The position of a point is start + dr + scan @ (start − middle) / radius. It is split anew at each step into the
    integer corner of its patch and a rest within ±0.5 pixel, by which the probe is shifted: so a patch is always
    centred on its probe, however far the point has moved, and dr and scan get their gradients through the shift.

    Attributes:
        object: The transmission, a `LiveObject`.
        probe: The modes.
        dr: (N, 2) displacement of each scan point, in pixels (row, column).
        scan: (2, 2) linear motion of all points about the middle of the scan, in pixels at the point farthest from it.
        origin_2: Position, in the data's coordinates, of the object's pixel [0, 0].
        ordered_epoch: The last epoch at whose end positions were put in order.
    """

    corner_N2: Tensor
    remainder_N2: Tensor
    arm_N2: Tensor
    last_corner_2: Tensor
    ordered_epoch: Tensor

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
        self.scan = nn.Parameter(torch.zeros(2, 2, dtype=data.dtype, device=data.device))
        self.origin_2 = placement.origin_2
        from_middle_N2 = data.scan.positions_N2 - data.scan.positions_N2.mean(axis=0)
        self._radius = max(float(np.hypot(*from_middle_N2.T).max()), 1.0)
        self._data = data
        self._shape_HW = placement.shape_HW
        self._margin = object_margin
        self._project_affine = project_affine

        last = [whole - patch for whole, patch in zip(placement.shape_HW, data.detector_shape, strict=True)]
        for name, value in (
            ("corner_N2", torch.from_numpy(placement.corner_N2)),
            ("remainder_N2", torch.from_numpy(placement.remainder_N2).to(data.dtype)),
            ("arm_N2", torch.from_numpy(from_middle_N2 / self._radius).to(data.dtype)),
            ("last_corner_2", torch.tensor(last)),
        ):
            self.register_buffer(name, value.to(data.device), persistent=False)
        # Saved with the model: a run that is interrupted while it validates must not put them in order twice.
        self.register_buffer("ordered_epoch", torch.tensor(-1))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``intensities`` (B, Y, X) for the scan points ``batch["index"]``; a mean pattern's total is 1."""
        index_B = batch["index"]
        return {"intensities": self._intensities(index_B, self.dr.index_select(0, index_B))}

    def _intensities(self, index_B: Tensor, displacement_B2: Tensor) -> Tensor:
        corner_B2, shift_B2 = self._split(index_B, displacement_B2)
        return intensities(self.probe(), shift_B2, self.object(corner_B2))

    def _split(self, index_B: Tensor, displacement_B2: Tensor) -> tuple[Tensor, Tensor]:
        """Return the integer corner of each patch, and the probe's shift within it."""
        off_B2 = self.remainder_N2.index_select(0, index_B) + displacement_B2
        off_B2 = off_B2 + self.arm_N2.index_select(0, index_B) @ self.scan.T
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

    def on_epoch_start(self, state: State) -> None:
        """Tell the object."""
        self._tell_object("on_epoch_start", state)

    def on_step_end(self, state: State) -> None:
        """Keep the probe's power, while it trains."""
        if self.probe.modes.requires_grad:
            self.probe.keep_power()

    def on_validation_start(self, state: State) -> None:
        """Put positions in order, and find those of held-out points, before these are looked at."""
        first = self._order_positions(state.epoch)
        if first and self.dr.requires_grad and state.split == "val":
            self.fit_held_out()

    def on_epoch_end(self, state: State) -> None:
        """Put positions in order where that was not done yet, and make the probe's modes orthogonal."""
        self._tell_object("on_epoch_end", state)
        self._order_positions(state.epoch)
        if self.probe.modes.requires_grad:
            self.probe.orthogonalise()
        if self.scan.requires_grad:
            found = self.distortion()
            state.metrics["scan/rotation_deg"] = degrees(found.rotation_rad)
            state.metrics["scan/scale"] = sqrt(found.scale_rows * found.scale_columns)

    def _tell_object(self, event: str, state: State) -> None:
        listener = getattr(self.object, event, None)
        if listener is not None:
            listener(state)

    def _order_positions(self, epoch: int) -> bool:
        """Put positions in order, once an epoch; return whether it was done now."""
        if int(self.ordered_epoch) == epoch:
            return False
        self.ordered_epoch.fill_(epoch)
        if self.dr.requires_grad or self.scan.requires_grad:
            if self.dr.requires_grad and self._project_affine:
                self.project_affine()
            self.check_patches()
        return True

    def _affine_part(self) -> tuple[Tensor, Tensor]:
        """Return the affine motion in dr of the points that are trained on, at these points; and its matrix."""
        trained = self._data.train_index
        positions_N2 = torch.from_numpy(self._data.scan.positions_N2)[trained]
        return affine_part(self.dr.detach().cpu()[trained], positions_N2)  # on the CPU: not all devices have float64

    @torch.no_grad()
    def project_affine(self) -> None:
        """Take out of dr what moves the whole scan; scan gets its rotation, scale and shear, if that trains.

        Points that are held out stay as they are, and have no say in the fit.
        """
        motion_N2, matrix_23 = self._affine_part()
        self.dr[self._data.train_index] -= motion_N2.to(self.dr)
        if self.scan.requires_grad:
            self.scan.add_((self._radius * matrix_23[:, :2]).to(self.scan))

    @torch.no_grad()
    def fit_held_out(self) -> None:
        """Fit the displacement of each held-out point to its own pattern, in the frame of the scan as it was given.

        A pattern that is looked at from the wrong place tells little of the object. Two numbers fitted to some
        thousand pixels cannot flatter the loss; but they would follow a scan that drifts. So the affine motion of the
        points that are trained on is added before the fit and taken away after it: where these drift, held-out
        patterns do not fit any more.
        """
        _, matrix_23 = self._affine_part()
        for batch in self._data.evaluate("val"):
            index_B = batch["index"].to(self.dr.device)
            positions_B2 = torch.from_numpy(self._data.scan.positions_N2)[index_B.cpu()]
            motion_B2 = (positions_B2 @ matrix_23[:, :2].T + matrix_23[:, 2]).to(self.dr)

            def amplitudes(displacement_B2: Tensor, index_B: Tensor = index_B) -> Tensor:
                return self._intensities(index_B, displacement_B2).sqrt()

            fitted_B2 = fit_displacement(
                amplitudes,
                batch["amplitudes"].to(self.dr.device),
                self._data.mask_YX,
                self.dr[index_B] + motion_B2,
                _FIT_STEPS,
            )
            self.dr[index_B] = fitted_B2 - motion_B2

    @torch.no_grad()
    def check_patches(self) -> None:
        """Look whether the patches of all points that are trained on lie within the object.

        Raises:
            DataError: One does not; names the pattern and the distance.
        """
        moved_N2 = self.dr + self.arm_N2 @ self.scan.T
        corner_N2 = self.corner_N2 + (self.remainder_N2 + moved_N2).round().long()
        beyond_N = torch.maximum(-corner_N2, corner_N2 - self.last_corner_2).amax(1)
        beyond_N[self._data.held_out_index] = 0
        worst = int(beyond_N.argmax())
        if (distance := int(beyond_N[worst])) > 0:
            down, right = moved_N2[worst].tolist()
            raise DataError(
                f"pattern {worst} has moved by ({down:.1f}, {right:.1f}) pixels, and its patch leaves the object by "
                f"{distance} pixel{'s' if distance > 1 else ''}: raise model.object_margin (now {self._margin}), or "
                "lower the learning rates of groups dr and scan if no position can be that wrong"
            )

    # ---- what it shows ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def positions(self) -> NDArray[np.float64]:
        """Return where the probe's centre is for each pattern, in pixels, in the data's coordinates."""
        moved_N2 = self.dr + self.arm_N2 @ self.scan.T
        positions_N2: NDArray[np.float64] = self._data.scan.positions_N2 + moved_N2.cpu().double().numpy()
        return positions_N2

    def distortion(self) -> Distortion:
        """Return by what group scan has rotated, scaled and sheared the scan."""
        return distortion(np.eye(2) + self.scan.detach().cpu().double().numpy() / self._radius)

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
        nominal_N2, trained = self._data.scan.positions_N2, self._data.train_index.numpy()
        moved_N2 = self.positions() - nominal_N2
        _, matrix_23 = affine_part(torch.from_numpy(moved_N2[trained]), torch.from_numpy(nominal_N2[trained]))
        return Result(
            object_HW=maps["amplitude"] * np.exp(1j * maps["phase"]),
            probe_MYX=self.probe_modes(),
            positions_N2=self.positions() - self.origin_2,
            nominal_N2=nominal_N2 - self.origin_2,
            held_out_index=self._data.held_out_index.numpy(),
            affine_23=matrix_23.numpy(),
            origin_2=self.origin_2,
            pixel_size_angstrom=self._data.scan.pixel_size_angstrom,
            wavelength_angstrom=self._data.scan.wavelength_angstrom,
            source=self._data.scan.source,
        )

    def on_picture(self, state: State) -> None:
        """Show phase, amplitude, probe and positions."""
        self._order_positions(state.epoch)
        scan, maps, modes_MYX = self._data.scan, self.maps(), self.probe_modes()
        size = scan.pixel_size_angstrom
        seen = pictures.scanned_part(scan.positions_N2 - self.origin_2, self._shape_HW)
        phase_HW, amplitude_HW = maps["phase"][seen], maps["amplitude"][seen]
        state.picture("object_phase", pictures.grey(phase_HW, size, "rad"))
        state.picture("object_amplitude", pictures.grey(amplitude_HW, size, ""))
        object_HW = amplitude_HW * np.exp(1j * phase_HW)
        state.picture("object", pictures.complex_arrays(object_HW[None], size, brightest_percent=99.0))
        powers_M = (np.abs(modes_MYX) ** 2).sum((1, 2))
        shares = " ".join(f"{share:.1%}" for share in powers_M / powers_M.sum()) if len(powers_M) > 1 else ""
        state.picture("probe", pictures.complex_arrays(modes_MYX, size, shares))
        true_N2 = None if scan.truth is None else scan.truth.positions_N2
        state.picture("positions", pictures.positions(scan.positions_N2, self.positions(), true_N2))

    def on_run_end(self, state: State) -> None:
        """Write ``result.h5``, and phase and amplitude for ImageJ, into the run folder, unless the run failed."""
        if state.context.rank == 0 and not state.ended.startswith("failed"):
            write_result(state.folder / "result.h5", self.result())
            for name, map_HW in self.maps().items():
                write_imagej_tiff(state.folder / f"object_{name}.tif", map_HW, self._data.scan.pixel_size_angstrom)
