"""The model as a whole: groups, positions, constraints, losses, and what it leaves behind."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
import torch

from trainkit import Context, DataError, DivergedError, Exchange, Monitor, Problem, State
from trainkit.processes.place import Place
from trainkit_ptychography.hooks.truth import NAMES, CompareWithTruth
from trainkit_ptychography.hooks.truth_live import compare
from trainkit_ptychography.losses.amplitude import Amplitude
from trainkit_ptychography.losses.tv import TotalVariation
from trainkit_ptychography.models.output import Reconstruction
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.objects.hash_encoding import HashEncoding
from trainkit_ptychography.objects.pixels import Pixels
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.from_data import ProbeFromData
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Checked, Recording, Scan, checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .finite_differences import check_gradients

UNMASKED: Any = SimpleNamespace(mask_YX=None, mean_counts=500.0)
ROOT = Path(__file__).parents[2]
SMALL = SimulatedDiffraction(scan_shape=(6, 5), detector_size=24, semiangle_mrad=25.0)


def context(folder: Path = Path(), seed: int = 0) -> Context:
    return Context(seed, torch.device("cpu"), folder)


def live(
    settings: SimulatedDiffraction = SMALL, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any
) -> LiveDiffraction:
    intensities, scan = settings.read()
    recording = checked(Recording(intensities, attrs.evolve(scan, **changes)))
    return LiveDiffraction(recording, context(seed=seed), settings.batch_size, settings.validation_fraction, dtype)


def made(data: LiveDiffraction, **settings: Any) -> PtychographyModule:
    model = Ptychography(**{"probe": Aperture(), **settings}).build(data)
    assert isinstance(model, PtychographyModule)
    return model


def state_of(model: PtychographyModule, data: LiveDiffraction, folder: Path = Path()) -> State:
    return State(context(folder), 2, model, data, {}, Monitor())


def train_group(model: PtychographyModule, *groups: str) -> None:
    named = {"object": model.object, "probe": model.probe}
    for name, module in named.items():
        module.requires_grad_(name in groups)
    model.dr.requires_grad_("dr" in groups)


# ---- patterns -------------------------------------------------------------------------------------------------------


def by_formula(phase_HW: np.ndarray, probe_MYX: np.ndarray, corners_N2: np.ndarray) -> np.ndarray:
    """scatterem2's formula, in numpy's double precision."""
    height, width = probe_MYX.shape[1:]
    patterns = []
    for row, column in corners_N2:
        patch = np.exp(1j * phase_HW)[np.ix_(row + np.arange(height), column + np.arange(width))]
        patterns.append(np.sqrt((np.abs(np.fft.fft2(probe_MYX * patch, norm="ortho")) ** 2).sum(0)))
    return np.stack(patterns)


def compare_with_formula(phase_KL: np.ndarray, probe_MYX: np.ndarray, corners_N2: np.ndarray, dtype: torch.dtype):
    """Return (the model's amplitudes, the formula's), for patches cut at whole positions, wrapping around."""
    height, width = probe_MYX.shape[1:]
    wrapped = np.pad(phase_KL, ((0, height), (0, width)), mode="wrap")
    expected = by_formula(wrapped, probe_MYX, corners_N2)
    scan = Scan(positions_N2=corners_N2.astype(float), source="made up", probe_MYX=probe_MYX)
    recording = checked(Recording((expected**2).astype(np.float32), scan))
    model = made(LiveDiffraction(recording, context(), 32, 0.0, dtype), probe=ProbeFromData())
    first = np.rint(model.motion.origin_2).astype(int) + np.array([height // 2, width // 2])
    shape = model.object.maps.shape[1:]
    rows, columns = (
        (start + np.arange(size)) % length for start, size, length in zip(first, shape, phase_KL.shape, strict=True)
    )
    with torch.no_grad():
        model.object.maps[0] = torch.from_numpy(phase_KL[np.ix_(rows, columns)]).to(dtype)
        found = model({"index": torch.arange(len(corners_N2))})["intensities"].sqrt()
    power = np.sqrt((np.abs(probe_MYX) ** 2).sum())  # the model's probe has power 1
    return found.double().numpy() * power, expected


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_amplitudes_are_the_formula_of_scatterem2(dtype, relative):
    generator = np.random.default_rng(1)
    probe = (generator.normal(size=(2, 16, 16, 2)) @ [1, 1j]).astype(np.complex128)
    corners = generator.integers(0, 24, (20, 2))
    found, expected = compare_with_formula(generator.normal(size=(24, 24)), probe, corners, dtype)
    assert np.abs(found - expected).max() <= relative * expected.max()


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_amplitudes_are_those_of_scatterem2s_own_test_file(dtype, relative, shared_data):
    with h5py.File(shared_data / "ptychography" / "scatterem2_single_slice.h5") as file:
        phase, corners = file["gt/phase"][()].astype(np.float64), file["gt/positions_px"][()]
        probe = file["gt/probe"][()].reshape(-1, 32, 32).astype(np.complex128)
        amplitudes = file["amplitude"][()].reshape(-1, 32, 32)
    found, expected = compare_with_formula(phase, probe, corners, dtype)
    assert np.abs(found - expected).max() <= relative * expected.max()
    assert np.abs(found - amplitudes).max() <= 1e-5 * amplitudes.max()


def test_gradients_of_object_probe_and_dr_are_those_of_finite_differences():
    data = live(attrs.evolve(SMALL, scan_shape=(2, 2), detector_size=8), torch.float64)
    model = made(data, probe=Aperture(modes=2), object_margin=1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        model.object.maps += 0.3 * torch.rand(model.object.maps.shape, generator=generator, dtype=torch.float64)
        model.dr += 0.2 * torch.rand(model.dr.shape, generator=generator, dtype=torch.float64)
    batch = {"index": torch.arange(4)}

    def patterns(*values: torch.Tensor) -> torch.Tensor:
        names = dict(zip(("object.maps", "probe.modes", "dr"), values, strict=True))
        return torch.func.functional_call(model, names, (batch,))["intensities"]

    values = [value.detach().clone().requires_grad_() for value in (model.object.maps, model.probe.modes, model.dr)]
    check_gradients(patterns, values)


@pytest.mark.parametrize("kind", ["phase_and_amplitude", "phase_only"])
def test_patches_are_the_same_whether_exponentials_are_taken_of_the_object_or_of_patches(kind):
    model = made(live(), object=Pixels(kind=kind))
    with torch.no_grad():
        model.object.maps += 0.1 * torch.rand(model.object.maps.shape, generator=torch.Generator().manual_seed(0))
    many, one = torch.arange(30), torch.arange(1)
    corners = model.motion.corner_N2
    torch.testing.assert_close(model.object(corners[many])[:, :1], model.object(corners[one]))
    whole_SHW = model.object.amplitude() * torch.exp(1j * model.object.phase())
    row, column = corners[0].tolist()
    assert model.object(corners[one]).shape == (1, 1, 24, 24)  # slices, patterns, rows, columns
    torch.testing.assert_close(model.object(corners[one])[:, 0], whole_SHW[:, row : row + 24, column : column + 24])


def test_a_specimen_of_several_slices_is_shown_as_what_its_slices_make_together():
    """exp(i·φ₁ − a₁) · exp(i·φ₂ − a₂): phases add up, amplitudes multiply."""
    generator = np.random.default_rng(5)
    phase_SHW, amplitude_SHW = generator.normal(size=(3, 7, 6)), generator.uniform(0.5, 1.0, (3, 7, 6))
    nowhere = np.zeros((1, 2))
    found = Reconstruction(
        phase_SHW=phase_SHW, amplitude_SHW=amplitude_SHW, probe_MYX=None, positions_N2=nowhere, origin_2=nowhere[0]
    )
    together_HW = (amplitude_SHW * np.exp(1j * phase_SHW)).prod(axis=0)
    np.testing.assert_allclose(found.projected_amplitude() * np.exp(1j * found.projected_phase()), together_HW)


def test_moving_a_point_by_whole_pixels_is_the_same_as_a_scan_that_has_it_there():
    settings = attrs.evolve(
        SMALL, step_angstrom=0.53
    )  # no position on a half pixel, where rounding is a matter of taste
    data = live(settings, torch.float64)
    model = made(data, object_margin=6)
    moved_N2 = np.random.default_rng(2).integers(-3, 4, data.scan.positions_N2.shape).astype(float)
    moved_N2[data.scan.positions_N2.argmin(axis=0)] = 0.0  # the object begins where it did
    other = made(live(settings, torch.float64, positions_N2=data.scan.positions_N2 + moved_N2), object_margin=6)
    shift = np.rint(other.motion.origin_2 - model.motion.origin_2).astype(int)
    with torch.no_grad():
        model.object.maps += torch.rand(model.object.maps.shape, generator=torch.Generator().manual_seed(0))
        rows, columns = (
            np.clip(np.arange(size) + start, 0, length - 1)
            for size, start, length in zip(other.object.maps.shape[1:], shift, model.object.maps.shape[1:], strict=True)
        )
        other.object.maps.copy_(model.object.maps[:, rows][:, :, columns])
        model.dr.copy_(torch.from_numpy(moved_N2))
    batch = {"index": torch.arange(30)}
    torch.testing.assert_close(model(batch)["intensities"], other(batch)["intensities"], rtol=1e-9, atol=1e-12)


def test_crossing_half_a_pixel_recentres_the_patch_and_changes_next_to_nothing():
    """The corner jumps by a pixel, the ramp back by one; only what wraps around in the probe's window differs."""
    data = live(attrs.evolve(SMALL, detector_size=48), torch.float64)
    model = made(data, probe=Aperture(defocus_angstrom=0.0))
    with torch.no_grad():
        rows, columns = np.indices(model.object.maps.shape[1:])
        model.object.maps[0] = torch.from_numpy(0.3 * np.sin(rows / 4.0) * np.cos(columns / 5.0))
        patterns = []
        for beyond in (-1e-6, 1e-6):
            model.dr[:] = 0.5 + beyond - model.motion.remainder_N2
            patterns.append(model({"index": torch.arange(30)})["intensities"])
    assert (patterns[0].sqrt() - patterns[1].sqrt()).norm() < 0.01 * patterns[0].sqrt().norm()


