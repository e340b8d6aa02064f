"""Archives a run as an RO-Crate: one zip file with all that somebody needs to look at it, and to repeat it.

    ro-crate-metadata.json   what each file is, for programs (Research Object Crate 1.3)
    README.md                what this is, for people, with the command that repeats the run
    recipe.toml              the recipe that the run began with
    journal.jsonl            what was changed meanwhile, and after which step
    run/…                    the run folder, of its checkpoints only the newest and the best

Data is not in it: its paths and fingerprint are.

Source:
    Soiland-Reyes et al.: "Packaging research artefacts with RO-Crate" (2022), https://w3id.org/ro/crate.
"""

from __future__ import annotations

import json
import mimetypes
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from trainkit.engine import journal, run_folder
from trainkit.engine.identity import CHECKPOINTS, identity_of
from trainkit.engine.older_recipe import compare
from trainkit.engine.trained_checkpoints import best_of
from trainkit.errors import ComponentError, RecipeError, TrainkitError
from trainkit.files.writing import written_whole
from trainkit.recipe.resolve import resolve_text
from trainkit.version import __version__
from trainkit.words import bytes_in_words, some_of

if TYPE_CHECKING:
    from trainkit.recipe.structure import AllowCode
    from trainkit.runs.record import RunRecord

RECIPE, RUN = "recipe.toml", "run"
_HIDDEN = "."
_LEFT_OUT = (CHECKPOINTS, "tensorboard")


@attrs.frozen
class About:
    """What only a person knows of an archive.

    Attributes:
        author: Who made the run; "": not said.
        license: The URL or name of the licence under which others may use the archive; "": not said.
        description: A sentence for the reader; "": none.
    """

    author: str = ""
    license: str = ""
    description: str = ""


def write_archive(
    run: RunRecord, file: Path, about: About, say: Callable[[str], None], allow_code: AllowCode = False
) -> None:
    """Write a run as an RO-Crate.

    Args:
        run: The run, which is not training.
        file: The zip file, which is replaced if it is there.
        about: What only a person knows.
        say: Called with what the reader of the archive will lack.
        allow_code: Which classes that the recipe names as ``module:Class`` may be imported.

    Raises:
        TrainkitError: The run is training, it has no checkpoint, or the archive cannot be written.
        ComponentError: The package rocrate is not installed.
    """
    try:
        from rocrate.rocrate import ROCrate
    except ImportError as error:
        raise ComponentError("an archive needs the package rocrate: pip install 'trainkit[archive]'") from error
    if run.state.name == "running":
        raise TrainkitError(f"{run.folder} is training; archive it when it has ended")
    newest, _ = run.checkpoints.newest_good(say)
    checkpoints = {newest.name: "the newest checkpoint, with the final weights"}
    if (best := best_of(run.folder)) is not None:
        checkpoints.setdefault(best.file_name, "the checkpoint with the best monitored value")
    why_not = why_not_repeatable(run.folder, allow_code)
    if why_not:
        say(f"warning: the archive can be looked at, but not repeated: {why_not}")
    with tempfile.TemporaryDirectory() as place:
        crate = ROCrate()
        crate.name = f"trainkit run {run.name} ({run.id})"
        crate.description = about.description or _described(run)
        if about.license:
            crate.license = about.license
        if about.author:
            crate.creator = crate.add_jsonld({"@id": "#author", "@type": "Person", "name": about.author})
        for at, name, what in _files(run, Path(place), checkpoints, why_not):
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            crate.add_file(at, name, properties={"description": what, "encodingFormat": kind}, record_size=True)
        for number, (key, data) in enumerate(_inputs(run)):
            about_data = {"name": key, "description": f"{data}: input data, which is not in this archive"}
            crate.add_jsonld({"@id": f"#input-{number}", "@type": "CreativeWork", **about_data})
        software = {
            "@id": "#trainkit",
            "@type": "SoftwareApplication",
            "name": "trainkit",
            "softwareVersion": __version__,
        }
        crate.add_jsonld(software)
        try:
            with written_whole(file) as new, new.open("wb") as stream:
                for chunk in crate.stream_zip():
                    stream.write(chunk)
        except OSError as error:
            raise TrainkitError(f"{file} cannot be written: {error.strerror or error}") from error
    say(f"{file}: {bytes_in_words(file.stat().st_size)}, {len(checkpoints)} of the checkpoints")


