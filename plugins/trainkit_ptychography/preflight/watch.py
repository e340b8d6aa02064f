"""Warns at a run's beginning that the mirrored geometry fits better, and judges the result at the run's end.

Shapes: P = scan points that are looked at, B = patterns of a batch, M = probe modes, Y, X = rows and columns of the
detector.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit import State
from trainkit_ptychography.preflight.ending import Ending, GeometryJudge
from trainkit_ptychography.preflight.images import contradictions
from trainkit_ptychography.preflight.live_patterns import LivePatterns
from trainkit_ptychography.preflight.mirror import Comparison, compare
from trainkit_ptychography.preflight.noise import electrons_in, noise_of
from trainkit_ptychography.preflight.step_advice import steps_in_words
from trainkit_ptychography.probes.kind import Probe
from trainkit_ptychography.scans.few_counts import MORE_THAN_NOISE
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Recording

_LOGGER = logging.getLogger("trainkit")
_ENOUGH_HELD_OUT = 8
_MOST_POINTS = 256
_BRIGHT = 0.05  # of the brightest pixel
_SURE = 2.0  # standard errors by which a result must be better than an empty object

_WHICH_LINE = "check --data on this recipe tells which line to change"
_SECONDS_OF_SEARCH = 1.6  # about what it takes on one core with what else ends a run, 20 to 45 trials: 1.2 to 2.3 s
_FIRST_LOOK = 5  # epochs before which a result is preliminary, and the seconds of a search are not spent on it

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Scan points (B,) -> the intensities (B, Y, X) that the model expects, and those of an empty object with its probe."""


class Told(NamedTuple):
    """What a recipe tells of the geometry.

    Attributes:
        probe: The probe's settings.
        depth_angstrom: How deep in the specimen its middle is.
        tilts_differ: Whether the specimen was tilted between the scans that the data joins.
    """

    probe: Probe
    depth_angstrom: float = 0.0
    tilts_differ: bool = False


