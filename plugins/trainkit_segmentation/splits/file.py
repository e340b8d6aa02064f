"""A split that is written in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from trainkit import INPUT_PATH, DataError, component
from trainkit_segmentation.spelling import composed, spelled_alike
from trainkit_segmentation.splits.kind import Split


@component
class SplitFile(Split):
    """Reads from a file which cases are held out.

    A ``.txt`` file names the held-out cases, one on each line; all others are trained on. A ``.json`` file contains a
    list of them, or ``{"train": […], "val": […]}``, or a list of such folds, as nnU-Net's ``splits_final.json`` does.

    Attributes:
        path: The file.
        fold: Number of the fold to use, from 0, if the file has several.
    """

    path: Path = attrs.field(metadata=INPUT_PATH)
    fold: int = attrs.field(default=0, validator=attrs.validators.ge(0))

    def divide(self, subjects: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
        """Read the file and compare it with the cases that exist."""
        named = {split: [composed(case) for case in cases] for split, cases in self._read().items()}
        held_out = named.get("val", [])
        train = named["train"] if "train" in named else [case for case in subjects if case not in set(held_out)]
        unknown = [case for case in (*held_out, *train) if case not in subjects]
        if unknown:
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            alike = spelled_alike(unknown[0], subjects)
            hint = f'the data has "{alike[0]}"' if alike else f"the data has {len(subjects)} others"
            raise DataError(f'{self.path}: there is no case "{unknown[0]}"{more}; {hint}')
        both = sorted(set(held_out) & set(train))
        if both:
            raise DataError(
                f"{self.path}: {', '.join(both[:5])} {'is' if len(both) == 1 else 'are'} both trained on and held out"
            )
        for split, cases in (("train", train), ("val", held_out)):
            if not cases:
                raise DataError(f'{self.path} leaves no case for "{split}"')
        return {"train": sorted(set(train)), "val": sorted(set(held_out))}

    def settings_of_fold(
        self, fold: int, number: int, listed: Callable[[], Mapping[str, int | str]]
    ) -> Mapping[str, Any]:
        """Take the folds of the file.

        Raises:
            DataError: It has another number of them.
        """
        content = self._content()
        found = len(content) if isinstance(content, list) and not _are_names(content) else 1
        if found != number:
            raise DataError(
                f"{self.path} has {found} fold{'s' * (found != 1)}, not {number}: give another number, or set "
                'data.split = { use = "folds" }'
            )
        return {"fold": fold}

    def _read(self) -> Mapping[str, list[str]]:
        content = self._content()
        if isinstance(content, str):
            return {"val": [line.strip() for line in content.splitlines() if line.strip()]}
        if _are_names(content):
            return {"val": content}
        if isinstance(content, list):
            if self.fold >= len(content):
                raise DataError(f"{self.path} has {len(content)} folds; there is no fold {self.fold}")
            content = content[self.fold]
        if isinstance(content, dict) and all(_are_names(content.get(split)) for split in ("train", "val")):
            return {split: content[split] for split in ("train", "val")}
        raise DataError(f'{self.path}: expected a list of cases, or {{"train": […], "val": […]}}, or a list of these')

    def _content(self) -> Any:
        """Return the content of a JSON file, or the text of another one."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: the split cannot be read: {error}") from error
        if self.path.suffix.lower() != ".json":
            return text
        try:
            return json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{self.path} is not valid JSON: {error}") from error


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)
