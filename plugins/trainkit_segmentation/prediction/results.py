"""The files of a prediction: planes of scores become a mask, or one for each class, and probabilities.

Shapes: K = scores, P = planes along one axis, U, V = the other two axes, X, Y, Z = voxels of the case's own grid.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from trainkit import some_of
from trainkit_segmentation.data.label_maps import most_likely
from trainkit_segmentation.files.header import Array, Header, voxel_volume_ml
from trainkit_segmentation.files.nifti_writing import write_nifti
from trainkit_segmentation.prediction.cleaning import Cleaning
from trainkit_segmentation.prediction.cleaning_live import unlikely_parts
from trainkit_segmentation.prediction.confidence import entropy_of, most_entropy, probabilities_at
from trainkit_segmentation.prediction.label_values import LabelValues
from trainkit_segmentation.preparing.grid import Grid
from trainkit_segmentation.spelling import safe_name

ADDED = ("probabilities", "entropy")
"""What can be written beside the mask of a case, ``case_probabilities.nii.gz``: settings have these names."""

_ONE = 65535  # a probability of 1, as it is stored in 16 bits


@attrs.frozen
class Results:
    """Writes the files of one image.

    Attributes:
        classes: The foreground classes.
        exclusive: Whether a voxel has at most one class.
        values: The values of a label file; None: no such file can hold the classes.
        per_class: Whether each class gets a file of its own.
        are_logits: Whether scores are logits, not probabilities.
        grid: Position of the network's grid in the image's own.
        axis: The axis of the network's grid along which planes come.
        header: Header of the image.
        folder: The folder for the files.
        name: Name of the image.
        probabilities: Whether probabilities are written as well.
        entropy: Whether the entropy is written as well.
        temperature: What logits are divided by for these two.
        cleaning: Class -> what is removed from its mask.
    """

    classes: tuple[str, ...]
    exclusive: bool
    values: LabelValues | None
    per_class: bool
    are_logits: bool
    grid: Grid
    axis: int
    header: Header
    folder: Path
    name: str
    probabilities: bool
    entropy: bool
    temperature: float
    cleaning: Mapping[str, Cleaning]

    def write(self, planes_PKUV: Iterable[Tensor]) -> str:
        """Write the files from planes of scores that cover the box of the grid; return the volume of each class."""
        with tempfile.TemporaryFile(dir=self.folder) as stored:
            found: Array | None = None
            begin = self.grid.box[self.axis][0]
            for scores_PKUV in planes_PKUV:
                part = self._compact(scores_PKUV)
                if found is None:
                    found = self._empty(part)
                found[(slice(None), *self._place(begin, len(part[0])))] = np.moveaxis(part, 1, 1 + self.axis)
                if self.probabilities or self.entropy:
                    stored.write(self._quantised(scores_PKUV).tobytes())
                begin += len(part[0])
            assert found is not None
            removed = [name for name, cleaning in self.cleaning.items() if self._clean(found, name, cleaning)]
            self._write_masks(found)
            self._write_added(stored)
        voxels = zip(self.classes, self._count(found), strict=True)
        volumes = some_of([f"{name} {_rounded(n * self._voxel_ml)} ml" for name, n in voxels if n])
        note = f"; post-processing removed all of {some_of(removed)}" if removed else ""
        return (volumes or "nothing was found") + note

    @property
    def _voxel_ml(self) -> float:
        return voxel_volume_ml(self.grid.affine)

    def _count(self, found: Array) -> list[int]:
        """Return the number of voxels of each class."""
        if self.per_class:
            return [int(np.count_nonzero(self._mask(found, k))) for k in range(len(self.classes))]
        assert self.values is not None
        voxels: Counter[int] = Counter()
        for plane in found[0]:
            values, numbers = np.unique(plane, return_counts=True)
            voxels.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
        named = list(zip(self.values.values, self.values.members, strict=True))
        return [sum(voxels[value] for value, of in named if k in of) for k in range(len(self.classes))]

    def _mask(self, found: Array, k: int) -> Array:
        """Return where a class was found."""
        if self.per_class:
            return np.asarray(found[k // 8] & (128 >> k % 8) != 0)
        assert self.values is not None
        of_class = [value for value, of in zip(self.values.values, self.values.members, strict=True) if k in of]
        return np.isin(found[0], np.array(of_class, found.dtype))

    def _clean(self, found: Array, name: str, cleaning: Cleaning) -> bool:
        """Remove unlikely parts of a class; return whether the class was there, and nothing of it is left."""
        k = self.classes.index(name)
        mask_XYZ = self._mask(found, k)
        removed_XYZ = unlikely_parts(mask_XYZ, cleaning, self._voxel_ml)
        if self.per_class:
            found[k // 8][removed_XYZ] &= 255 ^ (128 >> k % 8)
        else:
            assert self.values is not None
            found[0][removed_XYZ] = self.values.without(k, found[0][removed_XYZ])
        return bool(mask_XYZ.any()) and np.array_equal(mask_XYZ, removed_XYZ)

    def _compact(self, scores_PKUV: Tensor) -> Array:
        """Return what is kept of a few planes, (1, P, U, V) label values or (bytes, P, U, V) with a bit a class."""
        if not self.per_class:
            assert self.values is not None
            return self.values.of(scores_PKUV, are_logits=self.are_logits)[None]
        if self.exclusive:
            found_PUV = most_likely(scores_PKUV.unbind(1), exclusive=True)
            masks_PKUV = torch.stack([found_PUV == k + 1 for k in range(len(self.classes))], 1)
        else:
            masks_PKUV = scores_PKUV > (0 if self.are_logits else 0.5)
        return np.moveaxis(np.packbits(masks_PKUV.cpu().numpy(), axis=1), 1, 0)

    def _empty(self, part: Array) -> Array:
        """Return background on the turned grid of the image."""
        value = 0
        if not self.per_class:
            assert self.values is not None
            value = self.values.values[self.values.members.index(())]
        shape = tuple(self.grid.own_shape[axis] for axis in self.grid.axes)
        return np.full((len(part), *shape), value, part.dtype)

    def _place(self, begin: int, number: int) -> tuple[slice, ...]:
        place = [slice(start, stop) for start, stop in self.grid.box]
        place[self.axis] = slice(begin, begin + number)
        return tuple(place)

    def _write_masks(self, found: Array) -> None:
        if not self.per_class:
            write_nifti(self.folder / f"{self.name}.nii.gz", [self._to_own(found[0])], self.header, found.dtype)
            return
        (self.folder / self.name).mkdir()
        for k, each in enumerate(self.classes):
            mask_XYZ = self._to_own(self._mask(found, k))
            path = self.folder / self.name / f"{safe_name(each)}.nii.gz"
            write_nifti(path, [mask_XYZ], self.header, np.dtype(np.uint8))

    def _to_own(self, turned: Array) -> Array:
        """Return an array of the turned grid on the image's own grid; a view."""
        own = turned.transpose(np.argsort(self.grid.axes))
        return np.asarray(np.flip(own, tuple(axis for axis in range(3) if self.grid.flipped[axis])))

    @property
    def _num_probabilities(self) -> int:
        return (len(self.classes) + self.exclusive) if self.probabilities else 0

    def _quantised(self, scores_PKUV: Tensor) -> Array:
        """Return what is written beside the mask (P, N, U, V): probabilities, and the share of the most entropy."""
        probabilities_PKUV = probabilities_at(
            scores_PKUV, self.temperature, exclusive=self.exclusive, are_logits=self.are_logits
        )
        shares = [probabilities_PKUV] if self.probabilities else []
        if self.entropy:
            nats_PUV = entropy_of(probabilities_PKUV, exclusive=self.exclusive)
            shares.append((nats_PUV / self._most_entropy).clamp_max(1)[:, None])
        return np.asarray((torch.cat(shares, 1) * _ONE).round_().cpu().numpy().astype(np.uint16))

    @property
    def _most_entropy(self) -> float:
        return most_entropy(len(self.classes), exclusive=self.exclusive)

    def _write_added(self, stored: Any) -> None:
        """Write the files beside the mask from what was stored."""
        number, kind = self._num_probabilities, np.dtype(np.uint16)
        if self.probabilities:
            path = self.folder / f"{self.name}_probabilities.nii.gz"
            volumes = (self._to_own(self._read_back(stored, n)) for n in range(number))
            write_nifti(path, volumes, self.header, kind, num_volumes=number, slope=1 / _ONE)
        if self.entropy:
            path = self.folder / f"{self.name}_entropy.nii.gz"
            volume = self._to_own(self._read_back(stored, number))
            write_nifti(path, [volume], self.header, kind, slope=self._most_entropy / _ONE)

    def _read_back(self, stored: Any, n: int) -> Array:
        """Return the n-th of the stored volumes on the turned grid; outside of the box, there is background."""
        certain = _ONE if self.exclusive and n == 0 and self.probabilities else 0
        full = np.full(tuple(self.grid.own_shape[axis] for axis in self.grid.axes), certain, np.uint16)
        inside = np.moveaxis(full[tuple(slice(start, stop) for start, stop in self.grid.box)], self.axis, 0)
        plane = inside[0].size * 2
        for p in range(len(inside)):
            stored.seek((p * (self._num_probabilities + self.entropy) + n) * plane)
            inside[p] = np.frombuffer(stored.read(plane), np.uint16).reshape(inside[0].shape)
        return full


def _rounded(volume_ml: float) -> str:
    return f"{volume_ml:.0f}" if volume_ml >= 100 else f"{volume_ml:.3g}"
