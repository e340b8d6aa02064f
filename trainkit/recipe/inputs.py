"""Looks for the files that a recipe names, without opening them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from unicodedata import normalize

from trainkit.contracts import INPUT_PATH, FileOrRun
from trainkit.errors import did_you_mean
from trainkit.recipe.fields import field_types, settings_fields
from trainkit.recipe.problems import Finding, InvalidRecipe
from trainkit.recipe.resolve import Resolved
from trainkit.recipe.tables import walk_settings


def missing_inputs(resolved: Resolved) -> list[Finding]:
    """Return an error for each file, folder or run that a setting names as an input (`INPUT_PATH`), if it is not there.

    A folder that would have to be a run's (`FileOrRun`) is looked into.
    """
    found = []
    for where, settings, _ in walk_settings(resolved.recipe):
        for key, field in settings_fields(type(settings)).items():
            if field.metadata.items() >= INPUT_PATH.items():
                value = getattr(settings, field.name)
                may_be_run = field_types(type(settings))[field.name] is FileOrRun
                for path in value if isinstance(value, list | tuple) else (value,):
                    if not isinstance(path, Path):
                        continue
                    if not path.exists():
                        hint = "\n    ".join(_hints(path, may_be_run))
                        finding = Finding(f"there is no {path}", (*where, key), hint=hint)
                    elif may_be_run and path.is_dir() and not _holds_run(path):
                        finding = Finding(f"{path} is no run folder, and there is none in it", (*where, key))
                    else:
                        continue
                    found.append(finding.located(resolved.origins, resolved.source))
    return found


def _holds_run(folder: Path) -> bool:
    """Return whether a folder is a run folder, or that of a run's name."""
    return any((each / "checkpoints").is_dir() for each in (folder, *folder.glob("*")))


def refuse_missing_inputs(recipes: Iterable[Resolved]) -> None:
    """Make sure that the files that recipes name as inputs are there.

    Raises:
        InvalidRecipe: Some are not; the message names all of them.
    """
    if found := [finding for resolved in recipes for finding in missing_inputs(resolved)]:
        raise InvalidRecipe(found)


def _hints(path: Path, may_be_run: bool) -> Iterator[str]:
    """Yield what is there instead: the nearest name beside the path, or the folder that ends the way to it."""
    if may_be_run and path.parent != Path("runs").absolute():
        runs = sorted(each.name for each in Path("runs").glob("*"))
        yield "runs/ has no run of this name either" + (f"; {did_you_mean(path.name, runs)}" if runs else "")
    folder = path.parent
    if folder.is_dir():
        try:
            names = [each.name for each in folder.iterdir()]
        except OSError as error:
            yield f"{folder} cannot be listed: {error}"
            return
        composed = normalize("NFC", path.name)
        if any(normalize("NFC", name) == composed for name in names):
            yield f'"{path.name}" is there, with its accents in the other Unicode form: copy its name from the folder'
            return
        hint = did_you_mean(path.name, names)
        if hint.startswith("did you mean"):
            yield hint
        return
    while not folder.exists():
        path, folder = folder, folder.parent
    yield f"{folder} has no {path.name}"
