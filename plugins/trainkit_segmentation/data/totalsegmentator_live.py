"""Finds TotalSegmentator subjects and their masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit import DataError, did_you_mean, some_of
from trainkit_segmentation.cases.case import CaseList, FileCase
from trainkit_segmentation.cases.image_names import ImageNames
from trainkit_segmentation.cases.labels import one_mask_each
from trainkit_segmentation.spelling import Folders, composed, stem_of

if TYPE_CHECKING:
    from trainkit_segmentation.data.totalsegmentator import TotalSegmentator


_IMAGES = ("ct.nii.gz", "mri.nii.gz")
_ENDING = ".nii.gz"


def settings_for(path: Path) -> Mapping[str, Any] | None:
    """Return the settings that read the subjects of a folder, with the structures that all have; None: it has none."""
    if not path.is_dir():
        return None
    folders = [path, *(each for each in sorted(path.iterdir()) if each.is_dir() and not each.name.startswith("."))]
    subjects = [folder for folder in folders if (folder / "segmentations").is_dir()]
    image = next((name for name in _IMAGES if any((folder / name).exists() for folder in subjects)), None)
    if image is None:
        return None
    files = [[each.name for each in (folder / "segmentations").iterdir()] for folder in subjects]
    masks = [{name.removesuffix(_ENDING) for name in names if name.endswith(_ENDING)} for names in files]
    structures = tuple(sorted(set.intersection(*masks)))
    return {"path": path, "structures": structures, "image": image} if structures else None


def find(settings: TotalSegmentator) -> CaseList:
    """Find the subjects of a folder.

    Raises:
        DataError: There are no subjects.
    """
    path = settings.path
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder")
    names = Folders()
    folders = [path] if (path / "segmentations").is_dir() else sorted(p for p in path.iterdir() if p.is_dir())
    folders = [folder for folder in folders if not folder.name.startswith(".")]
    labels = one_mask_each(settings.structures, settings.overlap == "error")
    cases, problems = [], []
    missing: dict[str, dict[int, str]] = {}
    subjects = [
        folder for folder in folders if (folder / "segmentations").is_dir() or (folder / settings.image).exists()
    ]
    for folder in subjects:
        files = {
            value: names.find(folder / "segmentations" / f"{name}{_ENDING}") for value, name in labels.masks.items()
        }
        masks = {value: file for value, file in files.items() if file.exists()}
        subject = composed(folder.name)
        image = names.find(folder / settings.image)
        if not image.exists():
            problems.append(f"{subject}: there is no {image}; set data.image to the name of the image file")
            continue
        cases.append(FileCase(subject, subject, (image,), None, tuple(masks.values()), mask_values=tuple(masks)))
        if len(masks) < len(files):
            there = [stem_of(name) for name in names.names(folder / "segmentations") if name.endswith(_ENDING)]
            others = [name for name in there if name not in settings.structures]
            missing[subject] = {
                value: _missing(name, there, others) for value, name in labels.masks.items() if value not in masks
            }
    others = [folder.name for folder in folders if folder not in subjects]
    if not subjects:
        raise DataError(
            f"{path}: there are no subjects, folders with {settings.image} and segmentations/; data.path is the folder "
            "that holds them"
        )
    return CaseList(
        source=str(path),
        cases=tuple(cases),
        channels=(settings.image.partition(".")[0],),
        labels=labels,
        missing=missing,
        missing_masks=settings.missing_masks,
        problems=tuple(problems),
        doubts=(f"folders without {settings.image} and segmentations/ are left out: {some_of(others)}",)
        if others
        else (),
        image_names=ImageNames(whole=(stem_of(settings.image),)),
    )


def _missing(name: str, there: Sequence[str], others: Sequence[str]) -> str:
    """Return a sentence on a mask that a subject does not have, with a hint.

    Args:
        name: Name of the mask.
        there: The masks that it has.
        others: Those among them that are no structures of the recipe.
    """
    near = did_you_mean(name, others)
    return f"there is no mask of {name}; {near if near.startswith('did') else f'it has {len(there)} masks'}"
