"""The forward model of a thick specimen, with its adjoint written out: slices with free space between them.

    entrance wave ──× slice──▶ ──propagate──▶ ──× slice──▶ … ──× slice──▶ exit wave ──fft2──▶ far field ──Σ|·|²──▶

The way back needs the wave behind each slice. There are three ways to have it, and all give the same gradients:

    inverted      the exit wave is carried back with the gradient: both are divided by the slices and propagated
                  backwards by the same operations. Memory does not grow with the number of slices. It needs a
                  propagator that takes no power from the wave (|kernel| = 1).
    checkpointed  waves are kept behind every √S-th slice, and those in between are computed again.
    stored        all waves are kept: a third fewer transforms than "inverted".

Of the slices' transmissions, one at a time is computed, for the patches of a batch.

Shapes: S = slices, K = 2 (phase, absorption) or 1 (phase), B = patterns of a batch, M = probe modes, Y, X = rows and
columns of the detector, H, W = those of the object.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainkit import PartError
from trainkit_ptychography.physics.forward import adjoint_of_shift, fourier_ramp, of_patterns, places

Waves = Literal["inverted", "checkpointed", "stored"]


def multislice_intensities(
    probe_MYX: Tensor,
    shift_B2: Tensor,
    maps_KSHW: Tensor,
    corner_B2: Tensor,
    kernel_BYX: Tensor,
    waves: Waves = "inverted",
) -> Tensor:
    """Return what the detector counts behind a thick specimen, differentiable in all arguments but the corners.

    ψ₀ = F⁻¹(F(probe) · ramp);  χ_s = ψ_s · exp(i·phase_s − absorption_s);  ψ_{s+1} = F⁻¹(F(χ_s) · kernel);
    I = Σ_m |F(χ_{S−1})|². There is no propagation after the last slice, of which a far field would show nothing.

    Args:
        probe_MYX: The probe's modes at the first slice, complex; or (M, B, Y, X), those of each pattern.
        shift_B2: Distance of the probe from the centre of its patch, in pixels (row, column).
        maps_KSHW: The object's phase in rad; and its absorption, minus the logarithm of the amplitude. The wave meets
            slice 0 first.
        corner_B2: First row and column of each patch, integers; each patch lies within the maps.
        kernel_BYX: Factor of the wave's Fourier transform from one slice to the next, zero frequency at [0, 0]; of each
            pattern, or (1, Y, X) of all.
        waves: How the way back gets the waves behind the slices.

    Returns:
        Real (B, Y, X), zero frequency at [0, 0]. Its sum is the power of the exit wave.

    Source:
        Cowley, Moodie, Acta Cryst. 10 (1957) 609 (multislice); Maiden, Humphry, Rodenburg, J. Opt. Soc. Am. A 29 (2012)
        1606 (ptychography with it).
    """
    if not torch.is_grad_enabled():
        waves = "inverted"  # keeps none, and nobody goes back
    result: Tensor = _Multislice.apply(  # type: ignore[no-untyped-call]
        probe_MYX, shift_B2, maps_KSHW, kernel_BYX, corner_B2, waves
    )
    return result


class _Slices:
    """The transmission of slices at the patches of a batch, one slice at a time, and its adjoint."""

    def __init__(self, maps_KSHW: Tensor, corner_B2: Tensor, shape_YX: tuple[int, int]) -> None:
        self._maps_KSHW = maps_KSHW
        self._places_BYX = places(corner_B2, shape_YX, maps_KSHW.shape[3])
        # Exponentials are dear: take them where there are fewer pixels, in the whole slice or in all patches.
        self._whole = maps_KSHW[0, 0].numel() <= self._places_BYX.numel()

    def __len__(self) -> int:
        return self._maps_KSHW.shape[1]

    def transmission(self, number: int) -> Tensor:
        """Return exp(i·phase − absorption) of a slice, complex (B, Y, X)."""
        maps_KP = self._maps_KSHW[:, number].flatten(1)
        if self._whole:
            return self._gathered(_transmission(maps_KP))
        return _transmission(torch.stack([self._gathered(map_P) for map_P in maps_KP]))

    def gain(self, number: int) -> Tensor | None:
        """Return 1 / |transmission|² of a slice (B, Y, X); None: it is 1 everywhere."""
        if len(self._maps_KSHW) == 1:
            return None
        return self._gathered(self._maps_KSHW[1, number].flatten()).mul(2).exp_()

    def add_gradient(self, gradient_KSHW: Tensor, number: int, product_MBYX: Tensor) -> None:
        """Add a slice's part to the gradient of the maps.

        Args:
            gradient_KSHW: What it is added to.
            number: The slice.
            product_MBYX: The gradient of the wave behind the slice, times the conjugate of that wave.
        """
        product_BYX = product_MBYX[0] if len(product_MBYX) == 1 else product_MBYX.sum(0)
        product_P = product_BYX.flatten()  # d exp(i·phase − absorption) = (i d phase − d absorption) · itself
        into_P = self._places_BYX.flatten()
        gradient_KSHW[0, number].view(-1).scatter_add_(0, into_P, product_P.imag)
        if len(gradient_KSHW) == 2:
            gradient_KSHW[1, number].view(-1).scatter_add_(0, into_P, product_P.real.neg())

    def _gathered(self, map_P: Tensor) -> Tensor:
        gathered: Tensor = map_P.index_select(0, self._places_BYX.flatten())
        return gathered.view_as(self._places_BYX)


def _transmission(maps_KP: Tensor) -> Tensor:
    amplitude = torch.exp(-maps_KP[1]) if len(maps_KP) == 2 else torch.ones_like(maps_KP[0])
    return torch.polar(amplitude, maps_KP[0])


class _Multislice(torch.autograd.Function):
    """`multislice_intensities` with its adjoint.

    Gradients are torch's: the derivative of a real loss by the real part, plus i times that by the imaginary part. The
    way back through a linear map is its adjoint. The adjoint of propagation without loss is propagation backwards,
    which carries the wave back as well as the gradient; and the adjoint of a slice, the product with the conjugate of
    its transmission, is the division by it but for a positive factor. So "inverted" carries both back as one array.
    """

    @staticmethod
    def forward(
        ctx: Any,
        probe_MYX: Tensor,
        shift_B2: Tensor,
        maps_KSHW: Tensor,
        kernel_BYX: Tensor,
        corner_B2: Tensor,
        waves: Waves,
    ) -> Tensor:
        shape = (probe_MYX.shape[-2], probe_MYX.shape[-1])
        slices = _Slices(maps_KSHW, corner_B2, shape)
        spectrum_MYX = torch.fft.fft2(probe_MYX)
        wave_MBYX = torch.fft.ifft2(of_patterns(spectrum_MYX) * fourier_ramp(shift_B2, shape))
        every = _kept_every(len(slices), waves)
        kept: list[Tensor] = []
        for number in range(len(slices)):
            if number:
                wave_MBYX = _propagated(wave_MBYX, kernel_BYX)
            wave_MBYX *= slices.transmission(number)
            if every and number % every == 0:
                kept.append(wave_MBYX)
        # Not by save_for_backward, which would hold all waves until the way back has ended.
        ctx.every, ctx.kept, ctx.exit_MBYX = every, kept, wave_MBYX
        ctx.save_for_backward(spectrum_MYX, shift_B2, maps_KSHW, kernel_BYX, corner_B2)
        far_MBYX = torch.fft.fft2(wave_MBYX, norm="ortho")
        counts_BYX: Tensor = torch.view_as_real(far_MBYX).square_().sum((0, -1))
        return counts_BYX

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BYX: Tensor) -> tuple[Tensor | None, ...]:
        spectrum_MYX, shift_B2, maps_KSHW, kernel_BYX, corner_B2 = ctx.saved_tensors
        exit_MBYX, kept = ctx.exit_MBYX, ctx.kept
        ctx.exit_MBYX = ctx.kept = None
        if exit_MBYX is None:
            raise PartError("multislice: gradients can flow back only once, because waves are forgotten on the way")
        wants_probe, wants_shift, wants_maps, wants_kernel = ctx.needs_input_grad[:4]
        gradients = _Gradients(
            torch.zeros_like(maps_KSHW) if wants_maps else None,
            torch.zeros_like(kernel_BYX) if wants_kernel else None,
        )
        # The far field is computed again, which is cheaper than to keep it.
        back_MBYX = torch.fft.fft2(exit_MBYX, norm="ortho").mul_(2 * gradient_BYX)
        back_MBYX = torch.fft.ifft2(back_MBYX, norm="ortho")
        shape = (gradient_BYX.shape[1], gradient_BYX.shape[2])
        slices = _Slices(maps_KSHW, corner_B2, shape)
        if ctx.every:
            del exit_MBYX
            back_MBYX = _back_from_kept(kept, ctx.every, back_MBYX, slices, kernel_BYX, gradients)
        else:
            both_2MBYX = torch.stack((exit_MBYX, back_MBYX))
            del exit_MBYX, back_MBYX
            back_MBYX = _back_by_inversion(both_2MBYX, slices, kernel_BYX, gradients)
        del slices  # its memory is needed
        for_probe = for_shift = None
        if wants_probe or wants_shift:
            ramp_BYX = fourier_ramp(shift_B2, shape)
            for_probe, for_shift = adjoint_of_shift(
                back_MBYX.conj_physical_(), spectrum_MYX, ramp_BYX, wants_probe, wants_shift
            )
        return for_probe, for_shift, gradients.maps_KSHW, gradients.kernel_BYX, None, None


class _Gradients(NamedTuple):
    """The gradients that are wanted; None: not wanted."""

    maps_KSHW: Tensor | None
    kernel_BYX: Tensor | None

    def add_to_kernel(self, wave_MBYX: Tensor, back_MBYX: Tensor) -> None:
        """Add the part of one propagation: conj(spectrum of the wave) · (spectrum of the gradient behind it)."""
        assert self.kernel_BYX is not None
        part_BYX = (wave_MBYX.conj() * back_MBYX).sum(0) / wave_MBYX[0, 0].numel()
        self.kernel_BYX.add_(part_BYX.sum_to_size(self.kernel_BYX.shape))


def _kept_every(num: int, waves: Waves) -> int:
    """Return after how many slices a wave is kept; 0: only the exit wave is."""
    return {"inverted": 0, "checkpointed": ceil(sqrt(num)), "stored": 1}[waves]


def _propagated(wave_MBYX: Tensor, kernel_BYX: Tensor) -> Tensor:
    propagated: Tensor = torch.fft.ifft2(torch.fft.fft2(wave_MBYX).mul_(kernel_BYX))
    return propagated


def _back_by_inversion(both_2MBYX: Tensor, slices: _Slices, kernel_BYX: Tensor, gradients: _Gradients) -> Tensor:
    """Return the gradient of the wave in front of the first slice, and add those of slices and kernel.

    Args:
        both_2MBYX: The exit wave, and its gradient; its memory is used.
        slices: The slices.
        kernel_BYX: The propagation between them.
        gradients: What is added to.
    """
    backwards_BYX = kernel_BYX.conj_physical()
    for number in reversed(range(len(slices))):
        if gradients.maps_KSHW is not None:
            slices.add_gradient(gradients.maps_KSHW, number, both_2MBYX[0].conj_physical().mul_(both_2MBYX[1]))
        both_2MBYX *= slices.transmission(number).conj_physical_()
        if (gain_BYX := slices.gain(number)) is not None:
            both_2MBYX[0] *= gain_BYX
        if number == 0:
            break
        both_2MBYX = torch.fft.fft2(both_2MBYX).mul_(backwards_BYX)
        if gradients.kernel_BYX is not None:  # of the wave in front of it, and the gradient behind it
            gradients.add_to_kernel(both_2MBYX[0], both_2MBYX[1] * kernel_BYX)
        both_2MBYX = torch.fft.ifft2(both_2MBYX)
    return both_2MBYX[1]


def _back_from_kept(
    kept: list[Tensor], every: int, back_MBYX: Tensor, slices: _Slices, kernel_BYX: Tensor, gradients: _Gradients
) -> Tensor:
    """Return the gradient of the wave in front of the first slice, and add those of slices and kernel.

    Args:
        kept: The waves behind the slices 0, ``every``, 2·``every``, …; they are taken out, and their memory is used.
        every: From one kept wave to the next.
        back_MBYX: The gradient of the exit wave; its memory is used.
        slices: The slices.
        kernel_BYX: The propagation between them.
        gradients: What is added to.
    """
    backwards_BYX = kernel_BYX.conj_physical()
    while kept:
        first = every * (len(kept) - 1)
        waves = [kept.pop()]  # behind the slices first, first + 1, …
        for number in range(first + 1, min(first + every, len(slices))):
            waves.append(_propagated(waves[-1], kernel_BYX).mul_(slices.transmission(number)))
        for number in reversed(range(first, first + len(waves))):
            wave_MBYX = waves.pop()
            if number < len(slices) - 1:
                back_MBYX = torch.fft.fft2(back_MBYX)
                if gradients.kernel_BYX is not None:
                    gradients.add_to_kernel(torch.fft.fft2(wave_MBYX), back_MBYX)
                back_MBYX = torch.fft.ifft2(back_MBYX.mul_(backwards_BYX))
            if gradients.maps_KSHW is not None:
                slices.add_gradient(gradients.maps_KSHW, number, wave_MBYX.conj_physical_().mul_(back_MBYX))
            del wave_MBYX
            back_MBYX *= slices.transmission(number).conj_physical_()
    return back_MBYX
