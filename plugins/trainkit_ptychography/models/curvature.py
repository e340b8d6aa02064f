"""How strongly the loss curves along object, probe and positions: what gradients are divided by (`scaled_steps`).

A loss that compares intensities has, at its minimum, a curvature along the amplitude in a detector pixel: 2 for squared
differences of amplitudes, 4 times the mean counts for Poisson statistics. It is measured from the gradient, so that any
loss with any weight will do. The transforms between specimen and detector are orthonormal. So along the transmission of
an object pixel the curvature is this number times the light that fell on the pixel (of a slice, times the number of
slices, because all of them move at once, and patterns see their sum best), along the probe it is this number times the
patterns of the step; both are upper bounds, because a change of the far field's phase is not seen. Along a position it
is this number times the change of the exit wave, of which half is seen in the mean; of each pattern, that share is
measured now and then (`SeenMotion`). What counts of the change is what the object causes, because the far field of a
probe in vacuum does not change when the probe moves.

Shapes: B = patterns of a batch, M = probe modes, Y, X = rows and columns of the detector, H, W = those of the object,
N = scan points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor, nn

from trainkit import Exchange, PartError, Touched
from trainkit_ptychography.models.probe_slope import ProbeSlope
from trainkit_ptychography.physics.patches import PatchesOf

_ROWS = 8  # at least as many rows of the detector tell the slope of the loss over the misfit
_LARGE = 8  # an object of so many times the pixels of all patches is large: passes over a smaller one cost no more


@attrs.define(eq=False)
class Part:
    """What the curvature depends on, of a batch of the current step.

    Attributes:
        index_B: Scan points.
        patches_of: Finds the patches in arrays of the object's size.
        patch: Computes the object's complex transmission (B, Y, X), of all slices together.
        slope: The probe's slope.
        share_N2: Of each scan point, the share of a change of the exit wave that is seen, if it moves down, or right.
        light: Computes the light that falls on each slice in a pattern (S, Y, X).
        intensities_BYX: What the model expects.
        amplitudes_BYX: What was measured.
        mask: Which pixels count, (Y, X) or (B, Y, X); None: all.
        gradient_BYX: That of the intensities; None: it is not known yet.
    """

    index_B: Tensor
    patches_of: PatchesOf
    patch: Callable[[], Tensor]
    slope: ProbeSlope
    share_N2: Tensor
    light: Callable[[], Tensor]
    intensities_BYX: Tensor
    amplitudes_BYX: Tensor
    mask: Tensor | None
    gradient_BYX: Tensor | None = None

    def note_gradient(self, gradient_BYX: Tensor) -> None:
        """Take note of a gradient of the intensities; those of several ways back add up."""
        self.gradient_BYX = gradient_BYX if self.gradient_BYX is None else self.gradient_BYX + gradient_BYX


def is_large(shape_HW: tuple[int, int], pixels: int) -> bool:
    """Return whether patches of so many pixels in all are few against an object's."""
    return pixels * _LARGE <= shape_HW[0] * shape_HW[1]


class _TouchedPixels:
    """The pixels of an object that patterns show, as their patches; a `Touched`.

    Args:
        patches_of: Finds the patches.
        num: Number of patterns.
        along_SYX: The curvature along each pixel because of one pattern.
        zeros_SHW: Zeros, which are zeros again after each use: to make them takes as long as all the rest.
    """

    def __init__(self, patches_of: PatchesOf, num: int, along_SYX: Tensor, zeros_SHW: Tensor) -> None:
        self._patches_of, self._num, self._along_SYX, self._zeros_SHW = patches_of, num, along_SYX, zeros_SHW

    def curvature(self) -> Tensor:
        """Return the curvature along the pixels (S, B, Y, X)."""
        patches = self._patches_of(self._zeros_SHW)
        try:
            patches.add(self._along_SYX[:, None].expand(-1, self._num, -1, -1))
            return patches.cut()
        finally:
            patches.put(torch.zeros_like(self._along_SYX)[:, None].expand(-1, self._num, -1, -1))

    def cut(self, values: Tensor) -> Tensor:
        """Return the pixels of an array (…, H, W) as patches (…, B, Y, X)."""
        return self._patches_of(values).cut()

    def put(self, part: Tensor, values: Tensor) -> None:
        """Write patches into an array; where they overlap, they are the same."""
        self._patches_of(values).put(part)


