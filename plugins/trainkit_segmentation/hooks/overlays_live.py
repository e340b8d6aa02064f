"""Pictures of predictions: chooses cases, and keeps the planes that will be drawn.

Shapes: L = 1 or classes, K = classes, X, Y, Z = voxels along the file's axes, N = voxels along one of them, H, W = rows
and columns of a plane as it is shown.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit import DataError, Live, State, some_of
from trainkit_segmentation.hooks.overlay_panel import Image, Plane, packed
from trainkit_segmentation.hooks.overlay_picture import ShownCase, draw
from trainkit_segmentation.hooks.views import View, views
from trainkit_segmentation.metrics.overlap import counts, dice
from trainkit_segmentation.spelling import spelled_alike

_MOST_LOOKED_AT = 1_000_000  # voxels whose values decide what is black and what is white
_EMPTY_SHARE = 0.1  # of all voxels: if as many have the value of the corner, that is the value of empty surroundings


class LiveOverlays(Live):
    """Keeps three planes of each case that may be drawn, when validation reaches the case.

    Args:
        cases: Names of held-out cases; empty: they are chosen.
        num_cases: Number of these.
        channel: Channel of the image that is shown.
        ranked_by: Whether they are spread by their mean Dice, or the worst of single classes.
    """

    def __init__(
        self, cases: tuple[str, ...], num_cases: int, channel: int, ranked_by: Literal["mean", "class"]
    ) -> None:
        self._wanted = cases
        self._ranked_by = ranked_by
        self._num_cases = num_cases
        self._channel = channel
        self._kept: dict[str, ShownCase] = {}  # by name: those that this process has evaluated of the current split
        self._shown: dict[str, list[ShownCase]] = {}  # split -> what is drawn of its last validation
        self._seen: set[str] = set()
        self._classes: tuple[str, ...] = ()

    def on_run_start(self, state: State) -> None:
        """Check that the images have the channel that will be shown."""
        data: Any = state.data
        self._classes = tuple(data.classes)
        if self._channel >= data.num_channels:
            raise DataError(
                f"segmentation_overlays: channel = {self._channel}, but the images have {data.num_channels}, from 0 on"
            )

    def on_validation_start(self, state: State) -> None:
        """Forget the cases of the last validation."""
        self._kept = {}

    def on_validation_step_end(self, state: State) -> None:
        """Keep the planes of a case if it may be drawn."""
        assert state.batch is not None
        case = state.batch["case"]
        self._seen.add(case)
        if not self._wanted or case in self._wanted:
            self._kept[case] = _kept(state, case, self._channel)

    def on_validation_end(self, state: State) -> None:
        """Choose among the cases of all processes; of the chosen ones alone, planes are kept and exchanged."""
        assert state.split is not None
        exchange, own, self._kept = state.context.exchange, self._kept, {}
        self._seen = set().union(*exchange.gather(self._seen))
        candidates = exchange.gather([attrs.evolve(case, planes=()) for case in own.values()])
        chosen = self._chosen([case for each in candidates for case in each])
        planes = exchange.gather({case.name: own[case.name].planes for case in chosen if case.name in own})
        of_case = {name: each for of_process in planes for name, each in of_process.items()}
        self._shown[state.split] = [attrs.evolve(case, planes=of_case[case.name]) for case in chosen]

    def on_picture(self, state: State) -> None:
        """Draw the cases that were chosen in the last validation."""
        shown, self._shown = self._shown, {}
        if state.context.rank != 0:
            return
        if self._seen and (unknown := set(self._wanted) - self._seen):
            alike = spelled_alike(min(unknown), self._seen)
            raise DataError(
                f'segmentation_overlays: there is no held-out case "{min(unknown)}"; '
                + (f'there is "{alike[0]}"' if alike else f"there are {len(self._seen)} others")
            )
        data: Any = state.data
        when = f"{state.epoch + 1} epoch{'s' * (state.epoch > 0)}" if state.closing else f"step {state.step}"
        for split, chosen in shown.items():
            if chosen:
                channel = data.facts()["channels"][self._channel]
                title = f"{state.folder.parent.name}, {when}, {split}: {channel}"
                name = "overlay" if len(shown) == 1 else f"overlay_{split}"
                state.picture(name, draw(chosen, data.classes, title), rank=10)

    def _chosen(self, cases: Collection[ShownCase]) -> list[ShownCase]:
        """Return the cases to draw, the worst first."""
        ranked = sorted(cases, key=lambda case: (case.score, case.name))
        if self._ranked_by == "class" and not self._wanted:
            return _worst_of_classes(cases, self._classes)[: self._num_cases]
        if self._wanted or len(ranked) <= self._num_cases:
            return ranked
        if self._num_cases == 1:
            places = [(len(ranked) - 1) // 2]
        else:
            places = [place * (len(ranked) - 1) // (self._num_cases - 1) for place in range(self._num_cases)]
        return [attrs.evolve(ranked[place], standing=_standing(place, len(ranked))) for place in places]


def _worst_of_classes(cases: Collection[ShownCase], classes: Sequence[str]) -> list[ShownCase]:
    """Return the case with the lowest Dice of each class, those of the lowest first, each case once."""
    worst: dict[str, list[str]] = {}
    lowest = []
    for k, name in enumerate(classes):
        known = [(case.dice_K[k], case.name) for case in cases if case.has_truth_of(k)]
        if known:
            score, case = min(known)
            lowest.append((score, case))
            worst.setdefault(case, []).append(name)
    by_name = {case.name: case for case in cases}
    return [
        attrs.evolve(by_name[name], standing=f"the worst of {some_of(worst[name])}")
        for name in dict.fromkeys(name for _, name in sorted(lowest))
    ]


def _standing(place: int, number: int) -> str:
    """Return what a case is shown for.

    Args:
        place: Its place, 0 for the worst.
        number: Number of cases.
    """
    if place in (0, number - 1):
        return f"the {'best' if place else 'worst'} of {number}"
    return f"the median of {number}" if place == (number - 1) // 2 else f"{place + 1} of {number} from the worst"


def _kept(state: State, case: str, channel: int) -> ShownCase:
    data: Any = state.data
    assert state.batch is not None
    assert state.outputs is not None
    true_LXYZ, found_LXYZ = data.truth(case).cpu(), data.prediction(state.outputs, state.batch).cpu()
    ignored_XYZ = data.ignored(case)
    counted_LXYZ = found_LXYZ if ignored_XYZ is None else found_LXYZ.masked_fill(ignored_XYZ, 0)
    dice_K = dice(counts(counted_LXYZ, true_LXYZ, len(data.classes), data.exclusive)).tolist()
    looked_at_LXYZ = true_LXYZ if true_LXYZ.any() else counted_LXYZ

    image_XYZ, black, white = _shades(state.batch["image"][0, channel])
    affine = np.asarray(data.affine(case))
    planes = []
    for view in _with_area(views(affine, data.has_form(case)), true_LXYZ.shape[1:]):
        index = _fullest(looked_at_LXYZ, len(data.classes), data.exclusive, view.across)
        image_HW = data.plane_to_original(image_XYZ, case, view.across, index).cpu().numpy()
        planes.append(
            Plane(
                view,
                view.position(index, affine, data.has_form(case)),
                view.seen(_grey(image_HW, black, white)),
                packed(view.seen(each.numpy()) for each in data.masks(true_LXYZ.select(view.across + 1, index))),
                packed(view.seen(each.numpy()) for each in data.masks(found_LXYZ.select(view.across + 1, index))),
                None if ignored_XYZ is None else view.seen(ignored_XYZ.cpu().select(view.across, index).numpy()),
            )
        )
    annotated_K = state.batch["annotated"][0].tolist() if "annotated" in state.batch else None
    in_truth_K = [bool(mask.any()) for mask in data.masks(true_LXYZ)]
    return ShownCase(case, "", planes, dice_K, annotated_K, data.has_spacing(case), in_truth_K)


def _with_area(seen: tuple[View, ...], shape: tuple[int, ...]) -> list[View]:
    """Return the views that are not lines: of a case of one slice, only that slice."""
    flat = [view for view in seen if shape[view.across] == 1]
    return flat[:1] or list(seen)


def _fullest(labels_LXYZ: Tensor, num_classes: int, exclusive: bool, across: int) -> int:
    """Return the plane across an axis that shows most of the classes, all of which count alike."""
    areas_NK = _areas(labels_LXYZ, num_classes, exclusive, across).double()
    largest_K = areas_NK.amax(0)
    if not largest_K.any():
        return len(areas_NK) // 2
    return int((areas_NK / largest_K.clamp(min=1)).sum(1).argmax())


def _areas(labels_LXYZ: Tensor, num_classes: int, exclusive: bool, across: int) -> Tensor:
    """Return the number of voxels of each class in each plane across an axis, (N, K)."""
    if not exclusive:
        others = tuple(axis for axis in range(3) if axis != across)
        return torch.from_numpy(np.stack([np.count_nonzero(each, axis=others) for each in labels_LXYZ.numpy()], axis=1))
    planes_NHW = labels_LXYZ[0].movedim(across, 0)
    counted = [torch.bincount(plane_HW.reshape(-1).long(), minlength=num_classes + 1)[1:] for plane_HW in planes_NHW]
    return torch.stack(counted)


def _shades(image_XYZ: Tensor) -> tuple[Tensor, float, float]:
    """Return an image whose empty surroundings are black, and the values for black and white."""
    every = max(1, round((image_XYZ.numel() / _MOST_LOOKED_AT) ** (1 / 3)))
    few_XYZ = image_XYZ[::every, ::every, ::every]
    # Around a skull-stripped head all voxels have one value, which normalisation may have changed.
    corner = image_XYZ[0, 0, 0]
    is_empty = bool((few_XYZ == corner).float().mean() > _EMPTY_SHARE) and bool(corner < few_XYZ.max())
    seen = (few_XYZ[few_XYZ != corner] if is_empty else few_XYZ).cpu().numpy()
    black, white = np.percentile(seen, (1, 99.5)).tolist()
    return image_XYZ.masked_fill(image_XYZ == corner, black) if is_empty else image_XYZ, black, white


def _grey(image_HW: NDArray[Any], black: float, white: float) -> Image:
    shade_HW = np.clip((image_HW - black) / max(white - black, 1e-12), 0.0, 1.0)
    return np.asarray(np.rint(255 * shade_HW), dtype=np.uint8)
