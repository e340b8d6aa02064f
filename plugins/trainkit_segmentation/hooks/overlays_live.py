"""Pictures of predictions: chooses cases, and keeps the planes that will be drawn.

Shapes: L = 1 or classes, X, Y, Z = voxels along the file's axes; after turning, to the right, the front and the top.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import torch
from nibabel import orientations
from numpy.typing import NDArray
from torch import Tensor

from trainkit import DataError, Live, State
from trainkit_segmentation.hooks.overlay_picture import Plane, draw
from trainkit_segmentation.metrics.overlap import counts, dice
from trainkit_segmentation.spelling import safe_name, spelled_alike

_PLANES = ("axial", "coronal", "sagittal")
_ACROSS = (2, 1, 0)  # the axis that each plane lies across


@attrs.frozen
class _Shown:
    planes: list[Plane]
    dice_K: list[float]
    annotated_K: list[bool] | None
    foreground: int


class LiveOverlays(Live):
    """Keeps three planes of each case to be drawn, when validation reaches the case.

    Args:
        cases: Names of held-out cases; empty: the case with the most foreground.
        channel: Channel of the image that is shown.
    """

    def __init__(self, cases: tuple[str, ...], channel: int) -> None:
        self._wanted = cases
        self._channel = channel
        self._shown: dict[str, _Shown] = {}
        self._seen: set[str] = set()

    def on_run_start(self, state: State) -> None:
        """Check that the images have the channel that will be shown."""
        data: Any = state.data
        if self._channel >= data.num_channels:
            raise DataError(
                f"segmentation_overlays: channel = {self._channel}, but the images have {data.num_channels}, from 0 on"
            )

    def on_validation_start(self, state: State) -> None:
        """Forget the cases of the last validation."""
        self._shown, self._seen = {}, set()

    def on_validation_step_end(self, state: State) -> None:
        """Keep the planes of a case if it may be drawn."""
        data: Any = state.data
        assert state.batch is not None
        case = state.batch["case"]
        self._seen.add(case)
        if self._wanted and case not in self._wanted:
            return
        true_LXYZ = data.truth(case).cpu()
        foreground = int((true_LXYZ > 0).any(0).sum())
        if not self._wanted:
            if any(shown.foreground >= foreground for shown in self._shown.values()):
                return
            self._shown = {}
        self._shown[case] = self._planes(state, case, true_LXYZ, foreground)

    def on_picture(self, state: State) -> None:
        """Draw the planes of the last validation."""
        if self._seen and (unknown := set(self._wanted) - self._seen):
            alike = spelled_alike(min(unknown), self._seen)
            raise DataError(
                f'segmentation_overlays: there is no held-out case "{min(unknown)}"; '
                + (f'there is "{alike[0]}"' if alike else f"there are {len(self._seen)} others")
            )
        data: Any = state.data
        for case, shown in self._shown.items():
            name = "overlay" if len(self._shown) == 1 and not self._wanted else f"overlay_{safe_name(case)}"
            caption = f"{case}, {state.epoch + 1} epoch{'s' * (state.epoch > 0)}"
            state.picture(name, draw(shown.planes, data.classes, shown.dice_K, caption, shown.annotated_K))
        self._shown = {}

    def _planes(self, state: State, case: str, true_LXYZ: Tensor, foreground: int) -> _Shown:
        data: Any = state.data
        assert state.batch is not None
        assert state.outputs is not None
        found_LXYZ = data.prediction(state.outputs, state.batch).cpu()
        ignored_XYZ = data.ignored(case)
        counted_LXYZ = found_LXYZ if ignored_XYZ is None else found_LXYZ.masked_fill(ignored_XYZ, 0)
        image_XYZ, black, white = _shades(state.batch["image"][0, self._channel])
        # Resampled like scores: cropped voxels become background, channel 0, so the other channel is lowest there.
        image_1XYZ = data.to_original(torch.stack([torch.zeros_like(image_XYZ), image_XYZ]), case)[1:]
        dice_K = dice(counts(counted_LXYZ, true_LXYZ, len(data.classes), data.exclusive)).tolist()

        affine = np.asarray(data.affine(case))
        turn = orientations.io_orientation(affine)  # type: ignore[no-untyped-call]
        spacing = np.linalg.norm(affine[:3, :3], axis=0)[np.argsort(turn[:, 0])]

        def turned(array_LXYZ: Tensor) -> Tensor:
            apply: Any = orientations.apply_orientation
            return torch.from_numpy(np.stack([apply(each, turn) for each in array_LXYZ.cpu().numpy()]))

        image_1XYZ, found_LXYZ, true_LXYZ = turned(image_1XYZ), turned(found_LXYZ), turned(true_LXYZ)
        if ignored_XYZ is not None:
            ignored_XYZ = turned(ignored_XYZ[None])[0]
        inside_XYZ = (true_LXYZ > 0).any(0)
        flat = [axis for axis in range(3) if inside_XYZ.shape[axis] == 1]
        planes = []
        for title, across in zip(_PLANES, _ACROSS, strict=True):
            if len(flat) == 1 and across != flat[0]:
                continue  # of a case of one slice, the other planes are lines
            others = tuple(axis for axis in range(3) if axis != across)
            index = int(inside_XYZ.sum(others).argmax()) if inside_XYZ.any() else inside_XYZ.shape[across] // 2
            right, up = others
            planes.append(
                Plane(
                    title=f"{title}, slice {index}",
                    image_HW=_as_seen(image_1XYZ[0].select(across, index)),
                    found_KHW=np.stack([*map(_as_seen, data.masks(found_LXYZ.select(across + 1, index)))]),
                    true_KHW=np.stack([*map(_as_seen, data.masks(true_LXYZ.select(across + 1, index)))]),
                    aspect=float(spacing[up] / spacing[right]),
                    grey=(black, white),
                    ignored_HW=None if ignored_XYZ is None else _as_seen(ignored_XYZ.select(across, index)),
                )
            )
        annotated_K = state.batch["annotated"][0].tolist() if "annotated" in state.batch else None
        return _Shown(planes, dice_K, annotated_K, foreground)


def _shades(image_XYZ: Tensor) -> tuple[Tensor, float, float]:
    """Return an image whose empty surroundings are black, and the values for black and white."""
    # Around a skull-stripped head all voxels have one value, which normalisation may have changed.
    empty_XYZ = image_XYZ == image_XYZ[0, 0, 0]
    seen = image_XYZ[~empty_XYZ].cpu().numpy()
    black, white = np.percentile(seen, (1, 99.5)).tolist() if len(seen) else (0.0, 1.0)
    return image_XYZ.masked_fill(empty_XYZ, black), black, white


def _as_seen(plane: Tensor) -> NDArray[Any]:
    """Return a plane (right or front, front or top) for display: the second axis up, the first to the left."""
    return np.ascontiguousarray(plane.numpy()[::-1, ::-1].T)