# ---- data -----------------------------------------------------------------------------------------------------------


def test_patterns_sum_up_to_one_in_the_mean():
    assert sum(
        float(batch["amplitudes"].square().sum()) for split in ("train", "val") for batch in live().evaluate(split)
    ) / 30 == pytest.approx(1.0, rel=1e-6)


def test_batches_are_a_function_of_seed_and_epoch_and_can_begin_anywhere():
    data = live(attrs.evolve(SMALL, batch_size=4, validation_fraction=0.1))
    epoch = [batch["index"].tolist() for batch in data.train(3, 0)]
    torch.manual_seed(99)
    again = live(attrs.evolve(SMALL, batch_size=4, validation_fraction=0.1))
    assert [batch["index"].tolist() for batch in again.train(3, 2)] == epoch[2:]
    assert [batch["index"].tolist() for batch in again.train(4, 0)] != epoch
    assert len(epoch) == data.batches_per_epoch
    assert max(map(len, epoch)) - min(map(len, epoch)) <= 1
    assert sorted(chain(*epoch)) == data.train_index.tolist()


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    data = live()
    list(data.train(0, 0))
    made(data, probe=Aperture(modes=3))
    assert torch.equal(torch.get_rng_state(), before)


def test_held_out_points_are_never_trained_on_and_change_with_the_seed():
    settings = attrs.evolve(SMALL, validation_fraction=0.2)
    data = live(settings)
    held_out = torch.cat([batch["index"] for batch in data.evaluate("val")]).tolist()
    assert len(held_out) == 6
    assert sorted(held_out + data.train_index.tolist()) == list(range(30))
    assert live(settings, seed=1).held_out_index.tolist() != held_out
    assert settings.splits() == ("train", "val")
    assert attrs.evolve(SMALL, validation_fraction=0.0).splits() == ("train",)


