"""Predicts the masks of images: from files to files, a few planes at a time.

Shapes: K = scores, P = planes along the axis of the rows of windows, U, V = the other two axes of the network's
orientation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainkit import Member, PredictionItem, Progress, RecipeError, did_you_mean, some_of
from trainkit_segmentation.cases.case import FileCase
from trainkit_segmentation.cases.image_names import ImageNames
from trainkit_segmentation.cases.sides import sided_pairs
from trainkit_segmentation.files.header import Array
from trainkit_segmentation.files.images import files_of
from trainkit_segmentation.prediction.images import ImagePreparation
from trainkit_segmentation.prediction.inputs import ImageFinder
from trainkit_segmentation.prediction.label_values import label_values
from trainkit_segmentation.prediction.members import common_facts
from trainkit_segmentation.prediction.results import ADDED, Results
from trainkit_segmentation.prediction.scoring import OwnScores, averages, combination
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
        self._settings = settings
        self._facts = facts = common_facts(members)
        self._paths: dict[str, tuple[Path, ...]] = {}
        self._preparation = ImagePreparation(members, settings.nan_as_zero)
        self._combine = combination(settings, len(members))
        self._scores = OwnScores(settings, members, self._preparation.channels, self._combine, device, tell)
        if averages(settings, len(members)):
            networks = f"{len(members)} networks" if len(members) > 1 else "one network"
            mirrored = f" and {2 ** len(settings.flips)} mirrored forms of each window" if settings.flips else ""
            _LOGGER.info("averaged are the %s of %s%s", self._combine, networks, mirrored)
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
        if new := [axis for axis in settings.flips if _never_mirrored("xyz".index(axis), members)]:
            _LOGGER.warning(
                "predict.flips mirrors along %s, along which no patch was mirrored in training, so the network never "
                "saw such images: leave %s out",
                " and ".join(new),
                "it" if len(new) == 1 else "them",
            )
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
        for what in ADDED if not self._per_class else ():
            other = name.removesuffix(f"_{what}")
            if getattr(self._settings, what) and name != other and other in self._paths:
                return f"{name}.nii.gz would be its mask and the {what} of {other}: predict it into another folder"
        return None

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
        axis, own_PKUV = self._scores.planes(torch.from_numpy(prepared.image_CXYZ), grid)
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
            entropy=settings.entropy,
            temperature=settings.temperature or 1.0,
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


def _never_mirrored(axis: int, members: Sequence[Member]) -> bool:
    """Return whether a network is known not to have seen patches that are mirrored along an axis."""
    known = [member.data.mirrored_axes for member in members]
    return any(axes is not None and axis not in axes for axes in known)
