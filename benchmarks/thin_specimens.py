"""Simulates scans of thin specimens by multislice, each drawn by a seed from a stated range, as HDF5 files.

The range, which `draw` follows: eight materials, from graphene to 8 Å of SrTiO3, turned at random in the plane, with
vacancies; 60 to 300 kV; aperture 15 to 30 mrad; both signs of defocus; probes of 3 to 8 Å; overlap of neighbours 70 to
90 %; doses from 1e4 to 1e6 e/Å²; positions wrong by 0.05 to 0.15 Å; a told defocus that is wrong by 10 to 30 Å.

It shares nothing with the model that reconstructs: potentials from tables of scattering factors, atoms that vibrate
(the patterns are means over several frozen arrangements), slices with propagation between them, twice the sampling.

    python benchmarks/thin_specimens.py --out FOLDER [--seeds 0 1 2 3 4 5]

Shapes: N = scan points, A = atoms, K, L = rows and columns of the specimen, Y, X = those of a pattern.
"""

from __future__ import annotations

import argparse
from math import cos, pi, sin, sqrt
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

DETECTOR = 64
POINTS = 20  # along each side of the scan
ARRANGEMENTS = 4  # of the vibrating atoms
MARGIN = 6  # pixels of specimen beyond the patches

# Σ a · exp(−b · s²), in Å, s in 1/Å: L.-M. Peng, G. Ren, S. L. Dudarev, M. J. Whelan, Acta Cryst. A 52 (1996) 257.
SCATTERING = {
    "B": ([0.0436, 0.1898, 0.6788, 1.3273, 0.5544], [0.1207, 1.1595, 6.2474, 21.046, 59.3619]),
    "C": ([0.0489, 0.2091, 0.7537, 1.142, 0.3555], [0.114, 1.0825, 5.4281, 17.8811, 51.1341]),
    "N": ([0.0267, 0.1328, 0.5301, 1.102, 0.4215], [0.0541, 0.5165, 2.8207, 10.6297, 34.3764]),
    "O": ([0.0365, 0.1729, 0.5805, 0.8814, 0.3121], [0.0652, 0.6184, 2.9449, 9.6298, 28.2194]),
    "S": ([0.0915, 0.4312, 1.0847, 2.4671, 1.0852], [0.0838, 0.7788, 4.3462, 15.5846, 44.6365]),
    "Ti": ([0.2123, 0.896, 2.1765, 3.0436, 2.4439], [0.1399, 1.4568, 6.7534, 33.1168, 101.8238]),
    "Se": ([0.1574, 0.7614, 1.4834, 3.0016, 1.7978], [0.0686, 0.6808, 3.1163, 14.3458, 44.0455]),
    "Sr": ([0.3723, 1.4598, 3.5124, 4.4612, 3.3031], [0.148, 1.4643, 9.232, 49.8807, 148.0937]),
    "Mo": ([0.3069, 1.1714, 3.2293, 3.4254, 2.1224], [0.1101, 1.0222, 5.9613, 25.1965, 93.5831]),
    "Te": ([0.2422, 0.9692, 2.8114, 4.1509, 2.8161], [0.0708, 0.6472, 3.3609, 16.0752, 50.1724]),
    "W": ([0.3661, 1.6191, 3.2455, 4.0856, 3.2064], [0.0761, 0.7543, 4.0952, 18.2886, 68.0967]),
}
VOLT = 47.878  # h² / (2π · electron mass · charge), in V Å²

# Name -> (a, b) of a rectangular cell in Å, and atoms (element, x/a, y/b, z in Å).
Cell = tuple[tuple[float, float], tuple[tuple[str, float, float, float], ...]]


def _hexagonal(a: float, metal: str, other: str, height: float) -> Cell:
    """Return a layer with a metal at z = 0 and two atoms above and below, or with one atom of each in the plane."""
    first = [(metal, 0.0, 0.0, 0.0), (metal, 0.5, 0.5, 0.0)]
    levels = (-height / 2, height / 2) if height else (0.0,)
    second = [(other, x, y, z) for x, y in ((0.0, 1 / 3), (0.5, 5 / 6)) for z in levels]
    return (a, a * sqrt(3)), tuple(first + second)