def test_processes_share_every_batch_without_overlap():
    recording = checked(SMALL.read())
    alone, *shares = (list(live_of(recording, *place, 0.1).train(0, 0)) for place in ((0, 1), (0, 3), (1, 3), (2, 3)))
    for whole, *parts in zip(alone, *shares, strict=True):
        indices = [part["index"].tolist() for part in parts]
        assert sorted(chain(*indices)) == sorted(whole["index"].tolist())
        assert max(map(len, indices)) - min(map(len, indices)) <= 1


def test_a_batch_too_small_to_be_divided_is_refused():
    with pytest.raises(DataError, match="a batch of 3 patterns cannot be divided into 5 parts"):
        live_of(checked(SMALL.read()), 0, 5)


@pytest.mark.parametrize("split", ["train", "val"])
def test_processes_share_a_split_evenly_and_each_goes_in_the_order_of_the_scan(split):
    recording = checked(SMALL.read())
    whole = [live_of(recording, 0, 1), *(live_of(recording, rank, 3) for rank in range(3))]
    expected, *shares = (list(chain(*(batch["index"].tolist() for batch in data.evaluate(split)))) for data in whole)
    assert sorted(chain(*shares)) == expected
    assert all(share == sorted(share) for share in shares)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def live_of(recording: Checked, rank: int, world: int, validation_fraction: float = 0.25) -> LiveDiffraction:
    divided = context()._replace(exchange=Exchange(Place(rank, world)))
    return LiveDiffraction(recording, divided, 4, validation_fraction)


