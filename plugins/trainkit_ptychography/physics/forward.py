"""The forward model: from probe, object and position to the intensities on the detector. It stands here alone.

    probe ──ramp──▶ shifted probe ──× object patch──▶ exit wave ──fft2──▶ far field ──Σ|·|²──▶ intensities
                                                                └─fft2, × transfer, ifft2──▶ near field ──┘

Shapes: B = patterns of a batch, M = probe modes, Y, X = rows and columns of the detector, H, W = those of the object.
Every transform of the far field is orthonormal (what leaves the specimen arrives, Parseval; the factors are gathered in
`spectrum_to_shift`), and has its zero frequency at [0, 0]. In the near field, the middle of the patch is at [0, 0].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainkit_ptychography.physics.grids import angular_frequencies, frequencies_along_both, frequencies_along_each


def fourier_ramp(shift_B2: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the factor that shifts an array when the array's Fourier transform is multiplied by it.

    Args:
        shift_B2: The shift in pixels, (row, column); any real numbers.
        shape: Rows and columns of the array.

    Returns:
        Complex (B, Y, X), made as an outer product: B·(Y + X) exponentials instead of B·Y·X.
    """
    rows, columns = shape
    angle_B2L = shift_B2[:, :, None] * frequencies_along_each(shape, shift_B2)  # both together: few operations
    ramp_B2L = torch.complex(angle_B2L.cos(), angle_B2L.sin().neg_())  # torch.polar takes thrice as long on a CPU
    ramp_BYX: Tensor = ramp_B2L[:, 0, :rows, None] * ramp_B2L[:, 1, None, :columns]
    return ramp_BYX


def intensities(probe_MYX: Tensor, shift_B2: Tensor, patch_BYX: Tensor, transfer_YX: Tensor | None = None) -> Tensor:
    """Return what the detector counts, differentiable in all arguments.

    The exit wave is ψ_m = F⁻¹(F(probe_m) · ramp) · patch. Far field: I = Σ_m |F(ψ_m)|². Near field: I = Σ_m |F⁻¹(F(ψ_m)
    · transfer · ramp*)|², where the conjugate of the ramp moves the wave back: the detector rests with the beam, and
    what moves is the specimen.

    Args:
        probe_MYX: The probe's modes, complex; or (M, B, Y, X), those of each pattern.
        shift_B2: Distance of the probe from the centre of its patch, in pixels (row, column).
        patch_BYX: The object's complex transmission where each pattern was taken.
        transfer_YX: Factor of the exit wave's Fourier transform on its way to a detector in the near field, zero
            frequency at [0, 0]; it also moves pixel (Y//2, X//2) to [0, 0]. None: the far field.

    Returns:
        Real (B, Y, X), zero frequency at [0, 0]. Its sum is the power of the exit wave, if the transfer takes none.

    Source:
        Thibault, Menzel, Nature 494 (2013) 68 (mixed states); Odstrčil et al., Optics Express 26 (2018) 3108.
    """
    result: Tensor = _Intensities.apply(probe_MYX, shift_B2, patch_BYX, transfer_YX)  # type: ignore[no-untyped-call]
    return result


def power(wave_MBYX: Tensor) -> Tensor:
    """Return Σ_m |wave|² (B, Y, X)."""
    # Twice as fast on a CPU as real and imaginary parts by themselves; a sum over both axes takes ten times as long.
    first_BYX2, *others = torch.view_as_real(wave_MBYX).unbind()
    squares_BYX2 = first_BYX2.square()
    for each_BYX2 in others:
        squares_BYX2.addcmul_(each_BYX2, each_BYX2)
    total_BYX: Tensor = squares_BYX2[..., 0] + squares_BYX2[..., 1]
    return total_BYX


def sum_of_modes(values_MBYX: Tensor) -> Tensor:
    """Return the sum over the first axis; of a single mode, the values themselves, without a copy."""
    return values_MBYX[0] if len(values_MBYX) == 1 else values_MBYX.sum(0)


def sum_of_products(first_MBYX: Tensor, second_MBYX: Tensor, into_BYX: Tensor | None = None) -> Tensor:
    """Return Σ_m first · second (B, Y, X), without an array of all products.

    Args:
        first_MBYX: Of each mode.
        second_MBYX: Of each mode.
        into_BYX: Where the result goes, for example the first mode of an array that nobody needs any more; None: into
            new memory.
    """
    pairs = zip(first_MBYX.unbind(), second_MBYX.unbind(), strict=True)
    total_BYX: Tensor = torch.mul(*next(pairs), out=into_BYX)
    for first_BYX, second_BYX in pairs:
        total_BYX.addcmul_(first_BYX, second_BYX)
    return total_BYX


