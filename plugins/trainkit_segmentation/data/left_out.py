"""Image files in the folders of nnU-Net and the Decathlon that belong to no case, and so are left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from trainkit import some_of
from trainkit_segmentation.cases.case import FileCase
from trainkit_segmentation.files.images import readable_endings
from trainkit_segmentation.spelling import Folders, composed, stem_of

_OTHER_IMAGES = (".hdr", ".mgz", ".mgh")  # which cannot be read


def doubts_about_left_out(folder: Path, cases: Sequence[FileCase], folders: Folders) -> Iterator[str]:
    """Yield which images have no label, and which other files are left out, where the files are the list of cases.

    Args:
        folder: The folder that holds ``imagesTr`` and ``labelsTr``.
        cases: All cases, those with missing files included.
        folders: Lists the folders.
    """
    names = {case.name for case in cases}
    ending = cases[0].paths[-1].name.removeprefix(stem_of(cases[0].paths[-1].name))
    without_label: dict[str, str] = {}
    others = []
    for file in _unused(folder / "imagesTr", cases, folders):
        whole = composed(stem_of(file))
        name = re.sub(r"_\d{4}$", "", whole)
        if name in names or whole in names:
            others.append(f"imagesTr/{file}")
        else:
            without_label.setdefault(name, file)
    if without_label:
        some = [f"{name} (imagesTr/{file})" for name, file in without_label.items()]
        name = next(iter(without_label))
        yield (
            f"{_count(len(some), 'image has', 'images have')} no label and {_is(some)} left out: {some_of(some)}; "
            f"the label of {name} would be labelsTr/{name}{ending}"
        )
    if others:
        channels = f"channel{'s' * (cases[0].channels > 1)}"
        yield (
            f"{_count(len(others), 'image file', 'image files')} of cases {_is(others)} left out, because dataset.json "
            f"declares {cases[0].channels} {channels}: {some_of(others)}"
        )
    if labels := [f"labelsTr/{file}" for file in _unused(folder / "labelsTr", cases, folders)]:
        yield (
            f"{_count(len(labels), 'label file', 'label files')} {_is(labels)} left out, because the name does not end "
            f"in {ending}: {some_of(labels)}"
        )


def notes_on_left_out(folder: Path, cases: Sequence[FileCase], folders: Folders) -> Iterator[str]:
    """Yield which files are in ``imagesTr`` and ``labelsTr`` although the list of cases does not name them."""
    for part in ("imagesTr", "labelsTr"):
        if unused := list(_unused(folder / part, cases, folders)):
            yield (
                f"{_count(len(unused), 'file', 'files')} in {part} {_is(unused)} left out, because dataset.json does "
                f"not list {'it' if len(unused) == 1 else 'them'}: {some_of(unused)}"
            )


def _unused(folder: Path, cases: Iterable[FileCase], folders: Folders) -> list[str]:
    used = {path.resolve() for case in cases for path in case.paths}
    endings = (*readable_endings(), *_OTHER_IMAGES)
    return [
        name
        for name in folders.names(folder)
        if name.lower().endswith(endings) and (folder / name).resolve() not in used
    ]


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _is(found: Sequence[str]) -> str:
    return "is" if len(found) == 1 else "are"