def test_a_process_without_a_share_of_a_split_yields_nothing():
    recording = checked(SMALL.read())
    data = [live_of(recording, rank, 3, 0.03) for rank in range(3)]
    assert [sum(len(batch["index"]) for batch in each.evaluate("val")) for each in data] == [1, 0, 0]


def test_facts_are_json_and_their_fingerprint_tells_scans_apart_wherever_patterns_are_kept():
    facts = live().facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts | {"fingerprint": ""} == {
        "num_points": 30,
        "detector_shape": [24, 24],
        "pixel_size_angstrom": 0.4,
        "wavelength_angstrom": pytest.approx(0.0417572, rel=1e-5),
        "fingerprint": "",
    }
    again = live_of(checked(SMALL.read()), 0, 1).facts()["fingerprint"]
    assert again == facts["fingerprint"]
    moved = SMALL.read().scan.positions_N2 + np.array([0.0, 0.01])
    others = [live(attrs.evolve(SMALL, seed=1)), live(positions_N2=moved)]
    assert len({facts["fingerprint"], *(other.facts()["fingerprint"] for other in others)}) == 3


def test_another_seed_holds_out_other_points_and_the_data_say_so():
    recording = checked(SMALL.read())
    made = [LiveDiffraction(recording, context()._replace(seed=seed), 4, 0.25) for seed in (0, 0, 1)]
    held_out = [sorted(int(i) for batch in each.evaluate("val") for i in batch["index"]) for each in made]
    divisions = [each.split_fingerprint() for each in made]
    assert held_out[0] == held_out[1] != held_out[2]
    assert divisions[0] == divisions[1] != divisions[2]


def test_a_model_is_not_built_without_its_scan():
    with pytest.raises(DataError, match="reconstruction of one scan"):
        SMALL.recall(live().facts())


def test_every_process_fits_all_held_out_positions_alike():
    recording = checked(SMALL.read())
    fitted = []
    for place in ((0, 1), (0, 2), (1, 2)):
        model = made(live_of(recording, *place))
        model.dr.requires_grad_()
        with torch.no_grad():
            model.motion.fit_held_out(model.dr, model._intensities)
        fitted.append(model.dr.detach().clone())
    assert fitted[0].abs().amax() > 0
    assert torch.equal(fitted[0], fitted[1])
    assert torch.equal(fitted[0], fitted[2])


