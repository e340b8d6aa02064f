"""Single-slice ptychography: the network, composed of object, probe, positions and the forward model.

Shapes: N = scan points, B = patterns of a batch, M = probe modes, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import degrees, sqrt
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit import Batch, RecipeError, State, set_curvature
from trainkit_ptychography.constraints.kind import Constraint
from trainkit_ptychography.models import output
from trainkit_ptychography.models.curvature import Curvature, Part
from trainkit_ptychography.models.mask_watch import MaskWatch
from trainkit_ptychography.models.motion import Motion
from trainkit_ptychography.objects.kind import LiveObject, PixelwiseObject
from trainkit_ptychography.physics.forward import intensities
from trainkit_ptychography.preflight.watch import GeometryWatch
from trainkit_ptychography.probes.modes import ProbeModes
from trainkit_ptychography.scans.kind_live import LiveDiffraction


class SingleSliceModule(nn.Module):
    """Object, probe and positions, and the patterns they make.

    Attributes:
        object: The transmission, a `LiveObject`.
        probe: The modes.
        motion: The geometry of the scan; it turns ``dr`` and ``scan`` into patches and shifts of the probe.
        dr: (N, 2) displacement of each scan point, in pixels (row, column).
        scan: (2, 2) linear motion of all points about the middle of the scan, in pixels at the point farthest from it.
        ordered_epoch: The last epoch at whose end positions were put in order.
    """

    ordered_epoch: Tensor

    def __init__(
        self,
        data: LiveDiffraction,
        make_object: Callable[[tuple[int, int], NDArray[np.float64]], nn.Module],
        probe: ProbeModes,
        object_margin: int,
        project_affine: bool,
        constraints: Sequence[Constraint] = (),
    ) -> None:
        super().__init__()
        self._data, self._project_affine = data, project_affine
        self.motion = Motion(data, object_margin)
        self.object = make_object(self.motion.shape_HW, self.motion.origin_2)
        self.probe = probe
        num = len(data.scan.positions_N2)
        self.dr = nn.Parameter(torch.zeros(num, 2, dtype=data.dtype, device=data.device))
        self.scan = nn.Parameter(torch.zeros(2, 2, dtype=data.dtype, device=data.device))
        self._constraints = [(each, each.build(cast(LiveObject, self.object), probe)) for each in constraints]
        self._watch = GeometryWatch(data, probe())
        self._curvature = Curvature()
        self._mask_watch = MaskWatch()
        self._declare_curvature()
        # Saved with the model: a run that is interrupted while it validates must not put them in order twice.
        self.register_buffer("ordered_epoch", torch.tensor(-1))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``intensities`` (B, Y, X) for the scan points ``batch["index"]``; a mean pattern's total is 1."""
        index_B = batch["index"]
        corner_B2, shift_B2 = self.motion.split(index_B, self.dr.index_select(0, index_B), self.scan)
        probe_MYX, patch_BYX = self.probe(), self.object(corner_B2).squeeze(0)  # of one slice
        expected_BYX = intensities(probe_MYX, shift_B2, patch_BYX)
        if self._curvature.recording and expected_BYX.requires_grad:
            mask = batch.get("mask", self._data.mask_YX)  # of each pattern, where they differ
            if mask is not None:
                self._mask_watch.look(expected_BYX, mask)
            amplitudes_BYX = batch["amplitudes"]
            self._curvature.record(Part(index_B, corner_B2, patch_BYX, probe_MYX, expected_BYX, amplitudes_BYX, mask))
        return {"intensities": expected_BYX}

    def _intensities(self, index_B: Tensor, displacement_B2: Tensor) -> Tensor:
        corner_B2, shift_B2 = self.motion.split(index_B, displacement_B2, self.scan)
        return intensities(self.probe(), shift_B2, self.object(corner_B2).squeeze(0))

    def _declare_curvature(self) -> None:
        """Let optimizers know the curvature of the loss, except along parameters on which many pixels depend."""
        curvature = self._curvature
        if isinstance(self.object, PixelwiseObject):
            for parameter in self.object.parameters():
                set_curvature(parameter, lambda: curvature.along_object(self.motion.shape_HW))
        set_curvature(self.probe.modes, lambda: curvature.along_probe(self.probe.scale))
        set_curvature(self.dr, lambda: curvature.along_displacements(len(self.dr)))
        set_curvature(self.scan, lambda: curvature.along_scan(self.motion.arm_N2))

    # ---- what is kept in order while training -----------------------------------------------------------------------

    def on_run_start(self, state: State) -> None:
        """Check that positions of held-out points can be fitted, and compare the geometry with its mirror.

        Raises:
            RecipeError: Several processes would each fit the held-out points of their own share alone.
        """
        moves = any("dr" in each.parameters and each.start_epoch is not None for each in state.groups.values())
        if moves and state.context.world > 1 and len(self._data.held_out_index):
            raise RecipeError(
                "positions of held-out patterns cannot be fitted by several processes yet: run one process, set "
                "data.validation_fraction = 0, or do not train group dr"
            )
        if state.step == 0 and state.context.rank == 0:
            self._watch.warn()

    def on_epoch_start(self, state: State) -> None:
        """Pass the event on to the object."""
        self._tell_object("on_epoch_start", state)

    def on_step_start(self, state: State) -> None:
        """Record what the curvature of the step's loss depends on."""
        self._curvature.start_step()

    def on_step_end(self, state: State) -> None:
        """Keep the power of a probe that trains, and impose the constraints."""
        self._curvature.end_step()
        self._mask_watch.judge(state)
        if self.probe.modes.requires_grad:
            self.probe.keep_power()
        for constraint, impose in self._constraints:
            if constraint.imposed_at(state.epoch, state.step):
                impose()

    def on_validation_start(self, state: State) -> None:
        """Put positions in order, and fit those of held-out points, before they are used."""
        first = self._order_positions(state.epoch)
        if first and self.dr.requires_grad and state.split == "val":
            self.motion.fit_held_out(self.dr, self._intensities)

    def on_epoch_end(self, state: State) -> None:
        """Put positions in order if that was not done yet, and make the probe's modes orthogonal."""
        self._tell_object("on_epoch_end", state)
        self._order_positions(state.epoch)
        if self.probe.modes.requires_grad:
            self.probe.orthogonalise()
        if self.probe.lens is not None and self.probe.lens.numbers_T.requires_grad:
            state.metrics.update((f"aberrations/{name}", each) for name, each in self.probe.lens.change().items())
        if self.scan.requires_grad:
            found = self.motion.distortion(self.scan)
            state.metrics["scan/rotation_deg"] = degrees(found.rotation_rad)
            state.metrics["scan/scale"] = sqrt(found.scale_rows * found.scale_columns)

    def _tell_object(self, event: str, state: State) -> None:
        listener = getattr(self.object, event, None)
        if listener is not None:
            listener(state)

    def _order_positions(self, epoch: int) -> bool:
        """Put positions in order, once an epoch; return whether this call did it."""
        if int(self.ordered_epoch) == epoch:
            return False
        self.ordered_epoch.fill_(epoch)
        if self.dr.requires_grad and self._project_affine:
            self.motion.project_affine(self.dr, self.scan if self.scan.requires_grad else None)
        if self.dr.requires_grad or self.scan.requires_grad:
            self.motion.check_patches(self.dr, self.scan)
        return True

    # ---- what it shows ----------------------------------------------------------------------------------------------

    def positions(self) -> NDArray[np.float64]:
        """Return where the probe's centre is for each pattern, in pixels, in the data's coordinates."""
        return self.motion.positions(self.dr, self.scan)

    @torch.no_grad()
    def reconstruction(self) -> output.Reconstruction:
        """Return what was reconstructed so far."""
        live = cast(LiveObject, self.object)
        return output.Reconstruction(
            phase_SHW=live.phase().cpu().numpy().copy(),  # training goes on
            amplitude_SHW=live.amplitude().cpu().numpy().copy(),
            probe_MYX=self.probe().cpu().numpy().copy(),
            positions_N2=self.positions(),
            origin_2=self.motion.origin_2,
        )

    def on_picture(self, state: State) -> None:
        """Show object, probe, positions and some patterns."""
        self._order_positions(state.epoch)
        output.show(self.reconstruction(), self._data, state, self)

    def on_run_end(self, state: State) -> None:
        """Write ``result.h5``, and phase and amplitude for ImageJ, and judge the result, unless the run failed."""
        if state.context.rank == 0 and not state.failed:
            output.finish(self.reconstruction(), self._data, state, self)
            if not state.interrupted:
                self._watch.judge(state, self._with_and_without_object)

    def _with_and_without_object(self, index_B: Tensor) -> tuple[Tensor, Tensor]:
        corner_B2, shift_B2 = self.motion.split(index_B, self.dr.index_select(0, index_B), self.scan)
        patch_BYX = self.object(corner_B2).squeeze(0)
        probe_MYX, empty_BYX = self.probe(), torch.ones_like(patch_BYX)
        return intensities(probe_MYX, shift_B2, patch_BYX), intensities(probe_MYX, shift_B2, empty_BYX)