class GeometryWatch:
    """Belongs to a model.

    Args:
        data: The opened scan.
        probe_MYX: The probe as it is told, before it is trained; it is copied. None: there are several, or
            trials, which are of the far field, tell nothing.
        told: What the recipe tells, to hold the result against other geometries; None: nothing.
    """

    def __init__(self, data: LiveDiffraction, probe_MYX: Tensor | None, told: Told | None = None) -> None:
        self._data, self._probe_MYX = data, None if probe_MYX is None else probe_MYX.detach().clone()
        self._told = told
        self._known_steps: Sequence[str] | None = None

    def _compare(self) -> Comparison | None:
        return None if self._probe_MYX is None else compare(self._data, self._probe_MYX.cpu().numpy())

    def _steps(self) -> Sequence[str]:
        """Return which patterns are out of step with the scan points as they are told: trained ones hide it."""
        if self._known_steps is None:
            recording = Recording(LivePatterns(self._data), self._data.scan)
            self._known_steps = [] if self._data.is_half else steps_in_words(recording).doubts
        return self._known_steps

    def warn(self) -> None:
        """Warn if the patterns fit the mirrored geometry better, or, as images, contradict what is told."""
        scan = self._data.scan
        for text in self._steps():
            _LOGGER.warning("%s; %s", text, _WHICH_LINE)
        if scan.detector_propagation.patterns_are_images:
            for text in contradictions(LivePatterns(self._data), scan, scan.positions_N2):
                _LOGGER.warning("the patterns contradict what is told: %s; %s", text, _WHICH_LINE)
        found = self._compare()
        if found is not None and found.mirror_is_better:
            _LOGGER.warning(
                "the patterns contradict the geometry that is told: with the detector turned by 180°, or, for a round "
                "probe, the other sign of the defocus, a trial fits better (misfit %.3g instead of %.3g; an empty "
                "object: %.3g). check --data on this recipe tells which line to change",
                *(found.mirrored, found.told, found.empty),
            )

    def judge_beginning(self, begins_with: str, predict: Predict, negated: Predict | None) -> None:
        """Say how well an object fits at the beginning, and warn if an empty one, or its negative, fits well too.

        Args:
            begins_with: What it begins with, in words.
            predict: Gives the patterns.
            negated: Gives those of the same object with its phase negated; None: that is no question.
        """
        points_P, kind = self._points_to_judge_by()
        misfit_P, empty_P, likelier_P, _ = self._misfits(points_P, predict)
        figures = f"misfit of {kind} {misfit_P.mean():.3g}, {empty_P.mean():.3g} of an empty object"
        explains = _is_positive(empty_P - misfit_P) or _is_positive(likelier_P)
        if negated is not None:
            negated_P = self._misfits(points_P, negated)[0]
            figures += f", {negated_P.mean():.3g} with its phase negated"
            explains = explains and bool(negated_P.mean() > empty_P.mean())  # whatever scatters light beats vacuum
        if explains:
            _LOGGER.info("the object begins with %s: %s", begins_with, figures)
        else:
            _LOGGER.warning(
                "the object begins with %s, which does not explain patterns: %s. Begin with vacuum (object = { use = "
                '"pixels" }), or check the geometry with check --data',
                *(begins_with, figures),
            )

    def _points_to_judge_by(self) -> tuple[Tensor, str]:
        """Return held-out points, or others if there are few, and what messages call them."""
        points_P = self._data.held_out_index
        held_out = len(points_P) >= _ENOUGH_HELD_OUT
        if not held_out:
            points_P = self._data.train_index
        points_P = points_P[torch.linspace(0, len(points_P) - 1, min(_MOST_POINTS, len(points_P))).round().long()]
        return points_P, f"{len(points_P)} {'held-out' if held_out else 'training'} patterns"

    def judge(self, state: State, predict: Predict) -> None:
        """Report it if the result is no better than an empty object, or worse than a trial with the mirror."""
        points_P, kind = self._points_to_judge_by()
        electrons = electrons_in(self._data)
        misfit_P, empty_P, likelier_P, noise_P = self._misfits(points_P, predict, electrons)
        if not _is_positive(empty_P - misfit_P) and not _is_positive(likelier_P):
            state.doubt(
                f"the reconstruction fits {kind} no better than an empty object does with the same probe (misfit "
                f"{misfit_P.mean():.3g}, empty {empty_P.mean():.3g}): check the geometry with check --data, the "
                "learning rates, and whether the patterns show a specimen at all"
            )
        elif electrons is not None and noise_P.sum() > 0:
            _say_how_far_from_noise(float(misfit_P.sum() / noise_P.sum()), kind)
        found = self._compare()
        if found is not None and (text := _worse_than_mirror(misfit_P, found, kind)):
            state.doubt(text)

    def announce_ending(self, state: State) -> None:
        """Say about how long `judge_ending` will take, if it looks for other geometries."""
        is_far = not self._data.scan.detector_propagation.patterns_are_images
        if self._told is not None and is_far and not self._data.is_half and state.epochs >= _FIRST_LOOK:
            state.announce_ending(_SECONDS_OF_SEARCH)

    def judge_ending(self, state: State, ending: Ending) -> None:
        """Report it if another geometry than that of the result explains the patterns better.

        This takes seconds, so it is left out after a few epochs, and in halves of a scan, whose comparison does it.
        That patterns are out of step is known from the beginning, and nothing that is trained can mend it.
        """
        told, scan = self._told, self._data.scan
        for text in self._steps():
            state.doubt(f"{text}; {_WHICH_LINE}")
        if self._data.is_half or state.doubts or state.epoch < _FIRST_LOOK:
            return
        if scan.detector_propagation.patterns_are_images:
            for text in contradictions(LivePatterns(self._data), scan, ending.positions_N2, ending.distance_factor):
                state.doubt(f"the geometry of the result is wrong by all appearance: {text}; {_WHICH_LINE}")
            return
        if told is None:
            return
        group = state.groups.get("probe")
        judge = GeometryJudge(
            Recording(LivePatterns(self._data), scan),
            None,
            told.probe,
            self._data.seed,
            depth_angstrom=told.depth_angstrom,
            tilts_differ=told.tilts_differ,
            probe_is_trained=group is not None and group.start_epoch is not None,
        )
        for verdict in judge.judge(ending):
            if verdict.doubt is not None:
                state.doubt(f"{verdict.doubt}; {_WHICH_LINE}")

    @torch.no_grad()
    def _misfits(
        self, points_P: Tensor, predict: Predict, electrons: float | None = None
    ) -> tuple[NDArray[np.float64], ...]:
        """Return of each pattern the misfit of amplitudes, that of an empty object, and how much likelier it is.

        A fourth array holds the misfit that counting noise alone makes, if electrons in an intensity of 1 are given.

        With a count or less in a pixel, the mean of the amplitudes that are measured is far below the amplitude of the
        mean, so a model without contrast can have the smaller misfit even if another one is right. So the logarithm of
        the likelihood of counts is compared as well, up to a factor, where an empty object is bright: elsewhere it
        depends on what little light an empty object has.
        """
        found: list[Tensor] = []
        pairs: list[tuple[Tensor, Tensor]] = []
        likelier: list[Tensor] = []
        of_noise = [np.zeros(0)]
        for batch in self._data.some(points_P):
            mask = batch.get("mask", self._data.mask_YX)
            mask = torch.ones_like(batch["amplitudes"]) if mask is None else mask.to(batch["amplitudes"])
            predicted = predict(batch["index"])
            expected_BYX, empty_BYX = (each.clamp_min(0).sqrt() * mask for each in predicted)
            if electrons is not None:
                of_noise.append(noise_of(predicted[0], mask, electrons))
            measured_BYX = batch["amplitudes"] * mask
            likelier.append(_log_likelihood_ratio(measured_BYX, expected_BYX, empty_BYX))
            found.append((expected_BYX - measured_BYX).square().sum((1, 2)))
            products = [(empty_BYX * other).sum((1, 2)) for other in (empty_BYX, measured_BYX)]
            pairs.append((torch.stack(products), measured_BYX.square().sum((1, 2))))
        (power_P, overlap_P), measured_P = (
            torch.cat([pair[0] for pair in pairs], dim=1).double().cpu().numpy(),
            torch.cat([pair[1] for pair in pairs]).double().cpu().numpy(),
        )
        scale = overlap_P.sum() / max(float(power_P.sum()), 1e-30)  # an empty object's amplitude that fits best
        empty_P = scale**2 * power_P - 2 * scale * overlap_P + measured_P
        misfit_P = torch.cat(found).double().cpu().numpy()
        return misfit_P, empty_P, torch.cat(likelier).cpu().numpy(), np.concatenate(of_noise)


