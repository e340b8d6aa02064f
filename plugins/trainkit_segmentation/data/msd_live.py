"""Reads ``dataset.json`` of the Decathlon and of nnU-Net, and other lists of MONAI, and finds the files in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from trainkit import DataError
from trainkit_segmentation.cases.case import CaseList, FileCase
from trainkit_segmentation.cases.labels import Labels
from trainkit_segmentation.cases.naming import by_shared_names, name_cases
from trainkit_segmentation.data.left_out import doubts_about_left_out, notes_on_left_out
from trainkit_segmentation.data.meanings import proposed_channels, proposed_labels
from trainkit_segmentation.files.images import read_header, readable_endings
from trainkit_segmentation.spelling import IGNORE, Folders, composed, spelled_alike, stem_of

DATASET_JSON = "dataset.json"


@attrs.frozen
class _Listed:
    """A case as it is listed, before its files are found.

    Attributes:
        name: Name of the case, if the list gives one.
        subject: The person that it is of, if the list says so.
        image: The image, as one file, or as the name that the files of single channels begin with.
        images: The files of single channels, if the list gives them.
        label: The label.
        fold: The fold that the list gives to the case, or "val"; None: neither.
    """

    name: str | None
    image: Path
    images: tuple[Path, ...] | None
    label: Path
    subject: str | None = None
    fold: int | str | None = None


def find(
    path: Path,
    *,
    channels: tuple[str, ...] | None = None,
    label_values: Mapping[str, int] | None = None,
    root: Path | None = None,
) -> CaseList:
    """Find the cases of a folder or list.

    Args:
        path: The list, or the folder that holds ``dataset.json``.
        channels: Names of the channels; None: those of the list.
        label_values: Name of a class -> its label value; None: those of the list.
        root: The folder that paths of the list are relative to; None: its own.

    Raises:
        DataError: The list is missing or cannot be interpreted.
    """
    path = path if path.suffix.lower() == ".json" else path / DATASET_JSON
    folder = root or path.parent
    content = _read(path)
    folders = Folders()
    by_list = True
    if "training" in content:
        listed = [
            _decathlon_case(path, folder, entry, key)
            for key in ("training", "validation")
            for entry in _list(path, key, content.get(key, []))
        ]
    elif isinstance(content.get("dataset"), dict):
        listed = [_mapped_case(path, folder, name, entry) for name, entry in content["dataset"].items()]
    else:
        by_list = False
        listed = _cases_with_labels(path.parent, str(content.get("file_ending", ".nii.gz")), folders)
    if not listed:
        names = folders.names(folder / "labelsTr")
        there = f"; labelsTr holds {len(names)} files, for example {names[0]}" if names and not by_list else ""
        raise DataError(f"{path}: there are no training cases{there}")
    _check_named(path, content, listed, channels, label_values)
    channels = channels or _channels(path, content)
    given = {name: (value,) for name, value in (label_values or {}).items() if value != 0 or name == IGNORE}
    values: Mapping[str, tuple[int, ...]] = given or _values(path, content)
    labels = _labels(path, values)
    cases, notes = _named(path, listed, len(channels), folders, by_list)
    problems = [problem for each in cases if (problem := _missing(folder, each, cases, folders, by_list))]
    mistaken = _channels_listed_as_images(cases, len(channels))
    if isinstance(number := content.get("numTraining"), int) and number != len(cases):
        notes.append(f"{path}: numTraining is {number}, but there are {len(cases)} cases")
    usable = (case for case in cases if not _absent(case) and case not in mistaken)
    folds = {case.name: each.fold for case, each in zip(cases, listed, strict=True) if each.fold is not None}
    return CaseList(
        str(folder),
        tuple(sorted(usable, key=lambda case: case.name)),
        channels,
        labels,
        notes=(*notes, *(notes_on_left_out(folder, cases, folders) if by_list and not mistaken else ())),
        problems=(*problems, *_how_to_list_channels(mistaken)),
        doubts=() if by_list else tuple(doubts_about_left_out(folder, cases, folders)),
        folds=folds,
    )


def labels_in(folder: Path) -> Labels:
    """Return what ``dataset.json`` of a folder says label values mean.

    Raises:
        DataError: The file is missing or cannot be interpreted.
    """
    path = folder / DATASET_JSON
    return _labels(path, _values(path, _read(path)))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_each_key_once)
    except FileNotFoundError as error:
        near = [each.parent.name for each in sorted(path.parent.glob("*/dataset.json"))]
        beside = [each.name for each in sorted(path.parent.glob("*.json"))]
        hint = f"; there is {', '.join(beside[:5])}: name the list itself" if beside else ""
        hint = f"; there is one in {', '.join(near[:5])}" if near else hint
        raise DataError(f"{path}: there is no such file{hint}; data.path is the folder that holds it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a table of names and values")
    return content


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a table; json alone would keep the last of two values of one name."""
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f'"{name}" is there twice, as {_short(table[name])} and as {_short(value)}')
        table[name] = value
    return table


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _check_named(
    path: Path,
    content: Mapping[str, Any],
    listed: Sequence[_Listed],
    channels: Sequence[str] | None,
    label_values: Mapping[str, int] | None,
) -> None:
    """Check that channels and label values have names, in the list or in the recipe."""
    missing = []
    if not channels and not _table(content, "channel_names", "modality"):
        line = proposed_channels([each.images or (each.image,) for each in listed])
        missing.append(f'neither "channel_names" nor "modality" names the channels: {line}')
    if label_values is None and not _table(content, "labels"):
        line = proposed_labels([each.label for each in listed])
        missing.append(f'"labels" must name the label values: {line}')
    if missing:
        raise DataError(f"{path}: {'; '.join(missing)}. The recipe can name them in this way")


