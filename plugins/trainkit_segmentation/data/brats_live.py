"""Finds BraTS cases, and recognises the edition from their file names and label values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit import DataError, FileFacts, some_of
from trainkit_segmentation.cases.case import CaseList, FileCase
from trainkit_segmentation.cases.image_names import ImageNames
from trainkit_segmentation.cases.labels import Labels
from trainkit_segmentation.files.label_values import values_in
from trainkit_segmentation.preparing.cache_live import CaseStore
from trainkit_segmentation.spelling import composed

if TYPE_CHECKING:
    from trainkit_segmentation.data.brats import BraTS

_NAMES: Mapping[str, Mapping[str, str]] = {
    "until 2022": {"t1": "_t1", "t1c": "_t1ce", "t2": "_t2", "flair": "_flair", "seg": "_seg"},
    "since 2023": {"t1": "-t1n", "t1c": "-t1c", "t2": "-t2w", "flair": "-t2f", "seg": "-seg"},
}
_ENDINGS = (".nii.gz", ".nii")
_ENHANCING = {"2021": 4, "2023": 3, "2024": 3}
_MOST_LOOKED_AT = 20  # folders, to recognise a folder of cases
_FIRST_AFTER_TREATMENT = 100  # time points of the 2024 edition are counted from here


def find(settings: BraTS) -> CaseList:
    """Find the cases of a folder.

    Raises:
        DataError: There are no cases, or their edition cannot be recognised.
    """
    found = _case_folders(settings.path)
    names = {folder: _naming(folder) for folder in found}
    folders = [folder for folder in found if names[folder]]
    others = [folder.name for folder in found if not names[folder]]
    if not folders:
        raise DataError(
            f"{settings.path}: there are no BraTS cases, folders with files that end in _t1ce.nii.gz or -t1c.nii.gz; "
            "data.path is the folder that holds the cases' folders"
        )
    naming = sorted({name for name in names.values() if name})
    if len(naming) > 1:
        some = {each: next(folder.name for folder in folders if names[folder] == each) for each in naming}
        raise DataError(
            f"{settings.path}: cases with files of two naming schemes: "
            + ", ".join(f"{name} ({each})" for each, name in some.items())
            + ". Their label values differ; keep them in separate folders"
        )
    cases, problems = [], []
    for folder in folders:
        files, missing = _files(folder, _NAMES[naming[0]], settings.modalities)
        if missing:
            problems.append(f"{composed(folder.name)}: {', '.join(missing)}")
        else:
            images = tuple(files[each] for each in settings.modalities)
            name = composed(folder.name)
            cases.append(FileCase(name, _patient(name), images, files["seg"], channels=len(images)))
    facts = CaseStore(settings.cache).files
    edition, note = _edition(settings, naming[0], cases, facts)
    return CaseList(
        source=str(settings.path),
        cases=tuple(cases),
        channels=tuple(settings.modalities),
        labels=_labels(edition, settings.target),
        notes=(note,),
        problems=tuple(problems),
        doubts=(f"folders without BraTS files are left out: {some_of(others)}",) if others else (),
        image_names=ImageNames(tuple(tuple(each[name] for each in _NAMES.values()) for name in settings.modalities)),
    )


def has_cases(path: Path) -> bool:
    """Return whether files in a folder, or in the folders in it, have the names of BraTS files."""
    return path.is_dir() and any(_naming(folder) for folder in _case_folders(path)[:_MOST_LOOKED_AT])


def _case_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder")
    if _naming(path):
        return [path]
    return sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))


def _naming(folder: Path) -> str | None:
    names = [path.name for path in folder.iterdir()]
    for naming, suffixes in _NAMES.items():
        endings = tuple(suffix + ending for suffix in suffixes.values() for ending in _ENDINGS)
        if any(name.endswith(endings) and not name.startswith(".") for name in names):
            return naming
    return None


def _files(folder: Path, suffixes: Mapping[str, str], modalities: tuple[str, ...]) -> tuple[dict[str, Path], list[str]]:
    found, missing = {}, []
    for what in (*modalities, "seg"):
        endings = tuple(suffixes[what] + ending for ending in _ENDINGS)
        paths = sorted(p for p in folder.iterdir() if p.name.endswith(endings) and not p.name.startswith("."))
        if len(paths) == 1:
            found[what] = paths[0]
        elif paths:
            missing.append(f"two files for {what}: {paths[0].name}, {paths[1].name}")
        else:
            kind = "segmentation" if what == "seg" else f"modality {what}"
            missing.append(f"the {kind} is missing (…{endings[0]})")
    return found, missing


def _patient(name: str) -> str:
    return re.sub(r"-\d{3}$", "", name)


def _edition(settings: BraTS, naming: str, cases: list[FileCase], facts: FileFacts) -> tuple[str, str]:
    """Return the edition, and a sentence about it."""
    if settings.edition != "auto":
        text = _enhancing_label_text(settings.edition)
        return settings.edition, f"BraTS {settings.edition}, set in the recipe: {text}"
    values: set[int] = set()
    after_treatment = any(_time_point(case.name) >= _FIRST_AFTER_TREATMENT for case in cases)
    decisive = {4} if naming == "until 2022" else {3, 4} if after_treatment else {0, 1, 2, 3, 4}
    for case in cases:
        if case.label is not None and not decisive <= values:  # reading all labels may take minutes
            try:
                values |= set(values_in(case.label, facts))
            except DataError:  # reported when each case is inspected or read
                continue
    newer = "2024" if 4 in values else "2023"  # without a cavity, the values of 2024 mean what those of 2023 do
    edition = "2021" if naming == "until 2022" else newer
    other = 3 if edition == "2021" else 4
    odd = other in values and _ENHANCING[edition] not in values
    if odd and not (edition == "2024" and after_treatment):
        raise DataError(
            f"{settings.path}: files are named as {naming}, but label {_ENHANCING[edition]} is in no case and {other} "
            "is: names and label values contradict each other, so it is unclear which label is the enhancing tumour. "
            'Set data.edition = "2021" (label 4), "2023" (label 3) or "2024" (label 3; 4 is the resection cavity)'
        )
    evidence = f"file names ({naming}) and label values ({', '.join(map(str, sorted(values)))})"
    return edition, f"BraTS {edition}, recognised from {evidence}: {_enhancing_label_text(edition)}"


def _time_point(name: str) -> int:
    found = re.search(r"-(\d{3})$", name)
    return int(found[1]) if found else 0


def _enhancing_label_text(edition: str) -> str:
    cavity = ", the resection cavity is 4" if edition == "2024" else ""
    return f"the enhancing tumour is label {_ENHANCING[edition]}{cavity}"


def _labels(edition: str, target: str) -> Labels:
    enhancing = _ENHANCING[edition]
    cavity = ("resection_cavity",) if edition == "2024" else ()
    members: dict[int, tuple[int, ...]]
    if target == "regions":
        classes = ("whole_tumor", "tumor_core", "enhancing_tumor", *cavity)
        members = {0: (), 1: (0, 1), 2: (0,), enhancing: (0, 1, 2)}
    else:
        classes = ("necrotic_core", "edema", "enhancing_tumor", *cavity)
        members = {0: (), 1: (0,), 2: (1,), enhancing: (2,)}
    if cavity:
        members[4] = (3,)
    return Labels(classes, target == "labels", members)
