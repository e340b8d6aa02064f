"""Fits a temperature to one half of the held-out cases of runs, and measures it on the other half.

Each case is predicted once. Its scores on its own voxels go to a temporary file, so that memory does not grow with the
number of classes times the volume.

Shapes: C = channels, K = scores, L = 1 or classes, P = planes along the axis along which scores come, U, V = the other
two axes, N = voxels.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trainkit import Calibration, DataError, OpenedRun, Progress, random_seed, some_of
from trainkit_segmentation.calibration.diagram import draw_reliability
from trainkit_segmentation.calibration.halves import deal
from trainkit_segmentation.calibration.labellings import Labelling, ScoredCase
from trainkit_segmentation.calibration.likelihood import Temperature, Voxels, fit_temperature, log_probabilities
from trainkit_segmentation.calibration.reliability import Reliability
from trainkit_segmentation.calibration.report import AFTER, ALL, BEFORE, NEAR, Measures, Report, case_row
from trainkit_segmentation.calibration.uncertainty import UncertainPlane, draw_uncertainty, uncertain_plane
from trainkit_segmentation.prediction.confidence import LEAST
from trainkit_segmentation.prediction.images import ImagePreparation
from trainkit_segmentation.prediction.members import common_facts
from trainkit_segmentation.prediction.scoring import OwnScores, combination

if TYPE_CHECKING:
    from trainkit_segmentation.calibration.segmentation import SegmentationCalibrator
    from trainkit_segmentation.prediction.segmentation import SegmentationPredictor

_LOGGER = logging.getLogger("trainkit.segmentation")

DEPENDS_ON = ("window_size", "overlap", "blending", "flips", "combine", "nan_as_zero")
_MOST_SAMPLED = 1 << 24  # logits of all cases that are kept to fit on


def calibrate(
    settings: SegmentationCalibrator,
    runs: Sequence[OpenedRun],
    predictor: SegmentationPredictor,
    device: torch.device,
    tell: Callable[[Progress], None],
) -> Calibration:
    """Fit a temperature, and measure it; see `SegmentationCalibrator`."""
    facts = common_facts([run.member for run in runs])
    holders = _holders(runs)
    subjects = {case: runs[of[0]].data.subject(case) for case, of in holders.items()}
    halves = deal(subjects, settings.seed)
    if unsized := [case for case, of in holders.items() if not runs[of[0]].data.has_spacing(case)]:
        _LOGGER.warning(
            "files do not say how large a voxel is, so %g mm are %g voxels of 1 mm: %s",
            settings.boundary_mm,
            settings.boundary_mm,
            some_of(unsized),
        )
    scored = _Scoring(runs, predictor, device)
    labellings = 1 if facts.exclusive else len(facts.classes)
    scores = len(facts.classes) + 1 if facts.exclusive else 2
    most = _MOST_SAMPLED // (len(holders) * labellings * scores)
    cases = [*halves[0], *halves[1]]
    samples: dict[str, list[Voxels]] = {case: [] for case in cases}
    measured: dict[str, Measures] = {}
    fitted = None
    shown = _Shown()
    for number, case in enumerate(cases):
        tell(Progress(number, len(cases), "cases"))
        if number == len(halves[0]):
            fitted = _fit(halves[0], samples)
        temperatures = {BEFORE: 1.0} if fitted is None else {BEFORE: 1.0, AFTER: fitted.value}
        measures = measured[case] = _empty(settings.bins, temperatures)
        generator = torch.Generator().manual_seed(random_seed(settings.seed, number))
        with scored.case(case, holders[case]) as opened:
            for labelling in opened.labellings(settings.boundary_mm):
                _measure(labelling, temperatures, measures)
                samples[case] += _sample(labelling, max(1, most), generator)
            if AFTER in temperatures:
                shown.offer(opened, case, measures[NEAR, BEFORE].nll, temperatures)
    assert fitted is not None
    whole = _empty(settings.bins, {BEFORE: 1.0, AFTER: fitted.value})
    for case in halves[1]:
        for key, each in measured[case].items():
            whole[key].take_in(each)
    report = Report(
        settings,
        fitted.value,
        fitted.at_end,
        _fit(halves[1], samples).value,
        whole,
        *halves,
        {case: len(of) for case, of in holders.items()},
        len(runs),
    )
    half_of = {case: name for name, half in zip(("fitted", "measured"), halves, strict=True) for case in half}
    return Calibration(
        predict={"temperature": fitted.value} if report.is_better else {},
        depends_on=DEPENDS_ON,
        results={**report.to_json(), "combine": scored.combine},
        rows=tuple(case_row(case, half_of[case], len(holders[case]), measured[case]) for case in sorted(cases)),
        lines=tuple(report.lines()),
        doubts=tuple(report.doubts()),
        pictures={
            "reliability.png": partial(draw_reliability, whole, settings.boundary_mm, fitted.value),
            **({"entropy.png": partial(draw_uncertainty, shown.planes())} if shown.planes() else {}),
        },
    )


class _Shown:
    """Keeps a plane of the case that is predicted best, and of the one that is predicted worst."""

    def __init__(self) -> None:
        self._best: tuple[float, str, UncertainPlane] | None = None
        self._worst: tuple[float, str, UncertainPlane] | None = None

    def offer(self, opened: ScoredCase, case: str, nll: float, temperatures: Mapping[str, float]) -> None:
        """Look at a case.

        Args:
            opened: The case.
            case: Its name.
            nll: How well it is predicted, near boundaries; NaN: it has none.
            temperatures: Those that are shown.
        """
        is_best = not math.isnan(nll) and (self._best is None or nll < self._best[0])
        is_worst = not math.isnan(nll) and (self._worst is None or nll > self._worst[0])
        if is_best or is_worst:
            kept = nll, case, uncertain_plane(opened, temperatures)
            self._best, self._worst = kept if is_best else self._best, kept if is_worst else self._worst

    def planes(self) -> dict[str, UncertainPlane]:
        """Return title -> plane."""
        titles = (("lowest NLL", self._best), ("highest NLL", self._worst))
        found = {each[1]: (f"{each[1]} ({title})", each[2]) for title, each in titles if each is not None}
        return dict(found.values())


def _fit(cases: Sequence[str], samples: Mapping[str, Sequence[Voxels]]) -> Temperature:
    """Return the temperature that suits cases.

    Raises:
        DataError: They have no boundary.
    """
    chosen = [each for case in cases for each in samples[case]]
    if not any(len(each.label_N) for each in chosen):
        raise DataError(
            f"neither truth nor prediction has a boundary in {some_of(cases)}: there is nothing to fit a temperature to"
        )
    return fit_temperature(chosen)


def _holders(runs: Sequence[OpenedRun]) -> dict[str, tuple[int, ...]]:
    """Return held-out case -> the runs that hold it out, as positions in the list.

    Raises:
        DataError: A run holds out a case that it was trained on.
    """
    found: dict[str, list[int]] = {}
    for number, run in enumerate(runs):
        held_out = {case for split in run.held_out for case in run.data.division[split]}
        if both := sorted(held_out & set(run.data.division["train"])):
            raise DataError(
                f"{run.member.name} was trained on its held-out cases ({some_of(both)}), so they do not say how "
                "confident it may be of new ones"
            )
        for case in held_out:
            found.setdefault(case, []).append(number)
    return {case: tuple(of) for case, of in sorted(found.items())}


class _Scoring:
    """Predicts held-out cases by the networks that were not trained on them.

    Args:
        runs: The networks and their data.
        predictor: How they predict.
        device: Their device.

    Attributes:
        combine: What is averaged, as where all of them predict.
    """

    def __init__(self, runs: Sequence[OpenedRun], predictor: SegmentationPredictor, device: torch.device) -> None:
        self._runs, self._predictor, self._device = runs, predictor, device
        self.combine = combination(predictor, len(runs))
        self._networks: dict[tuple[int, ...], tuple[OwnScores, list[slice]]] = {}

    @contextmanager
    def case(self, case: str, holders: tuple[int, ...]) -> Iterator[ScoredCase]:
        """Predict a case.

        Args:
            case: Its name.
            holders: The networks.
        """
        runs = [self._runs[number] for number in holders]
        if holders not in self._networks:
            members = [run.member for run in runs]
            channels = ImagePreparation(members, self._predictor.nan_as_zero).channels
            networks = OwnScores(self._predictor, members, channels, self.combine, self._device, lambda progress: None)
            self._networks[holders] = networks, channels
        networks, channels = self._networks[holders]
        data = runs[0].data
        grid = data.grid(case)
        images = {of.start: run.data for run, of in zip(reversed(runs), reversed(channels), strict=True)}
        image_CXYZ = torch.cat([images[start].image(case) for start in sorted(images)])
        axis, planes_PKUV = networks.planes(image_CXYZ, grid)
        with tempfile.TemporaryFile() as file:
            shape = _store(planes_PKUV, file, case)
            num_planes = grid.box[axis][1] - grid.box[axis][0]
            scores_PKUV = np.memmap(file, np.float32, "r", shape=(num_planes, *shape))
            order = (axis, *(other for other in range(3) if other != axis))
            ignored = data.ignored(case)
            turned = [
                np.moveaxis(grid.turn(each.numpy()), 1 + axis, 1)
                for each in (data.truth(case), *([] if ignored is None else [ignored[None]]))
            ]
            spacing_mm = [grid.own_spacing_mm[grid.axes[each]] for each in order]
            begin, middle, end = (slice(*grid.box[each]) for each in order)
            yield ScoredCase(
                scores_PKUV=scores_PKUV,
                box=(begin, middle, end),
                true_LPUV=turned[0],
                ignored_PUV=turned[1][0] if turned[1:] else None,
                annotated=data.annotated(case),
                exclusive=data.exclusive,
                are_logits=self.combine == "logits",
                spacing_mm=spacing_mm,
            )
            del scores_PKUV


def _store(planes_PKUV: Iterator[Tensor], file: IO[bytes], case: str) -> tuple[int, ...]:
    """Write planes of scores to a file, and return the shape (K, U, V) of one.

    Raises:
        DataError: The disk is full.
    """
    shape: tuple[int, ...] = ()
    try:
        for some_PKUV in planes_PKUV:
            shape = tuple(some_PKUV.shape[1:])
            file.write(some_PKUV.cpu().contiguous().numpy().tobytes())
        file.flush()
    except OSError as error:
        raise DataError(
            f"{case}: the scores of its voxels cannot be written to {tempfile.gettempdir()} "
            f"({error.strerror or error}); the environment variable TMPDIR names another folder"
        ) from error
    return shape


def _empty(bins: int, variants: Mapping[str, float]) -> Measures:
    return {(region, variant): Reliability(bins) for region in (NEAR, ALL) for variant in variants}


def _measure(labelling: Labelling, temperatures: Mapping[str, float], measures: Measures) -> None:
    """Take in the voxels of a labelling at each temperature."""
    merged = labelling.case.unknown
    for logits_NC, label_N, near_N in labelling.inside():
        for variant, temperature in temperatures.items():
            log_NC = log_probabilities(logits_NC, temperature, merged)
            measures[ALL, variant].add(log_NC, label_N)
            measures[NEAR, variant].add(log_NC[near_N], label_N[near_N])
    for region in (NEAR, ALL):
        number, right = labelling.outside(near=region == NEAR)
        for variant in temperatures:
            measures[region, variant].add_certain(number, right, -math.log(LEAST))


def _sample(labelling: Labelling, most: int, generator: torch.Generator) -> Iterator[Voxels]:
    """Yield the voxels near boundaries, to fit on; if there are too many, some of them at random.

    Args:
        labelling: The labelling.
        most: How many, about.
        generator: Chooses.
    """
    share = min(1.0, most / max(1, labelling.num_near))
    for logits_NC, label_N, near_N in labelling.inside():
        if share < 1:
            near_N = near_N & (torch.rand(len(near_N), generator=generator, dtype=torch.float64) < share)
        yield Voxels(logits_NC[near_N], label_N[near_N], 1 / share, labelling.case.unknown)
