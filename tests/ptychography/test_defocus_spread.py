"""Partial temporal coherence by a spread of the defocus, against a sum over many defoci in plain numpy."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from trainkit import Context, DataError, Problem, RecipeError
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.models.output import write_files
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.preflight.spread import inspect_spread
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.defocus_spread import DefocusSpread, error_of_quadrature
from trainkit_ptychography.probes.wave_sampling import WaveSampling
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Recording, checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .small_recipe import small_recipe

CPU = torch.device("cpu")
CONTEXT = Context(0, CPU, Path())
SPREAD = 40.0  # Å
SETTINGS = SimulatedDiffraction(
    scan_shape=(6, 6), detector_size=32, dose_per_square_angstrom=1e6, position_error_angstrom=0.0, batch_size=36
)


def by_hand(scan: object) -> np.ndarray:
    """Patterns of a beam whose defocus is spread: 21 defoci at equal distances, weighted by the normal distribution."""
    pixel, wavelength, size = scan.pixel_size_angstrom, scan.wavelength_angstrom, SETTINGS.detector_size
    rows, columns = np.meshgrid(*2 * [np.fft.fftfreq(size, pixel)], indexing="ij")
    angle = wavelength * np.hypot(rows, columns)
    edge = wavelength / (size * pixel)
    opened = np.clip((1e-3 * scan.semiangle_mrad - angle) / edge + 0.5, 0, 1)
    offsets = np.linspace(-4, 4, 21)
    weights = np.exp(-0.5 * offsets**2)
    transmission = np.exp(1j * scan.truth.phase_KL)
    patterns = np.zeros((len(scan.positions_N2), size, size))
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        defocus = scan.defocus_angstrom + SPREAD * offset
        spectrum = opened * np.exp(1j * np.pi * defocus * angle**2 / wavelength) / np.sqrt((opened**2).sum())
        for point, (row, column) in enumerate(scan.positions_N2):
            top, left = round(row) - size // 2, round(column) - size // 2
            ramp = np.exp(-2j * np.pi * pixel * (rows * (row - round(row)) + columns * (column - round(column))))
            probe = np.fft.fftshift(np.fft.ifft2(spectrum * ramp, norm="ortho"))
            patch = transmission[top : top + size, left : left + size]
            patterns[point] += weight * np.abs(np.fft.fft2(probe * patch, norm="ortho")) ** 2
    return patterns


@pytest.fixture(scope="module")
def data() -> LiveDiffraction:
    """The scan of such a beam."""
    scan = SETTINGS.read().scan
    counts = SETTINGS.dose_per_square_angstrom * SETTINGS.step_angstrom**2
    patterns = np.random.default_rng(0).poisson(counts * by_hand(scan)).astype(np.float32)
    return LiveDiffraction(checked(Recording(patterns, scan)), CONTEXT, 36, 0.0)


def model_of(data: LiveDiffraction, **probe: float) -> PtychographyModule:
    """A model whose object is the true one."""
    model = Ptychography(probe=Aperture(**probe)).build(data)
    assert isinstance(model, PtychographyModule)
    phase_KL = torch.from_numpy(np.asarray(data.scan.truth.phase_KL))
    with torch.no_grad():
        model.object.maps[0, : phase_KL.shape[0], : phase_KL.shape[1]] = phase_KL
    return model


def expected(model: PtychographyModule) -> torch.Tensor:
    found: torch.Tensor = model({"index": torch.arange(36)})["intensities"]
    return found


def test_patterns_are_those_of_many_defoci_weighted_by_hand_and_one_defocus_does_not_make_them(data):
    wanted = by_hand(data.scan)
    with torch.no_grad():
        spread, sharp = (expected(model_of(data, **each)).numpy() for each in ({"defocus_spread_angstrom": SPREAD}, {}))
    assert np.abs(spread - wanted).max() < 1e-3 * wanted.max()
    assert np.abs(sharp - wanted).max() > 0.05 * wanted.max()


def test_a_spread_that_is_told_wrongly_is_found_by_training(data):
    model = model_of(data, defocus_spread_angstrom=15.0)
    (batch,) = data.some(torch.arange(36))
    optimizer = torch.optim.Adam([model.probe.spread.spread], lr=1.5)
    for _ in range(40):
        optimizer.zero_grad()
        (expected(model).clamp_min(1e-12).sqrt() - batch["amplitudes"]).square().sum().backward()
        optimizer.step()
    assert float(model.probe.spread.spread.detach()) == pytest.approx(SPREAD, abs=2.0)


def test_gradients_of_modes_and_spread_are_those_of_finite_differences():
    spread = DefocusSpread(50.0, 3, (6, 5), WaveSampling(0.5, 0.04), torch.float64, CPU)
    generator = torch.Generator().manual_seed(1)
    modes = torch.randn(2, 3, 6, 5, dtype=torch.complex128, generator=generator, requires_grad=True)

    def total(width: torch.Tensor, modes: torch.Tensor) -> torch.Tensor:
        seen = torch.func.functional_call(spread, {"spread": width}, (modes,))
        return (seen.real * torch.linspace(0, 1, seen.numel(), dtype=torch.float64).view(seen.shape)).sum()

    assert spread(modes).shape == (6, 3, 6, 5)
    torch.testing.assert_close(spread(modes[:, 1]), spread(modes)[:, 1])
    assert torch.autograd.gradcheck(total, (spread.spread.detach().requires_grad_(), modes))


def test_the_power_stays_and_the_result_says_the_spread_beside_the_modes_without_it(data, tmp_path):
    model = model_of(data, defocus_spread_angstrom=SPREAD, modes=2)
    seen = model.probe.of_patterns(None, torch.arange(3)).detach()
    assert len(seen) == 10
    assert float(seen.abs().square().sum()) == pytest.approx(1.0, rel=1e-5)
    write_files(model.reconstruction(), data, tmp_path)
    with h5py.File(tmp_path / "result.h5") as file:
        assert file["probe"].shape == (2, 32, 32)
        assert file.attrs["defocus_spread_angstrom"] == SPREAD


def test_nodes_that_are_too_few_are_doubted_with_a_number_that_is_enough(data):
    assert error_of_quadrature(5, 1.0) < 1e-3
    for spread, said in ((SPREAD, None), (200.0, "5 nodes are too few for a spread of 200")):
        probe = Aperture(defocus_spread_angstrom=spread)
        doubts = [each.message for each in inspect_spread(SETTINGS, probe, 0) if isinstance(each, Problem)]
        assert [said in each for each in doubts] == ([] if said is None else [True])
        if said:
            enough = int(doubts[0].rsplit(" ", 1)[1])
            more = Aperture(defocus_spread_angstrom=spread, defocus_spread_nodes=enough)
            assert not [each for each in inspect_spread(SETTINGS, more, 0) if isinstance(each, Problem)]


def test_a_group_of_its_own_trains_it_and_scans_share_it(tmp_path):
    assert Ptychography(probe=Aperture(defocus_spread_angstrom=1.0)).groups()["defocus_spread"] is False
    assert "defocus_spread" not in Ptychography(probe=Aperture()).groups()
    with pytest.raises(DataError, match="needs the energy and the pixel size"):
        DefocusSpread(1.0, 3, (4, 4), WaveSampling(0.5, None), torch.float32, CPU)
    scans = '"per_scan", scans = { a = { use = "aperture", defocus_spread_angstrom = 9.0 }, b = { use = "aperture" } }'
    with pytest.raises(RecipeError, match="say defocus_spread_angstrom beside scans"):
        resolve_text(small_recipe().replace('"aperture"', scans), tmp_path)
