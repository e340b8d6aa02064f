"""Fewer slices first: what the wave passes in a stage, its gradients and cost, and how a run goes through stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from same import differences, trained
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from trainkit import Context, Live, Problem, State
from trainkit.checkpoint.file import read, read_header
from trainkit.console import Console
from trainkit.engine import run_folder
from trainkit.engine.build import build
from trainkit.engine.resume import resume
from trainkit.engine.start import RunOutcome, execute
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.models.propagation import shares
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.physics.quality import rebinned
from trainkit_ptychography.preflight.thick import inspect_slices
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.propagators.coarse_slices import CoarseSlices, problems_of_stages
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .small_recipe import small_recipe

CONTEXT = Context(0, torch.device("cpu"), Path())
SCAN = SimulatedDiffraction(scan_shape=(2, 2), detector_size=20, semiangle_mrad=20.0, position_error_angstrom=0.0)
STAGED = """
slices = 4
thickness_angstrom = 80.0
[model.coarse.one]
slices = 1
stop_epoch = 1
[model.coarse.few]
slices = 3
stop_epoch = 2
"""
GROUPS = """
groups.thickness = { start_epoch = 1, lr = 0.1 }
groups.tilt = { start_epoch = 0, lr = 0.1 }
groups.dr = { start_epoch = 2, lr = 1e-2 }
"""


def made(passed: int, **settings: Any) -> tuple[PtychographyModule, LiveDiffraction]:
    """Return a model of six slices in double precision of which the wave passes fewer, with random phases."""
    data = LiveDiffraction(checked(SCAN.read()), CONTEXT, 4, 0.0, torch.float64)
    coarse = {"it": CoarseSlices(slices=passed, stop_epoch=3)} if passed < 6 else {}
    named = {"probe": Aperture(), "thickness_angstrom": 90.0, "coarse": coarse, "object_margin": 1, **settings}
    model = Ptychography(slices=6, **named).build(data)
    assert isinstance(model, PtychographyModule)
    with torch.no_grad():
        model.object.maps.uniform_(0.0, 0.3, generator=torch.Generator().manual_seed(0))
    return model, data


@pytest.mark.parametrize("passed", [1, 3, 4])
def test_patterns_of_a_stage_are_those_of_sums_of_slices_each_in_the_middle_of_what_it_stands_for(passed):
    model, data = made(passed, tilt_mrad=(8.0, -5.0))
    batch = next(iter(data.evaluate("train")))
    with torch.no_grad():
        found_BYX = model(batch)["intensities"].numpy()
        probe_YX = model.probe()[0].numpy()
        corner_B2, shift_B2 = (e.numpy() for e in model.motion.split(batch["index"], model.dr, model.scan))
    wavelength, pixel = data.scan.wavelength_angstrom, data.scan.pixel_size_angstrom
    down_Y, right_X = (np.fft.fftfreq(size, pixel) for size in data.detector_shape)

    def moved(wave_YX: np.ndarray, way: float, shift_2: np.ndarray) -> np.ndarray:
        """Return a wave after a way along the tilted beam, and a shift in pixels."""
        down, right = shift_2 * pixel + way * np.tan([8e-3, -5e-3])
        angle_YX = np.pi * wavelength * way * (down_Y[:, None] ** 2 + right_X**2)
        angle_YX = angle_YX + 2 * np.pi * (down_Y[:, None] * down + right_X * right)
        return np.fft.ifft2(np.fft.fft2(wave_YX) * np.exp(-1j * angle_YX))

    maps_KSHW = model.object.maps.detach().numpy()
    phase_CHW, absorption_CHW = rebinned(maps_KSHW[0], passed), rebinned(maps_KSHW[1], passed)
    for found_YX, (top, left), shift_2 in zip(found_BYX, corner_B2, shift_B2, strict=True):
        wave_YX, where = probe_YX, 0.0
        for number in range(passed):
            plane = (number + 0.5) * 90.0 / passed - 7.5  # Å behind the first of six slices, which stands for 15 Å
            wave_YX = moved(wave_YX, plane - where, shift_2 if number == 0 else np.zeros(2))
            seen = np.s_[number, top : top + 20, left : left + 20]
            wave_YX = wave_YX * np.exp(1j * phase_CHW[seen] - absorption_CHW[seen])
            where = plane
        expected_YX = np.abs(np.fft.fft2(wave_YX, norm="ortho")) ** 2
        np.testing.assert_allclose(found_YX, expected_YX, atol=1e-12 * expected_YX.max())


@pytest.mark.parametrize("passed", [1, 4])
def test_gradients_of_all_parameters_in_a_stage_are_those_of_finite_differences(passed):
    model, data = made(passed, tilt_mrad=(3.0, -2.0))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        model.propagation.point_tilts.normal_(generator=generator)
    batch = next(iter(data.evaluate("train")))
    weight = torch.rand(batch["amplitudes"].shape, generator=generator, dtype=torch.float64)

    def loss() -> Tensor:
        return (weight * model(batch)["intensities"]).sum()

    loss().backward()
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        with torch.no_grad():
            for step in (1e-5, -2e-5, 1e-5):
                parameter += step * direction
                values.append(float(loss()))
        expected = (values[0] - values[1]) / 2e-5
        assert float((parameter.grad * direction).sum()) == pytest.approx(expected, rel=1e-5), name


def test_slices_that_count_together_get_the_same_gradient():
    model, data = made(3)
    model(next(iter(data.evaluate("train"))))["intensities"].amax().backward()
    gradient_KSHW = model.object.maps.grad
    assert gradient_KSHW.any()
    torch.testing.assert_close(gradient_KSHW[:, ::2], gradient_KSHW[:, 1::2], rtol=0, atol=0)
    assert not torch.allclose(gradient_KSHW[:, 0], gradient_KSHW[:, 2])


def test_shares_of_slices_add_up():
    for passed, slices in ((1, 5), (4, 12), (4, 15), (7, 9)):
        shares_CS = shares(passed, slices)
        torch.testing.assert_close(shares_CS.sum(0), torch.ones(slices, dtype=torch.float64))
        torch.testing.assert_close(shares_CS.sum(1), torch.full((passed,), slices / passed, dtype=torch.float64))


def test_a_stage_of_a_third_of_the_slices_takes_about_a_third_of_the_transforms():
    def transforms(passed: int) -> int:
        model, data = made(passed)
        batch = next(iter(data.evaluate("train")))
        with profile(activities=[ProfilerActivity.CPU]) as trace:
            model(batch)["intensities"].sum().backward()
        return sum(each.count for each in trace.key_averages() if each.key == "aten::_fft_c2c")

    fine, coarse = transforms(6), transforms(2)
    assert fine - coarse >= 4 * 4 - 4  # four transforms a slice, of four slices; less those in front of the first one


# ---- runs -----------------------------------------------------------------------------------------------------------


class _SavesAt(Live):
    def __init__(self, *steps: int) -> None:
        self._steps = steps

    def on_step_end(self, state: State) -> None:
        if state.step in self._steps:
            state.save("to resume from")


class _Counts(Live):
    """Notes how many slices the wave passes in each step and validation."""

    def __init__(self) -> None:
        self.passed: list[tuple[int, int]] = []

    def on_step_end(self, state: State) -> None:
        self.passed.append((state.epoch, state.model.propagation.passed))

    on_validation_step_end = on_step_end


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, _Counts]:
    """Return the folder of a run of three stages that saved within each of them, and what it passed."""
    place, counts = tmp_path_factory.mktemp("staged"), _Counts()
    text = small_recipe(
        STAGED, "[checkpoint]\nkeep_last = 99\n" + "\n".join(_table(e) for e in GROUPS.split("\n") if e)
    )
    text = text.replace("epochs = 2", f'epochs = 3\ndevice = "cpu"\ndir = "{place}"').replace(
        "detector_size = 24", "detector_size = 24\nbatch_size = 4\nvalidation_fraction = 0.2"
    )
    resolved = resolve_text(text, place)
    with run_folder.created(resolved) as folder:
        run = build(resolved, folder)
        run.add("saves", _SavesAt(2, 6, 10))
        run.add("counts", counts)
        execute(run, Console(quiet=True))
    return folder, counts


def _table(line: str) -> str:
    name, settings = line.split(" = ", 1)
    return f"[{name}]\n" + settings.strip("{} ").replace(", ", "\n")


def test_a_run_passes_as_many_slices_as_its_stages_say(staged):
    assert set(staged[1].passed) == {(0, 1), (1, 3), (2, 4)}


def test_a_run_that_is_resumed_in_any_stage_ends_with_the_same_bits(staged):
    folder, _ = staged
    whole = trained(read(sorted((folder / "checkpoints").glob("epoch-0003*"))[-1]))
    inside = [each for each in (folder / "checkpoints").iterdir() if read_header(each)["step"] in (2, 6, 10)]
    assert len(inside) == 3
    for file in inside:
        outcome = resume(file, Console(quiet=True))
        assert isinstance(outcome, RunOutcome)
        again = sorted((outcome.run.state.folder / "checkpoints").glob("epoch-0003*"))[-1]
        assert differences(whole, trained(read(again))) == []


def test_a_stage_can_be_changed_or_dropped_on_resume(staged):
    folder, _ = staged
    for sets, expected in (
        (("model.coarse.few.stop_epoch=3",), {(1, 3), (2, 3)}),
        (('drop=["model.coarse.few"]',), {(1, 4), (2, 4)}),
    ):
        counts = _Counts()
        assert (
            resume(folder, Console(quiet=True), epoch=1, sets=sets, extra={"counts": lambda run, made=counts: made})
            is not None
        )
        assert set(counts.passed) == expected


# ---- what is said of stages -----------------------------------------------------------------------------------------


def stages(*pairs: tuple[int, int]) -> dict[str, CoarseSlices]:
    return {f"s{number}": CoarseSlices(slices=each, stop_epoch=stop) for number, (each, stop) in enumerate(pairs)}


@pytest.mark.parametrize(
    ("coarse", "slices", "expected"),
    [
        (stages((1, 2), (4, 5)), 12, []),
        (stages((4, 5), (1, 2)), 12, []),
        (stages((12, 5)), 12, [("coarse.s0.slices", "error")]),
        (stages((4, 2), (1, 5)), 12, [("coarse.s1.slices", "error")]),
        (stages((1, 5), (4, 5)), 12, [("coarse.s1.stop_epoch", "error")]),
        (stages((4, 10)), 12, [("coarse.s0.stop_epoch", "warning")]),
        (stages((1, 5)), 1, [("coarse", "error")]),
    ],
)
def test_stages_that_do_not_fit_are_refused_and_those_that_outlast_the_run_doubted(coarse, slices, expected):
    assert [(each.key, each.severity) for each in problems_of_stages(coarse, slices, 10)] == expected


def test_the_plan_and_the_summary_of_the_data_show_the_stages():
    model = Ptychography(probe=Aperture(), slices=12, thickness_angstrom=60.0, coarse=stages((1, 2), (4, 5)))
    assert list(model.timeline(9)) == [
        (0, "model: 1 slice of 12"),
        (2, "model: 4 slices of 12"),
        (5, "model: 12 slices"),
    ]
    found = list(inspect_slices(SCAN, Aperture(), 12, 60.0, coarse=list(model.coarse.values())))
    lines = [str(each).strip() for each in found if not isinstance(each, Problem)]
    wave = 8 * SCAN.batch_size * 20 * 20
    assert lines[2:] == [
        f"in the first 2 epochs: 1 × 60 Å, {wave / 1024:.0f} KiB",
        f"in the first 5 epochs: 4 × 15 Å, {4 * wave / 1024:.0f} KiB",
    ]
