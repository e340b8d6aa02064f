"""The forward model of a specimen given by maps, with its adjoint written out: slices with free space between them.

    entrance wave ──× slice──▶ ──propagate──▶ ──× slice──▶ … ──× slice──▶ exit wave ──fft2──▶ far field ──Σ|·|²──▶
                                                                             └─fft2, × transfer, ifft2──▶ near field ──┘

A thin specimen is one slice. The way back needs the wave behind each slice. There are three ways to have it, and all
give the same gradients:

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

from math import ceil, log2, sqrt
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainkit import PartError
from trainkit_ptychography.physics.forward import (
    adjoint_of_shift,
    arrive,
    fourier_ramp,
    leave,
    of_patterns,
    power,
    spectrum_to_shift,
    sum_of_products,
)
from trainkit_ptychography.physics.patches import Patches, PatchesOf
from trainkit_ptychography.physics.transmission import exponential

Waves = Literal["inverted", "checkpointed", "stored"]


def multislice_intensities(
    probe_MYX: Tensor,
    shift_B2: Tensor,
    maps_KSHW: Tensor,
    patches_of: PatchesOf,
    kernel_BYX: Tensor | None = None,
    waves: Waves = "inverted",
    transfer_YX: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return what the detector counts behind a specimen given by maps, differentiable in all tensors.

    ψ₀ = F⁻¹(F(probe) · ramp);  χ_s = ψ_s · exp(i·phase_s − absorption_s);  ψ_{s+1} = F⁻¹(F(χ_s) · kernel);
    I = Σ_m |F(χ_{S−1})|². There is no propagation after the last slice, of which a far field would show nothing. In the
    near field, the exit wave χ_{S−1} goes on as in `intensities`.

    Args:
        probe_MYX: The probe's modes at the first slice, complex; or (M, B, Y, X), those of each pattern.
        shift_B2: Distance of the probe from the centre of its patch, in pixels (row, column).
        maps_KSHW: The object's phase in rad; and its absorption, minus the logarithm of the amplitude. The wave meets
            slice 0 first.
        patches_of: Finds the patches of the batch in arrays of the maps' rows and columns.
        kernel_BYX: Factor of the wave's Fourier transform from one slice to the next, zero frequency at [0, 0]; of each
            pattern, or (1, Y, X) of all. None: there is one slice.
        waves: How the way back gets the waves behind the slices.
        transfer_YX: As in `intensities`. None: the far field.

    Returns:
        Intensities, real (B, Y, X), zero frequency at [0, 0]. Their sum is the power of the exit wave. And the
        transmission of the first slice, complex (B, Y, X), outside of autograd.

    Source:
        Cowley, Moodie, Acta Cryst. 10 (1957) 609 (multislice); Maiden, Humphry, Rodenburg, J. Opt. Soc. Am. A 29 (2012)
        1606 (ptychography with it).
    """
    if not torch.is_grad_enabled():
        waves = "inverted"  # keeps none, and nobody goes back
    result: tuple[Tensor, Tensor] = _Multislice.apply(  # type: ignore[no-untyped-call]
        probe_MYX, shift_B2, maps_KSHW, kernel_BYX, transfer_YX, patches_of, waves
    )
    return result


