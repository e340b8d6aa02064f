"""The forward model of a thick specimen, held against numpy, autograd, abTEM, and a simulation of known truth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from trainkit import PartError
from trainkit_ptychography.physics.forward import fourier_ramp, intensities
from trainkit_ptychography.physics.multislice import Waves, multislice_intensities
from trainkit_ptychography.physics.optics import aperture_probe, electron_wavelength
from trainkit_ptychography.physics.patches import PatchesByPlace, PatchesOf, crop, patches_at, places
from trainkit_ptychography.physics.propagation import fresnel_kernel, propagate
from trainkit_ptychography.propagators.fresnel import Fresnel
from trainkit_ptychography.propagators.kind import WaveGeometry

WAVES: tuple[Waves, ...] = get_args(Waves)
PIXEL, WAVELENGTH, DISTANCE = 0.2, 0.02, 8.0  # Å


class Specimen:
    """A random thick specimen and its illumination, in double precision."""

    def __init__(
        self,
        maps: int = 2,
        modes: int = 2,
        slices: int = 5,
        patterns: int = 3,
        shape: tuple[int, int] = (14, 12),
        margin: int = 9,
    ) -> None:
        generator = np.random.default_rng(3)
        rows, columns = shape
        probe = generator.normal(size=(modes, *shape, 2)) @ [1, 1j]
        self.probe_MYX = torch.from_numpy(probe / np.sqrt((np.abs(probe) ** 2).sum()))
        self.shift_B2 = torch.from_numpy(generator.uniform(-0.5, 0.5, (patterns, 2)))
        self.maps_KSHW = torch.from_numpy(generator.uniform(0, 0.3, (maps, slices, rows + margin, columns + margin)))
        self.corner_B2 = torch.from_numpy(generator.integers(0, margin + 1, (patterns, 2)))
        self.kernel_BYX = fresnel_kernel(shape, PIXEL, WAVELENGTH, torch.tensor([DISTANCE], dtype=torch.float64))

    def gradients(self, model: Callable[..., Tensor], dtype: torch.dtype = torch.float64) -> list[Tensor]:
        """Return the intensities, and the gradients of a loss by probe, shift, maps and kernel."""
        complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
        values = [
            value.to(complex_dtype if value.is_complex() else dtype).clone().requires_grad_()
            for value in (self.probe_MYX, self.shift_B2, self.maps_KSHW, self.kernel_BYX)
        ]
        probe_MYX, shift_B2, maps_KSHW, kernel_BYX = values
        found_BYX = model(probe_MYX, shift_B2, maps_KSHW, self.corner_B2, kernel_BYX)
        generator = torch.Generator().manual_seed(0)
        measured_BYX = torch.rand(found_BYX.shape, generator=generator, dtype=torch.float64).to(dtype)
        (found_BYX.sqrt() - 0.1 * measured_BYX).square().sum().backward()
        return [found_BYX.detach(), *(value.grad for value in values if value.grad is not None)]


def multislice(
    probe_MYX: Tensor,
    shift_B2: Tensor,
    maps_KSHW: Tensor,
    corner_B2: Tensor,
    kernel_BYX: Tensor | None = None,
    waves: Waves = "inverted",
    transfer_YX: Tensor | None = None,
    find: Callable[..., PatchesOf] = patches_at,
) -> Tensor:
    """The intensities at patches that begin at corners."""
    patches_of = find(corner_B2, (probe_MYX.shape[-2], probe_MYX.shape[-1]), maps_KSHW.shape[3])
    return multislice_intensities(probe_MYX, shift_B2, maps_KSHW, patches_of, kernel_BYX, waves, transfer_YX)[0]


def by_autograd(
    probe_MYX: Tensor, shift_B2: Tensor, maps_KSHW: Tensor, corner_B2: Tensor, kernel_BYX: Tensor
) -> Tensor:
    """The same model of torch's own functions, with gradients that autograd derives."""
    shape = (probe_MYX.shape[1], probe_MYX.shape[2])
    wave_MBYX = torch.fft.ifft2(torch.fft.fft2(probe_MYX)[:, None] * fourier_ramp(shift_B2, shape))
    absorption_SHW = maps_KSHW[1] if len(maps_KSHW) == 2 else torch.zeros_like(maps_KSHW[0])
    slices = crop(torch.exp(torch.complex(-absorption_SHW, maps_KSHW[0])), corner_B2, shape).unbind(0)
    for number, slice_BYX in enumerate(slices):
        wave_MBYX = (propagate(wave_MBYX, kernel_BYX) if number else wave_MBYX) * slice_BYX
    return torch.fft.fft2(wave_MBYX, norm="ortho").abs().square().sum(0)


