"""Reads ``dataset.json`` of the Decathlon and of nnU-Net, and finds the files that it lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainkit import DataError, did_you_mean
from trainkit_segmentation.cases.case import CaseList, FileCase
from trainkit_segmentation.cases.labels import Labels

_ENDINGS = (".nii.gz", ".nii")


def find(folder: Path, regions: Mapping[str, Sequence[int]] | None) -> CaseList:
    """Find the cases of a folder.

    Args:
        folder: The folder that holds ``dataset.json``.
        regions: Classes that combine several label values; None: the classes of ``dataset.json``.

    Raises:
        DataError: ``dataset.json`` is missing or cannot be interpreted.
    """
    path = folder / "dataset.json"
    content = _read(path)
    channels = _channels(path, content)
    values = _values(path, content)
    labels = _labels(path, values, regions)
    if "training" in content:
        found = [_decathlon_case(path, entry, len(channels)) for entry in _list(path, content["training"])]
    elif isinstance(content.get("dataset"), dict):
        found = [_mapped_case(path, name, entry, len(channels)) for name, entry in content["dataset"].items()]
    else:
        found = _listed_cases(folder, str(content.get("file_ending", ".nii.gz")), len(channels))
    problems = [problem for each in found if (problem := _missing(each))]
    if twice := {each.name for each in found if sum(other.name == each.name for other in found) > 1}:
        raise DataError(f"{path}: cases are listed twice: {', '.join(sorted(twice))}")
    if not found:
        raise DataError(f"{path}: there are no training cases")
    notes = []
    if isinstance(number := content.get("numTraining"), int) and number != len(found):
        notes.append(f"{path}: numTraining is {number}, but there are {len(found)} cases")
    cases = tuple(sorted((each for each in found if not _missing(each)), key=lambda case: case.name))
    return CaseList(str(folder), cases, channels, labels, tuple(notes), tuple(problems))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        near = [each.parent.name for each in sorted(path.parent.glob("*/dataset.json"))]
        hint = f"; there is one in {', '.join(near[:5])}" if near else ""
        raise DataError(f"{path}: there is no such file{hint}; data.path is the folder that holds it") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a table of names and values")
    return content


def _channels(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    named = content.get("channel_names", content.get("modality"))
    if not isinstance(named, dict) or not named:
        raise DataError(f'{path}: neither "channel_names" nor "modality" names the channels')
    try:
        return tuple(str(named[key]) for key in sorted(named, key=int))
    except ValueError as error:
        raise DataError(f"{path}: channels must be numbered from 0, got {', '.join(named)}") from error


def _values(path: Path, content: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return class -> label values, without the background. Only nnU-Net's regions have several values."""
    named = content.get("labels")
    if not isinstance(named, dict) or not named:
        raise DataError(f'{path}: "labels" must name the label values')
    by_value = all(str(key).lstrip("-").isdigit() for key in named)
    pairs = [(name, value) for value, name in named.items()] if by_value else list(named.items())
    found: dict[str, tuple[int, ...]] = {}
    for name, value in pairs:
        if str(name) == "ignore":
            raise DataError(f'{path}: nnU-Net\'s label "ignore" is not supported')
        try:
            values = tuple(int(each) for each in (value if isinstance(value, list) else [value]))
        except (TypeError, ValueError) as error:
            raise DataError(f'{path}: "{name}" has no label value: {value!r}') from error
        if values != (0,):
            if str(name) in found:
                raise DataError(f'{path}: two labels are called "{name}"')
            found[str(name)] = values
    return dict(sorted(found.items(), key=lambda each: each[1])) if by_value else found


def _labels(path: Path, values: Mapping[str, tuple[int, ...]], regions: Mapping[str, Sequence[int]] | None) -> Labels:
    declared = sorted({0} | {value for each in values.values() for value in each})
    for name, wanted in (regions or {}).items():
        if unknown := [value for value in wanted if value not in declared or value == 0]:
            raise DataError(f"data.regions.{name}: {path} declares no label value {unknown[0]}, only {declared[1:]}")
    chosen = values if regions is None else regions
    classes = tuple(chosen)
    members = {value: tuple(k for k, name in enumerate(classes) if value in chosen[name]) for value in declared}
    exclusive = regions is None and all(len(each) == 1 for each in values.values())
    return Labels(classes, exclusive, members)


def _list(path: Path, entries: Any) -> list[Mapping[str, Any]]:
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and {"image", "label"} <= e.keys() for e in entries
    ):
        raise DataError(f'{path}: "training" must be a list of {{"image": …, "label": …}}')
    return entries


def _decathlon_case(path: Path, entry: Mapping[str, Any], channels: int) -> FileCase:
    image, label = (path.parent / str(entry[key]) for key in ("image", "label"))
    return _case(_stem(label.name), _channel_files(image, channels), label, channels)


def _mapped_case(path: Path, name: str, entry: Mapping[str, Any], channels: int) -> FileCase:
    try:
        images = tuple(path.parent / str(each) for each in entry["images"])
        return _case(name, images, path.parent / str(entry["label"]), channels)
    except (KeyError, TypeError) as error:
        raise DataError(f'{path}: case "{name}" must have "images" and "label"') from error


def _listed_cases(folder: Path, ending: str, channels: int) -> list[FileCase]:
    if ending not in _ENDINGS:
        raise DataError(f'{folder / "dataset.json"}: files ending in "{ending}" cannot be read, only .nii.gz and .nii')
    found = []
    for label in sorted((folder / "labelsTr").glob(f"*{ending}")):
        if not label.name.startswith("."):
            found.append(
                _case(_stem(label.name), _channel_files(folder / "imagesTr" / label.name, channels), label, channels)
            )
    return found


def _channel_files(image: Path, channels: int) -> tuple[Path, ...]:
    """Return the one file of an image, or its files of single channels if these exist."""
    stem = _stem(image.name)
    each = tuple(image.with_name(f"{stem}_{k:04d}{image.name[len(stem) :]}") for k in range(channels))
    return each if not image.exists() and any(path.exists() for path in each) else (image,)


def _case(name: str, images: tuple[Path, ...], label: Path, channels: int) -> FileCase:
    return FileCase(name, name, images, label, channels=channels)


def _missing(case: FileCase) -> str | None:
    absent = [path for path in case.files if not path.exists()]
    if not absent:
        return None
    folder = absent[0].parent
    there = [path.name for path in folder.glob("*")] if folder.is_dir() else []
    hint = f"; {near}" if (near := did_you_mean(absent[0].name, there)).startswith("did") else ""
    return f"{case.name}: there is no {', '.join(map(str, absent))}{hint}"


def _stem(name: str) -> str:
    for ending in _ENDINGS:
        if name.endswith(ending):
            return name.removesuffix(ending)
    return Path(name).stem
