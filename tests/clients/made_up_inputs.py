"""Tiny made-up data for each recipe that comes with trainkit, and the settings with which it is trained on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from clients import segmentation_cases
from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve
from trainkit.recipe.shipped import shipped

SIZE = 16
GENERATOR = np.random.default_rng(0)


def nothing(folder: Path) -> tuple[str, ...]:
    small = ("data.scan_shape=[5, 5]", "data.detector_size=24")
    return (*small, "groups.probe.start_epoch=1", "groups.dr.start_epoch=1")


def near_field(folder: Path) -> tuple[str, ...]:
    small = ("data.num_points=25", "data.detector_size=24", "data.range_pixels=16.0")
    return (*small, "groups.probe.start_epoch=1", "groups.dr.start_epoch=1")


def as_mos2(folder: Path) -> tuple[str, ...]:
    grid = np.stack(np.meshgrid(*(5.0 + 0.9 * np.arange(4),) * 2, indexing="ij"), -1).reshape(-1, 2)
    with h5py.File(folder / "scan.h5", "w") as file:
        file["intensity"] = GENERATOR.poisson(20.0, (4, 4, SIZE, SIZE)).astype(np.float32)
        file["positions_nominal_A"] = grid
        file["positions_true_A"] = grid + GENERATOR.normal(0.0, 0.1, grid.shape)
        file["gt/phase_rad"] = GENERATOR.random((64, 64)).astype(np.float32)
    return (f"data.path={folder / 'scan.h5'}", "data.dk_per_angstrom=0.156", "groups.dr.start_epoch=1")


def as_thick(folder: Path) -> tuple[str, ...]:
    path = as_mos2(folder)[0]
    with h5py.File(folder / "scan.h5", "a") as file:
        file["gt/phase_slices_rad"] = GENERATOR.random((6, 64, 64)).astype(np.float32)
    return (path, "data.dk_per_angstrom=0.25", "groups.dr.start_epoch=1")


def as_siemens(folder: Path) -> tuple[str, ...]:
    generator = np.random.default_rng(0)
    where_N2 = generator.integers(0, 10, (16, 2))
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    probe = np.exp(-(y**2 + x**2) / 18 + 0.05j * (y**2 + x**2))
    specimen = np.exp(1j * generator.random((SIZE + 10, SIZE + 10)))
    patches = np.stack([specimen[row : row + SIZE, column : column + SIZE] for row, column in where_N2])
    intensities = np.abs(np.fft.fft2(probe * patches, norm="ortho")) ** 2
    data = generator.poisson(50.0 * intensities).astype(np.float32)[None]
    guess = (7.0 * probe).astype(np.complex64)[None, None, None, None]
    np.savez(folder / "scan.npz", data=data, scan=where_N2[None].astype(np.float64), probe=guess)
    return (f"data.path={folder / 'scan.npz'}",)


FEW_PATTERNS = ("data.batch_size=12", "data.validation_fraction=0.1")
SMALL_NETWORK = ("model.channels=[4, 8]", "data.patch_size=[16, 16, 16]", "data.steps_per_epoch=4", "optimizer.lr=0.01")


def of_patterns(make: Callable[[Path], tuple[str, ...]]) -> Callable[[Path], tuple[str, ...]]:
    return lambda folder: (*make(folder), *FEW_PATTERNS)


def of_volumes(write: Callable[[Path], Path] | None, *sets: str) -> Callable[[Path], tuple[str, ...]]:
    def made(folder: Path) -> tuple[str, ...]:
        path = () if write is None else (f"data.path={write(folder / 'cases')}",)
        return (*path, f"data.cache.folder={folder / 'cache'}", *SMALL_NETWORK, *sets)

    return made


HIPPOCAMPUS = of_volumes(segmentation_cases.msd)
NNUNET = of_volumes(
    segmentation_cases.msd,
    "data.workers=0",
    "data.batch_size=2",
    "model.channels=[4, 8, 8, 8]",
    "validation.every_epochs=1",
    "pictures.every_epochs=1",
)


def fine_tuning(folder: Path) -> tuple[str, ...]:
    sets = HIPPOCAMPUS(folder)
    before = (*sets, "run.name=before", "run.epochs=1", "run.device=cpu")
    start(resolve(shipped()["msd_hippocampus_unet"], before), Console(quiet=True))
    return (*sets, "initial_weights.path=before", "groups.encoder.start_epoch=1")


LIVER = of_volumes(segmentation_cases.msd, "data.workers=0")
BRATS = of_volumes(segmentation_cases.brats, "data.workers=0")
ORGANS = of_volumes(
    segmentation_cases.totalsegmentator,
    "data.workers=0",
    f"data.structures={json.dumps(segmentation_cases.STRUCTURES)}",
    "data.split.validation_fraction=0.25",
)

MADE_UP: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "brats_unet": BRATS,
    "brats_unet_static": BRATS,
    "fine_tune": fine_tuning,
    "msd_hippocampus_unet": HIPPOCAMPUS,
    "msd_hippocampus_unet_static": HIPPOCAMPUS,
    "msd_liver_unet": LIVER,
    "msd_liver_unet_static": LIVER,
    "nnunet_like": NNUNET,
    "ptycho_hash": of_patterns(nothing),
    "ptycho_mos2": of_patterns(as_mos2),
    "ptycho_mos2_hash": of_patterns(as_mos2),
    "ptycho_near_field": of_patterns(near_field),
    "ptycho_shifted_scans": of_patterns(nothing),
    "ptycho_siemens": of_patterns(as_siemens),
    "ptycho_staged": of_patterns(nothing),
    "ptycho_thick": of_patterns(as_thick),
    "ptycho_thick_simulated": of_patterns(nothing),
    "ptycho_tilted": of_patterns(nothing),
    "ptycho_two_scans": of_patterns(lambda folder: (*nothing(folder), "groups.aberrations.start_epoch=1")),
    "ptycho_unknown_geometry": of_patterns(nothing),
    "segmentation_search": of_volumes(None, "data.num_cases=4", "data.size=[20, 20, 20]"),
    "segmentation_synthetic": of_volumes(None, "data.num_cases=4", "data.size=[20, 20, 20]"),
    "totalsegmentator_unet": ORGANS,
    "totalsegmentator_unet_static": ORGANS,
}