def by_numpy(specimen: Specimen) -> np.ndarray:
    """The same model in numpy, one pattern and one mode at a time."""
    probe_MYX, maps_KSHW = specimen.probe_MYX.numpy(), specimen.maps_KSHW.numpy()
    rows, columns = probe_MYX.shape[1:]
    row_Y1, column_1X = np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None, :]
    squared_YX = (row_Y1**2 + column_1X**2) / PIXEL**2
    patterns = []
    for (down, right), (top, left) in zip(specimen.shift_B2.tolist(), specimen.corner_B2.tolist(), strict=True):
        pattern_YX = np.zeros((rows, columns))
        for probe_YX in probe_MYX:
            ramp_YX = np.exp(-2j * np.pi * (row_Y1 * down + column_1X * right))
            wave_YX = np.fft.ifft2(np.fft.fft2(probe_YX) * ramp_YX)
            for number in range(maps_KSHW.shape[1]):
                phase_YX, absorption_YX = maps_KSHW[:, number, top : top + rows, left : left + columns]
                if number > 0:
                    spectrum_YX = np.fft.fft2(wave_YX) * np.exp(-1j * np.pi * WAVELENGTH * DISTANCE * squared_YX)
                    wave_YX = np.fft.ifft2(spectrum_YX)
                wave_YX = wave_YX * np.exp(1j * phase_YX - absorption_YX)
            pattern_YX += np.abs(np.fft.fft2(wave_YX, norm="ortho")) ** 2
        patterns.append(pattern_YX)
    return np.stack(patterns)


@pytest.mark.parametrize("waves", WAVES)
def test_patterns_are_those_of_the_formula(waves):
    specimen = Specimen()
    arguments = (specimen.probe_MYX, specimen.shift_B2, specimen.maps_KSHW, specimen.corner_B2, specimen.kernel_BYX)
    found_BYX = multislice(*arguments, waves)
    np.testing.assert_allclose(found_BYX.numpy(), by_numpy(specimen), rtol=0, atol=1e-15)


@pytest.mark.parametrize("waves", WAVES)
@pytest.mark.parametrize("margin", [0, 9])  # exponentials are taken of the whole slice, and of the patches
@pytest.mark.parametrize("maps", [1, 2])
@pytest.mark.parametrize("near", [False, True])
def test_one_slice_is_the_model_of_a_thin_specimen_with_the_same_gradients(waves, margin, maps, near):
    specimen = Specimen(maps, slices=1, margin=margin)
    kernel_1YX = fresnel_kernel((14, 12), PIXEL, WAVELENGTH, torch.tensor([3.0], dtype=torch.float64))
    transfer_YX = kernel_1YX[0].requires_grad_() if near else None

    def thin(probe_MYX: Tensor, shift_B2: Tensor, maps_KSHW: Tensor, corner_B2: Tensor, _: Tensor) -> Tensor:
        absorption_SHW = maps_KSHW[1] if maps == 2 else torch.zeros_like(maps_KSHW[0])
        transmission_SHW = torch.exp(torch.complex(-absorption_SHW, maps_KSHW[0]))
        return intensities(probe_MYX, shift_B2, crop(transmission_SHW[0], corner_B2, (14, 12)), transfer_YX)

    def of_slices(*arguments: Tensor) -> Tensor:
        return multislice(*arguments[:4], None, waves, transfer_YX)

    found, expected = [], []
    for model, values in ((of_slices, found), (thin, expected)):
        values += specimen.gradients(model)
        if transfer_YX is not None:
            assert transfer_YX.grad is not None
            values.append(transfer_YX.grad)
            transfer_YX.grad = None
    assert len(found) == len(expected) == 4 + near
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= 1e-12 * other.abs().max()


def test_the_transmission_of_the_first_slice_comes_along():
    specimen = Specimen()
    patches_of = patches_at(specimen.corner_B2, (14, 12), specimen.maps_KSHW.shape[3])
    maps_KSHW = specimen.maps_KSHW.clone().requires_grad_()
    _, first_BYX = multislice_intensities(
        specimen.probe_MYX, specimen.shift_B2, maps_KSHW, patches_of, specimen.kernel_BYX
    )
    whole_HW = torch.exp(torch.complex(-specimen.maps_KSHW[1, 0], specimen.maps_KSHW[0, 0]))
    torch.testing.assert_close(first_BYX, crop(whole_HW, specimen.corner_B2, (14, 12)))
    assert not first_BYX.requires_grad


