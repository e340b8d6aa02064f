"""Predicts the masks of images: from files to files, a few planes at a time.

Shapes: C = channels, K = scores, P = planes along the axis of the rows of windows, U, V = the other two axes of the
network's orientation, X, Y, Z = voxels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from trainkit import CheckpointError, DataError, Member, PredictionItem, Progress, RecipeError, did_you_mean, some_of
from trainkit_segmentation.cases.case import FileCase
from trainkit_segmentation.cases.image_names import ImageNames
from trainkit_segmentation.cases.sides import sided_pairs
from trainkit_segmentation.files.header import Array
from trainkit_segmentation.files.images import files_of
from trainkit_segmentation.inference.sliding_window import SlidingWindow
from trainkit_segmentation.prediction.images import ImagePreparation
from trainkit_segmentation.prediction.inputs import ImageFinder
from trainkit_segmentation.prediction.label_values import label_values
from trainkit_segmentation.prediction.members import Scores, common_facts
from trainkit_segmentation.prediction.own_planes import stretch_planes
from trainkit_segmentation.prediction.results import Results
from trainkit_segmentation.prediction.windows import Windows, stream_scores, thinnest_axis
from trainkit_segmentation.preparing.grid import left_right_axes
from trainkit_segmentation.spelling import safe_name

if TYPE_CHECKING:
    from trainkit_segmentation.prediction.segmentation import SegmentationPredictor


_LOGGER = logging.getLogger("trainkit.segmentation")


class LiveSegmentationPredictor:
    """Predicts the masks of images.

    Args:
        settings: The settings.
        members: The networks.
        device: Their device.
        tell: Shows how far the prediction of an image is.
    """

    def __init__(
        self,
        settings: SegmentationPredictor,
        members: tuple[Member, ...],
        device: torch.device,
        tell: Callable[[Progress], None],
    ) -> None:
        self._settings, self._device, self._tell = settings, device, tell
        self._facts = facts = common_facts(members)
        self._paths: dict[str, tuple[Path, ...]] = {}
        self._preparation = ImagePreparation(members, settings.nan_as_zero)
        self._windows = _common_windows(settings, members)
        whole = self._windows is None
        networks = tuple(
            partial(_logits, _function(member, whole), member, channels)
            for member, channels in zip(members, self._preparation.channels, strict=True)
        )
        self._combine = _combination(settings, len(members))
        self._score = Scores(networks, settings.flips, facts.exclusive, self._combine)
        self._values = label_values(facts.classes, facts.exclusive, facts.label_values)
        per_class = settings.files == "per_class" or (settings.files == "auto" and self._values is None)
        if self._values is None and not per_class:
            raise RecipeError(
                'predict.files = "labels": the classes overlap, and each had files of its own in the training data, so '
                'no label value stands for two of them; use "per_class"'
            )
        self._per_class = per_class
        for name in settings.post_processing:
            if name not in facts.classes:
                near = did_you_mean(name, facts.classes)
                raise RecipeError(f'predict.post_processing: there is no class "{name}"; {near}')
        self._doubts_flips = bool(settings.flips)
        self._doubt_flips(())
        files = [safe_name(name) for name in facts.classes]
        if per_class and (alike := sorted({each for each in files if files.count(each) > 1})):
            raise RecipeError(f'the masks of several classes would both be called {some_of(alike)}; use "labels"')
        for value, instead in self._values.dropped.items() if self._values is not None and not per_class else ():
            _LOGGER.info("the label values %d and %d mean the same classes: %d is written", instead, value, instead)
        if facts.image_names is None and facts.num_channels > 1:
            _LOGGER.warning(
                "the checkpoint does not say how the files of channels are called, since an older version wrote it: "
                "they are looked for as %s_0000, …_0001, … or by the channels' names, %s",
                "…",
                some_of(list(facts.channels)),
            )

    def items(self, inputs: Iterable[Path]) -> list[PredictionItem]:
        """Return the images in files and folders."""
        finder = ImageFinder(self._facts.channels, self._facts.image_names or ImageNames())
        images, notes = finder.find(inputs)
        for note in notes:
            _LOGGER.info("%s", note)
        self._paths = {image.name: image.paths for image in images}
        return [
            PredictionItem(
                image.name,
                tuple(file for path in image.paths for file in files_of(path)),
                image.problem or self._taken(image.name),
            )
            for image in images
        ]

    def _taken(self, name: str) -> str | None:
        """Return why the mask of an image cannot be written, if the probabilities of another one have its name."""
        other = name.removesuffix("_probabilities")
        if name == other or other not in self._paths or self._per_class or not self._settings.probabilities:
            return None
        return f"{name}.nii.gz would be its mask and the probabilities of {other}: predict it into another folder"

    def predict(self, item: PredictionItem, folder: Path) -> str:
        """Predict the mask of an image and write it; return the volume of each class."""
        settings, facts = self._settings, self._facts
        case = FileCase(
            item.name,
            item.name,
            self._paths[item.name],
            None,
            channels=facts.num_channels,
            spacing_mm=facts.file_spacing_mm,
        )
        prepared = self._preparation.prepare(case)
        grid = prepared.grid
        self._doubt_flips([grid.affine])
        shape = (grid.shape[0], grid.shape[1], grid.shape[2])
        windows = self._windows or Windows(shape, 0.0, "constant")
        axis = thinnest_axis(shape, windows.size)
        planes_PKUV = stream_scores(
            torch.from_numpy(prepared.image_CXYZ),
            self._score,
            windows,
            axis,
            self._device,
            keep_on=self._memory_for_scores(shape, windows, axis),
            tell=partial(self._tell_windows, windows.count(shape)),
        )
        kept = [stop - start for start, stop in grid.box]
        others = [other for other in range(3) if other != axis]
        own_PKUV = stretch_planes(planes_PKUV, shape[axis], kept[axis], [kept[other] for other in others])
        results = Results(
            classes=facts.classes,
            exclusive=facts.exclusive,
            values=self._values,
            per_class=self._per_class,
            are_logits=self._combine == "logits",
            grid=grid,
            axis=axis,
            header=prepared.header,
            folder=folder,
            name=item.name,
            probabilities=settings.probabilities,
            cleaning=settings.post_processing,
        )
        return results.write(own_PKUV)

    def _doubt_flips(self, affines: Sequence[Array]) -> None:
        """Warn once if flips go from left to right, and classes differ in their side.

        Args:
            affines: Those of images that are predicted. They say which axis that is if the run has no orientation.
        """
        sideways = left_right_axes(affines, self._facts.preprocessing.get("orientation"))
        if not self._doubts_flips or not sideways & {"xyz".index(axis) for axis in self._settings.flips}:
            return
        self._doubts_flips = False
        if pairs := sided_pairs(self._facts.classes):
            _LOGGER.warning(
                "predict.flips mirrors from left to right, which shows %s the wrong way round: leave that axis out",
                some_of([f"{one} and {other}" for one, other in pairs], most=3),
            )

    def _memory_for_scores(self, shape: tuple[int, int, int], windows: Windows, axis: int) -> torch.device:
        """Return the device on which scores are added up: that of the network, if they fit there."""
        if self._device.type != "cuda":
            return torch.device("cpu") if self._device.type == "mps" else self._device
        padded = [max(edge, length) for edge, length in zip(windows.size, shape, strict=True)]
        values = math.prod(padded) // padded[axis] * windows.size[axis] * (len(self._facts.classes) + 2)
        free, _ = torch.cuda.mem_get_info(self._device)
        return self._device if 4 * values < free // 3 else torch.device("cpu")

    def _tell_windows(self, total: int, done: int) -> None:
        self._tell(Progress(done, total, "windows"))


def _combination(settings: SegmentationPredictor, num_networks: int) -> Literal["logits", "probabilities"]:
    """Return what is averaged, and say it where something is."""
    many = num_networks > 1 or bool(settings.flips)
    usual: Literal["logits", "probabilities"] = "probabilities" if many else "logits"
    chosen = usual if settings.combine == "auto" else settings.combine
    if many:
        networks = f"{num_networks} networks" if num_networks > 1 else "one network"
        mirrored = f" and {2 ** len(settings.flips)} mirrored forms of each window" if settings.flips else ""
        _LOGGER.info("averaged are the %s of %s%s", chosen, networks, mirrored)
    return chosen


def _common_windows(settings: SegmentationPredictor, members: tuple[Member, ...]) -> Windows | None:
    """Return how windows cover an image; None: the networks take it as a whole, as in their validation.

    Raises:
        CheckpointError: Networks take windows of other sizes.
    """
    found = [_windows(settings, member) for member in members]
    if any(each != found[0] for each in found):
        sizes = " and ".join(sorted({"the whole image" if each is None else str(each.size) for each in found}))
        raise CheckpointError(
            f"the networks were validated with other windows ({sizes}); set one for all with "
            "--set predict.window_size=[…], predict.overlap and predict.blending"
        )
    return found[0]


def _windows(settings: SegmentationPredictor, member: Member) -> Windows | None:
    run = member.inference
    usual = run if isinstance(run, SlidingWindow) else SlidingWindow()
    given = (settings.window_size, settings.overlap, settings.blending, settings.windows_at_once)
    if not isinstance(run, SlidingWindow) and all(each is None for each in given):
        return None
    return Windows(
        size=settings.window_size or usual.window_size or member.data.patch_size,
        overlap=usual.overlap if settings.overlap is None else settings.overlap,
        blending=settings.blending or usual.blending,
        at_once=settings.windows_at_once or usual.windows_at_once,
    )


def _function(member: Member, whole: bool) -> Callable[[Any, Any], Any]:
    """Return (model, batch) -> outputs: of the run's inference if it takes whole images, else the network's own."""
    return member.inference.build(member.data) if whole else lambda model, batch: model(batch)


def _logits(function: Callable[[Any, Any], Any], member: Member, channels: slice, image_BCXYZ: Tensor) -> Tensor:
    logits: Tensor = function(member.model, {"image": image_BCXYZ[:, channels]})["logits"]
    if not bool(torch.isfinite(logits).all()):
        raise DataError(f"the scores of {member.name} are not finite: NaN or infinite")
    return logits
