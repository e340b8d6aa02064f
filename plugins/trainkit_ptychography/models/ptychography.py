"""Ptychography: the settings of the model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs
from attrs.validators import ge, gt, optional

from trainkit import INPUT_PATH, Data, DataError, Model, Problem, RecipeError, component
from trainkit_ptychography.constraints.kind import Constraint
from trainkit_ptychography.constraints.slice_coupling import SliceCoupling
from trainkit_ptychography.models.background import Background
from trainkit_ptychography.models.small_rates import small_rates
from trainkit_ptychography.objects.kind import Object
from trainkit_ptychography.objects.pixels import Pixels
from trainkit_ptychography.probes.kind import Probe
from trainkit_ptychography.probes.lens import Lens
from trainkit_ptychography.propagators.coarse_slices import CoarseSlices, in_order, problems_of_stages, timeline
from trainkit_ptychography.propagators.fresnel import Fresnel
from trainkit_ptychography.propagators.kind import Propagator
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from trainkit import Depth, Progress, Recipe, StepMemory
    from trainkit_ptychography.models.detector_live import Detector
    from trainkit_ptychography.models.measured_mtf import MeasuredMTF
    from trainkit_ptychography.physics.multislice import Waves
    from trainkit_ptychography.scans.kind_live import LiveDiffraction

_WIDE_BLUR = 3.0
_MODES_DIFFER_RAD = 0.02
_OF_DETECTOR = ("background", "pattern_intensities", "distance")
_TILTS = ("tilt", "scan_tilts", "point_tilts")


@component
class Ptychography(Model):
    """The far field of the probe behind a specimen, of one slice or of several with free space between them.

    A thin specimen is one slice. In a thick one the probe spreads, and is scattered again and again: with
    ``thickness_angstrom`` and several ``slices``, the wave passes from slice to slice (multislice), and the slices show
    what lies at which depth, as far as patterns tell: to about wavelength / semiangle². A slice much thicker than
    that is too thick for the model; thinner slices than a third of it cost time and show no more.

    Parameter groups: ``object`` trains from the start; ``probe``, ``dr`` and ``scan`` train only if they are given a
    ``start_epoch``, so that the object can be reconstructed first. ``dr`` are the displacements of the scan points in
    pixels; ``scan`` is the rotation, scale and shear of the whole scan, in pixels at its edge. ``other`` is empty. With
    several slices there are ``thickness`` (Å), ``tilt`` (mrad, of the beam through the slices) and ``point_tilts``
    (mrad, by how much the tilt differs at each scan point), which train only with a ``start_epoch`` as well, with
    Adam: a learning rate is about what a step changes, in their unit. So does ``scan_tilts`` (mrad), if
    ``scan_tilts_mrad`` is given; what all scans have in common is left to ``tilt``, if that trains, too.

    If the probe's ``trained_aberrations`` names some, group ``aberrations`` trains them, with an optimizer that asks
    for no curvature, such as "adam".

    Three groups are for what a detector adds to the physics; each exists if its setting asks for it, and trains with a
    ``start_epoch``, with Adam. ``background``: light that all patterns have in common, in roots of a mean pixel's light
    (1e-2 is a good learning rate). ``pattern_intensities``: the factor of each pattern's light (1e-3). ``distance``: by
    how many percent the effective distance of the near field differs from what is told (0.1).

    With ``scan_shifts``, group ``scan_shifts`` shifts each of several scans as a whole against the first, in pixels; it
    trains with a ``start_epoch`` and Adam (0.05).

    If the probe's ``opr_modes`` is above 0, the probe changes over the scan: groups ``opr_modes`` and ``opr_weights``.

    While ``probe`` trains, its power is kept and its modes are made orthogonal once an epoch. While ``dr`` trains, the
    affine part of the displacements is taken out once an epoch: patterns hardly tell a scaled or rotated scan from a
    changed object and probe, and without this the positions drift while the loss still falls. Train ``scan`` only if
    the scan's calibration is in doubt and the probe's is not; it then receives what is taken out of ``dr``.

    No step ever sees a pattern that is held out for validation. While ``dr`` trains, the displacement of such a point
    is fitted to its own pattern alone, with object and probe fixed, and then brought back into the frame of the scan as
    it was given. So ``val/loss`` shows a better object despite errors of positions, and it shows a scan that drifts.

    Source: Maiden, Humphry, Sarahan, Kraus, Rodenburg, Ultramicroscopy 120 (2012) 64 (positions); Thibault, Menzel,
    Nature 494 (2013) 68 (modes); Maiden, Humphry, Rodenburg, J. Opt. Soc. Am. A 29 (2012) 1606 (slices).

    Attributes:
        object: How the specimen's transmission is parametrised.
        probe: What illuminates the specimen before anything is trained.
        object_margin: Pixels of object around the outermost patches, for positions that move.
        project_affine: Whether displacements are kept free of shift, rotation, scale and shear of the whole scan.
        constraints: What is imposed on object and probe between steps, by name: ``[model.constraints.NAME]``.
        slices: Number of slices. The beam meets slice 0 first; the probe is the wave there.
        thickness_angstrom: Thickness of the whole specimen; each slice stands for an equal share of it.
        coarse: Coarse to fine: stages of the run in which the wave passes fewer slices, by name, for example
            ``[model.coarse.one]`` with ``slices = 1`` and ``stop_epoch = 3``. The object keeps all its slices; those
            that count together get the same gradient, and so their sum, positions and optimizer state go on where a
            stage ends. Such epochs take less time, as many times as there are fewer slices.
        tilt_mrad: Direction of the beam through the slices (rows, columns): with depth, it moves towards larger rows
            and columns by the tangent of it.
        scan_tilts_mrad: For several scans of a specimen that was tilted between them (tilt pairs, tilt series): by how
            much this direction differs in each scan, [[rows, columns], …] in the order of the scans. The probe may be
            one for all, or one for each ("per_scan"). Positions are where the beam enters the specimen, at slice 0.
        object_modes: Number of states of the specimen whose patterns are averaged (object modes, frozen phonons): for
            atoms that move while a pattern is taken. Time and memory of the object grow as the number does. Phase and
            amplitude in results are means over the modes; ``object_modes`` in result.h5 holds each.
        object_modes_differ_rad: Standard deviation of the phase by which pixels of the modes differ at the beginning.
        propagator: How waves get from one slice to the next.
        detector_blur_pixels: Standard deviation of the Gaussian by which the detector spreads the light that falls on a
            pixel, in pixels of the patterns as they are used (after binning). Without it, the blur becomes part of the
            probe, as if that were partly coherent.
        detector_mtf: The modulation transfer function of the detector as it was measured, instead of a Gaussian blur: a
            text file of two columns, spatial frequency and value, or an array (``.npy``, or "mtf" in ``.npz`` or
            HDF5): (frequencies, 2), or (rows, columns) for all frequencies. It is divided by its value at frequency 0.
        detector_mtf_unit: Of the frequencies: "cycles_per_pixel" of the patterns as they are used (after binning; 0.5
            is the Nyquist frequency), or "nyquist".
        background: Light on the detector that all patterns have in common and no wave explains: ``[model.background]``,
            also without a line in it. Group ``background`` trains it. None: there is none.
        pattern_intensities: Whether the light of each pattern has a factor of its own, for a beam whose current varies
            from pattern to pattern (group ``pattern_intensities``). The mean over a scan stays 1. The factor of a
            held-out pattern is fitted to its total.
        scan_shifts: For several scans of one specimen: whether each scan after the first can be shifted as a whole
            against the first (group ``scan_shifts``, in pixels), as where the specimen moved in between. It has to be
            known roughly, to about the width of an atom: ``data.scan_shifts_angstrom``; ``check --data`` proposes it.
        trained_distance: Near field: whether group ``distance`` trains the effective distance, which patterns tell to
            about a tenth: start it late, and not at all if it is known better. The size of object pixels stays; if that
            is in doubt as well, group ``scan`` trains the scale of the scan.
        waves: "stored": the waves behind all slices are kept for the way back; "recomputed": they are computed again,
            which takes nearly half as much time again, but memory hardly grows with the slices; "auto": they are kept
            if those of a batch take no more than 256 MiB.
    """

    accepts: ClassVar[type[Data]] = DiffractionData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("h5py",)
    computes_complex: ClassVar[bool] = True
    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    probe: Probe
    object: Object = Pixels()
    object_margin: int = attrs.field(default=4, validator=ge(1))
    project_affine: bool = True
    constraints: Mapping[str, Constraint] = attrs.Factory(dict)
    slices: int = attrs.field(default=1, validator=ge(1))
    thickness_angstrom: float | None = attrs.field(default=None, validator=optional(gt(0.0)))
    coarse: Mapping[str, CoarseSlices] = attrs.Factory(dict)
    tilt_mrad: tuple[float, float] = (0.0, 0.0)
    scan_tilts_mrad: tuple[tuple[float, float], ...] = ()
    object_modes: int = attrs.field(default=1, validator=ge(1))
    object_modes_differ_rad: float = attrs.field(default=_MODES_DIFFER_RAD, validator=gt(0.0))
    propagator: Propagator = Fresnel()
    detector_blur_pixels: float = attrs.field(default=0.0, validator=ge(0.0))
    detector_mtf: Path | None = attrs.field(default=None, metadata=INPUT_PATH)
    detector_mtf_unit: Literal["cycles_per_pixel", "nyquist"] = "cycles_per_pixel"
    background: Background | None = None
    pattern_intensities: bool = False
    scan_shifts: bool = False
    trained_distance: bool = False
    waves: Literal["auto", "recomputed", "stored"] = "auto"

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Refuse an average of the weights, because validation changes some of them, and check the slices."""
        if recipe.ema is not None:
            yield (
                "cannot be used with [ema]: validation fits the positions of held-out patterns, and would change the "
                "average instead of the positions"
            )
        yield from self._mtf_problems(recipe)
        if self.object_modes == 1 and self.object_modes_differ_rad != _MODES_DIFFER_RAD:
            yield Problem("has no effect on a single object mode: raise object_modes", "object_modes_differ_rad")
        if self.detector_blur_pixels > _WIDE_BLUR:
            yield Problem(
                f"= {self.detector_blur_pixels:g} is wider than that of any detector in use (up to about "
                f"{_WIDE_BLUR:g} pixels): is it in pixels of the detector?",
                "detector_blur_pixels",
                "warning",
            )
        if self.probe.trained_aberrations and recipe.groups.get("aberrations") is None:
            yield Problem(
                "has no effect: group aberrations never trains. Say when it does: [groups.aberrations] start_epoch = 0",
                "probe.trained_aberrations",
                "warning",
            )
        if self.scan_shifts:
            shifts = recipe.groups.get("scan_shifts")
            if shifts is None or shifts.start_epoch is None:
                yield Problem(
                    "has no effect: group scan_shifts never trains. Say when: [groups.scan_shifts] start_epoch = 1",
                    "scan_shifts",
                    "warning",
                )
        if self.probe.opr_modes:
            yield from self._opr_problems(recipe)
        yield from self._detector_problems(recipe)
        yield from small_rates(recipe)
        if self.slices > 1 and self.thickness_angstrom is None:
            yield Problem(f"say how thick the specimen of {self.slices} slices is", "thickness_angstrom")
        if self.slices > 1 and not self.object.takes_slices:
            yield Problem('cannot have several slices: use = "pixels" or "hash_encoding" can', "object")
        if isinstance(recipe.data, DiffractionData) and recipe.data.propagation_to_detector().patterns_are_images:
            if self.slices > 1:
                yield Problem(
                    "several slices are for the far field: set slices = 1 for the near field "
                    "(data.detector_propagation)",
                    "slices",
                )
            if self.object.made_from_patterns:
                yield Problem(
                    "direct methods are for patterns of the far field, and these are images (data.detector_propagation)"
                    ': use = "pixels"',
                    "object",
                )
        yield from problems_of_stages(self.coarse, self.slices, recipe.run.num_epochs())
        yield from self._problems_of_tilt(recipe)
        if self.slices == 1:
            for key in ("thickness_angstrom", "tilt_mrad", "scan_tilts_mrad"):
                if getattr(self, key) not in (None, (0.0, 0.0), ()):
                    yield Problem("has no effect on a single slice: raise model.slices, or leave it out", key)

    def _mtf_problems(self, recipe: Recipe) -> Iterable[Problem]:
        """Yield what contradicts a measured transfer function of the detector."""
        if self.detector_mtf is None:
            if self.detector_mtf_unit != "cycles_per_pixel":
                yield Problem("has no effect without detector_mtf", "detector_mtf_unit")
            return
        if self.detector_blur_pixels:
            yield Problem("a measured MTF takes the place of detector_blur_pixels: give one of them", "detector_mtf")
        binned = getattr(getattr(recipe.data, "prepare", None), "bin", 1)
        if binned > 1:
            yield Problem(
                f"patterns are binned by {binned}: frequencies that were measured in cycles per pixel of the detector "
                f"must be multiplied by {binned}",
                "detector_mtf",
                "note",
            )

    def _detector_problems(self, recipe: Recipe) -> Iterable[Problem]:
        """Yield a problem if what a detector adds never trains, or there is nothing that could."""
        asked = {
            "background": self.background is not None,
            "pattern_intensities": self.pattern_intensities,
            "trained_distance": self.trained_distance,
        }
        for key, group in zip(asked, _OF_DETECTOR, strict=True):
            settings = recipe.groups.get(group)
            if asked[key] and (settings is None or settings.start_epoch is None):
                yield Problem(
                    f"has no effect: group {group} never trains. Say when it does: [groups.{group}] start_epoch = 0",
                    key,
                    "warning",
                )
        if not isinstance(recipe.data, DiffractionData):
            return
        if self.trained_distance and not recipe.data.propagation_to_detector().distance_trains:
            yield Problem(
                "is for the near field (data.detector_propagation): in the far field, another distance is another size "
                "of object pixels, that is another scale of the scan (group scan)",
                "trained_distance",
            )

    def _opr_problems(self, recipe: Recipe) -> Iterable[Problem]:
        """Yield a warning if a probe that may change over the scan never does."""
        weights = recipe.groups.get("opr_weights")
        if weights is None or weights.start_epoch is None:
            yield Problem(
                "has no effect: group opr_weights never trains. Say when: [groups.opr_weights] start_epoch = 10, "
                "and likewise for group opr_modes",
                "probe.opr_modes",
                "warning",
            )
        elif weights.start_epoch == 0:
            yield Problem(
                "begin as what patterns ask of their probes, and at epoch 0 there is no object to tell that from: let "
                "[groups.opr_weights] start later",
                "probe.opr_modes",
                "warning",
            )

    def _problems_of_tilt(self, recipe: Recipe) -> Iterable[Problem]:
        """Doubt a tilt that trains while slices of pixels are free to lean instead."""
        group = recipe.groups.get("tilt")
        if self.slices == 1 or not self.object.has_pixels or group is None or group.start_epoch is None:
            return
        couplings = [each for each in self.constraints.values() if isinstance(each, SliceCoupling)]
        if not any(
            each.every_epochs is None and each.start_epoch <= group.start_epoch < (each.stop_epoch or inf)
            for each in couplings
        ):
            yield Problem(
                "group tilt trains while each slice may shift against the next one, which makes the same patterns: it "
                "will hardly be found. Keep columns straight in each step: [model.constraints.straight] with "
                'use = "slice_coupling", a sigma_angstrom of about half the thickness, and a stop_epoch',
                "constraints",
                "warning",
            )

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[str | Problem | Progress]:
        """Compare the geometry that is told with what a few hundred patterns show."""
        if depth != "headers" and self.slices > 1 and isinstance(recipe.data, DiffractionData):
            from trainkit_ptychography.preflight.thick import inspect_slices

            assert self.thickness_angstrom is not None
            yield from inspect_slices(
                recipe.data,
                self.probe,
                self.slices,
                self.thickness_angstrom,
                self.tilt_mrad,
                recipe.run.seed,
                in_order(self.coarse),
                self.scan_tilts_mrad,
            )
        if depth != "headers" and isinstance(recipe.data, DiffractionData):
            from trainkit_ptychography.preflight.background import inspect_background, inspect_intensities

            if self.background is not None:
                yield from inspect_background(recipe.data, self.background.start_share)
            if self.pattern_intensities:
                yield from inspect_intensities(recipe.data)
        if self.detector_mtf is not None:
            mtf = self._mtf()
            yield f"detector     MTF of {mtf.at_nyquist():.3g} at the Nyquist frequency ({mtf.where})"
            yield from (Problem(each, "detector_mtf", "warning") for each in mtf.doubts(self.detector_mtf_unit))
        if depth != "headers" and self.object_modes > 1 and isinstance(recipe.data, DiffractionData):
            from trainkit_ptychography.preflight.object_memory import inspect_object_memory

            yield from inspect_object_memory(recipe.data, self.object_modes, self.slices, self.object_margin)
        if depth == "headers":
            yield "geometry     not compared with the patterns; check --data does that"
            return
        from trainkit_ptychography.preflight.inspection import inspect_geometry

        if isinstance(recipe.data, DiffractionData):
            if self.probe.defocus_spread_angstrom:
                from trainkit_ptychography.preflight.spread import inspect_spread

                yield from inspect_spread(recipe.data, self.probe, recipe.run.seed)
            middle = 0.5 * (self.thickness_angstrom or 0.0)
            yield from inspect_geometry(recipe.data, self.probe, recipe, middle, self.tilt_mrad, self.scan_tilts_mrad)
            if self.object.begins_with() is not None:
                from trainkit_ptychography.preflight.earlier_object import inspect_earlier_object

                begun = attrs.evolve(self, constraints={}, coarse={})  # type: ignore[misc]  # mypy does not know @component
                yield from inspect_earlier_object(recipe.data, self.object, begun.build, recipe)

    def _mtf(self) -> MeasuredMTF:
        from trainkit_ptychography.models.measured_mtf import read_mtf

        assert self.detector_mtf is not None
        return read_mtf(self.detector_mtf, self.detector_mtf_unit)

    def step_memory(self, recipe: Recipe, batch_size: int) -> StepMemory | None:
        """Return what training takes, by the sizes of what a step computes."""
        if not isinstance(recipe.data, DiffractionData):
            return None
        from trainkit_ptychography.models.step_memory import step_memory

        return step_memory(self, recipe.data, batch_size, recipe.run.num_epochs())

    def timeline(self, epochs: int) -> Iterable[tuple[int, str]]:
        """Yield what slices, object, probe and constraints do in the course of a run."""
        yield from timeline(self.coarse, self.slices, epochs)
        if self.object_modes > 1:
            yield 0, f"{self.object_modes} object modes: {self.object_modes} times the time and memory of one object"
        yield from self.object.timeline(epochs)
        yield from self.probe.timeline(epochs)
        for name, constraint in self.constraints.items():
            if 0 < constraint.start_epoch < epochs:
                yield constraint.start_epoch, f"constraint {name} starts"
            if constraint.stop_epoch is not None and constraint.stop_epoch < epochs:
                yield constraint.stop_epoch, f"constraint {name} stops"

    def groups(self) -> Mapping[str, bool]:
        """Return the groups: only the object trains without a ``start_epoch``."""
        lens = {"aberrations": False} if self.probe.trained_aberrations else {}
        opr = {"opr_modes": False, "opr_weights": False} if self.probe.opr_modes else {}
        spread = {"defocus_spread": False} if self.probe.defocus_spread_angstrom else {}
        asked = (self.background is not None, self.pattern_intensities, self.trained_distance)
        detector = {name: False for name, exists in zip(_OF_DETECTOR, asked, strict=True) if exists}
        of_probe = {"probe": False, **lens, **spread, **opr}
        shifts = {"scan_shifts": False} if self.scan_shifts else {}
        groups = {"object": True, **of_probe, "dr": False, "scan": False, **shifts, **detector, "other": False}
        if self.slices > 1:
            scans = {"scan_tilts": False} if self.scan_tilts_mrad else {}
            groups |= {"thickness": False, "tilt": False, **scans, "point_tilts": False}
        return groups

    def groups_with_curvature(self) -> tuple[str, ...]:
        """Return all groups; the object only if it has pixels; none if scans have probes of their own."""
        if self.probe.num_scans() > 1:
            return ()
        opr = ("opr_modes", "opr_weights") if self.probe.opr_modes else ()
        return (*(("object",) if self.object.has_pixels else ()), "probe", *opr, "dr", "scan", "other")

    def build(self, data: Any) -> nn.Module:
        """Make the network."""
        import torch
        from numpy.fft import fftshift

        from trainkit_ptychography.models.direct_start import seen_by
        from trainkit_ptychography.models.propagation import Propagation
        from trainkit_ptychography.models.ptychography_live import PtychographyModule
        from trainkit_ptychography.models.scan_shifts import ScanShifts
        from trainkit_ptychography.objects.kind import ObjectGeometry, ObjectPlacement
        from trainkit_ptychography.objects.modes_live import ObjectModes, make_different
        from trainkit_ptychography.preflight.watch import Told
        from trainkit_ptychography.probes.defocus_spread import doubt_of_nodes
        from trainkit_ptychography.probes.modes import ProbeModes
        from trainkit_ptychography.probes.opr import OPRChoice
        from trainkit_ptychography.probes.wave_sampling import WaveSampling

        spacing = None if self.thickness_angstrom is None else self.thickness_angstrom / self.slices
        sampling = WaveSampling.of(data.scan)
        modes_MYX, trained = self.probe.build(data), self.probe.trained_aberrations
        powers = data.scan_powers if self.probe.num_scans() > 1 else (1.0,)
        opr = None
        if self.probe.opr_modes:
            scan_N = torch.from_numpy(data.scan.scan_N) if self.probe.num_scans() > 1 else None
            opr = OPRChoice(self.probe.opr_modes, len(data.scan.positions_N2), data.train_index, data.seed, scan_N)
        spread = (self.probe.defocus_spread_angstrom, self.probe.defocus_spread_nodes)
        if spread[0] > 0 and (doubt := doubt_of_nodes(spread[1], modes_MYX, sampling, spread[0])):
            logging.getLogger("trainkit").warning("model.probe.defocus_spread_nodes: %s", doubt)
        counted_YX = data.scan.mask_YX if data.scan.detector_propagation.patterns_are_images else None
        if counted_YX is not None:
            counted_YX = fftshift(counted_YX)
        probe = ProbeModes(modes_MYX, data.dtype, data.device, sampling, trained, powers, opr, *spread, counted_YX)
        shifts = None
        if self.scan_shifts:
            if data.scan.scan_N is None:
                raise DataError(
                    f"{data.scan.source} is one scan, and model.scan_shifts is for several: join them, patterns = "
                    '["…", "…"], or leave it out'
                )
            shifts = ScanShifts(data)
        propagation = None
        if self.slices > 1:
            assert self.thickness_angstrom is not None  # `problems` refuses it
            propagation = Propagation(
                data,
                self.propagator,
                self.slices,
                self.thickness_angstrom,
                self.tilt_mrad,
                self.coarse,
                self.scan_tilts_mrad,
            )

        def make_object(shape: tuple[int, int], origin_2: NDArray[np.float64]) -> nn.Module:
            placed = ObjectPlacement(origin_2, data.scan.positions_N2, data.scan.pixel_size_angstrom)
            like = (data.detector_shape, data.dtype, data.device, data.seed)
            probes = [self.probe.of_scan(number) for number in range(self.probe.num_scans())]
            defoci = [each.told_defocus(data.scan) if isinstance(each, Lens) else None for each in probes]
            seen = partial(seen_by, data, probe, propagation, origin_2, shape, defoci)
            geometry = ObjectGeometry(shape, *like, placed, self.slices, spacing, seen)
            if self.object_modes == 1:
                return self.object.build(geometry)
            modes = [self.object.build(geometry._replace(seed=data.seed + each)) for each in range(self.object_modes)]
            for number, mode in enumerate(modes):
                make_different(mode, number, self.object_modes_differ_rad, data.seed)
            return ObjectModes(modes)

        recomputed: Waves = "inverted" if self.propagator.takes_no_power() else "checkpointed"
        most = {"auto": 2**28, "recomputed": 0, "stored": None}[self.waves]
        return PtychographyModule(
            data,
            make_object,
            probe,
            self.object_margin,
            self.project_affine,
            constraints=tuple(self.constraints.values()),
            propagation=propagation,
            recomputed=recomputed,
            most_bytes_of_waves=most,
            detector=self._detector(data),
            begins_with=self.object.begins_with(),
            scan_shifts=shifts,
            told=Told(self.probe, 0.5 * (self.thickness_angstrom or 0.0), bool(self.scan_tilts_mrad)),
        )

    def _detector(self, data: LiveDiffraction) -> Detector:
        """Make the detector.

        Raises:
            RecipeError: The distance of the data cannot be trained.
        """
        from trainkit_ptychography.models.detector_live import Detector

        if self.trained_distance and not data.scan.detector_propagation.distance_trains:
            raise RecipeError(
                "model.trained_distance is for the near field: take it out, or say data.detector_propagation"
            )
        return Detector(data, self._transfer(data), self.background, self.pattern_intensities, self.trained_distance)

    def _transfer(self, data: LiveDiffraction) -> Tensor | None:
        """Return what the detector does to the Fourier transform of intensities; None: nothing."""
        from trainkit_ptychography.physics.detector import transfer

        like = (data.dtype, data.device)
        if self.detector_mtf is None:
            sigma = self.detector_blur_pixels
            return transfer(data.detector_shape, sigma, *like) if sigma > 0 else None
        mtf = self._mtf()
        for doubt in mtf.doubts(self.detector_mtf_unit):
            logging.getLogger("trainkit").warning("model.detector_mtf: %s", doubt)
        return mtf.transfer(data.detector_shape, *like)

    def parameter_groups(self, model: Any) -> Mapping[str, Iterable[nn.Parameter]]:
        """Return the parameters of each group; "other" is empty, and kept for recipes and checkpoints that name it."""
        opr = model.probe.opr
        groups: dict[str, Iterable[nn.Parameter]] = {
            "object": model.object.parameters(),
            "probe": [model.probe.modes],
            **({} if model.probe.lens is None else {"aberrations": model.probe.lens.parameters()}),
            **({} if model.probe.spread is None else {"defocus_spread": [model.probe.spread.spread]}),
            **({} if opr is None else {"opr_modes": [opr.modes], "opr_weights": [opr.weights]}),
            "dr": [model.dr],
            "scan": [model.scan],
            **({} if model.scan_shifts is None else {"scan_shifts": [model.scan_shifts.further]}),
            **{name: [parameter] for name in _OF_DETECTOR if (parameter := getattr(model.detector, name)) is not None},
            "other": [],
        }
        if model.propagation is not None:
            tilts = ("tilt", "point_tilts") if model.propagation.scan_tilts is None else _TILTS
            groups |= {name: [getattr(model.propagation, name)] for name in ("thickness", *tilts)}
        return groups
