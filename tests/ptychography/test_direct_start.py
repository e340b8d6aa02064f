"""Objects that direct methods make from patterns, against known phases, analytic limits and the forward model."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from trainkit import Context, DataError, Problem, RecipeError
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.direct.dpc_live import centres_of_mass
from trainkit_ptychography.direct.evidence import Evidence
from trainkit_ptychography.models.output import agreement_with_truth
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.objects.from_data import ObjectFromData
from trainkit_ptychography.objects.from_data_live import DirectObject
from trainkit_ptychography.physics.optics import aperture_probe
from trainkit_ptychography.physics.quality import PhaseAgreement
from trainkit_ptychography.physics.weak_phase import transferred_power
from trainkit_ptychography.preflight.earlier_object import inspect_earlier_object
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.per_scan import ProbePerScan
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Recording, checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction
from trainkit_ptychography.scans.simulated_live import patterns, simulate

from .small_recipe import small_recipe

SETTINGS = SimulatedDiffraction(
    scan_shape=(18, 18), detector_size=32, pixel_size_angstrom=0.5, position_error_angstrom=0
)


@cache
def recording(**changes: Any) -> Recording:
    return simulate(attrs.evolve(SETTINGS, **changes))  # type: ignore[misc]  # mypy does not know @component


def opened(of: Recording, held_out: float = 0.05) -> LiveDiffraction:
    return LiveDiffraction(checked(of), Context(0, torch.device("cpu"), Path()), 32, held_out)


def built(of: LiveDiffraction, method: str, probe: Any = None, **model: Any) -> PtychographyModule:
    module = Ptychography(probe=probe or Aperture(), object=ObjectFromData(method=method), **model).build(of)
    assert isinstance(module, PtychographyModule)
    return module


def agreement(module: PtychographyModule, data: LiveDiffraction) -> PhaseAgreement:
    found = agreement_with_truth(module.reconstruction(), data)
    assert found is not None
    return found


def phase(module: PtychographyModule) -> np.ndarray:
    assert isinstance(module.object, DirectObject)
    return module.object.phase().detach().numpy()


@pytest.mark.parametrize(
    ("method", "defocus", "least"),
    [
        ("ssb", 60.0, 0.95),
        ("ssb", -60.0, 0.95),
        ("ssb", 0.0, 0.93),
        ("parallax", 60.0, 0.85),
        ("parallax", -60.0, 0.85),
        ("dpc", 0.0, 0.9),
        ("dpc", -20.0, 0.9),
    ],
)
def test_each_method_finds_atoms_of_positive_phase_in_rad(method, defocus, least):
    data = opened(recording(defocus_angstrom=defocus))
    found = agreement(built(data, method), data)
    assert found.pearson > least  # r is negative for a phase of the wrong sign
    assert 0.3 < found.gain < 1.1


def test_the_centre_of_mass_of_a_slope_is_that_slope_however_steep():
    size, step = 32, 5
    ramp_KL = 2 * np.pi * step / size * np.arange(120)[:, None] * np.ones((1, 120))  # 1 rad for a pixel, along rows
    probe_YX = aperture_probe((size, size), 0.5, 0.0418, 25.0, {"C10": (-60.0, 0.0)})
    points_N2 = np.stack(np.meshgrid(np.arange(40, 50), np.arange(40, 50)), -1).reshape(-1, 2).astype(float)
    flat_NYX, steep_NYX = (patterns(np.exp(1j * each), probe_YX, points_N2) for each in (0 * ramp_KL, ramp_KL))
    of = recording()
    both = of._replace(
        intensities_NYX=np.concatenate([flat_NYX, steep_NYX]).astype(np.float32),
        scan=attrs.evolve(of.scan, positions_N2=np.concatenate([points_N2] * 2), truth=None),
    )
    data = opened(both, 0.0)
    every_N, probe_1YX = torch.arange(200), torch.from_numpy(probe_YX[None]).to(torch.complex64)
    slopes_N2 = centres_of_mass(Evidence(data, every_N, probe_1YX, np.zeros(2), (120, 120)), every_N).numpy()
    np.testing.assert_allclose(slopes_N2[100:] - slopes_N2[:100], [[2 * np.pi * step / size, 0.0]] * 100, atol=1e-3)


def test_what_is_transferred_of_a_weak_wave_is_how_strongly_it_changes_patterns_of_the_forward_model():
    size, weak = 24, 1e-4
    probe_YX = aperture_probe((size, size), 0.5, 0.0418, 25.0, {"C10": (-40.0, 0.0), "C30": (2e4, 0.0)})
    told_YX = transferred_power(np.fft.fft2(np.fft.ifftshift(probe_YX), norm="ortho")[None])
    along = np.arange(size)
    for q in ((1, 0), (3, 2), (6, 0), (0, 9)):
        changed = 0.0
        for way in (0.0, np.pi / 2):  # a wave and the one a quarter of a period on: as its mean over scan points
            wave_KL = weak * np.cos(2 * np.pi * (q[0] * along[:, None] + q[1] * along) / size + way)
            one, other = (
                np.abs(np.fft.fft2(probe_YX * np.exp(1j * sign * wave_KL), norm="ortho")) ** 2 for sign in (1, -1)
            )
            changed += (((one - other) / (2 * weak)) ** 2).sum()
        assert changed == pytest.approx(told_YX[q], rel=2e-3)


@pytest.mark.parametrize("method", ["ssb", "dpc", "parallax"])
def test_points_may_lie_anywhere(method):
    generator = np.random.default_rng(3)
    of = recording()
    points_N2 = of.scan.positions_N2 + generator.uniform(-0.8, 0.8, of.scan.positions_N2.shape)
    assert of.scan.truth is not None
    probe_YX = aperture_probe((32, 32), 0.5, float(of.scan.wavelength_angstrom or 0), 25.0, {"C10": (-60.0, 0.0)})
    moved_NYX = patterns(np.exp(1j * of.scan.truth.phase_KL), probe_YX, points_N2) * 1e4
    scan = attrs.evolve(of.scan, positions_N2=points_N2, truth=attrs.evolve(of.scan.truth, positions_N2=points_N2))
    data = opened(Recording(moved_NYX.astype(np.float32), scan))
    assert agreement(built(data, method), data).pearson > {"ssb": 0.95, "dpc": 0.85, "parallax": 0.85}[method]


@pytest.mark.parametrize("method", ["ssb", "dpc", "parallax"])
def test_held_out_patterns_and_hidden_pixels_have_no_say(method):
    of = recording()
    data = opened(of)
    mask_YX = np.ones((32, 32), bool)
    mask_YX[3, 2] = False
    other_NYX = np.array(of.intensities_NYX)
    other_NYX[data.held_out_index.numpy()] = other_NYX[data.held_out_index.numpy()][:, ::-1]
    other_NYX[:, 3, 2] = 0  # as readers leave what does not count
    changed = opened(Recording(other_NYX, attrs.evolve(of.scan, mask_YX=mask_YX)))
    masked_NYX = np.array(of.intensities_NYX)
    masked_NYX[:, 3, 2] = 0
    hidden = opened(Recording(masked_NYX, attrs.evolve(of.scan, mask_YX=mask_YX)))
    one, other = (phase(built(each, method)) for each in (hidden, changed))
    np.testing.assert_allclose(one, other, atol=1e-5)
    found = agreement(built(hidden, method), hidden).pearson
    assert found > agreement(built(data, method), data).pearson - 0.05


def test_slices_share_the_phase_evenly_and_the_probe_is_that_in_the_middle():
    data = opened(recording(slices=4, thickness_angstrom=80.0, defocus_angstrom=100.0))
    module = built(data, "ssb", slices=4, thickness_angstrom=80.0)
    slices_SHW = phase(module)
    np.testing.assert_array_equal(slices_SHW, np.repeat(slices_SHW[:1], 4, axis=0))
    as_if_thin = built(data, "ssb")  # with the probe at the first slice
    assert agreement(module, data).pearson > max(0.9, agreement(as_if_thin, data).pearson + 0.01)


def test_scans_with_probes_of_their_own_each_add_what_they_show():
    of = recording(further_defoci_angstrom=(-60.0,))
    defoci = {"near": 60.0, "far": -60.0}
    probes = ProbePerScan(scans={name: Aperture(defocus_angstrom=each) for name, each in defoci.items()})
    data = opened(of)
    assert agreement(built(data, "ssb", probes), data).pearson > agreement(built(data, "ssb"), data).pearson + 0.01


def test_images_of_the_bright_field_show_nothing_at_focus_which_is_said():
    with pytest.raises(DataError, match=r'near focus .* use method = "ssb" or "dpc"'):
        built(opened(recording(defocus_angstrom=0.0)), "parallax")


def test_a_few_patterns_are_refused():
    with pytest.raises(DataError, match="cannot be made from 4 patterns"):
        built(opened(recording(scan_shape=(2, 2)), 0.0), "ssb")


def test_a_method_is_named_by_a_string_or_a_table_and_another_name_is_refused():
    for written in ('"dpc"', '{ use = "dpc" }'):
        resolved = resolve_text(small_recipe(f'object = {{ use = "from_data", method = {written} }}'), Path())
        assert resolved.recipe.model.object.method.title == "differential phase contrast"
    with pytest.raises(RecipeError, match='did you mean "parallax"'):
        resolve_text(small_recipe('object = { use = "from_data", method = "paralax" }'), Path())


def inspected(data: Any, **probe: float) -> list[str | Problem]:
    begun = ObjectFromData()
    model = Ptychography(probe=Aperture(**probe), object=begun)
    recipe = resolve_text(small_recipe(), Path()).recipe
    return list(inspect_earlier_object(data, begun, model.build, recipe))


def test_check_says_how_well_held_out_patterns_fit():
    line, geometry = inspected(SETTINGS)
    assert isinstance(line, str)
    assert "begins with a phase by single side bands: misfit of" in line
    assert "held-out patterns" in line
    assert isinstance(geometry, str)
    assert "the scan lies as told" in geometry


def test_check_doubts_an_object_whose_negative_fits_better_than_vacuum():
    *_, doubt = inspected(SETTINGS, defocus_angstrom=-60.0)
    assert isinstance(doubt, Problem)
    assert "does not explain held-out patterns" in doubt.message


def test_check_doubts_an_object_of_patterns_in_disorder():
    of = recording()
    order_N = np.random.default_rng(0).permutation(len(of.intensities_NYX))
    shuffled = of._replace(intensities_NYX=of.intensities_NYX[order_N])
    *_, doubt = inspected(SimpleNamespace(read=lambda: shuffled, validation_fraction=0.05))
    assert isinstance(doubt, Problem)
    assert "does not explain held-out patterns" in doubt.message
