"""Aberrations that are trained: their phase, what they find, and how they are saved."""

from __future__ import annotations

from math import radians
from pathlib import Path

import numpy as np
import pytest
import torch

from trainkit import Context, DataError, Problem
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.objects.pixels import Pixels
from trainkit_ptychography.physics.optics import TERMS, aberration_phase, aperture_probe, scattering_angles
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.lens_change import LensChange
from trainkit_ptychography.probes.wave_sampling import WaveSampling
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .small_recipe import small_recipe

PIXEL, WAVELENGTH, SHAPE = 0.4, 0.0418, (32, 30)
CPU = torch.device("cpu")


def lens(**coefficients: tuple[float, float]) -> np.ndarray:
    return aperture_probe(SHAPE, PIXEL, WAVELENGTH, 25.0, coefficients)


@pytest.mark.parametrize("name", sorted(TERMS))
def test_a_trained_number_is_the_aberration_that_it_says_by_the_formula_of_optics(name):
    modes_MYX = lens(C10=(-50.0, 0.0))[None]
    change = LensChange(modes_MYX, [name], WaveSampling(PIXEL, WAVELENGTH), torch.float64, CPU)
    with torch.no_grad():
        change.numbers_T.copy_(torch.tensor([0.8, -0.3])[: len(change.numbers_T)])
    said = change.change()
    direction = radians(said.get(f"phi{name[1:]}_deg", 0.0))
    polar, azimuth = scattering_angles(SHAPE, PIXEL, WAVELENGTH)
    chi = aberration_phase(polar, azimuth, WAVELENGTH, {name: (said[f"{name}_angstrom"], direction)})
    expected = np.fft.ifft2(np.fft.fft2(modes_MYX[0]) * np.exp(-1j * chi))
    found = change(torch.from_numpy(modes_MYX)).detach().numpy()[0]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert change.edge_rad == pytest.approx(25e-3, rel=0.03)


def test_gradients_of_the_numbers_are_those_of_finite_differences():
    change = LensChange(lens()[None], ["C10", "C23"], WaveSampling(PIXEL, WAVELENGTH), torch.float64, CPU)
    modes = torch.from_numpy(lens(C10=(-50.0, 0.0))[None])
    weight = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def total(numbers_T: torch.Tensor) -> torch.Tensor:
        return (torch.func.functional_call(change, {"numbers_T": numbers_T}, (modes,)).abs() * weight).sum()

    assert torch.autograd.gradcheck(total, torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True))


def model_of(trained: tuple[str, ...], folder: Path, **probe: float) -> tuple[PtychographyModule, object]:
    """A model whose object is the true one, so that only the lens is unknown."""
    settings = SimulatedDiffraction(scan_shape=(6, 6), detector_size=32, dose_per_square_angstrom=1e6, batch_size=36)
    data = settings.build(Context(0, CPU, Path()))
    np.save(folder / "true.npy", np.exp(1j * np.asarray(data.scan.truth.phase_KL)))
    aperture = Aperture(trained_aberrations=trained, **probe)
    model = Ptychography(probe=aperture, object=Pixels(path=folder / "true.npy")).build(data)
    assert isinstance(model, PtychographyModule)
    return model, data


def test_a_defocus_and_an_astigmatism_that_were_told_wrongly_are_found(tmp_path):
    """The scan is simulated with a defocus and no astigmatism; the probe is told another defocus, and 15 Å of C12."""
    true = SimulatedDiffraction().read().scan.defocus_angstrom
    told = {"defocus_angstrom": true - 20.0, "C12_angstrom": 15.0, "phi12_deg": 30.0}
    model, data = model_of(("C10", "C12"), tmp_path, **told)
    optimizer = torch.optim.Adam(model.probe.lens.parameters(), lr=0.05)
    index = torch.arange(36)
    (batch,) = data.some(index)
    for _ in range(60):
        optimizer.zero_grad()
        expected = model({"index": index, **batch})["intensities"]
        (expected.clamp_min(1e-12).sqrt() - batch["amplitudes"]).square().sum().backward()
        optimizer.step()
    found = model.probe.lens.change()
    assert -found["C10_angstrom"] == pytest.approx(20.0, abs=2.0)  # C10 is −defocus
    assert found["C12_angstrom"] == pytest.approx(15.0, abs=2.0)
    turned = (found["phi12_deg"] - 30.0 - 90.0 + 90.0) % 180.0 - 90.0  # the change is opposite: 90° on
    assert turned == pytest.approx(0.0, abs=5.0)


def test_the_group_exists_only_where_the_recipe_names_aberrations_and_holds_nothing_else(tmp_path):
    settings = Ptychography(probe=Aperture(trained_aberrations=("C10",)))
    assert settings.groups()["aberrations"] is False
    assert "aberrations" not in Ptychography(probe=Aperture()).groups()
    model, _ = model_of(("C10", "C21"), tmp_path)
    groups = {name: list(each) for name, each in settings.parameter_groups(model).items()}
    assert [each.shape for each in groups["aberrations"]] == [(3,)]
    assert len(groups["probe"]) == 1
    assert "probe.lens.numbers_T" in model.state_dict()
    plain = Ptychography(probe=Aperture()).build(SimulatedDiffraction(scan_shape=(4, 4)).build(Context(0, CPU, Path())))
    assert not any("lens" in key for key in plain.state_dict())


def test_untrained_aberrations_change_no_probe(tmp_path):
    with_lens, _ = model_of(("C10", "C34"), tmp_path)
    without, _ = model_of((), tmp_path)
    torch.testing.assert_close(with_lens.probe(), without.probe(), rtol=0, atol=1e-6)


def test_aberrations_without_a_wavelength_are_refused_and_names_twice_too():
    with pytest.raises(DataError, match="energy and the pixel size"):
        LensChange(lens()[None], ["C10"], WaveSampling(PIXEL, None), torch.float64, CPU)
    (problem,) = Aperture(trained_aberrations=("C10", "C10")).problems(None)
    assert isinstance(problem, Problem)
    assert "C10 more than once" in problem.message


def test_aberrations_that_are_to_be_trained_and_have_no_group_are_doubted(tmp_path):
    for more, keys in (("", ["probe.trained_aberrations"]), ("[groups.aberrations]\nstart_epoch = 0\n", [])):
        text = small_recipe(more=more, probe='trained_aberrations = ["C10"]')
        recipe = resolve_text(text, tmp_path).recipe
        assert [each.key for each in recipe.model.problems(recipe) if isinstance(each, Problem)] == keys