def _perovskite(a: float, heavy: str, light: str, cells: int) -> Cell:
    corner = [(heavy, 0.0, 0.0, 0.0), (light, 0.5, 0.5, 0.5), ("O", 0.5, 0.0, 0.5), ("O", 0.0, 0.5, 0.5)]
    corner.append(("O", 0.5, 0.5, 0.0))
    return (a, a), tuple((element, x, y, (z + n) * a) for n in range(cells) for element, x, y, z in corner)


MATERIALS: dict[str, Cell] = {
    "graphene": _hexagonal(2.46, "C", "C", 0.0),
    "hBN": _hexagonal(2.504, "B", "N", 0.0),
    "MoS2": _hexagonal(3.18, "Mo", "S", 3.13),
    "WS2": _hexagonal(3.15, "W", "S", 3.14),
    "WSe2": _hexagonal(3.28, "W", "Se", 3.34),
    "MoTe2": _hexagonal(3.52, "Mo", "Te", 3.6),
    "SrTiO3, 4 Å": _perovskite(3.905, "Sr", "Ti", 1),
    "SrTiO3, 8 Å": _perovskite(3.905, "Sr", "Ti", 2),
}


class Settings(NamedTuple):
    """A scan to simulate, and what its reconstruction is told.

    Attributes:
        material: Key of `MATERIALS`.
        turned_deg: By how much the lattice is turned.
        vacancies: Share of the atoms that are missing.
        vibration_angstrom: Standard deviation of an atom's coordinate.
        energy_kev: Energy of the electrons.
        semiangle_mrad: Half opening angle of the aperture.
        detector_mrad: Angle at the edge of the detector.
        defocus_angstrom: Underfocus.
        told_defocus_angstrom: What the reconstruction is told instead.
        step_angstrom: Distance between scan points.
        position_error_angstrom: Standard deviation of the error of the told positions, along each axis.
        dose_per_square_angstrom: Electrons per Å².
        seed: Seed of vacancies, vibrations, position errors and noise.
    """

    material: str
    turned_deg: float
    vacancies: float
    vibration_angstrom: float
    energy_kev: float
    semiangle_mrad: float
    detector_mrad: float
    defocus_angstrom: float
    told_defocus_angstrom: float
    step_angstrom: float
    position_error_angstrom: float
    dose_per_square_angstrom: float
    seed: int

    @property
    def wavelength_angstrom(self) -> float:
        """The wavelength of the electrons."""
        return 12.2643 / sqrt(self.energy_kev * 1e3 * (1 + 0.978476e-3 * self.energy_kev))

    @property
    def pixel_angstrom(self) -> float:
        """The size of an object pixel."""
        return self.wavelength_angstrom / (2e-3 * self.detector_mrad)

    @property
    def overlap(self) -> float:
        """The share of the probe's diameter that neighbours have in common."""
        return 1 - self.step_angstrom / (2e-3 * self.semiangle_mrad * abs(self.defocus_angstrom))

    def __str__(self) -> str:
        return (
            f"{self.material}, {self.energy_kev:.0f} kV, {self.semiangle_mrad:.0f} mrad, "
            f"{self.defocus_angstrom:+.0f} Å (told {self.told_defocus_angstrom:+.0f}), "
            f"overlap {100 * self.overlap:.0f} %, {self.dose_per_square_angstrom:.0e} e/Å²"
        )


def draw(seed: int) -> Settings:
    """Return the settings that belong to a seed."""
    generator = np.random.default_rng([seed, 0x5CA1])
    material = list(MATERIALS)[generator.integers(len(MATERIALS))]
    energy = float(generator.choice([60.0, 80.0, 120.0, 200.0, 300.0]))
    semiangle = generator.uniform(15, 30)
    detector = semiangle * generator.uniform(1.7, 2.3)
    bare = Settings(material, 0, 0, 0, energy, semiangle, detector, 1, 1, 1, 0, 1, seed)
    widest = min(8.0, 0.4 * DETECTOR * bare.pixel_angstrom)
    diameter = generator.uniform(3.0, max(widest, 3.5))
    sign, wrong_way = generator.choice([-1, 1], 2)
    defocus = sign * diameter / (2e-3 * semiangle)
    return bare._replace(
        turned_deg=generator.uniform(0, 90),
        vacancies=generator.uniform(0.01, 0.05),
        vibration_angstrom=generator.uniform(0.05, 0.09),
        defocus_angstrom=defocus,
        told_defocus_angstrom=defocus + wrong_way * generator.uniform(10, 30),
        step_angstrom=diameter * generator.uniform(0.1, 0.3),
        position_error_angstrom=generator.uniform(0.05, 0.15),
        dose_per_square_angstrom=10 ** generator.uniform(4, 6),
    )