def spectrum_to_shift(probe_MYX: Tensor, gain: float = 1.0) -> tuple[Tensor, float]:
    """Return the Fourier transform of a probe, times a factor, and that factor.

    Transforms that normalise their result go over it once more. So none of a step does: F⁻¹ of this without a factor is
    the probe over √pixels, and the far field of that without a factor is what it should be. On the way back, the same
    two have the factors √pixels and pixels, which this one takes away again.

    Args:
        probe_MYX: The probe's modes; or (M, B, Y, X), those of each pattern.
        gain: What later enlarges the wave, and its gradient on the way back, in excess of what it should.
    """
    factor = float(probe_MYX.shape[-2] * probe_MYX.shape[-1]) ** -1.5 / gain
    spectrum_MYX: Tensor = torch.fft.fft2(probe_MYX)
    return spectrum_MYX.mul_(factor), factor


class Arrived(NamedTuple):
    """The wave at the detector, and what the way back from there needs.

    Attributes:
        wave_MBYX: The wave at the detector.
        leaving_MBYX: Near field: the exit wave's Fourier transform, moved back. None: the far field, or not wanted.
    """

    wave_MBYX: Tensor
    leaving_MBYX: Tensor | None = None


def arrive(far_MBYX: Tensor, ramp_BYX: Tensor, transfer_YX: Tensor | None, keeps_leaving: bool) -> Arrived:
    """Return the wave at the detector.

    Args:
        far_MBYX: The exit wave's Fourier transform; its memory is used.
        ramp_BYX: The factor that shifted the probe.
        transfer_YX: See `intensities`; None: the far field.
        keeps_leaving: Whether the way back is to find gradients of the shift or of the transfer.
    """
    if transfer_YX is None:
        return Arrived(far_MBYX)
    far_MBYX *= ramp_BYX.conj()
    wave_MBYX = torch.fft.ifft2(far_MBYX * transfer_YX, norm="ortho")
    return Arrived(wave_MBYX, far_MBYX if keeps_leaving else None)


