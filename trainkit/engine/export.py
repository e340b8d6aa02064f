"""Writes the trained model of a run for other programs, whole and never over something else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import tomli

from trainkit import registry
from trainkit.checkpoint.content import trained_weights
from trainkit.contracts import BuiltModel, Exporter, Model
from trainkit.engine.start import ExitCode
from trainkit.engine.trained_checkpoints import Choice, find_checkpoints
from trainkit.engine.trained_models import build_model, read_parts
from trainkit.errors import CheckpointError, DataError, RecipeError, blame
from trainkit.files.writing import make_folder, set_aside, sync_folder, written_whole
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.rules import missing_modules
from trainkit.version import __version__

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.recipe.structure import AllowCode


@attrs.define(slots=False)
class Checkpoint:
    """A checkpoint that is exported; see `trainkit.contracts.TrainedModel`.

    Attributes:
        file: The checkpoint.
        saved: Its content.
        allow_code: Which classes that its recipe names as ``module:Class`` may be imported.
    """

    file: Path
    saved: Mapping[str, Any]
    allow_code: AllowCode

    @property
    def name(self) -> str:
        """The checkpoint, for messages."""
        return str(self.file)

    @property
    def weights(self) -> Mapping[str, Any]:
        """State of the model; the averaged one if the run had any."""
        return trained_weights(self.saved)

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe, as TOML tables."""
        return tomli.loads(self.saved["recipe"])

    @cached_property
    def about(self) -> Mapping[str, Any]:
        """Where the model comes from, and the facts of its training data."""
        run = self.saved.get("run") or {}
        facts = self.saved.get("facts") or {}
        tables = {name: self.recipe[name] for name in ("model", "inference") if name in self.recipe}
        kept = {f"recipe_{name}": without_folders(table) for name, table in tables.items()}
        return {
            **facts,
            "trainkit": __version__,
            "run": str(self.recipe.get("run", {}).get("name", "")),
            "run_id": run.get("id", ""),
            "epochs": self.saved["epoch"],
            "steps": self.saved["step"],
            "weights": "a moving average" if self.saved.get("average") is not None else "as trained",
            "trained_in": self.recipe.get("run", {}).get("precision", "fp32"),
            **kept,
        }

    @cached_property
    def _parts(self) -> dict[str, Any]:
        return read_parts(self.file, self.saved, self.allow_code)

    def settings(self) -> Model:
        """Return the settings of the model."""
        model: Model = self._parts["model"]
        return model

    def build(self) -> BuiltModel:
        """Build the model, on the CPU."""
        data, model = build_model(self.file, self.saved, self._parts)
        model = model.float() if not any(value.is_complex() for value in model.parameters()) else model
        return BuiltModel(self.settings(), model.eval().requires_grad_(False), data, self._parts["inference"])


def export(
    run: Path,
    form: str,
    console: Console,
    *,
    out: Path | None = None,
    choice: Choice = Choice(),  # noqa: B008 (it is frozen)
    force: bool = False,
    allow_code: AllowCode = False,
) -> ExitCode:
    """Write the model of a run.

    Args:
        run: The run, or a checkpoint.
        form: Name of an `Exporter`.
        console: Prints the messages.
        out: The file, or the folder if the form is a folder; an existing folder gets a file. None: a name after the run
            in the working directory.
        choice: Which checkpoint of the run.
        force: Whether what is there is replaced.
        allow_code: Which classes that the checkpoint's recipe names as ``module:Class`` may be imported.

    Raises:
        RecipeError: The command line is wrong, or such a model cannot be written in this form.
        CheckpointError: The checkpoint cannot be used.
        DataError: The file cannot be written.
    """
    exporter = _exporter(form)
    files = find_checkpoints([run], choice, console.say).files
    if len(files) > 1:
        members = ", ".join(str(file) for file, _ in files)
        raise RecipeError(f"{run} is an ensemble of {len(files)} models; export each by itself: {members}")
    file, saved = files[0]
    checkpoint = Checkpoint(file, saved, allow_code)
    try:
        path = _path(checkpoint, exporter, out)
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{file}: its recipe cannot be read: {error}") from error
    if Path.cwd().is_relative_to(path.resolve()):
        raise RecipeError(f"{path} holds the working directory; name another place with --out")
    if os.path.lexists(path) and not force:
        raise RecipeError(f"{path} is there already; --force replaces it, and --out names another place")
    try:
        make_folder(path.parent)
        with _written(path, exporter, console) as new:
            try:
                said = list(exporter.export(checkpoint, new))
            except Exception as error:
                blame(error, f"{file}: export to {form}")
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}; give another place with --out"
        ) from error
    for sentence in said:
        console.say(sentence)
    console.say(f"exported: {path}")
    return ExitCode.FINISHED


def without_folders(value: Any) -> Any:
    """Return settings in which absolute paths are names of files: folders may name patients, users and machines.

    Example:
        >>> without_folders({"use": "from_file", "path": "/home/ada/probe.npy"})
        {'use': 'from_file', 'path': 'probe.npy'}
    """
    if isinstance(value, Mapping):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_folders(each) for each in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _exporter(form: str) -> Exporter:
    """Return the exporter of a name.

    Raises:
        RecipeError: There is none, or what it needs is not installed.
    """
    cls = registry.find(Exporter.entry_points, form)
    if not issubclass(cls, Exporter):
        raise RecipeError(f"--to {form}: {cls.__name__} is not an exporter")
    settings: Exporter = cls()
    if missing := list(missing_modules(("export",), settings)):
        raise InvalidRecipe(each.located({}, "the command line") for each in missing[:1])
    return settings


def _path(checkpoint: Checkpoint, exporter: Exporter, out: Path | None) -> Path:
    """Return where a model is written to."""
    name = checkpoint.about["run"] or checkpoint.file.stem
    suffix = type(exporter).suffix
    if out is None:
        return Path(f"{name}{suffix or '_bundle'}")
    return out / f"{name}{suffix}" if suffix and out.is_dir() else out


@contextmanager
def _written(path: Path, exporter: Exporter, console: Console) -> Iterator[Path]:
    """Provide a new file or an empty folder, which takes the place of ``path`` when the block ends.

    What is replaced by a folder is kept beside it, since nobody knows what a folder holds.
    """
    if type(exporter).suffix:
        if path.is_dir():
            raise RecipeError(f"{path} is a folder, and a file would be written")
        with written_whole(path) as new:
            yield new
        return
    new = path.with_name(f"{path.name}.tmp-{os.urandom(4).hex()}")
    new.mkdir()
    try:
        yield new
        for folder, _, names in os.walk(new):
            for each in names:
                with (Path(folder) / each).open("rb") as file:
                    os.fsync(file.fileno())
            sync_folder(Path(folder))
        if os.path.lexists(path):
            console.say(f"{path} is replaced; what was there is kept as {set_aside(path)}")
        os.rename(new, path)
        sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