def simulate(settings: Settings, path: Path, points: int = POINTS) -> None:
    """Write a scan: patterns, told and true positions, the true phase, and what there is to know, in attributes."""
    generator = np.random.default_rng([settings.seed, 1])
    pixel, size = settings.pixel_angstrom, DETECTOR
    step = settings.step_angstrom / pixel
    first = size // 2 + MARGIN
    nominal_N2 = np.stack(np.meshgrid(*[first + step * np.arange(points)] * 2, indexing="ij"), -1).reshape(-1, 2)
    shape = 2 * [int(np.ceil(step * (points - 1))) + size + 2 * MARGIN]
    true_N2 = nominal_N2 + generator.normal(0, settings.position_error_angstrom / pixel, nominal_N2.shape)
    limit = first - size // 2 - 1
    true_N2 = np.clip(true_N2, nominal_N2 - limit, nominal_N2 + limit)

    elements, places_A3 = atoms(settings, shape[0] * pixel, generator)
    expected_NYX = np.zeros((len(true_N2), size, size))
    phase_KL = np.zeros(shape)
    for _ in range(ARRANGEMENTS):
        moved_A3 = places_A3 + generator.normal(0, settings.vibration_angstrom, places_A3.shape)
        slices_SKL = phase_shifts(settings, elements, moved_A3, 2 * shape[0])
        expected_NYX += patterns(settings, slices_SKL, true_N2) / ARRANGEMENTS
        phase_KL += coarser(slices_SKL.sum(0)) / ARRANGEMENTS
    counts = settings.dose_per_square_angstrom * settings.step_angstrom**2
    with h5py.File(path, "w") as file:
        file["intensity"] = generator.poisson(counts * expected_NYX).astype(np.float32)
        file["positions"], file["positions_true"] = nominal_N2 * pixel, true_N2 * pixel
        file["phase"] = phase_KL
        file.attrs.update(settings._asdict())
        file.attrs["dk_per_angstrom"] = 1 / (size * pixel)


def atoms(settings: Settings, side: float, generator: np.random.Generator) -> tuple[NDArray[np.str_], NDArray]:
    """Return elements (A,) and places (A, 3) in Å of a turned lattice that fills a square, without vacancies."""
    (a, b), cell = MATERIALS[settings.material]
    reach = int(side / min(a, b)) + 2
    u, v = np.meshgrid(np.arange(-reach, reach), np.arange(-reach, reach), indexing="ij")
    elements, places = [], []
    angle = settings.turned_deg * pi / 180
    turn = np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    for element, x, y, z in cell:
        flat = np.stack([(u.ravel() + x) * a, (v.ravel() + y) * b], axis=1) @ turn.T + side / 2
        inside = ((flat >= 0) & (flat < side)).all(1) & (generator.random(len(flat)) >= settings.vacancies)
        places.append(np.column_stack([flat[inside], np.full(inside.sum(), z)]))
        elements += [element] * int(inside.sum())
    return np.array(elements), np.vstack(places)