@pytest.mark.parametrize("waves", WAVES)
@pytest.mark.parametrize(("maps", "modes", "kernels"), [(1, 1, "one"), (2, 2, "of each pattern"), (2, 1, "limited")])
def test_gradients_are_those_of_autograd(waves, maps, modes, kernels):
    # a margin of 0 takes exponentials of whole slices, one of 9 those of the patches
    for margin in (0, 9):
        specimen = Specimen(maps, modes, slices=5, patterns=2, margin=margin)
        if kernels == "of each pattern":
            distances_B = torch.tensor([DISTANCE, 3.0], dtype=torch.float64)
            specimen.kernel_BYX = fresnel_kernel((14, 12), PIXEL, WAVELENGTH, distances_B)
        elif kernels == "limited":
            if waves == "inverted":
                return  # a propagator that takes power cannot be inverted, and says so
            geometry = WaveGeometry((14, 12), PIXEL, WAVELENGTH)
            limited = Fresnel(band_limit=2 / 3)
            assert not limited.takes_no_power()
            assert Fresnel().takes_no_power()
            specimen.kernel_BYX = limited.build(geometry)(torch.tensor([DISTANCE], dtype=torch.float64))
            assert 0.2 < float((specimen.kernel_BYX == 0).double().mean()) < 0.8
        expected = specimen.gradients(by_autograd)
        found = specimen.gradients(lambda *arguments: multislice(*arguments, waves))
        assert len(found) == 5
        for one, other in zip(found, expected, strict=True):
            assert (one - other).abs().max() <= 1e-12 * other.abs().max()


def test_gradients_are_the_same_where_patches_are_found_by_place_as_on_a_gpu():
    for maps, margin in ((1, 0), (2, 9)):
        specimen = Specimen(maps, margin=margin)
        expected = specimen.gradients(multislice)
        found = specimen.gradients(
            partial(multislice, find=lambda *where: partial(PatchesByPlace, places_BYX=places(*where)))
        )
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("waves", WAVES)
@pytest.mark.parametrize("maps", [1, 2])
def test_single_precision_is_exact_to_a_hundred_thousandth_after_thirty_slices(waves, maps):
    specimen = Specimen(maps, modes=1, slices=30, shape=(24, 20))
    expected = specimen.gradients(by_autograd)
    found = specimen.gradients(lambda *arguments: multislice(*arguments, waves), torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert (one.to(other.dtype) - other).abs().max() <= 1e-5 * other.abs().max()


def test_gradients_flow_back_only_once():
    specimen = Specimen()
    arguments = (specimen.probe_MYX, specimen.shift_B2, specimen.maps_KSHW.clone().requires_grad_())
    total = multislice(*arguments, specimen.corner_B2, specimen.kernel_BYX)[0, 0, 0]
    total.backward(retain_graph=True)
    with pytest.raises(PartError, match="only once"):
        total.backward()


# ---- memory ---------------------------------------------------------------------------------------------------------


def peak_bytes(slices: int, waves: Waves) -> int:
    """Return the peak of what a step allocates besides the gradient of the object, by torch's profiler."""
    side, patterns, margin = 32, 16, 12
    probe_MYX = torch.rand(1, side, side, dtype=torch.complex64, requires_grad=True)
    shift_B2 = torch.zeros(patterns, 2, requires_grad=True)
    maps_KSHW = torch.zeros(1, slices, side + margin, side + margin, requires_grad=True)
    corner_B2 = torch.randint(0, margin, (patterns, 2))
    kernel_BYX = fresnel_kernel((side, side), PIXEL, WAVELENGTH, torch.tensor([DISTANCE]))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        multislice(probe_MYX, shift_B2, maps_KSHW, corner_B2, kernel_BYX, waves).sum().backward()
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    allocated = np.cumsum([event.nbytes() for event in events if event.name() == "[memory]"])
    return int(allocated.max()) - maps_KSHW.nbytes


def test_memory_hardly_grows_with_the_slices_if_waves_are_inverted():
    assert peak_bytes(60, "inverted") <= 1.1 * peak_bytes(15, "inverted")


def test_stored_waves_take_ten_bytes_for_a_pixel_of_a_slice_and_sixteen_for_one_of_a_pattern():
    assert peak_bytes(15, "stored") <= (10 * 15 + 16) * 16 * 32**2


def test_checkpointed_waves_take_memory_as_the_root_of_the_slices():
    assert peak_bytes(60, "checkpointed") <= 2.0 * peak_bytes(15, "checkpointed")


# ---- other programs -------------------------------------------------------------------------------------------------


@pytest.mark.slow  # abTEM compiles for several seconds
def test_patterns_are_those_of_abtem():
    """A smooth potential, which scatters little beyond where abTEM limits the band of waves."""
    abtem = pytest.importorskip("abtem", reason="abTEM, which is to simulate the same patterns, is not installed")
    size, slices, thickness, energy = 96, 6, 9.0, 200e3
    generator = np.random.default_rng(5)
    row_H1, column_1W = np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :]
    noise_SHW = np.fft.fft2(generator.normal(size=(slices, size, size)))
    phase_SHW = np.fft.ifft2(noise_SHW * np.exp(-(np.hypot(row_H1, column_1W) ** 2) / 0.04**2)).real
    phase_SHW *= 0.4 / phase_SHW.max()
    with abtem.config.set({"precision": "float64", "device": "cpu", "diagnostics.progress_bar": False}):
        sigma = abtem.core.energy.energy2sigma(energy)
        potential = abtem.PotentialArray(phase_SHW / sigma, slice_thickness=thickness, sampling=PIXEL)
        probe = abtem.Probe(energy=energy, semiangle_cutoff=20.0, defocus=80.0, soft=False)
        probe.grid.match(potential)
        entrance_YX = np.asarray(probe.build(scan=(PIXEL * size / 2,) * 2, lazy=False).array)
        exit_wave = probe.multislice(potential, scan=(PIXEL * size / 2,) * 2, lazy=False)
        exit_YX = np.asarray(exit_wave.array)
    expected_YX = np.abs(np.fft.fft2(exit_YX.reshape(size, size), norm="ortho")) ** 2
    found_BYX = multislice(
        torch.from_numpy(entrance_YX.reshape(1, size, size)),
        torch.zeros(1, 2, dtype=torch.float64),
        torch.from_numpy(phase_SHW)[None],
        torch.zeros(1, 2, dtype=torch.long),
        fresnel_kernel(
            (size, size), PIXEL, electron_wavelength(energy / 1e3), torch.tensor([thickness], dtype=torch.float64)
        ),
    )
    assert np.abs(found_BYX[0].numpy() - expected_YX).max() <= 1e-6 * expected_YX.max()


