"""The object as a hash encoding: what it is made of, what it shows, when its levels join, and what it refuses."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainkit import RecipeError
from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.objects.encoding.hash_grid import encode
from trainkit_ptychography.objects.hash_encoding import FineFrom, HashEncoding
from trainkit_ptychography.objects.hash_encoding_live import HashObject
from trainkit_ptychography.objects.kind import ObjectGeometry
from trainkit_ptychography.physics.patches import crop

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "ptycho_hash.toml"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def geometry(shape: tuple[int, int] = (60, 50), patch: tuple[int, int] = (12, 10), seed: int = 0) -> ObjectGeometry:
    return ObjectGeometry(shape, patch, torch.float64, torch.device("cpu"), seed)


def made(on: ObjectGeometry | None = None, **changes: Any) -> HashObject:
    small = {"levels": 5, "base_resolution": 4, "log2_hashmap_size": 8, "neurons": 8}
    live = HashEncoding(**{**small, **changes}).build(on or geometry())
    assert isinstance(live, HashObject)
    return live


def roughen(live: HashObject) -> HashObject:
    """Give every parameter a size that matters."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in live.parameters():
            parameter += 0.3 * (torch.rand(parameter.shape, generator=generator, dtype=torch.float64) - 0.5)
    return live


def corners(*places: tuple[int, int]) -> torch.Tensor:
    return torch.tensor(places)


# ---- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["phase_and_amplitude", "phase_only"])
@pytest.mark.parametrize("hidden", [0, 2])
def test_it_is_a_network_over_the_features_of_each_pixels_centre(kind: str, hidden: int) -> None:
    live = roughen(made(kind=kind, hidden_layers=hidden))
    rows, columns = np.indices((60, 50)).reshape(2, -1)
    positions = torch.from_numpy(np.stack(((columns + 0.5) / 60, (rows + 0.5) / 60), axis=1))
    grids = HashEncoding(levels=5, base_resolution=4, log2_hashmap_size=8).grids((59.5 / 4) ** 0.25)
    values = encode(positions, list(live.tables), grids).detach().numpy()
    for number, (weight, bias) in enumerate(zip(live.weights, live.biases, strict=True)):
        values = values @ weight.detach().numpy().T + bias.detach().numpy()[:, 0]
        values = np.maximum(values, 0) if number < hidden else values
    np.testing.assert_allclose(live.phase().detach(), values[:, 0].reshape(1, 60, 50), atol=1e-12)
    amplitude = np.exp(-values[:, 1]) if kind == "phase_and_amplitude" else np.ones(3000)
    np.testing.assert_allclose(live.amplitude().detach(), amplitude.reshape(1, 60, 50), atol=1e-12)


