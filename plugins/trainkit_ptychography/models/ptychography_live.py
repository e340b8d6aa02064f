"""Ptychography: the network, composed of object, probe, positions, propagation between slices and the forward model.

Shapes: N = scan points, B = patterns of a batch, M = probe modes, S = slices, H, W = rows and columns of the object, Y,
X = those of the detector.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from math import degrees, sqrt
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit import Batch, State, set_curvature
from trainkit_ptychography.constraints.kind import Constraint
from trainkit_ptychography.models import output
from trainkit_ptychography.models.changes_of_probe import fit_changes
from trainkit_ptychography.models.curvature import Curvature, Part, is_large
from trainkit_ptychography.models.detector_live import Detector
from trainkit_ptychography.models.mask_watch import MaskWatch
from trainkit_ptychography.models.motion import Motion
from trainkit_ptychography.models.probe_slope import ProbeSlope
from trainkit_ptychography.models.propagation import Propagation
from trainkit_ptychography.models.scan_shifts import ScanShifts
from trainkit_ptychography.models.seen_motion import SeenMotion
from trainkit_ptychography.objects.from_data_live import DirectObject
from trainkit_ptychography.objects.kind import LiveObject, PixelwiseObject, SlicedObject
from trainkit_ptychography.objects.modes_live import modes_of
from trainkit_ptychography.physics.forward import intensities, power
from trainkit_ptychography.physics.moving_probe import far_field_and_slopes
from trainkit_ptychography.physics.multislice import Waves, multislice_intensities
from trainkit_ptychography.physics.patches import PatchesOf, are_added_singly, patches_at
from trainkit_ptychography.physics.propagation import propagate
from trainkit_ptychography.preflight.columns import doubt_of_tilt
from trainkit_ptychography.preflight.ending import Ending
from trainkit_ptychography.preflight.watch import GeometryWatch, Told
from trainkit_ptychography.probes.modes import ProbeModes
from trainkit_ptychography.scans.kind_live import LiveDiffraction

_LOGGER = logging.getLogger("trainkit")


class Exposures(NamedTuple):
    """Where the patterns of a batch are taken, and with what.

    Attributes:
        index_B: Scan points.
        corner_B2: First row and column of each patch.
        shift_B2: Distance of the probe from the centre of its patch, in pixels (row, column).
        patches_of: Finds the patches in arrays of the object's size.
        probe_MYX: The probe's modes; or (M, B, Y, X), if those of patterns differ.
    """

    index_B: Tensor
    corner_B2: Tensor
    shift_B2: Tensor
    patches_of: PatchesOf
    probe_MYX: Tensor


class PtychographyModule(nn.Module):
    """Object, probe and positions, and the patterns they make.

    Attributes:
        object: The transmission, a `LiveObject`.
        probe: The modes.
        propagation: Thickness and tilt of a specimen of several slices; None: there is one slice.
        detector: What the detector makes of the light that arrives.
        slope: The probe's slope, for the curvature along positions.
        seen: Which share of the changes behind the specimen is seen where scan points move, for the same.
        motion: The geometry of the scan; it turns ``dr`` and ``scan`` into patches and shifts of the probe.
        dr: (N, 2) displacement of each scan point, in pixels (row, column).
        scan_shifts: Shifts of whole scans against the first one; None: there are none.
        scan: (2, 2) linear motion of all points about the middle of the scan, in pixels at the point farthest from it.
        scan_N: Which scan each point belongs to, if scans have probes of their own; else None.
        ordered_epoch: The last epoch at whose end positions were put in order.
    """

    ordered_epoch: Tensor
    scan_N: Tensor | None

    def __init__(
        self,
        data: LiveDiffraction,
        make_object: Callable[[tuple[int, int], NDArray[np.float64]], nn.Module],
        probe: ProbeModes,
        object_margin: int,
        project_affine: bool,
        constraints: Sequence[Constraint] = (),
        propagation: Propagation | None = None,
        recomputed: Waves = "inverted",
        most_bytes_of_waves: int | None = None,
        detector: Detector | None = None,
        begins_with: str | None = None,
        told: Told | None = None,
        scan_shifts: ScanShifts | None = None,
    ) -> None:
        super().__init__()
        self._data, self._project_affine, self._begins_with = data, project_affine, begins_with
        self.motion = Motion(data, object_margin)
        self.object = make_object(self.motion.shape_HW, self.motion.origin_2)
        self.propagation, self._recomputed, self._most_bytes = propagation, recomputed, most_bytes_of_waves
        self.detector = Detector(data) if detector is None else detector
        self.probe, self.scan_shifts = probe, scan_shifts
        num = len(data.scan.positions_N2)
        self.dr = nn.Parameter(torch.zeros(num, 2, dtype=data.dtype, device=data.device))
        self.scan = nn.Parameter(torch.zeros(2, 2, dtype=data.dtype, device=data.device))
        self._object_modes = modes_of(self.object)
        self._are_sliced = [isinstance(mode, SlicedObject) for mode in self._object_modes]
        self._constraints = [
            (each, each.build(mode, probe))
            for each in constraints
            for mode in (self._object_modes if each.of_object else self._object_modes[:1])
        ]
        scan_N = told_MYX = None
        if probe.num_scans > 1:
            scan_N = torch.from_numpy(np.asarray(data.scan.scan_N)).to(data.device)
        elif propagation is not None and propagation.scan_tilts is not None:
            pass  # a thin specimen looks the same from all sides, and trials are of one
        elif not data.scan.detector_propagation.patterns_are_images:  # trials are of the far field
            with torch.no_grad():  # a thick specimen is judged as if it were a thin one in its middle
                told_MYX = probe() if propagation is None else propagation.in_the_middle(probe())
        self._watch = GeometryWatch(data, told_MYX, told)
        self.register_buffer("scan_N", scan_N, persistent=False)
        self._curvature = Curvature()
        with torch.no_grad():
            self.slope = ProbeSlope(probe()[: len(probe.modes) // probe.num_scans])
        self.seen = SeenMotion(num, self.dr)
        self._mask_watch = MaskWatch()
        self._declare_curvature()
        # Saved with the model: a run that is interrupted while it validates must not put them in order twice.
        self.register_buffer("ordered_epoch", torch.tensor(-1))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``intensities`` (B, Y, X) for the scan points ``batch["index"]``; a mean pattern's total is 1."""
        taken = self._taken(batch["index"])
        expected_BYX, patch = self._expected(taken)
        if self._curvature.recording and expected_BYX.requires_grad:
            mask = batch.get("mask", self._data.mask_YX)  # of each pattern, where they differ
            if mask is not None:
                self._mask_watch.look(expected_BYX, mask)
            if self.scan_N is None:
                # It changes little over a scan.
                mean_MYX = (taken.probe_MYX if taken.probe_MYX.ndim == 3 else self.probe()).detach()
                if not self.slope.is_measured():  # the epoch began before it was kept
                    self.slope.measure(mean_MYX)
                light, amplitudes_BYX = partial(self._light, mean_MYX), batch["amplitudes"]
                along = (self.slope, self.seen.share_N2, light)
                seen = (expected_BYX, amplitudes_BYX, mask)
                self._curvature.record(Part(taken.index_B, taken.patches_of, patch, *along, *seen))
        return {"intensities": expected_BYX}

    def _taken(self, index_B: Tensor, displacement_B2: Tensor | None = None) -> Exposures:
        """Return where the patterns of scan points are taken, and with what.

        Args:
            index_B: The points.
            displacement_B2: Displacements to take in place of those of ``dr``.
        """
        corner_B2, shift_B2 = self.motion.split(index_B, self._displacements(index_B, displacement_B2), self.scan)
        # `split` keeps them within the object.
        patches_of = patches_at(corner_B2, self._data.detector_shape, self.motion.shape_HW[1], are_inside=True)
        return Exposures(index_B, corner_B2, shift_B2, patches_of, self._probe_of(index_B))

    def _expected(self, taken: Exposures) -> tuple[Tensor, Callable[[], Tensor]]:
        """Return intensities (B, Y, X), and what computes the transmission of all slices together."""
        each_mode = [  # specimens that the beam meets one after the other: their patterns add up
            self._arriving(mode, is_sliced, taken)
            for mode, is_sliced in zip(self._object_modes, self._are_sliced, strict=True)
        ]
        if len(each_mode) == 1:
            arriving_BYX, patch = each_mode[0]
            return self.detector.counted(arriving_BYX, taken.index_B), patch
        mean_BYX = torch.stack([arriving_BYX for arriving_BYX, _ in each_mode]).mean(0)

        def mean_patch() -> Tensor:
            return torch.stack([patch() for _, patch in each_mode]).mean(0)

        return self.detector.counted(mean_BYX, taken.index_B), mean_patch

    def _arriving(self, mode: LiveObject, is_sliced: bool, taken: Exposures) -> tuple[Tensor, Callable[[], Tensor]]:
        """Return what `_expected` does, of one mode of the object and before the detector."""
        index_B, corner_B2, shift_B2, patches_of, probe_MYX = taken
        if not is_sliced:
            patch_BYX = mode(corner_B2).squeeze(0)
            return intensities(probe_MYX, shift_B2, patch_BYX, self.detector.transfer()), patch_BYX.detach
        maps_KSHW = cast(SlicedObject, mode).slices(corner_B2)
        if self.propagation is None:
            arriving_BYX, seen_BYX = multislice_intensities(
                probe_MYX, shift_B2, maps_KSHW, patches_of, None, "stored", self.detector.transfer()
            )
            return arriving_BYX, lambda: seen_BYX
        kernel_BYX = self.propagation.kernel(index_B)
        of_all = probe_MYX.nbytes * (len(index_B) if probe_MYX.ndim == 3 else 1)
        needed = of_all * self.propagation.passed * len(self._object_modes)
        stored = self._most_bytes is None or needed <= self._most_bytes
        waves: Waves = "stored" if stored else self._recomputed
        first_MYX, shift_B2 = self.propagation.at_first_slice(probe_MYX, shift_B2, index_B)
        passed_KCHW = self.propagation.merged(maps_KSHW)
        arriving_BYX, _ = multislice_intensities(first_MYX, shift_B2, passed_KCHW, patches_of, kernel_BYX, waves)
        return arriving_BYX, partial(self._projected, maps_KSHW.detach(), patches_of)

    def _projected(self, maps_KSHW: Tensor, patches_of: PatchesOf) -> Tensor:
        """Return the transmission of the patches (B, Y, X) as if all slices were one."""
        maps_KBYX = patches_of(maps_KSHW.sum(1)).cut()
        amplitude_BYX = torch.exp(-maps_KBYX[1]) if len(maps_KBYX) == 2 else torch.ones_like(maps_KBYX[0])
        return torch.polar(amplitude_BYX, maps_KBYX[0])

    @torch.no_grad()
    def _light(self, probe_MYX: Tensor) -> Tensor:
        """Return the light on each slice (S, Y, X) if there were no others."""
        if self.propagation is None:
            return power(probe_MYX)[None]
        kernel_1YX, lights = self.propagation.common_kernel(), [power(probe_MYX)]
        while len(lights) < self.propagation.slices:
            probe_MYX = propagate(probe_MYX, kernel_1YX)
            lights.append(power(probe_MYX))
        return torch.stack(lights)

    def _intensities(self, index_B: Tensor, displacement_B2: Tensor) -> Tensor:
        return self._expected(self._taken(index_B, displacement_B2))[0]

    def _intensities_and_slopes(self, index_B: Tensor, displacement_B2: Tensor) -> tuple[Tensor, Tensor]:
        """Return intensities (B, Y, X) of a thin specimen's far field, and their slopes (2, B, Y, X) per pixel.

        Args:
            index_B: Scan points.
            displacement_B2: Their displacements in pixels, along which the slopes are.
        """
        taken = self._taken(index_B, displacement_B2)
        patch_BYX = self._object_modes[0](taken.corner_B2).squeeze(0)
        arriving_BYX, slopes_2BYX = far_field_and_slopes(taken.probe_MYX, taken.shift_B2, patch_BYX)
        return self.detector.counted(arriving_BYX, index_B), self.detector.change(slopes_2BYX, index_B)

    def _displacements(self, index_B: Tensor, displacement_B2: Tensor | None) -> Tensor:
        """Return by how much points are displaced, the shifts of their scans included (B, 2)."""
        if displacement_B2 is None:
            displacement_B2 = self.dr.index_select(0, index_B)
        if self.scan_shifts is None:
            return displacement_B2
        return displacement_B2 + self.scan_shifts.of_points(index_B)

    @torch.no_grad()
    def _all_displacements(self) -> Tensor:
        return self.dr if self.scan_shifts is None else self.dr + self.scan_shifts.of_all()

    def _probe_of(self, index_B: Tensor) -> Tensor:
        """Return the probe's modes (M, Y, X); or (M, B, Y, X), if those of patterns differ."""
        return self.probe.of_patterns(None if self.scan_N is None else self.scan_N.index_select(0, index_B), index_B)

    def _declare_curvature(self) -> None:
        """Let optimizers know the curvature of the loss, except along parameters on which many pixels depend."""
        if self.scan_N is not None:
            return  # the light on an object pixel would be that of several probes
        curvature = self._curvature
        num = len(self._object_modes)
        shape_SHW = (1 if self.propagation is None else self.propagation.slices, *self.motion.shape_HW)
        for mode in self._object_modes:
            if isinstance(mode, PixelwiseObject):
                for parameter in mode.parameters():
                    set_curvature(
                        parameter,
                        partial(curvature.along_object, shape_SHW, 1 / num),
                        partial(curvature.touched_pixels, parameter, shape_SHW, 1 / num),
                    )
        set_curvature(self.probe.modes, lambda: curvature.along_probe(self.probe.scale))
        if (opr := self.probe.opr) is not None:
            set_curvature(opr.modes, lambda: curvature.along_opr_modes(opr.weights.detach(), self.probe.scale))
            set_curvature(opr.weights, lambda: curvature.along_opr_weights(len(self.dr), self.probe.opr_powers()))
        set_curvature(self.dr, lambda: curvature.along_displacements(len(self.dr)))
        set_curvature(self.scan, lambda: curvature.along_scan(self.motion.arm_N2))

    # ---- what is kept in order while training -----------------------------------------------------------------------

    def on_run_start(self, state: State) -> None:
        """Compare the geometry with its mirror. Slices count as in the epoch to be trained, or in the last one."""
        if self.propagation is not None:  # a run that resumes inside an epoch does not start it again
            over = not state.steps_in_epoch and (state.stop_reason is not None or state.epoch == state.epochs)
            self.propagation.enter_epoch(state.epoch - over)
        self._watch.announce_ending(state)
        if state.step == 0 and state.context.rank == 0:
            self._watch.warn()
            if self._begins_with is not None:
                direct = self._object_modes[0]
                negated = self._negated_and_without_object if isinstance(direct, DirectObject) else None
                if isinstance(direct, DirectObject):
                    _LOGGER.info("without a reconstruction: %s", direct.geometry_seen.in_words())
                self._watch.judge_beginning(self._begins_with, self._with_and_without_object, negated)

    def on_epoch_start(self, state: State) -> None:
        """Pass the event on, measure the probe's slope, and begin with a probe that changes over the scan."""
        self._tell_object("on_epoch_start", state)
        self._curvature.start_epoch()
        if self.propagation is not None:
            self.propagation.enter_epoch(state.epoch)
        if self.probe.modes.requires_grad:  # a resume with another probe in the recipe gives its values another unit
            self.probe.keep_power()
        if self.scan_N is None:
            self.slope.measure(self.probe().detach())
            self._see_motion(state.epoch)
        opr = self.probe.opr
        if opr is not None and opr.weights.requires_grad and not bool(opr.begun):
            opr.begin(self.probe.modes.detach(), self._fit_changes, self._shifts_belong_to_points(state))

    @torch.no_grad()
    def _see_motion(self, epoch: int) -> None:
        """Measure which share of the changes is seen where scan points move, if due, of a thin specimen."""
        if not (self.dr.requires_grad or self.scan.requires_grad) or not self._is_thin() or not self.seen.is_due(epoch):
            return
        (mode,) = self._object_modes
        transmission_HW = torch.polar(mode.amplitude()[0], mode.phase()[0])
        index_B = self._data.train_index.to(self.dr.device)
        corner_B2 = self.motion.split(index_B, self._displacements(index_B, None), self.scan)[0]
        self.seen.measure(self.probe(), self.slope, transmission_HW, corner_B2, index_B)

    def _is_thin(self) -> bool:
        """Return whether patterns are the far field of one thin specimen."""
        return self.propagation is None and len(self._object_modes) == 1 and self.detector.transfer() is None

    def on_step_start(self, state: State) -> None:
        """Record what the curvature of the step's loss depends on."""
        self._curvature.start_step(state.context.exchange)

    def on_step_end(self, state: State) -> None:
        """Keep the power of a probe that trains, and impose the constraints."""
        self._curvature.end_step()
        self._mask_watch.judge(state)
        if self.probe.modes.requires_grad:
            self.probe.keep_power()
        for (_, impose), is_due in zip(self._constraints, self._constraints_due(state.epoch, state.step), strict=True):
            if is_due:
                impose()

    def step_variant(self, state: State) -> tuple[Hashable, ...] | None:
        """Return which constraints the coming step imposes, through how many slices the wave passes, and so on.

        Steps for which it is the same differ in tensors alone. A kind of objects may have this method as well. None:
        values are read, of the patches' places or of which pixels of the object are moved.
        """
        if self.dr.device.type == "cpu" and state.batch is not None:
            pixels = len(state.batch["index"]) * self._data.detector_shape[0] * self._data.detector_shape[1]
            if is_large(self.motion.shape_HW, pixels) or are_added_singly(self._data.detector_shape):
                return None
        of_object = [mode.step_variant(state) for mode in self._object_modes if hasattr(mode, "step_variant")]
        if None in of_object:
            return None
        passed = 1 if self.propagation is None else self.propagation.passed
        return (self._constraints_due(state.epoch, state.step + 1), passed, *of_object)

    def _constraints_due(self, epoch: int, step: int) -> tuple[bool, ...]:
        return tuple(each.every_epochs is None and each.imposed_at(epoch, step) for each, _ in self._constraints)

    def on_validation_start(self, state: State) -> None:
        """Put positions in order, and fit those of held-out points, before they are used."""
        first = self._put_in_order(state.epoch)
        if not first or state.split != "val":
            return
        self._fit_held_out_intensities()
        if self.dr.requires_grad:
            slopes = self._intensities_and_slopes if self._is_thin() else None
            self.motion.fit_held_out(self.dr, self._intensities, slopes)
            self._fit_held_out_intensities()

    @torch.no_grad()
    def _fit_held_out_intensities(self) -> None:
        factors = self.detector.pattern_intensities
        if factors is None or not factors.requires_grad:
            return
        for batch in self._data.some(self._data.held_out_index):  # every process fits all of them
            index_B = batch["index"]
            expected_BYX = self._expected(self._taken(index_B))[0]
            mask = batch.get("mask", self._data.mask_YX)
            self.detector.fit_held_out(index_B, expected_BYX, batch["amplitudes"].square(), mask)

    def on_epoch_end(self, state: State) -> None:
        """Put in order what was not yet, and make the probe's modes orthogonal."""
        self._tell_object("on_epoch_end", state)
        if state.epoch == 0 and isinstance(direct := self._object_modes[0], DirectObject):
            output.show_beginning(direct.start.phase_HW, self.reconstruction(), self._data, state)
            output.show_geometry(direct.geometry_seen, state)
        self._put_in_order(state.epoch)
        if self.probe.modes.requires_grad:
            self.probe.orthogonalise()
        if self.probe.lens is not None and self.probe.lens.numbers_T.requires_grad:
            state.metrics.update((f"aberration_change/{name}", each) for name, each in self.probe.lens.change().items())
        if self.probe.spread is not None and self.probe.spread.spread.requires_grad:
            state.metrics["probe/defocus_spread_angstrom"] = abs(float(self.probe.spread.spread.detach()))
        if (opr := self.probe.opr) is not None and opr.weights.requires_grad:
            state.metrics |= {f"probe/opr_mode_{number}": each for number, each in enumerate(opr.strengths(), 1)}
        if self.scan.requires_grad:
            found = self.motion.distortion(self.scan)
            state.metrics["scan/rotation_deg"] = degrees(found.rotation_rad)
            state.metrics["scan/scale"] = sqrt(found.scale_rows * found.scale_columns)
        if self.scan_shifts is not None and self.scan_shifts.further.requires_grad:
            state.metrics.update(self.scan_shifts.metrics())
        state.metrics.update(self.detector.metrics())
        if self.propagation is not None:
            state.metrics.update(self.propagation.metrics())

    def _tell_object(self, event: str, state: State) -> None:
        listener = getattr(self.object, event, None)
        if listener is not None:
            listener(state)

    def _put_in_order(self, epoch: int) -> bool:
        """Put positions in order and impose constraints on whole epochs, once; return whether this call did it."""
        if int(self.ordered_epoch) == epoch:
            return False
        self.ordered_epoch.fill_(epoch)
        if self.dr.requires_grad and self._project_affine:
            self.motion.project_affine(self.dr, self.scan if self.scan.requires_grad else None)
        shifts = self.scan_shifts
        if shifts is not None and self.dr.requires_grad and shifts.further.requires_grad:
            shifts.receive(self.dr)
        if self.dr.requires_grad or self.scan.requires_grad or shifts is not None:
            self.motion.check_patches(self._all_displacements(), self.scan)
        if (opr := self.probe.opr) is not None and opr.weights.requires_grad:
            opr.put_in_order(self.probe.modes.detach(), self.probe.modes.requires_grad, self.dr.requires_grad)
        self.detector.put_in_order()
        if self.propagation is not None:
            self.propagation.put_in_order()
            self.propagation.check()
        for constraint, impose in self._constraints:
            if constraint.imposed_after(epoch):
                impose()
        return True

    @staticmethod
    def _shifts_belong_to_points(state: State) -> bool:
        group = state.groups.get("dr")
        return group is not None and group.start_epoch is not None

    @torch.no_grad()
    def _fit_changes(self, directions_JMYX: Tensor, points_P: Tensor, scan: int = 0) -> Tensor:
        """Return by how much the probe of each of some points of a scan changes along directions (P, J).

        Args:
            directions_JMYX: The directions.
            points_P: The points.
            scan: Which of the scans that have probes of their own they belong to.
        """
        probe_MYX = torch.view_as_complex(self.probe.modes.chunk(self.probe.num_scans)[scan]) * self.probe.scale
        directions_JMYX = directions_JMYX.to(probe_MYX)
        found = []
        for batch in self._data.some(points_P):
            taken = self._taken(batch["index"])

            def amplitudes(probe_MYX: Tensor, taken: Exposures = taken) -> Tensor:
                probe_MYX = self.probe.spread_out(self.probe.lensed(probe_MYX))
                return self._expected(taken._replace(probe_MYX=probe_MYX))[0].clamp_min(0).sqrt()

            mask = batch.get("mask", self._data.mask_YX)
            found.append(fit_changes(amplitudes, probe_MYX, directions_JMYX, batch["amplitudes"], mask))
        return torch.cat(found)

    # ---- what it shows ----------------------------------------------------------------------------------------------

    def positions(self) -> NDArray[np.float64]:
        """Return where the probe's centre is for each pattern, in pixels, in the data's coordinates."""
        return self.motion.positions(self._all_displacements(), self.scan)

    @torch.no_grad()
    def reconstruction(self) -> output.Reconstruction:
        """Return what was reconstructed so far."""
        phase_OSHW = np.stack([mode.phase().cpu().numpy() for mode in self._object_modes])  # copies: training goes on
        amplitude_OSHW = np.stack([mode.amplitude().cpu().numpy() for mode in self._object_modes])
        several = len(self._object_modes) > 1
        changes = self.probe.changes()
        factors = self.detector.pattern_intensities
        return output.Reconstruction(
            phase_SHW=phase_OSHW.mean(axis=0) if several else phase_OSHW[0],
            amplitude_SHW=amplitude_OSHW.mean(axis=0) if several else amplitude_OSHW[0],
            object_modes_OSHW=amplitude_OSHW * np.exp(1j * phase_OSHW) if several else None,
            probe_MYX=self.probe().cpu().numpy().copy(),
            num_scans=self.probe.num_scans,
            defocus_spread_angstrom=None if self.probe.spread is None else abs(float(self.probe.spread.spread)),
            opr_modes_KMYX=None if changes is None else changes[0].cpu().numpy().copy(),
            opr_weights_NK=None if changes is None else changes[1].cpu().numpy().copy(),
            background_YX=None if self.detector.background is None else self.detector.added().cpu().numpy(),
            pattern_intensities_N=None if factors is None else factors.cpu().numpy().copy(),
            distance_change_percent=None if self.detector.distance is None else float(self.detector.distance),
            positions_N2=self.positions(),
            origin_2=self.motion.origin_2,
            slice_spacing_angstrom=None if self.propagation is None else float(self.propagation.distance),
            tilt_mrad=None if self.propagation is None else self.propagation.tilts(),
        )

    def on_picture(self, state: State) -> None:
        """Show object, probe, positions and some patterns."""
        self._put_in_order(state.epoch)
        output.show(self.reconstruction(), self._data, state, self)

    def on_run_end(self, state: State) -> None:
        """Write ``result.h5``, and phase and amplitude for ImageJ; judge the result, unless it failed or is a trial."""
        if state.context.rank == 0 and not (state.failed or state.is_trial):
            found = self.reconstruction()
            output.finish(found, self._data, state, self)
            if not state.interrupted:
                self._watch.judge(state, self._with_and_without_object)
                stretched = 1 + 0.01 * (found.distance_change_percent or 0.0)
                self._watch.judge_ending(state, Ending(found.probe_MYX, found.positions_N2, stretched))
                self._judge_tilt(state, found)

    def _judge_tilt(self, state: State, found: output.Reconstruction) -> None:
        """Report it if the tilt was to be found, and columns lean."""
        group, propagation, size = state.groups.get("tilt"), self.propagation, self._data.scan.pixel_size_angstrom
        if propagation is None or size is None or group is None or group.start_epoch is None:
            return
        if state.epoch <= group.start_epoch:
            return  # it never trained
        rows, columns = propagation.tilt.tolist()
        places_N2 = found.positions_N2 - found.origin_2
        if doubt := doubt_of_tilt(
            found.phase_SHW, places_N2, size, float(propagation.distance.detach()), (rows, columns)
        ):
            state.doubt(doubt)

    def _negated_and_without_object(self, index_B: Tensor) -> tuple[Tensor, Tensor]:
        phases = [cast(PixelwiseObject, mode).pixels()["phase"] for mode in self._object_modes]
        for phase_SHW in phases:
            phase_SHW.neg_()
        try:
            return self._with_and_without_object(index_B)
        finally:
            for phase_SHW in phases:
                phase_SHW.neg_()

    def _with_and_without_object(self, index_B: Tensor) -> tuple[Tensor, Tensor]:
        taken = self._taken(index_B)
        expected_BYX, patch = self._expected(taken)
        vacuum_BYX = torch.ones_like(patch())
        behind_BYX = intensities(taken.probe_MYX, taken.shift_B2, vacuum_BYX, self.detector.transfer())
        return expected_BYX, self.detector.counted(behind_BYX, index_B)