def test_the_true_specimen_of_a_simulation_explains_its_patterns_and_upside_down_it_does_not(shared_data):
    """The deviance of Poisson statistics is 1 where only noise is left, 3 here: the model has no thermal scattering."""
    with h5py.File(shared_data / "ptychography" / "thick_sto_sim.h5") as file:
        told = dict(file.attrs)
        patterns_NYX = file["intensity"][10:14, 10:14].reshape(16, 80, 80).astype(np.float64)
        total = file["intensity"][()].sum() / 576
        position_N2 = file["positions_true_A"][()].reshape(24, 24, 2)[10:14, 10:14].reshape(16, 2) / told["px_A"]
        slices_SKL = file["gt/phase_slices_rad"][()].astype(np.float64)
    wavelength, size = float(told["wavelength_A"]), 80
    probe_YX = aperture_probe((size, size), float(told["px_A"]), wavelength, 30.0, {"C10": (float(told["C10_A"]), 0.0)})
    corner_N2 = np.rint(position_N2).astype(int) - size // 2
    wrapped_SHW = np.pad(slices_SKL, ((0, 0), (size, size), (size, size)), mode="wrap")

    def deviance(maps_SHW: np.ndarray) -> float:
        found_NYX = multislice(
            torch.from_numpy(probe_YX)[None],
            torch.from_numpy(position_N2 - size // 2 - corner_N2),
            torch.from_numpy(maps_SHW.copy())[None],
            torch.from_numpy(corner_N2 + size),
            fresnel_kernel((size, size), float(told["px_A"]), wavelength, torch.tensor([3.905], dtype=torch.float64)),
        )
        expected_NYX = np.fft.fftshift(found_NYX.numpy(), axes=(1, 2)) * total + 1e-2
        logarithm_NYX = np.log(np.maximum(patterns_NYX, 1) / expected_NYX) * patterns_NYX
        return float(2 * (expected_NYX - patterns_NYX + logarithm_NYX).mean())

    assert deviance(wrapped_SHW) < 3.2
    assert deviance(wrapped_SHW[::-1]) > 9