class _Slices:
    """The transmission of slices at the patches of a batch, one slice at a time, and its adjoint.

    Args:
        maps_KSHW: Phase in rad; and absorption.
        patches_of: Finds the patches.
        num_pixels: Of all patches.

    Attributes:
        first_BYX: The transmission of the first slice; None: it was not kept.
    """

    def __init__(self, maps_KSHW: Tensor, patches_of: PatchesOf, num_pixels: int) -> None:
        self._maps_KSHW, self._patches_of = maps_KSHW, patches_of
        self.first_BYX: Tensor | None = None
        # Exponentials are dear: take them where there are fewer pixels, in the whole slice or in all patches. Patches
        # of an array for a whole slice are found once, and its memory is used for each slice, forth and back.
        self._whole: Patches | None = None
        if maps_KSHW.shape[2] * maps_KSHW.shape[3] <= num_pixels:
            like_HW, dtype = maps_KSHW[0, 0], maps_KSHW.dtype.to_complex()
            self._whole = patches_of(torch.empty_like(like_HW, dtype=dtype, memory_format=torch.contiguous_format))

    def __len__(self) -> int:
        return self._maps_KSHW.shape[1]

    def transmission(self, number: int) -> Tensor:
        """Return exp(i·phase − absorption) of a slice, complex (B, Y, X)."""
        if number == 0 and self.first_BYX is not None:
            return self.first_BYX
        maps = self._maps_KSHW[:, number].unbind(0)
        if self._whole is None:
            return exponential([self._patches_of(map_HW).cut() for map_HW in maps])
        exponential(maps, out=self._whole.array_HW)
        return self._whole.cut()

    def gain(self, number: int) -> Tensor | None:
        """Return 1 / |transmission|² of a slice (B, Y, X); None: it is 1 everywhere."""
        if len(self._maps_KSHW) == 1:
            return None
        return self._patches_of(self._maps_KSHW[1, number]).cut().mul_(2).exp_()

    def set_gradient(self, gradient_KSHW: Tensor, number: int, wave_MBYX: Tensor, back_MBYX: Tensor) -> None:
        """Set a slice's part of the gradient of the maps.

        Args:
            gradient_KSHW: Where it goes.
            number: The slice.
            wave_MBYX: The wave behind the slice; its memory is used.
            back_MBYX: Half the conjugate of the wave's gradient.
        """
        product_BYX = sum_of_products(wave_MBYX, back_MBYX, into_BYX=wave_MBYX[0])
        # d exp(i·phase − absorption) = (i d phase − d absorption) · itself, and the real part of i z is −imag(z).
        gradients = gradient_KSHW[:, number].unbind()
        if self._whole is None:
            for gradient_HW, part_BYX in zip(gradients, _parts(product_BYX), strict=False):
                self._patches_of(gradient_HW.zero_()).add(part_BYX.mul(-2))
            return
        self._whole.array_HW.zero_()
        self._whole.add(product_BYX)
        for gradient_HW, part_HW in zip(gradients, _parts(self._whole.array_HW), strict=False):
            torch.mul(part_HW, -2, out=gradient_HW)

    def note_filled(self, gradient_KSHW: Tensor) -> None:
        """Take note of which pixels the gradient of the maps consists, if they are fewer than all."""
        if self._whole is None:
            self._patches_of.note_filled(gradient_KSHW)