def _table(content: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return the first table of a name; an empty one, if there is none."""
    return next((content[name] for name in names if isinstance(content.get(name), dict)), {})


def _channels(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    named = _table(content, "channel_names", "modality")
    try:
        if sorted(map(int, named)) != list(range(len(named))):
            raise ValueError(f"the channels {', '.join(named)}")
        return tuple(str(named[key]) for key in sorted(named, key=int))
    except ValueError as error:
        raise DataError(f"{path}: channels must be numbered from 0, got {', '.join(named)}") from error


def _values(path: Path, content: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return class, or "ignore" -> label values, without the background. Only nnU-Net's regions have several values."""
    named = _table(content, "labels")
    by_value = all(str(key).lstrip("-").isdigit() for key in named)
    pairs = [(name, value) for value, name in named.items()] if by_value else list(named.items())
    found: dict[str, tuple[int, ...]] = {}
    name_of: dict[tuple[int, ...], str] = {}
    for name, value in pairs:
        values = tuple(_label_value(path, str(name), each) for each in (value if isinstance(value, list) else [value]))
        if not values:
            raise DataError(f'{path}: "{name}" has no label value: {value!r}')
        same = tuple(sorted(set(values)))
        if same in name_of:
            number = f"label value {same[0]}" if len(same) == 1 else f"label values {', '.join(map(str, same))}"
            raise DataError(
                f'{path}: "{name_of[same]}" and "{name}" are two names for {number}: leave one out, or correct it'
            )
        name_of[same] = str(name)
        if values != (0,) or str(name) == IGNORE:
            if str(name) in found:
                raise DataError(
                    f'{path}: "{name}" is the name of two label values, {found[str(name)][0]} and {values[0]}: give '
                    "each a name of its own, or combine them with data.regions"
                )
            found[str(name)] = values
    return dict(sorted(found.items(), key=lambda each: each[1])) if by_value else found


def _label_value(path: Path, name: str, value: Any) -> int:
    """Return a value of ``labels``: a whole number, or one that is written as a string."""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value):
        return int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    raise DataError(f'{path}: "{name}" has no label value: {value!r}')