PLACES = {
    "few pixels": corners((0, 0), (3, 1)),
    "half of them": corners(*((row, column) for row in (0, 13, 27, 40) for column in (0, 11, 30))),
    "all": corners(*((row, column) for row in range(0, 49, 4) for column in range(0, 41, 4))),
}


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_patches_have_the_same_values_and_gradients_however_much_of_the_object_they_touch(places: torch.Tensor) -> None:
    live = roughen(made())
    whole = crop(torch.polar(live.amplitude(), live.phase()), places, (12, 10))
    patches = live(places)
    torch.testing.assert_close(patches, whole)
    with torch.no_grad():
        torch.testing.assert_close(live(places), whole)
    back = torch.rand(whole.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parameters = list(live.parameters())
    for one, other in zip(
        torch.autograd.grad(whole, parameters, back * (1 + 2j)),
        torch.autograd.grad(patches, parameters, back * (1 + 2j)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_only_the_pixels_that_are_touched_go_through_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    live, seen = made(), list[int]()
    network = live._network
    monkeypatch.setattr(live, "_network", lambda values: seen.append(values.shape[1]) or network(values))
    live(PLACES["few pixels"])
    live(PLACES["half of them"])
    live(PLACES["all"])
    assert seen == [12 * 10 * 2 - 9 * 9, 12 * 12 * 10, 60 * 50]


def test_it_begins_as_vacuum_by_the_runs_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = made()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = made(), made(geometry(seed=1))
    for a, b in zip(one.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.tables[0], other.tables[0])
    largest = [float(table.detach().abs().max()) for table in one.tables]
    assert 0.9e-4 < max(largest) <= 1e-4
    assert float(one.phase().detach().abs().max()) < 1e-2
    torch.testing.assert_close(one.amplitude(), torch.ones(1, 60, 50, dtype=torch.float64), atol=1e-2, rtol=0)


def counted(live: HashObject, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    evaluate = live._evaluate
    monkeypatch.setattr(live, "_evaluate", lambda pixels: calls.append(pixels) or evaluate(pixels))
    return calls


def test_a_regulariser_looks_at_the_maps_that_the_patches_are_cut_from(monkeypatch: pytest.MonkeyPatch) -> None:
    live = roughen(made())
    apart = [
        torch.autograd.grad(value(live), list(live.parameters()))
        for value in (lambda o: o(PLACES["all"]).real.sum(), lambda o: o.phase().square().sum() + o.amplitude().sum())
    ]
    evaluated = counted(live, monkeypatch)
    for _ in range(2):  # backward, twice: as with accumulated gradients
        total = live(PLACES["all"]).real.sum() + live.phase().square().sum() + live.amplitude().sum()
        together = torch.autograd.grad(total, list(live.parameters()))
        for one, two, both in zip(*apart, together, strict=True):
            torch.testing.assert_close(one + two, both)
    assert len(evaluated) == 2


def test_an_object_that_does_not_train_is_evaluated_once_for_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    live = roughen(made()).requires_grad_(False)
    evaluated = counted(live, monkeypatch)
    patches = [live(PLACES[places]) for places in ("few pixels", "all", "few pixels")]
    assert len(evaluated) == 1
    torch.testing.assert_close(patches[0], live.requires_grad_(True)(PLACES["few pixels"]).detach())
    assert len(evaluated) == 2


def test_maps_are_found_anew_when_something_begins_to_train_or_a_step_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = roughen(made()).requires_grad_(False)
    assert not live.phase().requires_grad
    live.requires_grad_(True)
    assert live.phase().requires_grad
    evaluated = counted(live, monkeypatch)
    for fused in (False, True):
        optimizer = torch.optim.Adam(live.parameters(), lr=0.1, fused=fused)
        before = live.phase().detach()
        live.phase().sum().backward()
        optimizer.step()
        with torch.no_grad():
            assert not torch.equal(live.phase(), before)
    assert len(evaluated) == 3  # once in each grad mode for either optimizer, the first of them above


def test_what_is_kept_for_validation_is_never_out_of_date() -> None:
    live = made(fine_from=FineFrom(stop_epoch=3, coarse_levels=2))
    with torch.no_grad():
        before = live.phase()
        assert live.phase() is before or torch.equal(live.phase(), before)
        live.tables[0] += 1.0
        moved = live.phase()
        assert not torch.equal(moved, before)
        live.tables[-1] += 1.0
        live.enable(5)
        assert not torch.equal(live.phase(), moved)


def test_precision_changes_no_bit() -> None:
    live = roughen(made(geometry()._replace(dtype=torch.float32)))
    found = []
    for on in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
            patches = live(PLACES["half of them"])
        found.append((patches, *torch.autograd.grad(patches.abs().sum(), list(live.parameters()))))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


# ---- coarse to fine -------------------------------------------------------------------------------------------------


def test_levels_that_have_not_joined_say_nothing_and_are_not_trained() -> None:
    live = roughen(made(fine_from=FineFrom(start_epoch=1, stop_epoch=3, coarse_levels=2)))
    whole = roughen(made())
    with torch.no_grad():
        for table in list(whole.tables)[2:]:
            table.zero_()
    torch.testing.assert_close(live.phase(), whole.phase())
    live(PLACES["all"]).abs().sum().backward()
    assert [table.grad is not None for table in live.tables] == [True, True, False, False, False]


def test_a_restored_object_has_the_levels_that_it_had() -> None:
    fine = FineFrom(start_epoch=1, stop_epoch=3, coarse_levels=2)
    live, fresh = roughen(made(fine_from=fine)), made(fine_from=fine)
    live.enable(4)
    fresh.load_state_dict(live.state_dict())
    assert torch.equal(fresh.phase(), live.phase())


def test_levels_join_epoch_by_epoch_as_the_plan_says_and_the_metrics_show() -> None:
    small = ("data.scan_shape=[5, 5]", "data.detector_size=24", "run.epochs=5", "run.device=cpu")
    stages = (
        "model.object.fine_from={ start_epoch = 1, stop_epoch = 3, coarse_levels = 4 }",
        "groups.dr.start_epoch=2",
        "groups.probe.start_epoch=2",
    )
    resolved = resolve(RECIPE, (*small, *stages))
    assert list(resolved.recipe.model.timeline(5)) == [
        (0, "object: 4 of 16 levels"),
        (1, "object: 8 of 16 levels"),
        (2, "object: 12 of 16 levels"),
        (3, "object: 16 of 16 levels"),
    ]
    folder = start(resolved, Console(quiet=True)).run.state.folder
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["object/levels"] for line in lines] == [4.0, 8.0, 12.0, 16.0, 16.0]
    events = EventAccumulator(str(folder / "tensorboard" / "train"))
    events.Reload()
    assert [event.value for event in events.Scalars("values/object/levels")] == [4.0, 8.0, 12.0, 16.0, 16.0]
    with h5py.File(folder / "result.h5") as file:
        assert np.iscomplexobj(file["object"][()])


# ---- bad settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("per_level_scale=1.0", "finer than the one before"),
        ("per_level_scale=8.0", "lower it, or levels"),
        ("features=3", "features"),
        ("fine_from.stop_epoch=1", "must come after the start"),
        ("fine_from.coarse_levels=16", "none would be left to join"),
        ('backend="tinycudann"', "backend"),
    ],
)
def test_settings_that_cannot_work_are_refused_and_say_why(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve(RECIPE, (f"model.object.{setting}",))


def test_tables_that_do_not_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = ("model.object.per_level_scale=2.0", "model.object.log2_hashmap_size=24")
    monkeypatch.setattr("trainkit_ptychography.objects.hash_encoding.free_host_memory", lambda: 2**30)
    with pytest.raises(RecipeError, match=r"take .* GiB, and .* are free here; lower log2_hashmap_size"):
        resolve(RECIPE, sets)
    monkeypatch.setattr("trainkit_ptychography.objects.hash_encoding.free_host_memory", lambda: 2**40)
    resolve(RECIPE, sets)


def test_so_are_those_that_do_not_fit_into_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**20, 2**30))
    with pytest.raises(RecipeError, match=r"take .* MiB, and 1 MiB are free on cuda:1; lower log2_hashmap_size"):
        made(ObjectGeometry((600, 500), (12, 10), torch.float32, torch.device("cuda:1"), 0), log2_hashmap_size=18)