def why_not_repeatable(folder: Path, allow_code: AllowCode) -> str:
    """Return why the first recipe and the journal of a run do not describe it completely; "": they do."""
    first, last = run_folder.first_recipe(folder), identity_of(folder).recipe
    if first is None or last is None:
        return "it is not known with which recipe it began"
    try:
        sets = tuple(journal.sets_of(journal.to_replay(folder))) if (folder / journal.NAME).exists() else ()
        described = resolve_text(first, Path.cwd(), sets, source="its recipe", allow_code=allow_code, resolved=True)
    except RecipeError as error:
        return f"its recipe cannot be read here: {error}"
    differences = compare(last, described).differences
    return f"its settings were changed without an entry in the journal: {some_of(differences)}" if differences else ""


def _files(
    run: RunRecord, place: Path, checkpoints: Mapping[str, str], why_not: str
) -> Iterator[tuple[Path, str, str]]:
    """Yield the files of the archive: where it lies now, its name in the archive, and what it is."""

    def made(name: str, text: str) -> Path:
        (place / name).write_text(text, encoding="utf-8")
        return place / name

    yield made("README.md", _readme(run, why_not)), "README.md", "what this archive holds, for people"
    if not why_not:
        first = run_folder.first_recipe(run.folder)
        assert first is not None
        yield made(RECIPE, first), RECIPE, "the recipe that the run began with, complete"
        for request in journal.to_replay(run.folder) if (run.folder / journal.NAME).exists() else ():
            journal.write_replay(place, [request])
        if (place / journal.NAME).exists():
            yield place / journal.NAME, journal.NAME, "what was changed while it trained, and after which step"
    for path in sorted(run.folder.rglob("*")):
        inside = path.relative_to(run.folder)
        if not path.is_file() or path.is_symlink() or inside.parts[0] in _LEFT_OUT:
            continue
        if any(part.startswith(_HIDDEN) for part in inside.parts):
            continue
        copy = place / RUN / inside  # of now, if the folder changes meanwhile
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        yield copy, f"{RUN}/{inside.as_posix()}", _what(inside)
    for name, what in checkpoints.items():
        yield run.folder / CHECKPOINTS / name, f"{RUN}/{CHECKPOINTS}/{name}", what


_KNOWN = {
    "recipe.toml": "the complete recipe of the last start",
    "environment.json": "each start: time, command, machine, versions, and how it ended",
    "metrics.jsonl": "the values of each epoch",
    "log.txt": "all messages",
    "run.json": "the run's id and what it began from",
    "journal.jsonl": "what was asked of the run while it trained",
    "progress.png": "the values of all epochs as curves",
    "result.h5": "the result, with units",
}


def _what(path: Path) -> str:
    return _KNOWN.get(path.as_posix(), "a picture of the run" if path.suffix == ".png" else f"{path.name} of the run")


def _described(run: RunRecord) -> str:
    best = "" if run.best is None or run.monitor is None else f", best {run.monitor.metric} {run.best.value:.5g}"
    return f"{run.name}: {run.state.name}, {run.values.epochs} epochs finished{best}"


def _inputs(run: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield the settings of the data that are absolute paths."""
    for key, value in run.settings.items():
        if key.startswith("data.") and isinstance(value, str) and value.startswith("/"):
            yield key, value


def _readme(run: RunRecord, why_not: str) -> str:
    header: Mapping[str, Any] = run.newest_header or {}
    packages = {f"{each['package']}=={each['version']}" for each in header.get("components", ()) if each.get("package")}
    inputs = "".join(f" \\\n    --set {key}=…" for key, _ in _inputs(run))
    lines = [
        f"# {run.name} ({run.id})",
        "",
        _described(run) + ".",
        "",
        "`run/` is the folder of the run: `recipe.toml` has every setting, `metrics.jsonl` the values of each epoch,",
        "`environment.json` the machine and the versions, `checkpoints/` the final weights.",
        "",
    ]
    if why_not:
        return "\n".join([*lines, f"It cannot be repeated from this archive: {why_not}", ""])
    if inputs:
        lines += ["The data is not in this archive:", ""]
        lines += [f"- `{key}`: {path}" for key, path in _inputs(run)]
        lines += [f"- fingerprint: `{json.dumps(header.get('fingerprint') or {})[:2000]}`", ""]
    return "\n".join(
        [
            *lines,
            "To repeat the run and compare it bit for bit:",
            "",
            "```",
            f"pip install {' '.join(sorted(packages | {f'trainkit=={__version__}'}))}",
            f"trainkit reproduce THIS.zip{inputs}",
            "```",
            "",
        ]
    )