def _labels(path: Path, values: Mapping[str, tuple[int, ...]]) -> Labels:
    ignored = values.get(IGNORE, ())
    chosen = {name: each for name, each in values.items() if name != IGNORE}
    if not chosen:
        raise DataError(f'{path}: there is no class beside the background and "{IGNORE}"')
    if both := [name for name, each in chosen.items() if set(each) & set(ignored)]:
        raise DataError(f'{path}: "{both[0]}" and "{IGNORE}" share the label values {list(ignored)}')
    declared = sorted({0} | {value for each in chosen.values() for value in each})
    classes = tuple(chosen)
    members = {value: tuple(k for k, name in enumerate(classes) if value in chosen[name]) for value in declared}
    exclusive = all(len(each) == 1 for each in chosen.values())
    return Labels(classes, exclusive, members, ignored)


# ---- the list of cases ----------------------------------------------------------------------------------------------


def _list(path: Path, key: str, entries: Any) -> list[Mapping[str, Any]]:
    if not isinstance(entries, list):
        raise DataError(f'{path}: "{key}" must be a list of {{"image": …, "label": …}}')
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
            raise DataError(
                f'{path}: "{key}" must be a list of {{"image": …, "label": …}}, but entry {number} is {_short(entry)}'
            )
    return entries


def _decathlon_case(path: Path, folder: Path, entry: Mapping[str, Any], key: str) -> _Listed:
    images = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
    labels = entry["label"] if isinstance(entry["label"], list) else [entry["label"]]
    if not images or not all(isinstance(each, str) for each in images):
        raise DataError(f'{path}: "image" must be a file or a list of files, one for each channel: {_short(entry)}')
    if len(labels) != 1 or not isinstance(labels[0], str):
        raise DataError(f'{path}: "label" must be one file: {_short(entry)}')
    found = tuple(_listed_path(folder, each) for each in images)
    fold = "val" if key == "validation" else entry.get("fold")
    if fold is not None and (isinstance(fold, bool) or not isinstance(fold, int | str)):
        raise DataError(f'{path}: "fold" must be a number: {_short(entry)}')
    name, subject = (
        next((composed(str(entry[of])) for of in keys if entry.get(of) is not None), None)
        for keys in (("name", "case", "case_id", "id"), ("subject", "subject_id", "patient"))
    )
    return _Listed(name, found[0], found if len(found) > 1 else None, _listed_path(folder, labels[0]), subject, fold)


def _mapped_case(path: Path, folder: Path, name: str, entry: Mapping[str, Any]) -> _Listed:
    try:
        images = tuple(_listed_path(folder, each) for each in entry["images"])
        return _Listed(composed(name), images[0], images, _listed_path(folder, entry["label"]))
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f'{path}: case "{name}" must have "images" and "label"') from error


def _listed_path(folder: Path, written: Any) -> Path:
    """Return the path of a file in a list, which may have been written on Windows."""
    text = str(written)
    found = folder / text
    return folder / text.replace("\\", "/") if "\\" in text and not found.exists() else found


def _cases_with_labels(folder: Path, ending: str, folders: Folders) -> list[_Listed]:
    if not ending.lower().endswith(known := readable_endings()):
        raise DataError(
            f'{folder / "dataset.json"}: files ending in "{ending}" cannot be read, only {", ".join(sorted(known))}'
        )
    names = [name for name in folders.names(folder / "labelsTr") if name.lower().endswith(ending.lower())]
    return [_Listed(None, folder / "imagesTr" / name, None, folder / "labelsTr" / name) for name in names]


def _named(
    path: Path, listed: Sequence[_Listed], channels: int, folders: Folders, by_list: bool
) -> tuple[list[FileCase], list[str]]:
    """Name the cases and find their files; return notes about the names, too."""
    labels = [folders.find(each.label) for each in listed]
    if twice := sorted({str(label) for label in labels if labels.count(label) > 1}):
        raise DataError(f"{path}: cases are listed twice, or have the same label: {', '.join(twice)}")
    named = name_cases([label.with_name(stem_of(label.name)) for label in labels])
    if all(each.images and each.name is None for each in listed):
        named = by_shared_names([(*(each.images or ()), each.label) for each in listed]) or named
    cases = []
    for each, label, name, subject in zip(listed, labels, named.names, named.subjects, strict=True):
        name, subject = (name, subject) if each.name is None else (each.name, each.name)
        if each.images is not None:
            images = tuple(folders.find(image) for image in each.images)
        else:
            images = _channel_files(each.image, channels, folders, by_list)
        cases.append(FileCase(name, each.subject or subject, images, label, channels=channels))
    return cases, [named.note] if named.note and any(each.name is None for each in listed) else []


