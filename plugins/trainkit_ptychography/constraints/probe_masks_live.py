"""The probe is kept within a circle, in the specimen's plane or in the aperture: the live part.

Shapes: M = modes, Y, X = rows and columns of the detector (and of the probe's array).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from trainkit import DataError, Problem
from trainkit_ptychography.constraints.across_beam import pixel_size_for
from trainkit_ptychography.constraints.told_probe import told_probe
from trainkit_ptychography.probes.modes import ProbeModes

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.constraints.probe_aperture import ProbeAperture
    from trainkit_ptychography.constraints.probe_support import ProbeSupport

_LOGGER = logging.getLogger("trainkit")
_MOST_LOST = 0.1  # of the power of the probe as it is told
_LEAST = 0.01
_NOTHING_LOST = 0.999  # of the mask's pixels are 1

Plane = Literal["specimen", "aperture"]


def support(settings: ProbeSupport, probe: ProbeModes) -> Tensor:
    """Return what limits the probe's amplitude (Y, X), centred at pixel (Y//2, X//2), as a share of its largest.

    Raises:
        DataError: The pixel size is not known.
    """
    size = pixel_size_for("probe_support", probe)
    rows_Y1, columns_1X = ((torch.arange(num, dtype=torch.float64) - num // 2) * size for num in probe.modes.shape[1:3])
    return _falling(
        torch.hypot(rows_Y1[:, None], columns_1X[None]), settings.radius_angstrom, settings.edge_angstrom or 2 * size
    )


def opening(settings: ProbeAperture, probe: ProbeModes) -> Tensor:
    """Return what limits the amplitude of the probe's Fourier transform (Y, X), as a share of its largest.

    Zero frequency is at [0, 0].

    Raises:
        DataError: The pixel size or the wavelength is not known.
    """
    size, wavelength = probe.sampling.pixel_size_angstrom, probe.sampling.wavelength_angstrom
    if size is None or wavelength is None:
        raise DataError("probe_aperture needs the energy and the size of the object's pixels: say them in [data]")
    shape_YX = probe.modes.shape[1:3]
    rows_Y1, columns_1X = (1e3 * wavelength * torch.fft.fftfreq(num, size, dtype=torch.float64) for num in shape_YX)
    edge = settings.edge_mrad or 2e3 * wavelength / (size * min(shape_YX))
    angle_YX = torch.hypot(rows_Y1[:, None], columns_1X[None])
    open_YX = _falling(angle_YX, settings.semiangle_mrad, edge)
    return open_YX if settings.inner_mrad == 0 else open_YX - _falling(angle_YX, settings.inner_mrad, edge)


def _falling(radius_YX: Tensor, middle: float, width: float) -> Tensor:
    """Return 1 inside of a circle and 0 outside, with an edge that falls as a cosine."""
    along_YX = ((radius_YX - middle) / width + 0.5).clamp(0, 1)
    return 0.5 + 0.5 * torch.cos(torch.pi * along_YX)


@torch.no_grad()
def _masked(modes_MYX: Tensor, mask_YX: Tensor, plane: Plane) -> Tensor:
    if plane == "specimen":
        return modes_MYX * mask_YX
    masked_MYX: Tensor = torch.fft.ifft2(torch.fft.fft2(modes_MYX) * mask_YX)
    return masked_MYX


@torch.no_grad()
def _limited(modes_MYX: Tensor, mask_YX: Tensor, plane: Plane) -> Tensor:
    """Return modes whose amplitude together is nowhere above the mask times the largest one.

    A mask that is multiplied in every step is multiplied hundreds of times, so its edge moves inwards: an aperture of
    25 mrad behind a mask that falls from 24.8 to 29.2 mrad lost its rim, as soon as a decaying learning rate no longer
    made up for that. A limit that holds stays as it is, however often it is imposed.
    """
    seen_MYX = torch.fft.fft2(modes_MYX) if plane == "aperture" else modes_MYX
    amplitude_YX = seen_MYX.abs().square().sum(0).sqrt()
    limit_YX = mask_YX * amplitude_YX.max()
    tiny = torch.finfo(amplitude_YX.dtype).tiny
    seen_MYX = seen_MYX * (limit_YX / amplitude_YX.clamp_min(tiny)).clamp_max(1)
    return torch.fft.ifft2(seen_MYX) if plane == "aperture" else seen_MYX


def kept_share(probe: ProbeModes, mask_YX: Tensor, plane: Plane) -> float:
    """Return which share of the power a mask leaves."""
    modes_MYX = probe().detach().cpu().to(torch.complex128)
    return float(_masked(modes_MYX, mask_YX, plane).abs().square().sum() / modes_MYX.abs().square().sum())


def inspect_mask(
    recipe: Recipe, key: str, plane: Plane, made: Callable[[ProbeModes], Tensor]
) -> Iterator[str | Problem]:
    """Yield how much of the probe as it is told a mask leaves, and a doubt if that is little, or if it masks nothing.

    Raises:
        DataError: The scan or the probe cannot be read, or does not say what is needed.
    """
    probe = told_probe(recipe)
    if probe is None:
        return
    mask_YX = made(probe)
    share = kept_share(probe, mask_YX, plane)
    yield f"constraint   {key} keeps {100 * share:.4g} % of the power of the probe as it is told"
    if share < 1 - _MOST_LOST:
        yield Problem(_of_loss(share), key, "warning")
    elif float(mask_YX.min()) > _NOTHING_LOST:
        yield Problem("covers the whole array of the probe, so it has no effect", key, "warning")


def _of_loss(share: float) -> str:
    return (
        f"takes {100 * (1 - share):.3g} % of the power from the probe as it is told: it is too small, or the probe "
        "(its defocus, its angle, where its middle is) is told wrongly"
    )


def masking(probe: ProbeModes, mask_YX: Tensor, plane: Plane) -> Callable[[], None]:
    """Return the function that keeps a probe that trains within a mask, in place, with its power.

    Raises:
        DataError: Next to nothing would be left of the probe.
    """
    if not probe.modes.is_meta:  # such tensors have no values, only shapes
        share = kept_share(probe, mask_YX, plane)
        if share < _LEAST:
            raise DataError(f"a constraint of the probe ({plane}) {_of_loss(share)}")
        if share < 1 - _MOST_LOST:
            _LOGGER.warning("a constraint of the probe (%s) %s", plane, _of_loss(share))
    mask_YX = mask_YX.to(probe.modes)

    @torch.no_grad()
    def impose() -> None:
        if not probe.modes.requires_grad:
            return
        for modes in probe.modes.chunk(probe.num_scans):
            modes.copy_(torch.view_as_real(_limited(torch.view_as_complex(modes), mask_YX, plane)))
        if probe.opr is not None and probe.opr.modes.requires_grad:  # what it changes by stays within, too
            changes_MKYX = torch.view_as_complex(probe.opr.modes)
            probe.opr.modes.copy_(torch.view_as_real(_masked(changes_MKYX, (mask_YX > 0).to(mask_YX), plane)))
        probe.keep_power()

    return impose