def _parts(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.imag, values.real


class _Multislice(torch.autograd.Function):
    """`multislice_intensities` with its adjoint.

    As in `intensities`, the way back carries ḡ, half the complex conjugate of torch's gradient, through the transposed
    maps.
    Fourier transforms and products are symmetric, so a slice and the propagation F⁻¹ K F become the same slice and
    F K F⁻¹. These carry back the conjugate of the wave as well: conj(F⁻¹ K F χ) becomes conj(χ) if |K| = 1, and
    conj(χ) · transmission is the conjugate of the wave in front of the slice, but for a positive factor. So "inverted"
    carries both back as one array.
    """

    @staticmethod
    def forward(
        ctx: Any,
        probe_MYX: Tensor,
        shift_B2: Tensor,
        maps_KSHW: Tensor,
        kernel_BYX: Tensor | None,
        transfer_YX: Tensor | None,
        patches_of: PatchesOf,
        waves: Waves,
    ) -> tuple[Tensor, Tensor]:
        shape = (probe_MYX.shape[-2], probe_MYX.shape[-1])
        slices = _Slices(maps_KSHW, patches_of, len(shift_B2) * shape[0] * shape[1])
        between = _Propagations(kernel_BYX, len(slices) - 1)
        spectrum_MYX, factor = spectrum_to_shift(probe_MYX, between.gain)
        ramp_BYX = fourier_ramp(shift_B2, shape)
        wave_MBYX = torch.fft.ifft2(of_patterns(spectrum_MYX) * ramp_BYX, norm="forward")  # all waves are over √pixels
        every = _kept_every(len(slices), waves)
        kept: list[Tensor] = []
        first_BYX = slices.transmission(0)
        for number in range(len(slices)):
            if number:
                wave_MBYX = between.propagated(wave_MBYX, number - 1)
            wave_MBYX *= slices.transmission(number) if number else first_BYX
            if every and number % every == 0:
                kept.append(wave_MBYX)
        keeps_leaving = ctx.needs_input_grad[1] or ctx.needs_input_grad[4]
        arrived = arrive(torch.fft.fft2(wave_MBYX), ramp_BYX, transfer_YX, keeps_leaving)
        # Not by save_for_backward, which would hold all waves until the way back has ended.
        ctx.every, ctx.kept, ctx.exit_MBYX, ctx.arrived = every, kept, None if every else wave_MBYX, arrived
        ctx.slices, ctx.between, ctx.factor = slices, between, factor
        stored = (first_BYX, ramp_BYX) if every == 1 else (None, None)
        ctx.save_for_backward(spectrum_MYX, shift_B2, maps_KSHW, kernel_BYX, transfer_YX, *stored)
        ctx.mark_non_differentiable(first_BYX)
        ctx.set_materialize_grads(False)  # zeros for the second result would be a pass over a large array
        return power(arrived.wave_MBYX), first_BYX

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BYX: Tensor, _: None) -> tuple[Tensor | None, ...]:
        spectrum_MYX, shift_B2, maps_KSHW, kernel_BYX, transfer_YX, first_BYX, ramp_BYX = ctx.saved_tensors
        arrived, exit_MBYX, kept, slices, between = ctx.arrived, ctx.exit_MBYX, ctx.kept, ctx.slices, ctx.between
        ctx.arrived = ctx.exit_MBYX = ctx.kept = ctx.slices = None
        if arrived is None:
            raise PartError("ptychography: gradients can flow back only once, because waves are forgotten on the way")
        wants_probe, wants_shift, wants_maps, wants_kernel, wants_transfer = ctx.needs_input_grad[:5]
        gradients = _Gradients(
            torch.empty_like(maps_KSHW, memory_format=torch.contiguous_format) if wants_maps else None,
            torch.zeros_like(kernel_BYX) if wants_kernel else None,
        )
        shape = (gradient_BYX.shape[1], gradient_BYX.shape[2])
        if ramp_BYX is None and (wants_probe or wants_shift or transfer_YX is not None):
            ramp_BYX = fourier_ramp(shift_B2, shape)
        back_MBYX, moved_back, for_transfer = leave(
            arrived.wave_MBYX.conj_physical_().mul_(gradient_BYX),
            arrived.leaving_MBYX,
            ramp_BYX,
            transfer_YX,
            wants_shift,
            wants_transfer,
        )
        del arrived
        slices.first_BYX = first_BYX
        if ctx.every:
            back_MBYX = _back_from_kept(kept, ctx.every, back_MBYX, slices, between, gradients)
        else:
            both_2MBYX = torch.stack((exit_MBYX.conj_physical_(), back_MBYX))
            del exit_MBYX, back_MBYX
            back_MBYX = _back_by_inversion(both_2MBYX, slices, kernel_BYX, gradients)
            if ramp_BYX is not None:
                ramp_BYX *= between.gain  # the spectrum is over it, and this way back does not enlarge waves
        if gradients.maps_KSHW is not None:
            slices.note_filled(gradients.maps_KSHW)
        del slices  # its memory is needed
        for_probe = for_shift = None
        if wants_probe or wants_shift:
            for_probe, for_shift = adjoint_of_shift(
                back_MBYX, spectrum_MYX, ctx.factor, ramp_BYX, wants_probe, wants_shift
            )
        if for_shift is not None and moved_back is not None:
            for_shift = for_shift - moved_back  # by the conjugate of the ramp
        return for_probe, for_shift, gradients.maps_KSHW, gradients.kernel_BYX, for_transfer, None, None


class _Gradients(NamedTuple):
    """The gradients that are wanted; None: not wanted."""

    maps_KSHW: Tensor | None
    kernel_BYX: Tensor | None

    def add_to_kernel(self, product_MBYX: Tensor) -> None:
        """Add the part of one propagation.

        Args:
            product_MBYX: The spectrum of the wave in front of it, times F⁻¹ ḡ behind it.
        """
        assert self.kernel_BYX is not None
        self.kernel_BYX.add_(product_MBYX.sum(0).conj_physical_().sum_to_size(self.kernel_BYX.shape), alpha=2)


def _kept_every(num: int, waves: Waves) -> int:
    """Return after how many slices a wave is kept; 0: only the exit wave is."""
    return {"inverted": 0, "checkpointed": ceil(sqrt(num)), "stored": 1}[waves]