def test_the_simulation_is_the_same_for_the_same_seed_and_its_errors_have_the_size_asked_for():
    settings = SimulatedDiffraction(scan_shape=(30, 30), detector_size=16, position_error_angstrom=0.2)
    first, second = settings.read(), settings.read()
    assert np.array_equal(first.intensities_NYX, second.intensities_NYX)
    assert not np.array_equal(first.intensities_NYX, attrs.evolve(settings, seed=1).read().intensities_NYX)
    truth = first.scan.truth
    assert truth is not None
    error = (truth.positions_N2 - first.scan.positions_N2) * settings.pixel_size_angstrom
    assert error.std() == pytest.approx(0.2, rel=0.1)
    counts = settings.dose_per_square_angstrom * settings.step_angstrom**2
    assert first.intensities_NYX.sum((1, 2)).mean() == pytest.approx(counts, rel=0.01)


def test_with_the_true_object_and_positions_only_counting_noise_is_left():
    # The square root of a Poisson count has a variance of a quarter, whatever the count: so much a lit pixel costs.
    settings = attrs.evolve(SMALL, dose_per_square_angstrom=1e7, validation_fraction=0.0)
    data = live(settings)
    truth = data.scan.truth
    assert truth is not None
    model = made(data, object_margin=4)
    offset = np.rint(model.motion.origin_2).astype(int)
    with torch.no_grad():
        height, width = model.object.maps.shape[1:]
        padded = np.pad(truth.phase_KL, 20)
        rows, columns = slice(offset[0] + 20, None), slice(offset[1] + 20, None)
        model.object.maps[0] = torch.from_numpy(padded[rows, columns][:height, :width])
        model.dr.copy_(torch.from_numpy(truth.positions_N2 - data.scan.positions_N2))
        batch = next(data.evaluate("train"))
        loss = float(Amplitude().build(data)(model(batch), batch, model))
    lit = float((batch["amplitudes"] > 0).sum()) / len(batch["index"])
    assert loss <= 1.3 * lit / 4 / data.mean_counts


# ---- positions ------------------------------------------------------------------------------------------------------


def test_affine_motion_is_taken_out_and_everything_else_and_held_out_points_stay():
    data = live(attrs.evolve(SMALL, validation_fraction=0.2), torch.float64)
    model = made(data)
    train_group(model, "dr")
    trained, positions = data.train_index, torch.from_numpy(data.scan.positions_N2)
    local = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (30, 2)))
    design = np.column_stack([positions[trained].numpy(), np.ones(len(trained))])
    fitted = design @ np.linalg.lstsq(design, local[trained].numpy(), rcond=None)[0]
    expected = local[trained].numpy() - fitted
    with torch.no_grad():
        scaled = 0.03 * (positions - positions.mean(0)) + 0.5
        model.dr[trained] = (local + scaled)[trained]
    model.on_epoch_end(state_of(model, data))
    np.testing.assert_allclose(model.dr[trained].detach().numpy(), expected, atol=1e-10)
    assert not model.dr[data.held_out_index].any()


@pytest.mark.parametrize(("settings", "groups"), [({"project_affine": False}, ("dr",)), ({}, ("object", "probe"))])
def test_positions_are_left_alone_while_they_do_not_train_or_when_asked(settings, groups):
    data = live()
    model = made(data, **settings)
    train_group(model, *groups)
    with torch.no_grad():
        model.dr += 0.25
    before = model.dr.detach().clone()
    state = state_of(model, data)
    model.on_validation_start(state)
    model.on_epoch_end(state)
    assert torch.equal(model.dr, before)


def test_a_patch_that_leaves_the_object_is_an_error_with_pattern_and_distance():
    data = live(attrs.evolve(SMALL, validation_fraction=0.0))
    model = made(data, object_margin=3, project_affine=False)
    train_group(model, "dr")
    with torch.no_grad():
        model.dr[29, 1] = 9.0  # the last point, so to the right
    assert model({"index": torch.tensor([29])})["intensities"].isfinite().all()
    with pytest.raises(
        DivergedError, match=r"pattern 29 has moved by \(0\.0, 9\.0\) pixels.* by [56] pixels.*object_margin"
    ):
        model.on_epoch_end(state_of(model, data))


# ---- probe ----------------------------------------------------------------------------------------------------------