def _channel_files(image: Path, channels: int, folders: Folders, by_list: bool) -> tuple[Path, ...]:
    """Return the one file of an image, or its files of single channels if these exist."""
    stem = stem_of(image.name)
    each = tuple(folders.find(image.with_name(f"{stem}_{k:04d}{image.name[len(stem) :]}")) for k in range(channels))
    whole = folders.find(image)
    if whole.exists() or (by_list and not any(path.exists() for path in each)):
        return (whole,)
    if not any(path.exists() for path in each[1:]) and _has_channels(each[0], channels):
        return each[:1]  # as nnU-Net has colour pictures
    return each


def _has_channels(path: Path, channels: int) -> bool:
    """Return whether a file has all channels."""
    try:
        return path.exists() and read_header(path).channels == channels
    except DataError:  # reported when the case is inspected or read
        return False


def _absent(case: FileCase) -> list[Path]:
    return [path for path in case.paths if not path.exists()]


def _missing(folder: Path, case: FileCase, cases: Sequence[FileCase], folders: Folders, by_list: bool) -> str | None:
    absent = _absent(case)
    if not absent:
        return None
    what = " and ".join(f"no {'label' if path == case.label else 'image'} {path}" for path in absent[:4]) + (
        f", and {len(absent) - 4} more files are missing" if len(absent) > 4 else ""
    )
    others = {path for other in cases if other is not case for path in other.paths}
    beside: list[str] = []
    for path in absent:
        stem = re.sub(r"_\d{4}$", "", stem_of(path.name)) if len(case.images) > 1 or not by_list else stem_of(path.name)
        for name in folders.names(path.parent):
            found = path.parent / name
            whole = stem_of(name)
            bare = re.sub(r"_\d{4}$", "", whole)
            if found not in others and spelled_alike(stem, {whole, bare} if path != case.label else {whole}):
                beside.append(name)
    here = [f"./{path.parent.name}/{path.name}" for path in absent if (folder / path.parent.name / path.name).exists()]
    hint = f"; of this case there is {', '.join(dict.fromkeys(beside or here))}" if beside or here else ""
    return f"{case.name}: there is {what}{hint}"


def _channels_listed_as_images(cases: Sequence[FileCase], channels: int) -> dict[FileCase, list[str]]:
    """Return the cases for which a list names the file of one channel as the image -> the files of other channels."""
    images = {path for case in cases for path in case.images}
    found = {}
    for case in cases:
        path = case.images[0]
        named = _channel_names(path, channels)
        others = [name for name in named if name != path.name and path.with_name(name).exists()]
        are_images = any(path.with_name(name) in images for name in others)
        if len(case.images) == 1 and path.name in named and others and not are_images:
            found[case] = others
    return found


def _channel_names(path: Path, channels: int) -> list[str]:
    """Return the names of the files of all channels, if a file may be that of one of them."""
    stem = stem_of(path.name)
    bare = re.sub(r"_\d{4}$", "", stem)
    return [f"{bare}_{k:04d}{path.name[len(stem) :]}" for k in range(channels)] if bare != stem else []


def _how_to_list_channels(mistaken: Mapping[FileCase, Sequence[str]]) -> list[str]:
    """Return one sentence on a list that names files of single channels as images."""
    if not mistaken:
        return []
    case, others = next(iter(mistaken.items()))
    path = case.images[0]
    stem = stem_of(path.name)
    whole = f"./{path.parent.name}/{stem[:-5]}{path.name[len(stem) :]}"
    return [
        f"dataset.json lists the file of one channel as the image of {_count(len(mistaken), 'case')}, for example "
        f"{path.parent.name}/{path.name}; beside it there is {', '.join(others)}. "
        f'Write "{whole}": the files of all {case.channels} channels are found from that name'
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
