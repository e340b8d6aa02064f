"""Object modes (frozen phonons): patterns of several states of a specimen are averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from trainkit import Context, Monitor, State
from trainkit.curvature import curvature_of
from trainkit_ptychography.constraints.limits import Limits
from trainkit_ptychography.constraints.probe_support import ProbeSupport
from trainkit_ptychography.models.output import write_files
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.objects.hash_encoding import HashEncoding
from trainkit_ptychography.preflight.object_memory import inspect_object_memory
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Recording, checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction
from trainkit_ptychography.scans.simulated_live import patterns

CPU = torch.device("cpu")
CONTEXT = Context(0, CPU, Path())
SETTINGS = SimulatedDiffraction(scan_shape=(5, 5), detector_size=24, position_error_angstrom=0.0, batch_size=25)
THICK: dict[str, Any] = {"slices": 3, "thickness_angstrom": 60.0}


def made(data: Any = None, **settings: Any) -> PtychographyModule:
    model = Ptychography(probe=Aperture(), **settings).build(SETTINGS.build(CONTEXT) if data is None else data)
    assert isinstance(model, PtychographyModule)
    return model


def expected(model: PtychographyModule) -> torch.Tensor:
    found: torch.Tensor = model({"index": torch.arange(25)})["intensities"]
    return found


@pytest.mark.parametrize("settings", [{}, THICK], ids=["thin", "thick"])
def test_patterns_are_the_mean_of_those_of_each_mode_and_gradients_a_share_of_theirs(settings):
    model = made(object_modes=3, object_modes_differ_rad=0.3, **settings)
    weight = torch.rand(25, 24, 24, generator=torch.Generator().manual_seed(1))
    found = expected(model)
    (found * weight).sum().backward()
    one = made(**settings)
    alone = []
    for number in range(3):
        mode = model.object.members[number]
        one.object.load_state_dict(mode.state_dict())
        one.object.zero_grad()
        alone.append(expected(one))
        (alone[-1] * weight).sum().backward()
        torch.testing.assert_close(mode.maps.grad, one.object.maps.grad / 3, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found, torch.stack(alone).mean(0))
    assert float((alone[0] - alone[1]).detach().abs().max()) > 0.01 * float(found.detach().max())


def test_one_mode_is_the_object_as_it_was_and_several_begin_differently_by_the_seed():
    names = {name for name, _ in made().named_parameters()}
    assert names == {name for name, _ in made(object_modes=1).named_parameters()}
    model, again = made(object_modes=2), made(object_modes=2)
    first, second = (member.maps.detach() for member in model.object.members)
    assert float((first[0] - second[0]).std()) == pytest.approx(0.02 * 2**0.5, rel=0.1)
    assert float(first[1].abs().max()) == 0  # absorption stays
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_modes_of_a_hash_encoding_differ_too():
    model = made(object=HashEncoding(levels=2, backend="torch"), object_modes=2)
    first, second = (torch.cat([each.flatten() for each in member.parameters()]) for member in model.object.members)
    assert not torch.equal(first, second)


def test_a_constraint_of_the_object_is_imposed_on_each_mode_and_one_of_the_probe_once():
    constraints = {"limits": Limits(min_phase_rad=0.0), "support": ProbeSupport(radius_angstrom=3.0)}
    model = made(object_modes=2, constraints=constraints)
    plain = made(constraints={"support": ProbeSupport(radius_angstrom=3.0)})
    for each in (model, plain):
        each.probe.modes.requires_grad_(True)
        state = State(CONTEXT, 4, each, each._data, {}, Monitor())
        state.step = 1
        each.on_step_end(state)
    for member in model.object.members:
        assert float(member.maps.detach().min()) == 0.0
        assert float(member.maps.detach().max()) > 0.0
    assert torch.equal(model.probe.modes, plain.probe.modes)


@pytest.mark.slow  # 2 s: a short reconstruction
def test_atoms_that_move_are_explained_better_by_several_modes_than_by_one():
    """Three states of a specimen whose atoms were displaced; the mean of their patterns is measured."""
    recording = SETTINGS.read()
    scan, generator = recording.scan, np.random.default_rng(3)
    told = Ptychography(probe=Aperture()).build(SETTINGS.build(CONTEXT))
    probe_YX = told.probe().detach()[0].numpy().astype(complex)
    states = [np.exp(1j * np.roll(scan.truth.phase_KL, tuple(generator.integers(-1, 2, 2)), (0, 1))) for _ in range(3)]
    mean = np.mean([patterns(each, probe_YX, scan.positions_N2) for each in states], axis=0)
    data = LiveDiffraction(checked(Recording(mean.astype(np.float32), scan)), CONTEXT, 25, 0.0)
    (batch,) = data.some(torch.arange(25))
    left = {}
    for num in (1, 3):
        model = made(data, object_modes=num)
        optimizer = torch.optim.Adam(model.object.parameters(), lr=0.03)
        for _ in range(120):
            optimizer.zero_grad()
            misfit = (model(batch)["intensities"].clamp_min(1e-12).sqrt() - batch["amplitudes"]).square().sum()
            misfit.backward()
            optimizer.step()
        left[num] = float(misfit.detach())
    assert left[3] < 0.5 * left[1]


def test_the_curvature_along_a_mode_is_that_of_one_object_over_the_number_of_modes():
    found = {}
    for num in (1, 2):
        data = SETTINGS.build(CONTEXT)
        model = made(data, object_modes=num)
        with torch.no_grad():  # all modes alike, and no pixel of a pattern without light
            for member in model._object_modes:
                member.pixels()["phase"].copy_(
                    0.1 * torch.randn(model.motion.shape_HW, generator=torch.Generator().manual_seed(1))
                )
        (batch,) = data.some(torch.arange(25))
        model.on_step_start(State(CONTEXT, 1, model, data, {}, Monitor()))
        (model(batch)["intensities"].clamp_min(1e-12).sqrt() - batch["amplitudes"]).square().mean().backward()
        found[num] = curvature_of(next(model.object.parameters()))
    torch.testing.assert_close(found[2], found[1] / 2)


def test_the_result_holds_each_mode_and_the_mean_and_check_says_what_they_take(tmp_path):
    data = SETTINGS.build(CONTEXT)
    model = made(data, object_modes=2, object_modes_differ_rad=0.2, **THICK)
    write_files(model.reconstruction(), data, tmp_path)
    with h5py.File(tmp_path / "result.h5") as file:
        modes_OSHW = file["object_modes"][()]
        assert modes_OSHW.shape == (2, 3, *model.motion.shape_HW)
        np.testing.assert_allclose(np.angle(file["object_slices"][()]), np.angle(modes_OSHW).mean(0), atol=1e-6)
    (line,) = inspect_object_memory(SETTINGS, 2, 3, 4)
    height, width = model.motion.shape_HW
    assert f"2 modes of 3 slices of {height} × {width} pixels" in line
    assert f"{2 * 3 * height * width * 2 * 4 * 4 / 2**10:.3g} KiB" in line
    assert (0, "2 object modes: 2 times the time and memory of one object") in [*made_settings().timeline(3)]


def made_settings() -> Ptychography:
    return Ptychography(probe=Aperture(), object_modes=2)
