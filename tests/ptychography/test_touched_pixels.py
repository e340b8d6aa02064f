"""Steps of large objects, which change only what a step's patterns show, against steps of all pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainkit import Context, Monitor, State, touched_of
from trainkit.optimizers.scaled_steps import ScaledSteps
from trainkit_ptychography.losses.poisson import Poisson
from trainkit_ptychography.models import curvature, ptychography_live
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.objects.pixels import Pixels
from trainkit_ptychography.physics import patches
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

CONTEXT = Context(0, torch.device("cpu"), Path())
WIDE = SimulatedDiffraction(
    scan_shape=(6, 6), detector_size=16, step_angstrom=4.0, position_error_angstrom=0.3, batch_size=2
)
SPECIMENS = {
    "phase": {"object": Pixels(kind="phase_only")},
    "absorbing": {"object": Pixels()},
    "slices": {"slices": 3, "thickness_angstrom": 30.0},
    "modes": {"object_modes": 2, "object_modes_differ_rad": 0.1},
}
Grads = Callable[[PtychographyModule, torch.Tensor], None]


def a_model(specimen: str) -> tuple[PtychographyModule, list[dict[str, torch.Tensor]], State]:
    data = WIDE.build(CONTEXT)
    model = Ptychography(probe=Aperture(), **SPECIMENS[specimen]).build(data)
    assert isinstance(model, PtychographyModule)
    with torch.no_grad():
        for number, mode in enumerate(model._object_modes):
            generator = torch.Generator().manual_seed(number)
            mode.maps.copy_(0.05 * torch.randn(mode.maps.shape, generator=generator))
    batches = list(data.some(torch.tensor([0, 1]))) + list(data.some(torch.tensor([7, 28])))
    return model, batches, State(CONTEXT, 1, model, data, {}, Monitor())


def trained(specimen: str, also: Grads | None = None) -> tuple[list[torch.Tensor], list[bool]]:
    """Return the pixels after two steps, and in which steps only some of them were looked at."""
    model, batches, state = a_model(specimen)
    loss = Poisson().build(model._data)
    pixels = list(model.object.parameters())
    optimizer = ScaledSteps(lr=0.7, damping=0.3).build([{"params": pixels}])
    some = []
    for batch in batches:
        model.on_step_start(state)
        optimizer.zero_grad()
        value = loss(model(batch), batch, model)
        if also is None:
            value.backward()
        else:
            also(model, value)
        some.append(all(touched_of(each) is not None for each in pixels))
        optimizer.step()
        model.on_step_end(state)
    return [each.detach().clone() for each in pixels], some


def of_all_pixels(specimen: str, also: Grads | None = None) -> list[torch.Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curvature, "_LARGE", 10**9)
        found, some = trained(specimen, also)
    assert not any(some)
    return found


@pytest.mark.parametrize("by_place", [False, True])
@pytest.mark.parametrize("specimen", SPECIMENS)
def test_pixels_that_patterns_show_move_as_in_steps_of_all_pixels(specimen, by_place, monkeypatch):
    if by_place:  # as on other devices
        monkeypatch.setattr(ptychography_live, "patches_at", lambda *args, **_: patches.patches_by_place(*args))
    found, some = trained(specimen)
    assert all(some)
    begun = [each.detach() for each in a_model(specimen)[0].object.parameters()]
    for touched, whole, before in zip(found, of_all_pixels(specimen), begun, strict=True):
        torch.testing.assert_close(touched, whole, rtol=0, atol=1e-7)
        assert 0.02 < float((touched != before).float().mean()) < 0.5


def everywhere(model: PtychographyModule, value: torch.Tensor) -> None:
    (value + 1e3 * sum(mode.phase().diff(dim=-1).abs().mean() for mode in model._object_modes)).backward()


def by_a_hook(model: PtychographyModule, value: torch.Tensor) -> None:
    value.backward()
    for each in model.object.parameters():
        each.grad[..., 0, 0] = 1e3


def by_another_gradient(model: PtychographyModule, value: torch.Tensor) -> None:
    value.backward()
    for each in model.object.parameters():
        each.grad = each.grad + 10.0


def twice(model: PtychographyModule, value: torch.Tensor) -> None:
    value.backward()
    batch = next(iter(model._data.some(torch.tensor([20, 33]))))
    Poisson().build(model._data)(model(batch), batch, model).backward()


def without_notice(model: PtychographyModule, value: torch.Tensor) -> None:
    value.backward()
    *_, last = model.object.parameters()
    last.grad.data[..., 0, 0] = 1e3  # torch does not count this


ALSO = [everywhere, by_a_hook, by_another_gradient, twice, without_notice]


@pytest.mark.parametrize("specimen", ["phase", "modes"])
@pytest.mark.parametrize("also", ALSO, ids=lambda each: each.__name__)
def test_what_else_has_a_gradient_moves_as_well(also, specimen):
    found, some = trained(specimen, also)
    assert not any(some)
    for one, other in zip(found, of_all_pixels(specimen, also), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-7)  # one mode may be looked at in part
    alone = of_all_pixels(specimen)
    assert not all(torch.allclose(one, other, rtol=0, atol=1e-6) for one, other in zip(found, alone, strict=True))


def test_a_turned_view_of_a_gradient_is_not_taken_for_it():
    patches_of = patches.patches_at(torch.tensor([[0, 2]]), (2, 2), 4)
    array = torch.zeros(1, 4, 4)
    patches_of(array).add(torch.ones(1, 1, 2, 2))
    assert not patches_of.is_filled(array)
    patches_of.note_filled(array)
    assert patches_of.is_filled(array)
    assert patches_of.is_filled(array[0])
    assert not patches_of.is_filled(array.mT)
    assert not patches_of.is_filled(array.clone())
    array += 0
    assert not patches_of.is_filled(array)


def test_steps_with_momentum_move_what_earlier_steps_pushed():
    model, batches, state = a_model("phase")
    loss = Poisson().build(model._data)
    (pixels,) = model.object.parameters()
    optimizer = ScaledSteps(lr=0.7, momentum=0.5).build([{"params": [pixels]}])
    moved = []
    for batch in batches:
        model.on_step_start(state)
        optimizer.zero_grad()
        loss(model(batch), batch, model).backward()
        before = pixels.detach().clone()
        optimizer.step()
        model.on_step_end(state)
        moved.append(pixels.detach() != before)
    assert (moved[0] & ~moved[1]).sum() < 10