def test_modes_become_orthogonal_strongest_first_and_no_pattern_changes():
    data = live(SMALL, torch.float64)
    model = made(data, probe=Aperture(modes=4))
    train_group(model, "probe")
    with torch.no_grad():  # as training does, which knows no orthogonality
        model.probe.modes += 0.1 * torch.randn(model.probe.modes.shape, generator=torch.Generator().manual_seed(1))
    batch = {"index": torch.arange(30)}
    before = model(batch)["intensities"]
    model.on_epoch_end(state_of(model, data))
    modes = model.reconstruction().probe_MYX.reshape(4, -1)
    gram = modes @ modes.conj().T
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0.0, atol=1e-12)
    assert (np.diff(np.diag(gram).real) <= 0).all()
    torch.testing.assert_close(model(batch)["intensities"], before, rtol=1e-10, atol=1e-13)
    again = model.probe.modes.detach().clone()
    model.on_epoch_end(state_of(model, data))
    torch.testing.assert_close(model.probe.modes.detach(), again, rtol=0, atol=1e-10)


def test_the_probes_power_is_kept_only_while_it_trains():
    data = live()
    model = made(data)
    state = state_of(model, data)
    with torch.no_grad():
        model.probe.modes *= 1.5
    train_group(model, "object")
    model.on_step_end(state)
    assert (np.abs(model.reconstruction().probe_MYX) ** 2).sum() == pytest.approx(2.25, rel=1e-5)
    train_group(model, "object", "probe")
    model.on_step_end(state)
    assert (np.abs(model.reconstruction().probe_MYX) ** 2).sum() == pytest.approx(1.0, rel=1e-5)


def test_a_learning_rate_of_the_probe_means_a_share_of_its_peak():
    for amplitude in (1e-6, 1e6):
        probe = amplitude * np.ones((1, 24, 24), dtype=np.complex64)
        model = made(live(SMALL, probe_MYX=probe), probe=ProbeFromData())
        assert float(model.probe.modes.detach().norm(dim=-1).max()) == pytest.approx(1.0, rel=1e-6)


def test_modes_have_the_powers_asked_for():
    modes = Aperture(modes=3, powers=(0.2, 0.05)).build(live())
    np.testing.assert_allclose((np.abs(modes) ** 2).sum((1, 2)), [0.75, 0.2, 0.05], rtol=1e-9)


@pytest.mark.parametrize(
    ("probe", "key"),
    [
        (Aperture(modes=2, powers=(0.1, 0.1)), "powers"),
        (Aperture(modes=3, powers=(0.6, 0.6)), "powers"),
        (Aperture(modes=60), "modes"),
    ],
)
def test_powers_that_make_no_sense_are_found_without_building(probe, key):
    problems = list(probe.problems(None))
    assert problems
    assert all(isinstance(problem, Problem) and problem.key == key for problem in problems)


def test_a_probe_that_the_data_cannot_give_is_asked_for_by_key():
    with pytest.raises(DataError, match=r"set model\.probe\.semiangle_mrad, data\.pixel_size_angstrom"):
        made(live(SMALL, semiangle_mrad=None, pixel_size_angstrom=None))
    with pytest.raises(DataError, match="gave no probe"):
        made(live(), probe=ProbeFromData())


# ---- groups and losses ----------------------------------------------------------------------------------------------


def test_every_parameter_is_in_one_group_and_only_the_object_trains_unasked():
    settings = Ptychography(probe=Aperture())
    model = settings.build(live())
    groups = {name: list(parameters) for name, parameters in settings.parameter_groups(model).items()}
    assert {id(p) for each in groups.values() for p in each} == {id(p) for p in model.parameters()}
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    assert settings.groups() == {"object": True, "probe": False, "dr": False, "scan": False, "other": False}