class _Propagations:
    """Propagations between slices, by Fourier transforms that are not normalised: that would be a pass over all waves.

    Instead, the kernel of each is divided by a power of two, which leaves it exact to the last bit.

    Attributes:
        divisors: The power of two of each propagation.
        gain: By what all of them together enlarge a wave, in excess of what they should: between 1/√2 and √2.
    """

    def __init__(self, kernel_BYX: Tensor | None, num: int) -> None:
        self.divisors, self.gain = list[float](), 1.0
        if kernel_BYX is None:
            return
        pixels = kernel_BYX[0].numel()
        for _ in range(num):
            self.divisors.append(2.0 ** round(log2(self.gain * pixels)))
            self.gain *= pixels / self.divisors[-1]
        self._kernels = {divisor: kernel_BYX / divisor for divisor in set(self.divisors)}

    def propagated(self, wave_MBYX: Tensor, number: int) -> Tensor:
        """Return waves behind a propagation."""
        propagated: Tensor = torch.fft.ifft2(torch.fft.fft2(wave_MBYX).mul_(self.kernel(number)), norm="forward")
        return propagated

    def kernel(self, number: int) -> Tensor:
        """Return what spectra are multiplied by in a propagation."""
        return self._kernels[self.divisors[number]]


def _back_by_inversion(both_2MBYX: Tensor, slices: _Slices, kernel_BYX: Tensor | None, gradients: _Gradients) -> Tensor:
    """Return ḡ in front of the first slice, and add the gradients of slices and kernel.

    Args:
        both_2MBYX: The conjugate of the exit wave, and ḡ; its memory is used.
        slices: The slices.
        kernel_BYX: The propagation between them.
        gradients: What is added to.
    """
    for number in reversed(range(len(slices))):
        if gradients.maps_KSHW is not None:
            slices.set_gradient(gradients.maps_KSHW, number, both_2MBYX[0].conj_physical(), both_2MBYX[1])
        both_2MBYX *= slices.transmission(number)
        if (gain_BYX := slices.gain(number)) is not None:
            both_2MBYX[0] *= gain_BYX
        if kernel_BYX is None or number == 0:
            break
        both_2MBYX = torch.fft.ifft2(both_2MBYX).mul_(kernel_BYX)
        if gradients.kernel_BYX is not None:  # of the wave in front of it, and ḡ behind it
            product_MBYX = both_2MBYX[0].conj_physical().mul_(both_2MBYX[1]).mul_(kernel_BYX.conj())
            gradients.add_to_kernel(product_MBYX.mul_(kernel_BYX[0].numel()))
        both_2MBYX = torch.fft.fft2(both_2MBYX)
    return both_2MBYX[1]


def _back_from_kept(
    kept: list[Tensor], every: int, back_MBYX: Tensor, slices: _Slices, between: _Propagations, gradients: _Gradients
) -> Tensor:
    """Return ḡ in front of the first slice, and add the gradients of slices and kernel.

    Args:
        kept: The waves behind the slices 0, ``every``, 2·``every``, …; they are taken out, and their memory is used.
        every: From one kept wave to the next.
        back_MBYX: ḡ of the exit wave; its memory is used.
        slices: The slices.
        between: The propagations between them.
        gradients: What is added to.
    """
    while kept:
        first = every * (len(kept) - 1)
        waves = [kept.pop()]  # behind the slices first, first + 1, …
        for number in range(first + 1, min(first + every, len(slices))):
            waves.append(between.propagated(waves[-1], number - 1).mul_(slices.transmission(number)))
        for number in reversed(range(first, first + len(waves))):
            wave_MBYX = waves.pop()
            if number < len(slices) - 1:
                back_MBYX = torch.fft.ifft2(back_MBYX, norm="forward")
                if gradients.kernel_BYX is not None:
                    gradients.add_to_kernel(torch.fft.fft2(wave_MBYX).mul_(back_MBYX).div_(between.divisors[number]))
                back_MBYX = torch.fft.fft2(back_MBYX.mul_(between.kernel(number)))
            if gradients.maps_KSHW is not None:
                slices.set_gradient(gradients.maps_KSHW, number, wave_MBYX, back_MBYX)
            del wave_MBYX
            back_MBYX *= slices.transmission(number)
    return back_MBYX
