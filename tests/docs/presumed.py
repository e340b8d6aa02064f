"""What a page presumes in its reader's folder: the recipes that come with trainkit, data, and finished runs.

All are made small. Recipes keep their names and groups, and those of scans their length; data, networks and the length
of segmentation runs are smaller. So each command is run as it is printed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from clients import segmentation_cases

from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve

SHIPPED = Path(__file__).parents[2] / "recipes"

_EVERY = 'pictures.every_epochs = 0\nrun.device = "cpu"\ndrop = ["loggers"]\n'
_PATTERNS = _EVERY + "data.batch_size = 12\ndata.validation_fraction = 0.1\n"
_SIMULATED = _PATTERNS + "data.scan_shape = [5, 5]\ndata.detector_size = 24\n"
_VOLUMES = (
    _EVERY.replace("every_epochs = 0", "every_epochs = 2")
    + """run.epochs = 2
validation.every_epochs = 1
data.workers = 0
data.batch_size = 2
data.steps_per_epoch = 2
data.patch_size = [16, 16, 16]
model.channels = [4, 8]
"""
)
_SMALL: Mapping[str, str] = {
    "ptycho_near_field": _PATTERNS + "data.num_points = 25\ndata.detector_size = 24\ndata.range_pixels = 16.0\n",
    "ptycho_mos2": _PATTERNS + "data.dk_per_angstrom = 0.156\n",
    "ptycho_mos2_hash": _PATTERNS + "data.dk_per_angstrom = 0.156\n",
    "ptycho_thick": _PATTERNS + "data.dk_per_angstrom = 0.25\n",
    "ptycho_siemens": _PATTERNS,
    "nnunet_like": _VOLUMES.replace("[4, 8]", "[4, 8, 8, 8]"),
    "segmentation_search": _VOLUMES + "data.num_cases = 4\ndata.size = [20, 20, 20]\nsearch.trials = 2\n",
    "segmentation_synthetic": _VOLUMES + "data.num_cases = 4\ndata.size = [20, 20, 20]\n",
}


def small(name: str) -> str:
    """Return a recipe that comes with trainkit, made small by what stands behind `extends`."""
    changes = _SMALL.get(name, _SIMULATED if name.startswith("ptycho") else _VOLUMES)
    if name == "segmentation_search":  # has no loggers
        changes = changes.replace('drop = ["loggers"]\n', "")
    return f'extends = ["{SHIPPED / name}.toml"]\n{changes}'


def recipes(folder: Path) -> dict[str, Path]:
    """Write all recipes into ``recipes/`` of a folder: name -> path."""
    (folder / "recipes").mkdir()
    found = {}
    for path in sorted(SHIPPED.glob("*.toml")):
        found[path.stem] = folder / "recipes" / path.name
        found[path.stem].write_text(small(path.stem), encoding="utf-8")
    return found


def run(name: str, *sets: str) -> Path:
    """Run a recipe that comes with trainkit in the working directory, and return the folder."""
    folder: Path = start(resolve(Path("recipes") / f"{name}.toml", sets), Console(quiet=True)).run.state.folder
    return folder


@contextmanager
def graphs_of_one_size() -> Iterator[None]:
    """Let networks be exported for patches of their own size; torch takes ten times as long to leave sizes open.

    That sizes stay open is tested in segmentation/test_export.py.
    """
    from trainkit_segmentation.models import example

    whole = example.example
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "example", lambda settings, facts: whole(settings, facts)._replace(sizes={}))
        yield


def staged(*sets: str) -> Path:
    """Make a short run of ptycho_staged."""
    return run("ptycho_staged", "run.epochs=3", "groups.probe.start_epoch=1", "groups.dr.start_epoch=2", *sets)


def edited() -> None:
    """Make a run of 40 epochs, with the folder's name that the page has, and a recipe of a run that takes a while."""
    made = run("ptycho_staged")
    made.rename(made.parent / "2026-11-26T22-02-55-3e590db9")
    longer = small("ptycho_staged").replace("[5, 5]", "[16, 16]") + "run.epochs = 2000\n"
    Path("recipes/ptycho_staged.toml").write_text(longer, encoding="utf-8")


def trained_network() -> None:
    """Make the run liver_unet, and images that it has not seen."""
    cases = segmentation_cases.msd(Path("cases"), cases=6)
    held_out = 'data.split={use="fraction", validation_fraction=0.5}'
    run("msd_liver_unet", f"data.path={cases}", "run.name=liver_unet", held_out)
    shutil.copytree(cases / "imagesTr", "scans")


def reconstruction() -> None:
    """Make the run ptycho_mos2."""
    staged("run.name=ptycho_mos2", "data.scan_shape=[12, 12]", "data.step_angstrom=1.0")


def queue() -> None:
    """Make a run of 40 epochs, and three recipes."""
    run("ptycho_staged")
    for name in "abc":
        Path(f"{name}.toml").write_text(small("segmentation_synthetic") + f'run.name = "{name}"\n', encoding="utf-8")


def own_recipe() -> None:
    """Write the file my_recipe.toml."""
    shutil.copy(SHIPPED / "ptycho_staged.toml", "my_recipe.toml")


def hippocampi() -> None:
    """Write a recipe beside the page's own, and the data that it needs."""
    cases = segmentation_cases.msd(Path("cases"))
    text = small("msd_hippocampus_unet") + f'data.path = "{cases.resolve()}"\n'
    Path("msd_hippocampus_unet.toml").write_text(text, encoding="utf-8")


def working_folder() -> None:
    """Write recipes, a folder of cases, images without and with their truth."""
    cases = segmentation_cases.msd(Path("Task04_Hippocampus"), cases=6)
    shutil.copytree(cases / "imagesTr", "scans")
    shutil.copytree(cases / "labelsTr", "truth")
    text = small("msd_hippocampus_unet") + 'data.split = { use = "fraction", validation_fraction = 0.5 }\n'
    for name in "abc":
        more = f'data.path = "{cases.resolve()}"\nrun.name = "{name}"\n'
        Path(f"{name}.toml").write_text(text + more, encoding="utf-8")


def folders_of_cases() -> None:
    """Write two data sets, and new cases with their truth."""
    segmentation_cases.msd(Path("Task04_Hippocampus"))
    segmentation_cases.brats(Path("BraTS2021"), cases=5)
    for case in sorted(Path("BraTS2021").iterdir())[:1]:
        (new := Path("new_patients") / case.name).mkdir(parents=True)
        Path("truth").mkdir()
        for path in case.iterdir():
            inside = "_seg" in path.name
            shutil.copy(path, Path("truth") / f"{case.name}.nii.gz" if inside else new / path.name)


MADE: Mapping[str, Callable[[], object]] = {
    "archive.md": staged,
    "commands.md": working_folder,
    "calibration.md": trained_network,
    "edits.md": edited,
    "editors.md": own_recipe,
    "own_data.md": folders_of_cases,
    "prediction.md": trained_network,
    "resolution.md": reconstruction,
    "resume.md": queue,
    "sweeps.md": hippocampi,
}
"""Pages whose folder holds more than the recipes that come with trainkit."""

TRAIN_MEANWHILE = {"edits.md": "ptycho_staged"}
"""Pages whose commands ask a run that trains: the recipe of that run."""

OTHER_NAMES = {"brats.toml": "brats_unet", "recipe.toml": "ptycho_staged", "my.toml": "segmentation_search"}
"""Recipes that pages name as if they were the reader's own, where their commands are not run."""

EXTRAS = {"archive.md": ("rocrate",), "commands.md": ("rocrate", "optuna", "onnx")}
"""Pages whose commands need packages that not every installation has."""
