"""Finds TotalSegmentator subjects and their masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit import DataError, did_you_mean, some_of
from trainkit_segmentation.cases.case import CaseList, FileCase
from trainkit_segmentation.cases.labels import Labels
from trainkit_segmentation.spelling import Folders, composed, stem_of

if TYPE_CHECKING:
    from trainkit_segmentation.data.totalsegmentator import TotalSegmentator


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
    cases, problems = [], []
    subjects = [
        folder for folder in folders if (folder / "segmentations").is_dir() or (folder / settings.image).exists()
    ]
    for folder in subjects:
        masks = {name: names.find(folder / "segmentations" / f"{name}.nii.gz") for name in settings.structures}
        subject = composed(folder.name)
        missing = [name for name, mask in masks.items() if not mask.exists()]
        image = names.find(folder / settings.image)
        if not image.exists():
            problems.append(f"{subject}: there is no {image}; set data.image to the name of the image file")
        elif missing:
            there = [stem_of(name) for name in names.names(folder / "segmentations") if name.endswith(".nii.gz")]
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            near = did_you_mean(missing[0], [name for name in there if name not in settings.structures])
            hint = near if near.startswith("did") else f"it has {len(there)} masks"
            problems.append(f"{subject}: there is no mask of {missing[0]}{more}; {hint}")
        else:
            cases.append(FileCase(subject, subject, (image,), None, tuple(masks.values())))
    others = [folder.name for folder in folders if folder not in subjects]
    if not subjects:
        raise DataError(
            f"{path}: there are no subjects, folders with {settings.image} and segmentations/; data.path is the folder "
            "that holds them"
        )
    exclusive = settings.overlap == "error"
    return CaseList(
        source=str(path),
        cases=tuple(cases),
        channels=(settings.image.partition(".")[0],),
        labels=Labels(settings.structures, exclusive, members={}),
        problems=tuple(problems),
        doubts=(f"folders without {settings.image} and segmentations/ are left out: {some_of(others)}",)
        if others
        else (),
    )
