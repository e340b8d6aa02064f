"""Reads tables of files."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from trainkit import DataError, did_you_mean
from trainkit_segmentation.cases.case import CaseList, FileCase
from trainkit_segmentation.cases.labels import one_mask_each, one_value_each
from trainkit_segmentation.cases.naming import CaseNames, by_shared_names, name_cases
from trainkit_segmentation.data.meanings import number_of_channels, proposed_classes, proposed_labels
from trainkit_segmentation.spelling import Folders, composed, stem_of

if TYPE_CHECKING:
    from trainkit_segmentation.data.image_table import ImageTable

_Row = Mapping[str, str]
_MOST_LOOKED_AT = 20  # rows whose files are looked for, to find the columns of paths
_OF_LABELS = {"label", "labels", "seg", "segmentation", "mask", "masks", "target", "truth", "gt", "annotation"}
_OF_CASES = ("case", "case_id", "case_name", "id", "name", "visit", "scan", "scan_id")
_OF_SUBJECTS = ("subject", "subject_id", "patient", "patient_id", "person", "participant_id")
_OF_FOLDS = ("fold", "split")
_WHOLE = re.compile(r"\d+(\.0*)?")  # a spreadsheet or pandas may write 0 as 0.0


def find(settings: ImageTable) -> CaseList:
    """Read the table and find its files.

    Raises:
        DataError: The table cannot be read, or lacks a column.
    """
    rows = _rows(settings.path)
    targets = settings.masks or (settings.label,)
    optional = {"case": settings.case, "subject": settings.subject, "fold": settings.fold}
    wanted = [("channels", each) for each in settings.channels]
    wanted += [("masks" if settings.masks else "label", each) for each in targets]
    wanted += [(setting, column) for setting, column in optional.items() if column is not None]
    for setting, column in wanted:
        if column not in rows[0]:
            raise DataError(
                f'{settings.path}: there is no column "{column}" (data.{setting}); {did_you_mean(column, rows[0])}'
            )
    folders = Folders()
    cases, problems, folds = [], [], {}
    columns = (*settings.channels, *targets)
    complete = {}
    labels = one_mask_each(settings.masks, exclusive=False) if settings.masks else one_value_each(settings.labels or {})
    missing: dict[str, dict[int, str]] = {}
    optional_files = settings.masks or ()
    for number, row in enumerate(rows, start=2):
        if empty := [column for column in columns if not row[column] and column not in optional_files]:
            problems.append(f"row {number} of {settings.path.name}: no {', '.join(empty)} is given")
        else:
            complete[number] = row
    of_all = [column for column in columns if all(row[column] for row in complete.values())]
    named = _names(settings, list(complete.values()), of_all)
    for (number, row), name, subject in zip(complete.items(), named.names, named.subjects, strict=True):
        files = {
            column: folders.find(settings.path.parent / row[column].replace("\\", "/"))
            for column in columns
            if row[column]
        }
        if absent := [str(file) for file in files.values() if not file.exists()]:
            problems.append(f"{name}: there is no {absent[0]} (row {number} of {settings.path.name})")
            continue
        images = tuple(files[column] for column in settings.channels)
        case = FileCase(name, subject, images, files.get(settings.label), channels=len(images))
        if settings.masks:
            masks = {value: files[column] for value, column in labels.masks.items() if column in files}
            case = attrs.evolve(case, label=None, masks=tuple(masks.values()), mask_values=tuple(masks))
            if len(masks) < len(settings.masks):
                missing[name] = {
                    value: f"no {column} is given; row {number} of {settings.path.name} has an empty cell there"
                    for value, column in labels.masks.items()
                    if value not in masks
                }
        cases.append(case)
        if settings.fold and (fold := row[settings.fold]):
            folds[name] = int(fold.split(".")[0]) if _WHOLE.fullmatch(fold) else fold
    channels = settings.channels
    if len(channels) == 1 and (number := number_of_channels([case.images for case in cases])) > 1:
        channels = tuple(f"{channels[0]}_{k}" for k in range(number))
        cases = [attrs.evolve(case, channels=number) for case in cases]
    if settings.masks is None and settings.labels is None:
        line = proposed_labels([case.label for case in cases if case.label])
        raise DataError(f"{settings.path}: the recipe must name the label values: {line}")
    return CaseList(
        str(settings.path),
        tuple(sorted(cases, key=lambda case: case.name)),
        channels,
        labels,
        notes=(named.note,) if named.note else (),
        problems=tuple(problems),
        folds=folds,
        missing=missing,
        missing_masks=settings.missing_masks,
    )


def columns_of(path: Path) -> dict[str, Any] | None:
    """Return the settings that read a table whose columns are named as usual; None: it has no columns of paths.

    Raises:
        DataError: It has columns of paths, but which are of labels is not told by their names.
    """
    rows = _rows(path)
    folders = Folders()
    looked_at = rows[:_MOST_LOOKED_AT]
    of_paths = [
        column
        for column in rows[0]
        if any(row[column] for row in looked_at)
        and all(folders.find(path.parent / row[column].replace("\\", "/")).exists() for row in looked_at if row[column])
    ]
    if not of_paths:
        return None
    labels = [column for column in of_paths if _OF_LABELS & set(re.findall(r"[a-z]+", column.lower()))]
    channels = tuple(column for column in of_paths if column not in labels)
    if not labels or not channels:
        raise DataError(
            f"the columns of paths are {', '.join(of_paths)}, and their names do not tell images from labels: call the "
            "column of labels label, or write a recipe with data.channels and data.label"
        )
    settings: dict[str, Any] = {"path": path, "channels": channels}
    if len(labels) > 1:
        settings["masks"] = tuple(labels)
    else:
        files = [folders.find(path.parent / row[labels[0]].replace("\\", "/")) for row in rows if row[labels[0]]]
        settings |= {"label": labels[0], "labels": proposed_classes(files)}
    for setting, names in (("case", _OF_CASES), ("subject", _OF_SUBJECTS), ("fold", _OF_FOLDS)):
        column = next((each for each in rows[0] if each.lower() in names and each not in of_paths), None)
        values = [row[column] for row in rows] if column is not None else []
        usable = all(values) and (setting != "case" or len(set(values)) == len(values))
        if setting == "fold":
            usable = all(not value or _WHOLE.fullmatch(value) or value in ("train", "val") for value in values)
        if column is not None and usable:
            settings[setting] = column
    return settings


def _rows(path: Path) -> list[_Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [line for line in text.splitlines() if line.strip()]
        delimiter = max(",;\t", key=lines[0].count) if lines else ","
        reader = csv.DictReader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
        read = list(reader)
        twice = sorted({name for name in reader.fieldnames or () if (reader.fieldnames or []).count(name) > 1})
    except (OSError, UnicodeDecodeError, csv.Error, AttributeError) as error:
        raise DataError(f"{path}: the table cannot be read: {error}") from error
    if twice:
        raise DataError(f'{path}: there are several columns "{twice[0]}"')
    if not read:
        raise DataError(f"{path}: there are no rows")
    if long := [number for number, row in enumerate(read, start=2) if None in row]:
        raise DataError(
            f"{path}: row {long[0]} has more cells than there are columns; put a text that contains "
            f'"{delimiter}" in quotes'
        )
    return [{key.strip(): (value or "").strip() for key, value in row.items() if key} for row in read]


def _names(settings: ImageTable, rows: Sequence[_Row], columns: Sequence[str]) -> CaseNames:
    """Return the name of the case of each row, and the person that it is of."""
    files = [[Path(row[column].replace("\\", "/")) for column in columns] for row in rows]
    if settings.case is not None:
        names = tuple(composed(row[settings.case]) for row in rows)
        named = CaseNames(names, names)
    else:
        named = by_shared_names(files) or name_cases([of[0].with_name(stem_of(of[0].name)) for of in files])
    if settings.subject is None:
        return named
    return attrs.evolve(named, subjects=tuple(composed(row[settings.subject]) for row in rows))