def test_a_trained_probe_is_the_same_where_a_resume_tells_another_one_to_begin_with():
    """Values of the probe are in units of the told probe's brightest pixel, which is brighter in focus."""
    trained, resumed = made(live(), probe=Aperture(defocus_angstrom=300.0)), made(live(), probe=Aperture())
    event: Any = SimpleNamespace(epoch=1)
    resumed.load_state_dict(trained.state_dict())
    assert resumed.probe().detach().abs().max() > 2 * trained.probe().detach().abs().max()
    resumed.on_epoch_start(event)
    torch.testing.assert_close(resumed.probe(), trained.probe())
    trained.on_epoch_start(event)
    torch.testing.assert_close(resumed.slope.powers_2YX, trained.slope.powers_2YX)


def test_names_in_checkpoints_are_those_of_the_first_version():
    """Version a7b3e3b wrote these; what positions need besides is made from the data again, or measured at a step."""
    own = {"dr", "scan", "ordered_epoch", "probe.modes"}
    measured = {"slope.powers_2YX", "seen.share_N2"}
    states = made(live()).state_dict()
    assert set(states) == own | {"object.maps"} | measured
    model = made(live())
    model.load_state_dict({name: value for name, value in states.items() if name not in measured})
    assert not model.slope.is_measured()
    wider = made(live(), probe=Aperture(defocus_angstrom=400.0))
    assert {name: each.shape for name, each in wider.state_dict().items()} == {n: e.shape for n, e in states.items()}
    encoded = set(made(live(), object=HashEncoding(levels=2, base_resolution=4, hidden_layers=0)).state_dict())
    tables = {"object.tables.0", "object.tables.1", "object.weights.0", "object.biases.0"}
    assert encoded == own | tables | {"object.num_levels", "object._extra_state"} | measured


@pytest.mark.parametrize("heeds", [True, False])
def test_a_loss_that_counts_pixels_which_were_not_measured_is_noticed_in_the_first_step(heeds: bool) -> None:
    data = live()
    model = made(data)
    train_group(model, "object")
    state = state_of(model, data)
    batch = next(iter(data.train(0, 0)))
    mask = torch.ones_like(batch["amplitudes"], dtype=torch.bool)
    mask[0, 3, 4] = False
    for _ in range(2):
        model.on_step_start(state)
        found = model(batch | {"mask": mask})["intensities"]
        ((found.sqrt() - batch["amplitudes"]) * (mask if heeds else 1)).square().sum().backward()
        model.on_step_end(state)
    assert len(state.doubts) == (not heeds)
    assert heeds or "a loss counts pixels that were not measured: its gradient is not 0 at 1 of them" in state.doubts[0]


def test_the_amplitude_loss_is_its_formula():
    generator = np.random.default_rng(4)
    modelled, measured = generator.random((5, 6, 7)), generator.random((5, 6, 7))
    outputs = {"intensities": torch.from_numpy(modelled)}
    loss = Amplitude(epsilon=1e-3).build(UNMASKED)(
        outputs, {"amplitudes": torch.from_numpy(measured)}, torch.nn.Module()
    )
    assert float(loss) == pytest.approx(((np.sqrt(modelled + 1e-3) - measured) ** 2).sum((1, 2)).mean(), rel=1e-12)


def test_a_dark_pixel_gives_a_finite_gradient():
    dark = torch.zeros(1, 2, 2, requires_grad=True)
    Amplitude().build(UNMASKED)(
        {"intensities": dark}, {"amplitudes": torch.ones(1, 2, 2)}, torch.nn.Module()
    ).backward()
    assert dark.grad is not None
    assert dark.grad.isfinite().all()


def test_total_variation_of_a_slope_is_its_slope_and_of_vacuum_nothing():
    model = made(live(SMALL, torch.float64))
    loss = TotalVariation(epsilon=1e-9).build(None)
    model.requires_grad_(False)
    assert float(loss({}, {}, model)) == pytest.approx(0.0, abs=1e-12)
    rows, columns = np.indices(model.object.maps.shape[1:])
    with torch.no_grad():
        model.object.maps[0] = torch.from_numpy(0.3 * rows + 0.4 * columns)
    assert float(loss({}, {}, model)) == pytest.approx(0.5, rel=1e-6)
    assert not TotalVariation.on_validation


# ---- what it leaves behind ------------------------------------------------------------------------------------------


