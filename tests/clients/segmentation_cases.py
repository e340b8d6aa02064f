"""Writes tiny made-up cases in the folder layouts of the real data sets: an ellipsoid with parts, in noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

SIZE = (20, 24, 18)
SPACING_MM = (1.0, 1.0, 1.5)

BRATS_FILES = {
    "2021": ("_t1", "_t1ce", "_t2", "_flair", "_seg"),
    "2023": ("-t1n", "-t1c", "-t2w", "-t2f", "-seg"),
    "2024": ("-t1n", "-t1c", "-t2w", "-t2f", "-seg"),
}
BRATS_CASES = {"2021": "BraTS2021_{:05d}", "2023": "BraTS-GLI-{:05d}-000", "2024": "BraTS-GLI-{:05d}-100"}
BRATS_VALUES = {"2021": (0, 2, 1, 4), "2023": (0, 2, 1, 3), "2024": (0, 2, 1, 3, 4)}
"""Label values from the outside in: background, edema, necrosis, enhancing tumour, resection cavity."""


def shells(number: int, count: int, size: Sequence[int] = SIZE) -> np.ndarray[Any, Any]:
    """Return a map (X, Y, Z) of nested ellipsoids, 0 outside, 1 … count inwards; each number has them elsewhere."""
    rng = np.random.default_rng(number)
    extent = np.asarray(size, dtype=float)
    centre = extent * rng.uniform(0.42, 0.58, 3)
    radii = extent * rng.uniform(0.3, 0.38, 3)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
    distance = np.sqrt((((grid - centre) / radii) ** 2).sum(axis=-1))
    return np.sum([distance < (count - k) / count for k in range(count)], axis=0).astype(np.uint8)


def image_of(map_XYZ: np.ndarray[Any, Any], number: int) -> np.ndarray[Any, Any]:
    """Return an int16 image (X, Y, Z) that shows the map in noise."""
    rng = np.random.default_rng(1000 + number)
    return (200.0 * (1 + map_XYZ) + rng.normal(0, 40, map_XYZ.shape)).clip(1).astype(np.int16)


def save(path: Path, array: np.ndarray[Any, Any], affine: np.ndarray[Any, Any] | None = None) -> Path:
    """Write an array as NIfTI; without an affine, with `SPACING_MM` along axes to the right, front and top."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*SPACING_MM, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def brats(folder: Path, edition: str = "2021", cases: int = 4, size: Sequence[int] = SIZE) -> Path:
    """Write BraTS cases of the edition "2021", "2023" or "2024"."""
    values = np.array(BRATS_VALUES[edition], dtype=np.uint8)
    for number in range(cases):
        name = BRATS_CASES[edition].format(number)
        map_XYZ = shells(number, len(values) - 1, size)
        *modalities, seg = BRATS_FILES[edition]
        for channel, suffix in enumerate(modalities):
            save(folder / name / f"{name}{suffix}.nii.gz", image_of(map_XYZ, 10 * number + channel))
        save(folder / name / f"{name}{seg}.nii.gz", values[map_XYZ])
    return folder


def msd(folder: Path, channels: int = 1, cases: int = 5, size: Sequence[int] = SIZE) -> Path:
    """Write a Decathlon task: 3-D images, or 4-D ones where there are several channels."""
    entries = []
    for number in range(cases):
        name = f"case_{number:03d}.nii.gz"
        map_XYZ = shells(number, 2, size)
        image = np.stack([image_of(map_XYZ, 10 * number + channel) for channel in range(channels)], axis=-1)
        save(folder / "imagesTr" / name, image if channels > 1 else image[..., 0])
        save(folder / "labelsTr" / name, map_XYZ)
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    content = {
        "name": "Made up",
        "tensorImageSize": "4D" if channels > 1 else "3D",
        "modality": {str(channel): f"MR{channel}" for channel in range(channels)},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "numTraining": cases,
        "training": entries,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def nnunet(
    folder: Path, channels: int = 2, cases: int = 5, size: Sequence[int] = SIZE, *, regions: bool = False
) -> Path:
    """Write raw data of nnU-Net version 2: a file a channel; with regions, classes that overlap."""
    for number in range(cases):
        map_XYZ = shells(number, 2, size)
        for channel in range(channels):
            save(
                folder / "imagesTr" / f"case_{number:03d}_{channel:04d}.nii.gz",
                image_of(map_XYZ, 10 * number + channel),
            )
        save(folder / "labelsTr" / f"case_{number:03d}.nii.gz", map_XYZ)
    labels = {"background": 0, "whole": [1, 2], "core": 2} if regions else {"background": 0, "rim": 1, "core": 2}
    content: dict[str, Any] = {
        "channel_names": {str(channel): f"MR{channel}" for channel in range(channels)},
        "labels": labels,
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    if regions:
        content["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


STRUCTURES = ("kidney_left", "kidney_right", "liver")


def totalsegmentator(folder: Path, cases: int = 4, size: Sequence[int] = SIZE, *, overlapping: bool = False) -> Path:
    """Write TotalSegmentator subjects with the masks `STRUCTURES`; overlapping: the liver covers the kidneys too."""
    for number in range(cases):
        subject = folder / f"s{number:04d}"
        map_XYZ = shells(number, 3, size)
        save(subject / "ct.nii.gz", (image_of(map_XYZ, number) - 500).astype(np.int16))
        for value, structure in enumerate(STRUCTURES, start=1):
            inside = map_XYZ >= 1 if overlapping and structure == "liver" else map_XYZ == value
            save(subject / "segmentations" / f"{structure}.nii.gz", inside.astype(np.uint8))
    return folder
