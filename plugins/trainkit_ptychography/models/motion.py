"""Where each pattern was taken, and what is done to positions while they are trained.

Shapes: N = scan points, B = patterns of a batch, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit import DivergedError
from trainkit_ptychography.models.held_out_positions import fit_displacement
from trainkit_ptychography.physics.geometry import AffineMotion, Distortion, distortion, place
from trainkit_ptychography.scans.kind_live import LiveDiffraction

_FIT_STEPS = 1  # steps that held-out positions take at each validation; the next validation continues from there


class Motion(nn.Module):
    """The geometry of a scan whose points move: start + dr + scan @ (start − middle) / radius.

    It has no parameters. ``dr`` (N, 2) and ``scan`` (2, 2) belong to the model, under whose names checkpoints keep
    them, and are given to each method that needs them.

    Attributes:
        shape_HW: Rows and columns that an object must have to hold all patches.
        origin_2: Position, in the data's coordinates, of the object's pixel [0, 0].
        corner_N2: First row and column of each patch, before points moved.
        remainder_N2: What rounding to this corner left, within ±0.5 pixel.
        arm_N2: Each point's distance from the middle of the scan, in units of the largest one.
        first_corner_2: The first corner of a patch that lies within the object, (0, 0).
        last_corner_2: The last one.
    """

    corner_N2: Tensor
    remainder_N2: Tensor
    arm_N2: Tensor
    first_corner_2: Tensor
    last_corner_2: Tensor
    _places_N32: Tensor

    def __init__(self, data: LiveDiffraction, object_margin: int) -> None:
        super().__init__()
        self._data, self._margin = data, object_margin
        placement = place(data.scan.positions_N2, data.detector_shape, object_margin)
        self.shape_HW, self.origin_2 = placement.shape_HW, placement.origin_2
        from_middle_N2 = data.scan.positions_N2 - data.scan.positions_N2.mean(axis=0)
        self._radius = max(float(np.hypot(*from_middle_N2.T).max()), 1.0)
        self._affine = AffineMotion(torch.from_numpy(data.scan.positions_N2)[data.train_index])
        last = [whole - patch for whole, patch in zip(placement.shape_HW, data.detector_shape, strict=True)]
        corner_N2 = torch.from_numpy(placement.corner_N2)
        remainder_N2, arm_N2 = (
            torch.from_numpy(each).to(data.dtype) for each in (placement.remainder_N2, from_middle_N2 / self._radius)
        )
        for name, value in (
            ("corner_N2", corner_N2),
            ("remainder_N2", remainder_N2),
            ("arm_N2", arm_N2),
            # The three side by side, for a step. Floats hold whole numbers exactly, up to 16 million pixels.
            ("_places_N32", torch.stack((corner_N2.to(data.dtype), remainder_N2, arm_N2), dim=1)),
            ("first_corner_2", torch.zeros(2, dtype=data.dtype)),
            ("last_corner_2", torch.tensor(last, dtype=data.dtype)),
        ):
            self.register_buffer(name, value.to(data.device), persistent=False)

    def split(self, index_B: Tensor, displacement_B2: Tensor, scan_22: Tensor) -> tuple[Tensor, Tensor]:
        """Return the integer corner of each patch (B, 2), and by how much the probe is shifted within it (B, 2).

        The split is made anew at each step, so the shift stays within ±0.5 pixel: a patch is always centred on its
        probe, however far the point has moved. Gradients flow through the shift.

        Args:
            index_B: Scan points.
            displacement_B2: Their rows of ``dr``.
            scan_22: The motion of the whole scan.
        """
        start_B2, remainder_B2, arm_B2 = self._places_N32.index_select(0, index_B).unbind(1)
        off_B2 = torch.addmm(remainder_B2 + displacement_B2, arm_B2, scan_22.T)
        # A patch that would leave the object within an epoch stays at its edge, and the probe moves within it, which
        # is the same physics; `check_patches` reports it at the epoch's end. Looking at each step would wait for the
        # device.
        corner_B2 = off_B2.detach().round().add_(start_B2).clamp_(self.first_corner_2, self.last_corner_2)
        return corner_B2.long(), off_B2 - (corner_B2 - start_B2)

    @torch.no_grad()
    def moved(self, dr_N2: Tensor, scan_22: Tensor) -> Tensor:
        """Return by how many pixels each point has moved (N, 2)."""
        return dr_N2 + self.arm_N2 @ scan_22.T

    def distortion(self, scan_22: Tensor) -> Distortion:
        """Return by how much ``scan`` has rotated, scaled and sheared the whole scan."""
        return distortion(np.eye(2) + scan_22.detach().cpu().double().numpy() / self._radius)

    @torch.no_grad()
    def project_affine(self, dr_N2: Tensor, scan_22: Tensor | None) -> None:
        """Take the affine motion of the whole scan out of ``dr``, in place; held-out points stay as they are.

        Args:
            dr_N2: The displacements.
            scan_22: Receives the rotation, scale and shear that are taken out; None: they are dropped.
        """
        motion_N2, matrix_23 = self._affine_part(dr_N2)
        dr_N2[self._data.train_index] -= motion_N2.to(dr_N2)
        if scan_22 is not None:
            scan_22.add_((self._radius * matrix_23[:, :2]).to(scan_22))

    @torch.no_grad()
    def fit_held_out(
        self,
        dr_N2: Tensor,
        intensities: Callable[[Tensor, Tensor], Tensor],
        slopes: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """Fit the displacement of each held-out point to its own pattern, in place, in the frame of the scan as given.

        A pattern whose position is wrong tells little about the object. Two numbers fitted to some thousand pixels
        cannot flatter the loss; but they would follow a scan that drifts. So the affine motion of the points that are
        trained on is added before the fit and taken away after it: if these points drift, the held-out patterns no
        longer fit.

        Args:
            dr_N2: The displacements.
            intensities: The model: scan points (B,) and their displacements (B, 2) to patterns (B, Y, X).
            slopes: The model with its slopes: the same to patterns, and by how much they grow for a displacement by a
                pixel down, and right (2, B, Y, X). None: they are found by finite differences.
        """
        _, matrix_23 = self._affine_part(dr_N2)
        for batch in self._data.some(self._data.held_out_index):  # every process fits all of them
            index_B = batch["index"].to(dr_N2.device)
            positions_B2 = torch.from_numpy(self._data.scan.positions_N2)[index_B.cpu()]
            motion_B2 = (positions_B2 @ matrix_23[:, :2].T + matrix_23[:, 2]).to(dr_N2)

            def amplitudes(displacement_B2: Tensor, index_B: Tensor = index_B) -> Tensor:
                return intensities(index_B, displacement_B2).sqrt()

            def with_slopes(displacement_B2: Tensor, index_B: Tensor = index_B) -> tuple[Tensor, Tensor]:
                assert slopes is not None
                intensities_BYX, slopes_2BYX = slopes(index_B, displacement_B2)
                amplitudes_BYX = intensities_BYX.sqrt()
                smallest = torch.finfo(amplitudes_BYX.dtype).tiny  # of a pixel without light, whose slope is 0
                return amplitudes_BYX, slopes_2BYX / (2 * amplitudes_BYX).clamp_min(smallest)

            fitted_B2 = fit_displacement(
                amplitudes,
                batch["amplitudes"].to(dr_N2.device),
                batch.get("mask", self._data.mask_YX),
                dr_N2[index_B] + motion_B2,
                _FIT_STEPS,
                None if slopes is None else with_slopes,
            )
            dr_N2[index_B] = fitted_B2 - motion_B2

    @torch.no_grad()
    def check_patches(self, dr_N2: Tensor, scan_22: Tensor) -> None:
        """Check that the patches of all points that are trained on lie within the object.

        Raises:
            DivergedError: One does not; the message names the pattern and the distance.
        """
        moved_N2 = self.moved(dr_N2, scan_22)
        corner_N2 = self.corner_N2 + (self.remainder_N2 + moved_N2).round().long()
        beyond_N = torch.maximum(-corner_N2, corner_N2 - self.last_corner_2).amax(1)
        beyond_N[self._data.held_out_index] = 0
        worst = int(beyond_N.argmax())
        if (distance := int(beyond_N[worst])) > 0:
            down, right = moved_N2[worst].tolist()
            raise DivergedError(
                f"pattern {self._data.scan.number(worst)} has moved by ({down:.1f}, {right:.1f}) pixels, and its "
                f"patch leaves the object by {distance} pixel{'s' if distance > 1 else ''}: raise model.object_margin "
                f"(now {self._margin}), or lower the learning rates of groups dr and scan if no position can be that "
                "wrong"
            )

    def positions(self, dr_N2: Tensor, scan_22: Tensor) -> NDArray[np.float64]:
        """Return where the probe's centre is for each pattern, in pixels, in the data's coordinates."""
        moved_N2 = self.moved(dr_N2, scan_22).cpu().double().numpy()
        positions_N2: NDArray[np.float64] = self._data.scan.positions_N2 + moved_N2
        return positions_N2

    def _affine_part(self, dr_N2: Tensor) -> tuple[Tensor, Tensor]:
        """Return the affine motion in ``dr`` of the points that are trained on, at these points; and its matrix."""
        # On the CPU: not all devices have float64.
        return self._affine.within(dr_N2.detach().cpu()[self._data.train_index])