def test_result_h5_holds_everything_with_units(tmp_path):
    data = live()
    model = made(data, probe=Aperture(modes=2))
    with torch.no_grad():
        model.object.maps += 0.1
        model.dr[3] = torch.tensor([0.25, -0.5])
    state = state_of(model, data, tmp_path)
    state.ended = "finished"
    model.on_run_end(state)
    assert {path.name for path in tmp_path.iterdir()} == {"result.h5", "object_phase.tif", "object_amplitude.tif"}
    with h5py.File(tmp_path / "result.h5") as file:
        assert file["object"].shape == tuple(model.object.maps.shape[1:])
        np.testing.assert_allclose(np.abs(file["object"][()]), np.exp(-0.1), rtol=1e-6)
        np.testing.assert_allclose(np.angle(file["object"][()]), 0.1, rtol=1e-5)
        assert file["probe"].shape == (2, 24, 24)
        moved = file["positions_px"][()] - file["positions_nominal_px"][()]
        np.testing.assert_allclose(moved[3], [0.25, -0.5], atol=1e-6)
        assert np.abs(np.delete(moved, 3, 0)).max() == 0
        expected = data.scan.positions_N2 * 0.4
        np.testing.assert_allclose(file["positions_nominal_angstrom"][()], expected, atol=1e-9)
        # Positions in pixels are places in the object: the middles of the patches.
        corner = model.motion.corner_N2.numpy() + model.motion.remainder_N2.numpy()
        np.testing.assert_allclose(file["positions_nominal_px"][()], corner + 12, atol=1e-5)
        assert file.attrs["pixel_size_angstrom"] == 0.4
        assert {file[name].attrs["unit"] for name in file} == {"1", "pixel", "angstrom"}


def test_without_a_pixel_size_there_is_nothing_in_angstrom(tmp_path):
    data = live(SMALL, pixel_size_angstrom=None, probe_MYX=np.ones((1, 24, 24), dtype=complex))
    state = state_of(model := made(data, probe=ProbeFromData()), data, tmp_path)
    model.on_run_end(state)
    with h5py.File(tmp_path / "result.h5") as file:
        assert not [name for name in file if "angstrom" in name]
        assert "pixel_size_angstrom" not in file.attrs


def test_a_failed_run_leaves_no_result(tmp_path):
    data = live()
    model = made(data)
    state = state_of(model, data, tmp_path)
    state.ended = "failed: NaN"
    model.on_run_end(state)
    assert not list(tmp_path.iterdir())


# ---- comparison with the truth --------------------------------------------------------------------------------------


def test_the_true_object_at_the_true_positions_compares_as_perfect():
    data = live(attrs.evolve(SMALL, scan_shape=(16, 16), validation_fraction=0.0))
    truth = data.scan.truth
    assert truth is not None
    model = made(data)
    r, now, start = compare(data, model)
    assert r == 0.0
    assert now == start == pytest.approx(0.1, rel=0.2)
    offset = np.rint(model.motion.origin_2).astype(int)
    with torch.no_grad():
        height, width = model.object.maps.shape[1:]
        padded = np.pad(truth.phase_KL, 20)[offset[0] + 20 :, offset[1] + 20 :]
        model.object.maps[0] = torch.from_numpy(padded[:height, :width])
        model.dr.copy_(torch.from_numpy(truth.positions_N2 - data.scan.positions_N2))
    r, now, _ = compare(data, model)
    assert r == pytest.approx(1.0, abs=1e-6)
    assert now < 1e-6


def test_the_hook_speaks_when_it_is_asked_to_and_at_the_last_epoch():
    data = live()
    hook: Any = CompareWithTruth(every_epochs=2).build(context())
    state = attrs.evolve(state_of(made(data), data), epochs=5)
    hook.on_run_start(state)
    spoken = []
    for epoch in range(5):
        state.epoch, state.metrics = epoch, {}
        hook.on_epoch_end(state)
        assert set(state.metrics) in ({*NAMES} - {"truth/depth_pearson"}, set())
        spoken.append(bool(state.metrics))
    assert spoken == [False, True, False, True, True]
