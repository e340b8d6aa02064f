"""A probe that changes over the scan (OPR): its formula, its order, and how it begins."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from trainkit import Context, Problem, RecipeError
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.models.output import write_files
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.output import scan_pictures
from trainkit_ptychography.physics.forward import intensities
from trainkit_ptychography.physics.multislice import multislice_intensities
from trainkit_ptychography.physics.patches import patches_at
from trainkit_ptychography.physics.propagation import fresnel_kernel
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.modes import ProbeModes
from trainkit_ptychography.probes.opr import OPRChoice, interpolated
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .small_recipe import small_recipe

CPU = torch.device("cpu")
GENERATOR = np.random.default_rng(5)


def random_complex(*shape: int) -> torch.Tensor:
    return torch.from_numpy(GENERATOR.normal(size=shape) + 1j * GENERATOR.normal(size=shape))


def changing_probe(modes: int = 2, opr_modes: int = 3, points: int = 9, held_out: tuple[int, ...] = (4,)) -> ProbeModes:
    trained = torch.tensor([each for each in range(points) if each not in held_out])
    choice = OPRChoice(opr_modes, points, trained, 0)
    probe = ProbeModes(random_complex(modes, 8, 6).numpy(), torch.float64, CPU, opr=choice)
    assert probe.opr is not None
    with torch.no_grad():
        probe.opr.weights.normal_(0.05, 0.1, generator=torch.Generator().manual_seed(1))
        probe.opr.modes.add_(0.1 * torch.randn(probe.opr.modes.shape, dtype=torch.float64))
    return probe


# ---- the formula ----------------------------------------------------------------------------------------------------


def test_the_probe_of_a_pattern_is_the_mean_probe_and_its_weighted_modes():
    probe, index = changing_probe(), torch.tensor([3, 0, 8])
    modes_KMYX, weights_NK = (each.numpy() for each in probe.changes())
    expected = probe().detach().numpy()[:, None] + np.einsum("bk,kmyx->mbyx", weights_NK[index], modes_KMYX)
    np.testing.assert_allclose(probe.of_patterns(None, index).detach().numpy(), expected, rtol=1e-12, atol=1e-14)


def test_probes_of_single_patterns_pass_through_a_thick_specimen_with_gradients_as_autograd_has_them():
    probe_MBYX, shift_B2 = random_complex(2, 3, 8, 6), torch.from_numpy(GENERATOR.normal(size=(3, 2)))
    maps_KSHW = torch.from_numpy(0.3 * GENERATOR.normal(size=(2, 3, 12, 11)))
    corner_B2 = torch.tensor([[0, 1], [4, 5], [2, 0]])
    kernel_1YX = fresnel_kernel((8, 6), 0.4, 0.04, torch.tensor([20.0], dtype=torch.float64))

    def by_autograd(probe_MBYX, shift_B2, maps_KSHW):
        columns = []
        for b, (top, left) in enumerate(corner_B2.tolist()):
            ramp = [
                torch.exp(-2j * np.pi * s * torch.fft.fftfreq(n, dtype=torch.float64))
                for s, n in zip(shift_B2[b], (8, 6), strict=True)
            ]
            wave = torch.fft.ifft2(torch.fft.fft2(probe_MBYX[:, b]) * ramp[0][:, None] * ramp[1])
            for s in range(3):
                phase, absorption = maps_KSHW[:, s, top : top + 8, left : left + 6]
                wave = wave * torch.exp(1j * phase - absorption)
                if s < 2:
                    wave = torch.fft.ifft2(torch.fft.fft2(wave) * kernel_1YX)
            columns.append(torch.fft.fft2(wave, norm="ortho").abs().square().sum(0))
        return torch.stack(columns)

    inputs = [each.requires_grad_() for each in (probe_MBYX, shift_B2, maps_KSHW)]
    expected = by_autograd(*inputs)
    weight = torch.from_numpy(GENERATOR.normal(size=expected.shape))
    wanted = torch.autograd.grad((expected * weight).sum(), inputs)
    for waves in ("inverted", "checkpointed", "stored"):
        patches_of = patches_at(corner_B2, (8, 6), 11)
        found, _ = multislice_intensities(*inputs, patches_of, kernel_1YX, waves)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        for one, other in zip(torch.autograd.grad((found * weight).sum(), inputs), wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12 * float(other.abs().max()))


# ---- order ----------------------------------------------------------------------------------------------------------


def test_putting_it_in_order_changes_no_pattern_and_makes_modes_orthogonal_and_weights_uncorrelated():
    probe = changing_probe()
    assert probe.opr is not None
    trained = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8])
    patch_BYX, shift_B2 = random_complex(8, 8, 6), torch.zeros(8, 2, dtype=torch.float64)

    def patterns() -> torch.Tensor:
        return intensities(probe.of_patterns(None, trained), shift_B2, patch_BYX).detach()

    before = patterns()
    probe.orthogonalise()
    torch.testing.assert_close(patterns(), before, rtol=1e-10, atol=1e-10)
    probe.opr.weights.requires_grad_(True)
    probe.opr.put_in_order(probe.modes.detach(), True, False)
    torch.testing.assert_close(patterns(), before, rtol=1e-10, atol=1e-10)
    modes_KD = torch.view_as_real(probe.changes()[0]).flatten(1)
    torch.testing.assert_close(modes_KD @ modes_KD.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    weights_TK = probe.opr.weights.detach()[trained]
    products_KK = weights_TK.T @ weights_TK
    assert float((products_KK - products_KK.diag().diag()).abs().max()) < 1e-12
    assert products_KK.diagonal().tolist() == sorted(products_KK.diagonal().tolist(), reverse=True)
    assert float(weights_TK.mean(0).abs().max()) < 1e-12


def test_the_mean_power_over_the_scan_is_kept():
    probe = changing_probe(held_out=())
    probe.keep_power()
    powers_B = probe.of_patterns(None, torch.arange(9)).abs().square().sum((0, 2, 3))
    assert float(powers_B.detach().mean()) == pytest.approx(1.0, abs=1e-12)


def test_a_shift_of_the_probe_is_left_to_positions():
    probe = changing_probe(modes=1, opr_modes=1)
    assert probe.opr is not None
    spectrum_YX, rows_Y1 = torch.fft.fft2(probe().detach()[0]), torch.fft.fftfreq(8, dtype=torch.float64)[:, None]
    moved_YX = torch.fft.ifft2(1j * rows_Y1 * spectrum_YX)
    with torch.no_grad():
        probe.opr.modes[0, 0] += 5 * torch.view_as_real(moved_YX)
    probe.opr.put_in_order(probe.modes.detach(), False, True)
    overlap = (torch.view_as_real(probe.changes()[0][0, 0]) * torch.view_as_real(moved_YX)).sum()
    assert abs(float(overlap)) < 1e-12 * float(moved_YX.norm())


def test_weights_between_points_that_are_trained_on_are_interpolated_and_the_others_stay():
    weights_NK = torch.from_numpy(GENERATOR.normal(size=(12, 2)))
    trained = torch.tensor([9, 1, 2, 5])
    found = interpolated(weights_NK, torch.arange(12), trained)
    for column in range(2):
        expected = np.interp(np.arange(12), [1, 2, 5, 9], weights_NK[[1, 2, 5, 9], column])
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-14)


# ---- in a model -----------------------------------------------------------------------------------------------------


def scanned(drift_angstrom: float, **probe: int) -> tuple[PtychographyModule, LiveDiffraction]:
    """A scan whose defocus drifts, and a model whose object is the true one, so that only the probe is unknown."""
    settings = SimulatedDiffraction(
        scan_shape=(10, 10),
        detector_size=32,
        dose_per_square_angstrom=1e6,
        position_error_angstrom=0.0,
        defocus_drift_angstrom=drift_angstrom,
        validation_fraction=0.1,
    )
    data = settings.build(Context(0, CPU, Path()))
    model = Ptychography(probe=Aperture(**probe)).build(data)
    assert isinstance(model, PtychographyModule)
    phase_KL = torch.from_numpy(data.scan.truth.phase_KL)
    with torch.no_grad():
        model.object.maps[0, : phase_KL.shape[0], : phase_KL.shape[1]] = phase_KL
    return model, data


def misfit(model: PtychographyModule, data: LiveDiffraction, points: torch.Tensor) -> float:
    total = 0.0
    for batch in data.some(points):
        with torch.no_grad():
            off = model(batch)["intensities"].sqrt() - batch["amplitudes"]
        total += float(off.square().sum())
    return total / len(points)


def test_it_begins_as_the_drift_that_patterns_show_and_held_out_patterns_fit_better_without_being_used():
    model, data = scanned(60.0, opr_modes=1)
    opr = model.probe.opr
    assert opr is not None
    before = misfit(model, data, data.train_index), misfit(model, data, data.held_out_index)
    opr.weights.requires_grad_(True)
    opr.begin(model.probe.modes.detach(), model._fit_changes, True)
    weights_N = opr.weights.detach()[:, 0].numpy()
    assert abs(np.corrcoef(weights_N, np.arange(100))[0, 1]) > 0.95
    # A change of the defocus turns the phase of a probe in the aperture by the square of the angle.
    probe_YX = model.probe().detach()[0].to(torch.complex128)
    squared_YX = sum(torch.meshgrid(*2 * [torch.fft.fftfreq(32, dtype=torch.float64).square()], indexing="ij"))
    light_YX = torch.fft.fft2(probe_YX).abs().square()
    squared_YX = squared_YX - (squared_YX * light_YX).sum() / light_YX.sum()
    by_hand_D = torch.view_as_real(torch.fft.ifft2(1j * squared_YX * torch.fft.fft2(probe_YX))).flatten()
    found_D = torch.view_as_real(model.probe.changes()[0][0, 0].to(torch.complex128)).flatten()
    assert abs(float(by_hand_D @ found_D)) / float(by_hand_D.norm() * found_D.norm()) > 0.98
    after = misfit(model, data, data.train_index), misfit(model, data, data.held_out_index)
    assert after[0] < 0.75 * before[0]
    assert after[1] < 0.75 * before[1]
    for each in data.held_out_index.tolist():  # lies between its neighbours, whatever its own pattern says
        low, high = (data.train_index[data.train_index < each], data.train_index[data.train_index > each])
        ends = [weights_N[int(low.max())] if len(low) else None, weights_N[int(high.min())] if len(high) else None]
        known = [end for end in ends if end is not None]
        assert min(known) - 1e-6 <= weights_N[each] <= max(known) + 1e-6


def test_a_probe_that_does_not_change_gets_next_to_no_weights_and_fits_as_well():
    model, data = scanned(0.0, opr_modes=1)
    opr = model.probe.opr
    assert opr is not None
    before = misfit(model, data, data.held_out_index)
    opr.weights.requires_grad_(True)
    opr.begin(model.probe.modes.detach(), model._fit_changes, True)
    assert opr.strengths()[0] < 0.02
    assert misfit(model, data, data.held_out_index) < 1.02 * before


def test_before_weights_train_patterns_are_those_of_a_probe_that_cannot_change_and_a_checkpoint_keeps_all():
    model, data = scanned(0.0, opr_modes=2)
    plain, _ = scanned(0.0)
    (batch,) = list(data.some(torch.arange(8)))
    assert torch.equal(model(batch)["intensities"], plain(batch)["intensities"])
    with torch.no_grad():
        model.probe.opr.weights.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    model.probe.opr.weights.requires_grad_(True)
    again, _ = scanned(0.0, opr_modes=2)
    for parameter in again.parameters():
        parameter.requires_grad_(False)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(batch)["intensities"], model(batch)["intensities"])
    assert not torch.equal(again(batch)["intensities"], plain(batch)["intensities"])


def test_the_result_holds_modes_and_weights_and_a_picture_shows_them(tmp_path):
    model, data = scanned(0.0, opr_modes=2, modes=2)
    with torch.no_grad():
        model.probe.opr.weights.normal_(0, 0.1)
    found = model.reconstruction()
    write_files(found, data, tmp_path)
    with h5py.File(tmp_path / "result.h5") as file:
        probe_NMYX = file["probe"][()] + np.einsum("nk,kmyx->nmyx", file["opr_weights"][()], file["opr_modes"][()])
    model.probe.opr.weights.requires_grad_(True)
    expected = model.probe.of_patterns(None, torch.arange(100)).detach().numpy()
    np.testing.assert_allclose(probe_NMYX.transpose(1, 0, 2, 3), expected, atol=1e-6)
    image = scan_pictures.opr_weights(
        data.scan.positions_N2, found.opr_weights_NK, data.train_index.numpy(), 0.4, "a run"
    )
    assert image.shape[1] == 1440
    assert len(np.unique(image[::3, ::3].astype(int) @ [1, 256, 65536])) > 20  # colours


def test_groups_exist_only_where_the_probe_may_change_and_settings_without_effect_are_doubted(tmp_path):
    assert not any("opr" in name for name in Ptychography(probe=Aperture()).groups())
    model, _ = scanned(0.0, opr_modes=2)
    groups = {name: [*each] for name, each in Ptychography(probe=Aperture(opr_modes=2)).parameter_groups(model).items()}
    assert [each.shape for each in groups["opr_weights"]] == [(100, 2)]
    assert [each.shape for each in groups["opr_modes"]] == [(1, 2, 32, 32, 2)]
    for more, keys in (
        ("", ["probe.opr_modes"]),
        ("[groups.opr_weights]\nstart_epoch = 0\n", ["probe.opr_modes"]),
        ("[groups.opr_weights]\nstart_epoch = 1\n", []),
    ):
        recipe = resolve_text(small_recipe(more=more, probe="opr_modes = 1"), tmp_path).recipe
        assert [each.key for each in recipe.model.problems(recipe) if isinstance(each, Problem)] == keys
    scans = '"per_scan", scans = { a = { use = "aperture", opr_modes = 1 }, b = { use = "aperture" } }'
    with pytest.raises(RecipeError, match="is for all scans: say opr_modes beside scans"):
        resolve_text(small_recipe().replace('"aperture"', scans), tmp_path)
