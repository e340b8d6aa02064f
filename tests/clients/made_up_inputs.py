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


def nothing(folder: Path) -> tuple[str, ...]:
    small = ("data.scan_shape=[5, 5]", "data.detector_size=24")
    return (*small, "groups.probe.start_epoch=1", "groups.dr.start_epoch=1")


def near_field(folder: Path) -> tuple[str, ...]:
    small = ("data.num_points=25", "data.detector_size=24", "data.range_pixels=16.0")
    return (*small, "groups.probe.start_epoch=1", "groups.dr.start_epoch=1")


def as_mos2(folder: Path) -> tuple[str, ...]:
    return electrons(folder, dk_per_A=0.156, wavelength_A=0.04176, semiangle_mrad=25.0, defocus_A=60.0)


def as_thick(folder: Path) -> tuple[str, ...]:
    sets = electrons(folder, dk_per_A=0.25, wavelength_A=0.01969, semiangle_mrad=30.0, defocus_A=120.0)
    with h5py.File(folder / "scan.h5", "a") as file:
        file["gt/phase_slices_rad"] = np.repeat(file["gt/phase_rad"][()][None] / 6, 6, axis=0)
    return sets


def electrons(
    folder: Path, dk_per_A: float, wavelength_A: float, semiangle_mrad: float, defocus_A: float
) -> tuple[str, ...]:
    """Write 16 patterns of a smooth phase, of 5,000 electrons each, from the aperture that the recipe knows of."""
    generator = np.random.default_rng(0)
    pixel_A = 1 / (SIZE * dk_per_A)
    named_A = np.stack(np.meshgrid(*(5.0 + 0.9 * np.arange(4),) * 2, indexing="ij"), -1).reshape(-1, 2)
    true_A = named_A + generator.normal(0.0, 0.1, named_A.shape)
    is_smooth = np.hypot(*np.meshgrid(*(np.fft.fftfreq(64),) * 2)) < 0.2
    phase = np.fft.ifft2(np.fft.fft2(generator.normal(size=(64, 64))) * is_smooth).real
    k_per_A = np.hypot(*np.meshgrid(*(np.fft.fftfreq(SIZE, pixel_A),) * 2))
    aperture = (k_per_A < 1e-3 * semiangle_mrad / wavelength_A) * np.exp(
        -1j * np.pi * wavelength_A * defocus_A * k_per_A**2
    )
    probe = np.fft.fftshift(np.fft.ifft2(aperture))
    corners = np.round(true_A / pixel_A).astype(int) - SIZE // 2
    patches = np.stack([np.exp(1j * phase)[row : row + SIZE, column : column + SIZE] for row, column in corners])
    light = np.fft.fftshift(np.abs(np.fft.fft2(probe * patches)) ** 2, axes=(-2, -1))
    counts = generator.poisson(5000 * light / light.sum((-2, -1), keepdims=True))
    with h5py.File(folder / "scan.h5", "w") as file:
        file["intensity"] = counts.reshape(4, 4, SIZE, SIZE).astype(np.float32)
        file["positions_nominal_A"] = named_A
        file["positions_true_A"] = true_A
        file["gt/phase_rad"] = phase.astype(np.float32)
    return (f"data.path={folder / 'scan.h5'}", f"data.dk_per_angstrom={dk_per_A}", "groups.dr.start_epoch=1")


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
    # One step makes no object of a hash encoding that could hold positions: with the recipe's steps they go anywhere.
    "ptycho_mos2_hash": of_patterns(lambda folder: (*as_mos2(folder), "groups.dr.lr=0.1")),
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