def phase_shifts(settings: Settings, elements: NDArray[np.str_], places_A3: NDArray, size: int) -> NDArray:
    """Return the phase of each slice (S, size, size), at half the pixel size, of atoms at places in Å."""
    pixel = settings.pixel_angstrom / 2
    frequency = np.fft.fftfreq(size, pixel)
    squared_KL = frequency[:, None] ** 2 + frequency[None] ** 2
    energy = settings.energy_kev * 1e3
    strength = 2 * pi / (settings.wavelength_angstrom * energy) * (510998.95 + energy) / (2 * 510998.95 + energy)
    slice_A = np.rint(places_A3[:, 2] / 2.0).astype(int)
    slices = []
    for number in np.unique(slice_A):
        spectrum_KL = np.zeros((size, size), dtype=complex)
        for element in np.unique(elements):
            these_A2 = places_A3[(elements == element) & (slice_A == number), :2]
            waves_KA, waves_AL = (np.exp(-2j * pi * np.outer(frequency, these_A2[:, axis])) for axis in (0, 1))
            a, b = SCATTERING[str(element)]
            factor_KL = sum(x * np.exp(-y * squared_KL / 4) for x, y in zip(a, b, strict=True))
            spectrum_KL += factor_KL * (waves_KA @ waves_AL.T)
        slices.append(strength * VOLT / pixel**2 * np.fft.ifft2(spectrum_KL).real)
    return np.array(slices)


def probe(settings: Settings) -> NDArray:
    """Return the probe at half the pixel size, power 1, centred at [size, size]; and so on the patch's fine grid."""
    size = 2 * DETECTOR
    frequency = np.fft.fftfreq(size, settings.pixel_angstrom / 2)
    angle_YX = settings.wavelength_angstrom * np.hypot(frequency[:, None], frequency[None])
    step = settings.wavelength_angstrom / (DETECTOR * settings.pixel_angstrom)
    aperture_YX = np.clip((1e-3 * settings.semiangle_mrad - angle_YX) / step + 0.5, 0, 1)
    chi_YX = -pi / settings.wavelength_angstrom * settings.defocus_angstrom * angle_YX**2
    spectrum_YX = aperture_YX * np.exp(-1j * chi_YX)
    return np.fft.fftshift(np.fft.ifft2(spectrum_YX / np.sqrt((aperture_YX**2).sum()), norm="ortho"))


def patterns(settings: Settings, slices_SKL: NDArray, positions_N2: NDArray) -> NDArray:
    """Return the intensities (N, Y, X) at positions in pixels; zero frequency in the middle."""
    size = 2 * DETECTOR
    frequency = np.fft.fftfreq(size)
    squared_YX = (frequency[:, None] ** 2 + frequency[None] ** 2) / (settings.pixel_angstrom / 2) ** 2
    kept_YX = np.hypot(frequency[:, None], frequency[None]) < 1 / 3
    propagator_YX = np.exp(-1j * pi * settings.wavelength_angstrom * 2.0 * squared_YX) * kept_YX
    transmission_SKL = np.exp(1j * slices_SKL)
    spectrum_YX = np.fft.fft2(probe(settings))
    middle = slice(DETECTOR // 2, DETECTOR // 2 + DETECTOR)
    found_NYX = np.empty((len(positions_N2), DETECTOR, DETECTOR))
    for point, position_2 in enumerate(2 * positions_N2):
        top, left = np.rint(position_2).astype(int) - size // 2
        off = position_2 - np.rint(position_2)
        ramp_YX = np.exp(-2j * pi * (frequency[:, None] * off[0] + frequency[None] * off[1]))
        wave_YX = np.fft.ifft2(spectrum_YX * ramp_YX)
        for number, transmission_KL in enumerate(transmission_SKL):
            if number:
                wave_YX = np.fft.ifft2(np.fft.fft2(wave_YX) * propagator_YX)
            wave_YX = wave_YX * transmission_KL[top : top + size, left : left + size]
        far_YX = np.fft.fftshift(np.abs(np.fft.fft2(wave_YX, norm="ortho")) ** 2)
        found_NYX[point] = far_YX[middle, middle]
    return found_NYX


def coarser(map_KL: NDArray) -> NDArray:
    """Return a map at twice the pixel size, limited to what that sampling can hold."""
    size = len(map_KL) // 2
    kept = slice(size - size // 2, 2 * size - size // 2)  # zero frequency is at [size], and will be at [size // 2]
    spectrum_KL = np.fft.fftshift(np.fft.fft2(map_KL))[kept, kept]
    return np.fft.ifft2(np.fft.ifftshift(spectrum_KL)).real / 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(6)))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        print(seed, draw(seed), flush=True)
        simulate(draw(seed), arguments.out / f"specimen_{seed}.h5")


if __name__ == "__main__":
    main()