def _say_how_far_from_noise(times: float, kind: str) -> None:
    """Say how many times the misfit of counting noise patterns have: of the noise of those that are modelled."""
    text = f"fit: {kind} have {times:.2f} times the misfit that counting noise alone makes"
    if times > MORE_THAN_NOISE:
        text += (
            ". The model lacks something (probe modes for blur and partial coherence, slices, a background), has "
            "something wrong, or needs more epochs; the object may be wrong, too"
        )
    _LOGGER.info(text)


def _log_likelihood_ratio(measured_BYX: Tensor, expected_BYX: Tensor, empty_BYX: Tensor) -> Tensor:
    """Return Σ m log(e / e₀) − (e − e₀) of each pattern, where e₀ is bright; its arguments are the square roots."""
    measured_BYX, expected_BYX, empty_BYX = (each.double().square() for each in (measured_BYX, expected_BYX, empty_BYX))
    bright_BYX = empty_BYX > _BRIGHT * empty_BYX.amax((1, 2), keepdim=True)
    if not bright_BYX.any():
        return torch.zeros(len(measured_BYX), dtype=torch.float64)
    measured_BYX, expected_BYX, empty_BYX = (each * bright_BYX for each in (measured_BYX, expected_BYX, empty_BYX))
    empty_BYX = empty_BYX * (measured_BYX.sum() / empty_BYX.sum())
    smallest = torch.finfo(torch.float32).tiny
    ratio_BYX = expected_BYX.clamp_min(smallest) / empty_BYX.clamp_min(smallest)
    terms_BYX = torch.where(bright_BYX, measured_BYX * ratio_BYX.log() - (expected_BYX - empty_BYX), 0.0)
    return terms_BYX.sum((1, 2))


def _is_positive(difference_P: NDArray[np.float64]) -> bool:
    """Return whether the mean of differences is surely above 0."""
    error = float(difference_P.std()) / np.sqrt(len(difference_P))
    return bool(difference_P.mean() > max(_SURE * error, 0.0))


def _worse_than_mirror(misfit_P: NDArray[np.float64], found: Comparison, kind: str) -> str | None:
    if not found.mirror_is_better or misfit_P.mean() < (found.mirrored + found.empty) / 2:
        return None
    return (
        f"the geometry is wrong by all appearance: the reconstruction fits {kind} worse (misfit {misfit_P.mean():.3g}) "
        "than a short trial with the detector turned by 180°, or, for a round probe, with the other sign of the "
        f"defocus ({found.mirrored:.3g}; an empty object: {found.empty:.3g}); check --data on this recipe tells which "
        "line to change"
    )
