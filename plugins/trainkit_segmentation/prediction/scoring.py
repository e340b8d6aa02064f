"""Scores of whole images by trained networks, on each image's own voxels, a few planes at a time.

Shapes: C = channels, K = scores, P = planes along the axis of the rows of windows, U, V = the other two axes of the
network's orientation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from trainkit import CheckpointError, DataError, Member, Progress
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.inference.sliding_window import SlidingWindow
from trainkit_segmentation.prediction.members import Scores
from trainkit_segmentation.prediction.own_planes import stretch_planes
from trainkit_segmentation.prediction.windows import Windows, stream_scores, thinnest_axis
from trainkit_segmentation.preparing.grid import Grid

if TYPE_CHECKING:
    from trainkit_segmentation.prediction.segmentation import SegmentationPredictor


class OwnScores:
    """Scores of images by networks that predict together.

    Args:
        settings: How they predict.
        members: The networks.
        channels: For each network, which channels of an image are its own.
        combine: What is averaged.
        device: Their device.
        tell: Shows how far the prediction of an image is.

    Raises:
        CheckpointError: The networks were validated with other windows.
    """

    def __init__(
        self,
        settings: SegmentationPredictor,
        members: Sequence[Member],
        channels: Sequence[slice],
        combine: Literal["logits", "probabilities"],
        device: torch.device,
        tell: Callable[[Progress], None],
    ) -> None:
        self._windows = _common_windows(settings, members)
        whole = self._windows is None
        networks = tuple(
            partial(_logits, _function(member, whole), member, of_member)
            for member, of_member in zip(members, channels, strict=True)
        )
        facts: SegmentationFacts = members[0].data
        self._score = Scores(networks, settings.flips, facts.exclusive, combine)
        self._num_classes = len(facts.classes)
        self._device, self._tell = device, tell

    def planes(self, image_CXYZ: Tensor, grid: Grid) -> tuple[int, Iterator[Tensor]]:
        """Return the axis of the network's grid along which planes come, and the planes (P, K, U, V), float32.

        They cover the box of the grid, and each is overwritten when the next ones are asked for.

        Args:
            image_CXYZ: The image on the network's grid, on the CPU.
            grid: Position of this grid in the image's own.
        """
        shape = (grid.shape[0], grid.shape[1], grid.shape[2])
        windows = self._windows or Windows(shape, 0.0, "constant")
        axis = thinnest_axis(shape, windows.size)
        planes_PKUV = stream_scores(
            image_CXYZ,
            self._score,
            windows,
            axis,
            self._device,
            keep_on=self._memory_for_scores(shape, windows, axis),
            tell=partial(self._tell_windows, windows.count(shape)),
        )
        kept = [stop - start for start, stop in grid.box]
        others = [other for other in range(3) if other != axis]
        return axis, stretch_planes(planes_PKUV, shape[axis], kept[axis], [kept[other] for other in others])

    def _memory_for_scores(self, shape: tuple[int, int, int], windows: Windows, axis: int) -> torch.device:
        """Return the device on which scores are added up: that of the network, if they fit there."""
        if self._device.type != "cuda":
            return torch.device("cpu") if self._device.type == "mps" else self._device
        padded = [max(edge, length) for edge, length in zip(windows.size, shape, strict=True)]
        values = math.prod(padded) // padded[axis] * windows.size[axis] * (self._num_classes + 2)
        free, _ = torch.cuda.mem_get_info(self._device)
        return self._device if 4 * values < free // 3 else torch.device("cpu")

    def _tell_windows(self, total: int, done: int) -> None:
        self._tell(Progress(done, total, "windows"))


def combination(settings: SegmentationPredictor, num_networks: int) -> Literal["logits", "probabilities"]:
    """Return what is averaged.

    Args:
        settings: How networks predict.
        num_networks: How many predict together.
    """
    if settings.combine != "auto":
        return settings.combine
    return "probabilities" if averages(settings, num_networks) else "logits"


def averages(settings: SegmentationPredictor, num_networks: int) -> bool:
    """Return whether several scores of a window are averaged."""
    return num_networks > 1 or bool(settings.flips)


def _common_windows(settings: SegmentationPredictor, members: Sequence[Member]) -> Windows | None:
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