def test_levels_that_never_join_are_a_warning() -> None:
    notes = resolve(RECIPE, ("model.object.fine_from.stop_epoch=30",)).notes
    assert any("will never be trained" in str(note) for note in notes)


def test_levels_finer_than_the_pixels_are_a_warning_that_says_what_to_set(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="trainkit"):
        made(per_level_scale=1.96)
        assert not caplog.messages
        made(per_level_scale=3.0)
    assert "324 vertices for 60 pixels" in caplog.text
    assert "per_level_scale = 1.964" in caplog.text


def test_an_object_smaller_than_its_coarsest_level_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"lower model\.object\.base_resolution"):
        made(geometry((16, 12), (4, 4)), base_resolution=16)
    with pytest.raises(RecipeError, match="would have 15 vertices for the 60 pixels"):
        made(base_resolution=15, vertices_per_pixel=0.25)


@pytest.mark.parametrize(("share", "vertices"), [(1.0, 60), (0.85, 51), (0.5, 30)])
def test_the_finest_level_is_as_fine_as_it_is_told(
    share: float, vertices: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="trainkit"):
        live = made(vertices_per_pixel=share, log2_hashmap_size=14)
    assert f"5 levels of 4 to {vertices} vertices for 60 pixels" in caplog.text
    assert len(live.tables[-1]) == -(-(vertices**2) // 8) * 8
    sets = ("model.object.per_level_scale=1.1", f"model.object.vertices_per_pixel={share}")
    if share < 1:
        with pytest.raises(RecipeError, match="per_level_scale already says how fine"):
            resolve(RECIPE, sets)
    else:
        resolve(RECIPE, sets)


# ---- a whole reconstruction -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.no_cover
def test_it_reconstructs_a_monolayer_at_least_as_well_as_asked(shared_data: Path) -> None:
    recipe = ROOT / "recipes" / "ptycho_mos2_hash.toml"
    short = ("run.epochs=6", "checkpoint.every_epochs=100")  # as good as the 30 epochs of the recipe
    sets = (f"data.path={shared_data / 'ptychography' / 'mos2_sim.h5'}", *short)
    state = start(resolve(recipe, (*sets, "run.device=cpu", "run.threads=1")), Console(quiet=True)).run.state
    assert state.metrics["truth/phase_pearson"] >= 0.98  # measured: 0.989; a rough loop of others: 0.935
    assert state.metrics["truth/position_rmse_angstrom"] <= 0.032  # measured: 0.026 Å; that loop: 0.043 Å


# ---- several slices -------------------------------------------------------------------------------------------------


def thick(shape: tuple[int, int] = (30, 24)) -> ObjectGeometry:
    return geometry(shape)._replace(slices=5, slice_thickness_angstrom=8.0)


def test_a_thick_object_is_the_encoding_at_depth_row_and_column_of_each_pixel():
    """The neighbour of a pixel is the next slice, row or column: all coordinates have the same unit."""
    live = roughen(made(thick()))
    assert live.maps().shape == (2, 5, 30, 24)
    places = ((0, 0, 0), (4, 29, 23), (2, 17, 3))
    positions_ND = (torch.tensor(places, dtype=torch.float64).flip(1) + 0.5) / 30
    grids = HashEncoding(levels=5, base_resolution=4, log2_hashmap_size=8).grids((29.5 / 4) ** 0.25, 3)
    hidden = encode(positions_ND, list(live.tables), grids).T.detach().numpy()
    for number, (weight, bias) in enumerate(zip(live.weights, live.biases, strict=True)):
        hidden = weight.detach().numpy() @ hidden + bias.detach().numpy()
        if number < 2:
            hidden = np.maximum(hidden, 0)
    found = np.stack([live.maps()[:, s, row, column].detach().numpy() for s, row, column in places], axis=1)
    np.testing.assert_allclose(found, hidden, atol=1e-12)


@pytest.mark.parametrize("places", [((0, 0), (4, 3)), ((18, 14),)])
def test_patches_of_a_thick_object_are_those_of_its_maps_with_the_same_gradients(places):
    """A few pixels are evaluated one by one, more of them as a grid."""
    live, corner_B2 = roughen(made(thick())), corners(*places)
    parameters = list(live.parameters())
    seen = crop(live.slices(corner_B2), corner_B2, (12, 10))
    whole = crop(live.maps(), corner_B2, (12, 10))
    torch.testing.assert_close(seen, whole, rtol=0, atol=1e-12)
    weight = torch.rand(seen.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad((weight * seen).sum(), parameters),
        torch.autograd.grad((weight * whole).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_a_run_trains_a_thick_object_of_a_hash_encoding_and_leaves_its_slices(tmp_path):
    sets = (
        *("data.scan_shape=[4, 4]", "data.detector_size=24", "data.slices=4", "run.epochs=2", "run.device=cpu"),
        *("model.slices=4", "model.thickness_angstrom=100.0", "model.coarse={one={slices=1,stop_epoch=1}}"),
        *("groups.probe.start_epoch=1", "groups.dr.start_epoch=1", "model.object.levels=4"),
    )
    sets = (*sets, "model.object.fine_from={start_epoch=0,stop_epoch=1,coarse_levels=2}", 'drop=["hooks.truth"]')
    state = start(resolve(RECIPE, sets), Console(quiet=True)).run.state
    phase_SHW = state.model.reconstruction().phase_SHW
    assert np.abs(np.diff(phase_SHW, axis=0)).max() > 1e-4
    assert (state.folder / "result.h5").exists()
