"""Names of files, cases and classes: those that look alike, and the form that a file can have.

Names look alike that differ in the form of their accents, in upper and lower case, or in separators.

Unicode has two forms of most accented letters: composed ("ä" is one character), and decomposed (a letter and a mark).
Some systems store the names of files in the one form, some in the other, and a list keeps the form in which it was
written.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

IGNORE = "ignore"
"""The name that nnU-Net, and tables of classes, give to label values whose voxels do not count."""


def composed(name: str) -> str:
    r"""Return a name with its accented letters in the composed form.

    Example:
        >>> len("Scha\u0308del"), len(composed("Scha\u0308del"))
        (8, 7)
    """
    return unicodedata.normalize("NFC", name)


def stem_of(file: str) -> str:
    """Return the name of a file without its ending.

    Example:
        >>> stem_of("case_01.nii.gz"), stem_of("Case.v2.NII"), stem_of("scan.mha")
        ('case_01', 'Case.v2', 'scan')
    """
    without = re.sub(r"\.(gz|bz2|zst)$", "", file, flags=re.IGNORECASE)
    return Path(without).stem


def safe_name(label: str) -> str:
    """Return the name of a class or case without characters that a value's or a file's name cannot have.

    Example:
        >>> safe_name("Left lung (upper)"), safe_name("lung_upper_lobe_left"), safe_name("?")
        ('Left_lung_upper', 'lung_upper_lobe_left', 'unnamed')
    """
    return re.sub(r"[^\w.-]+", "_", label).strip("_.") or "unnamed"


def spelled_alike(name: str, names: Iterable[str]) -> list[str]:
    """Return the names that differ from ``name`` only in accents, case, separators or leading zeros.

    Unlike the nearest names, these never name another patient.

    Example:
        >>> spelled_alike("Case-3", ["case_03", "case_04"])
        ['case_03']
    """
    wanted = _key(name)
    return [each for each in names if _key(each) == wanted]


class Folders:
    """Finds files whose names may be in another Unicode form. The content of each folder is listed once."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, list[str]]] = {}

    def find(self, path: Path) -> Path:
        """Return the path under which a file or folder exists: as given, or with accents in another form.

        Returns:
            The path that exists. If there is none, or two in other forms, ``path`` itself.
        """
        if path.exists() or path == path.parent or str(path).isascii():
            return path
        folder = self.find(path.parent)
        there = self._listed(folder).get(composed(path.name), [])
        return folder / there[0] if len(there) == 1 else path

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, hidden ones left out; none, if there is no such folder."""
        return sorted(name for names in self._listed(folder).values() for name in names if not name.startswith("."))

    def _listed(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._names:
            listed: dict[str, list[str]] = {}
            for each in folder.iterdir() if folder.is_dir() else ():
                listed.setdefault(composed(each.name), []).append(each.name)
            self._names[folder] = listed
        return self._names[folder]


def _key(name: str) -> str:
    plain = re.sub(r"[\s._-]+", "_", composed(name).casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", plain)