class Curvature:
    """The curvature for the gradients of the current step, computed when an optimizer asks for it.

    Attributes:
        recording: Whether batches belong to an optimizer step.
    """

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._exchange = Exchange()
        self._along_amplitude: Tensor | None = None  # several parameters ask for it
        self._zeros_SHW: Tensor | None = None  # of a large object
        self._is_zero_elsewhere: dict[nn.Parameter, bool] = {}  # the gradient of a large object, once an epoch
        self.recording = False

    def start_epoch(self) -> None:
        """Look anew at whether gradients are what they are noted as."""
        self._is_zero_elsewhere.clear()

    def start_step(self, exchange: Exchange) -> None:
        """Forget the last step, and record the next one.

        Args:
            exchange: Adds up what the parts of the step are on all processes.
        """
        self.end_step()
        self._exchange = exchange
        self.recording = True

    def end_step(self) -> None:
        """Forget the step: its parts take memory."""
        self._parts.clear()
        self._along_amplitude = None
        self.recording = False

    def record(self, part: Part) -> None:
        """Record a batch of the step. Its intensities must still have their graph."""
        hook = part.note_gradient  # to have torch keep it would be a copy
        part.intensities_BYX.register_hook(hook)  # type: ignore[no-untyped-call]
        # The hook holds the part. If that held the hook's tensor, they would be a circle through torch's graph, where
        # no collector of garbage looks: all that the step has computed would never be freed.
        part.intensities_BYX = part.intensities_BYX.detach()
        self._parts.append(part)

    # ---- along the parameters ---------------------------------------------------------------------------------------

    def along_object(self, shape_SHW: tuple[int, int, int], share: float = 1.0) -> Tensor:
        """Return the curvature along each pixel's phase, or absorption (S, H, W).

        Args:
            shape_SHW: Slices, rows and columns of the object.
            share: By what it is multiplied.
        """
        of_light = share * shape_SHW[0] * self.along_amplitude()

        def along(parts: Sequence[Part]) -> Tensor:
            dtype, device = self._last.amplitudes_BYX.dtype, self._last.index_B.device
            along_SHW = torch.zeros(shape_SHW, dtype=dtype, device=device)
            for part in parts:
                for along_HW, light_YX in zip(along_SHW, part.light(), strict=True):
                    part.patches_of(along_HW).add((of_light * light_YX).expand(len(part.index_B), -1, -1))
            return along_SHW

        return self._summed(along)

    def touched_pixels(self, parameter: nn.Parameter, shape_SHW: tuple[int, int, int], share: float) -> Touched | None:
        """Return the pixels of an object that the step's patterns show; None: they are not few, or not all that moves.

        Args:
            parameter: The object's pixels (…, H, W).
            shape_SHW: Slices, rows and columns of the object.
            share: By what the curvature along the pixels is multiplied.
        """
        if len(self._parts) != 1 or self._exchange.num_parts != 1 or parameter.grad is None:
            return None
        part = self._last
        if parameter.device.type != "cpu" or not is_large(shape_SHW[1:], part.amplitudes_BYX.numel()):
            return None  # a GPU passes over all pixels in less time than it takes to ask it for patches
        if not part.patches_of.is_filled(parameter.grad):
            return None  # what is not of the patterns has a gradient as well, anywhere
        if parameter not in self._is_zero_elsewhere:  # torch does not notice what is written by `.data` or by numpy
            elsewhere = parameter.grad.clone()
            patches = part.patches_of(elsewhere)
            patches.put(torch.zeros_like(patches.cut()))
            self._is_zero_elsewhere[parameter] = not elsewhere.any()
        if not self._is_zero_elsewhere[parameter]:
            return None
        if self._zeros_SHW is None:
            self._zeros_SHW = torch.zeros(shape_SHW, dtype=parameter.dtype, device=parameter.device)
        along_SYX = share * shape_SHW[0] * self.along_amplitude() * part.light()
        return _TouchedPixels(part.patches_of, len(part.index_B), along_SYX, self._zeros_SHW)

    def along_probe(self, unit: Tensor) -> Tensor:
        """Return the curvature along real and imaginary part of each of the probe's pixels, a scalar.

        Args:
            unit: What a parameter of 1 stands for.
        """
        num = self._exchange.total(sum(len(part.index_B) for part in self._parts))
        return self.along_amplitude() * num * unit.square()

    def along_opr_modes(self, weights_NK: Tensor, unit: Tensor) -> Tensor:
        """Return the curvature along real and imaginary part of each pixel of OPR modes (1, K, 1, 1, 1).

        Args:
            weights_NK: How strong each mode is at each scan point.
            unit: What a parameter of 1 stands for.
        """

        def squares(parts: Sequence[Part]) -> Tensor:
            return torch.stack([weights_NK.index_select(0, part.index_B).square().sum(0) for part in parts]).sum(0)

        squares_K = self._summed(squares)
        return (self.along_amplitude() * unit.square() * squares_K)[None, :, None, None, None]

    def along_opr_weights(self, num_points: int, power_K: Tensor) -> Tensor:
        """Return the curvature along the weights of OPR modes (N, K); 0 outside the step.

        Args:
            num_points: Number of scan points.
            power_K: Power of each mode.
        """

        def light(parts: Sequence[Part]) -> Tensor:
            light_NK = torch.zeros(num_points, len(power_K), dtype=power_K.dtype, device=power_K.device)
            for part in parts:
                light_NK[part.index_B] = power_K
            return light_NK

        return self._summed(light) * self.along_amplitude()

    def along_displacements(self, num_points: int) -> Tensor:
        """Return the curvature along the displacement of each scan point (N, 2), in 1/pixel²; 0 outside the step."""
        along_amplitude = self.along_amplitude()

        def along(parts: Sequence[Part]) -> Tensor:
            dtype, device = self._last.amplitudes_BYX.dtype, self._last.index_B.device
            along_N2 = torch.zeros(num_points, 2, dtype=dtype, device=device)
            for part in parts:
                seen_B2 = part.share_N2.index_select(0, part.index_B).mul_(along_amplitude)
                along_N2.index_copy_(0, part.index_B, seen_B2.mul_(part.slope.change_of_exit_wave(part.patch())))
            return along_N2

        return self._summed(along)

    def along_scan(self, arm_N2: Tensor) -> Tensor:
        """Return the curvature along the linear motion of the whole scan (2, 2), in 1/pixel².

        Args:
            arm_N2: By how much each point moves with it.
        """
        return self.along_displacements(len(arm_N2)).T @ arm_N2.square()

    def along_amplitude(self) -> Tensor:
        """Return the curvature of the step's loss along the amplitude in a detector pixel, a scalar.

        It is the slope of the loss's gradient over the misfit: close to the minimum, any loss of the intensities has a
        gradient that is proportional to the misfit. Where counts are far above what the model expects, the Poisson loss
        is steeper than that, and so is this slope: data that no object explains make steps smaller. Some rows of the
        detector tell it, the same ones of each pattern, so it does not depend on how a batch is divided.
        """
        if self._along_amplitude is not None:
            return self._along_amplitude

        def slope_and_misfit(parts: Sequence[Part]) -> Tensor:
            slopes, misfits = [], []
            for part in parts:
                if (gradient_BYX := part.gradient_BYX) is None:
                    continue
                # An odd step, because what a mask hides may lie in every second row.
                rows = slice(None, None, gradient_BYX.shape[1] // _ROWS | 1)
                amplitudes_BYX = part.intensities_BYX.detach()[:, rows].sqrt()
                misfit_BYX = amplitudes_BYX - part.amplitudes_BYX[:, rows]
                if part.mask is not None:
                    misfit_BYX *= part.mask[..., rows, :]
                misfit_P = misfit_BYX.flatten()
                slopes.append(2 * amplitudes_BYX.mul_(gradient_BYX[:, rows]).flatten().dot(misfit_P))
                misfits.append(misfit_P.dot(misfit_P))
            if not slopes:
                return self._last.intensities_BYX.new_zeros(2)
            return torch.stack([sum(slopes[1:], slopes[0]), sum(misfits[1:], misfits[0])])

        slope, misfit = self._summed(slope_and_misfit).unbind()
        smallest = torch.finfo(misfit.dtype).tiny  # of a fit without misfit, whose gradient is 0 as well
        self._along_amplitude = (slope / misfit.clamp_min(smallest)).clamp_min(0)
        return self._along_amplitude

    def _summed(self, compute: Callable[[Sequence[Part]], Tensor]) -> Tensor:
        """Return the sum over all parts of the step, on all processes, of what is computed of some of them."""
        self._check_known()
        of_each = len(self._parts) // len(self._exchange.parts)
        starts = range(0, len(self._parts), of_each)
        return self._exchange.sum_of_parts([compute(self._parts[start : start + of_each]) for start in starts])

    @property
    def _last(self) -> Part:
        self._check_known()
        return self._parts[-1]

    def _check_known(self) -> None:
        if all(part.gradient_BYX is None for part in self._parts):
            raise PartError("ptychography: the curvature is known only between backward pass and update")