def leave(
    back_MBYX: Tensor,
    leaving_MBYX: Tensor | None,
    ramp_BYX: Tensor | None,
    transfer_YX: Tensor | None,
    wants_shift: bool,
    wants_transfer: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Go back from the detector to the specimen: the adjoint of `arrive` and of the Fourier transform before it.

    Args:
        back_MBYX: Half the complex conjugate of torch's gradient of the wave at the detector; its memory is used.
        leaving_MBYX: See `Arrived`.
        ramp_BYX: As in `arrive`; not needed for the far field.
        transfer_YX: As in `arrive`.
        wants_shift: Whether the gradient of the shift back is wanted.
        wants_transfer: Whether the gradient of the transfer is wanted.

    Returns:
        Half √pixels times the conjugate of the gradient of the exit wave; what has to be taken from the gradient of the
        shift (B, 2), and the gradient of the transfer (Y, X), each None if there is none, or it is not wanted.
    """
    moved_back = for_transfer = None
    if transfer_YX is not None:
        assert ramp_BYX is not None
        back_MBYX = torch.fft.ifft2(back_MBYX, norm="ortho")
        if wants_transfer:
            assert leaving_MBYX is not None
            for_transfer = (back_MBYX * leaving_MBYX).sum((0, 1)).conj_physical_().mul_(2)
        back_MBYX *= transfer_YX
        if wants_shift:
            assert leaving_MBYX is not None
            moved_back = _slope_along_shift(sum_of_products(back_MBYX, leaving_MBYX))
        back_MBYX *= ramp_BYX.conj()
    return torch.fft.fft2(back_MBYX), moved_back, for_transfer


def adjoint_of_shift(
    back_MBYX: Tensor, spectrum_MYX: Tensor, factor: float, ramp_BYX: Tensor, wants_probe: bool, wants_shift: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of the probe, with the spectrum's axes, and of its shift (B, 2), each where it is wanted.

    Args:
        back_MBYX: Half √pixels times the complex conjugate of torch's gradient of the shifted probes; is changed.
        spectrum_MYX: What `spectrum_to_shift` returned for the probe.
        factor: Its factor.
        ramp_BYX: The factor that shifted it.
        wants_probe: Whether the first is wanted.
        wants_shift: Whether the second is wanted.
    """
    for_probe = for_shift = None
    back_MBYX = torch.fft.ifft2(back_MBYX, norm="forward").mul_(ramp_BYX)
    if wants_probe:
        for_probe = torch.fft.fft2(back_MBYX if spectrum_MYX.ndim == 4 else back_MBYX.sum(1))
        for_probe = for_probe.mul_(2 * factor).conj_physical_()
    if wants_shift:
        for_shift = (
            _slope_along_shift(sum_of_products(back_MBYX, spectrum_MYX, into_BYX=back_MBYX[0]))
            if spectrum_MYX.ndim == 4
            else _slope_of_common_probe(back_MBYX, spectrum_MYX)
        )
    return for_probe, for_shift


def _slope_of_common_probe(back_MBYX: Tensor, spectrum_MYX: Tensor) -> Tensor:
    """Return what `_slope_along_shift` does of their products, as products of matrices: one pass, and nothing written.

    Args:
        back_MBYX: Half the complex conjugate of the gradient behind the ramp, times the ramp.
        spectrum_MYX: The spectrum in front of the ramp, of all patterns.
    """
    frequencies_2YX = frequencies_along_both((spectrum_MYX.shape[1], spectrum_MYX.shape[2]), spectrum_MYX.real)
    slopes_M2YX = spectrum_MYX[:, None] * frequencies_2YX
    products = (
        slopes_2YX.flatten(1) @ back_BYX.flatten(1).T
        for slopes_2YX, back_BYX in zip(slopes_M2YX.unbind(), back_MBYX.unbind(), strict=True)
    )
    slope_2B = next(products)
    for product_2B in products:
        slope_2B += product_2B
    found_B2: Tensor = slope_2B.imag.T * 2
    return found_B2


def _slope_along_shift(product_BYX: Tensor) -> Tensor:
    """Return the gradient (B, 2) of a shift by a ramp.

    d ramp / d shift = −2πi f · ramp, and the real part of −i z is the imaginary part of z.

    Args:
        product_BYX: A spectrum behind the ramp, times half the complex conjugate of its gradient; the sum of all modes.
    """
    slopes = [product_BYX.sum(axis).imag for axis in (2, 1)]  # sums of complex numbers lie well in memory
    return torch.stack([slope @ angular_frequencies(slope.shape[1], slope) for slope in slopes], dim=1).mul_(2)


def of_patterns(spectrum_MYX: Tensor) -> Tensor:
    """Return a spectrum (M, 1, Y, X) for all patterns, or (M, B, Y, X) if each has its own."""
    return spectrum_MYX if spectrum_MYX.ndim == 4 else spectrum_MYX[:, None]


class _Intensities(torch.autograd.Function):
    """`intensities` with its adjoint written out: about twice as fast as letting autograd derive it.

    For a linear map w = A z the gradients obey ḡ_z = Aᵀ ḡ_w (ḡ: complex conjugate of torch's gradient; what is carried
    back is half of it, because a factor of small arrays at the end is no pass over large ones). So the way
    back applies the *transposed* maps to ḡ, and since a Fourier transform, a ramp and a product with an array are all
    symmetric, it is the way forth once more, with no conjugate taken of a large array but the first.
    """

    @staticmethod
    def forward(ctx: Any, probe_MYX: Tensor, shift_B2: Tensor, patch_BYX: Tensor, transfer_YX: Tensor | None) -> Tensor:
        shape = (patch_BYX.shape[1], patch_BYX.shape[2])
        ramp_BYX = fourier_ramp(shift_B2, shape)
        spectrum_MYX, ctx.factor = spectrum_to_shift(probe_MYX)
        shifted_MBYX = torch.fft.ifft2(of_patterns(spectrum_MYX) * ramp_BYX, norm="forward")  # over √pixels
        keeps_leaving = ctx.needs_input_grad[1] or ctx.needs_input_grad[3]
        far_MBYX = torch.fft.fft2(shifted_MBYX * patch_BYX)
        wave_MBYX, leaving_MBYX = arrive(far_MBYX, ramp_BYX, transfer_YX, keeps_leaving)
        ctx.save_for_backward(spectrum_MYX, ramp_BYX, shifted_MBYX, patch_BYX, wave_MBYX, transfer_YX, leaving_MBYX)
        return power(wave_MBYX)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_BYX,) = gradients
        spectrum_MYX, ramp_BYX, shifted_MBYX, patch_BYX, wave_MBYX, transfer_YX, leaving_MBYX = ctx.saved_tensors
        wants_probe, wants_shift, wants_patch, wants_transfer = ctx.needs_input_grad
        for_probe = for_shift = for_patch = None
        back_MBYX, moved_back, for_transfer = leave(
            wave_MBYX.conj_physical().mul_(gradient_BYX),
            leaving_MBYX,
            ramp_BYX,
            transfer_YX,
            wants_shift,
            wants_transfer,
        )
        if wants_patch:
            for_patch = sum_of_products(shifted_MBYX, back_MBYX).conj_physical_().mul_(2)
        if wants_probe or wants_shift:
            for_probe, for_shift = adjoint_of_shift(
                back_MBYX.mul_(patch_BYX), spectrum_MYX, ctx.factor, ramp_BYX, wants_probe, wants_shift
            )
        if for_shift is not None and moved_back is not None:
            for_shift = for_shift - moved_back  # by the conjugate of the ramp
        return for_probe, for_shift, for_patch, for_transfer
