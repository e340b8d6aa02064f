"""Says which files belong to several cases, or are two things in one case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from trainkit import some_of
from trainkit_segmentation.cases.case import CaseList, FileCase

_CONSEQUENCE = {
    "image": "one may be held out while another is trained on",
    "label": "it cannot be right for the images of all",
    "mask": "it cannot be right for the images of all",
}


def with_shared_files_doubted(listing: CaseList) -> CaseList:
    """Return a list of cases with a doubt for each file that belongs to several cases, or twice to one."""
    cases = [case for case in listing.cases if isinstance(case, FileCase)]
    return attrs.evolve(listing, doubts=(*listing.doubts, *_of_several_cases(cases), *_twice_in_a_case(cases)))


def _of_several_cases(cases: list[FileCase]) -> Iterator[str]:
    names: dict[tuple[str, Path], list[str]] = {}
    for case in cases:
        for part in dict.fromkeys(_parts(case)):
            names.setdefault(part, []).append(case.name)
    for (what, path), of in names.items():
        if len(of) > 1:
            yield f"the cases {some_of(of)} have the same {what} {_short(path)}: {_CONSEQUENCE[what]}"


def _twice_in_a_case(cases: list[FileCase]) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for case in cases:
        parts: dict[Path, list[str]] = {}
        for what, path in _parts(case):
            parts.setdefault(path, []).append(what)
        for of_file in parts.values():
            if len(of_file) > 1:
                different = sorted(set(of_file))
                what = f"two {of_file[0]}s" if len(different) == 1 else f"the {' and the '.join(different)}"
                names.setdefault(what, []).append(case.name)
    for what, of in names.items():
        yield f"{some_of(of)}: {what} are one file"


def _parts(case: FileCase) -> Iterator[tuple[str, Path]]:
    yield from (("image", path) for path in case.images)
    yield from (("label", path) for path in ([case.label] if case.label else ()))
    yield from (("mask", path) for path in case.masks)


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
