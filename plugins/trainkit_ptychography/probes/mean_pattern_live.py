"""From the mean pattern of a scan to a probe.

Shapes: Y, X = rows and columns of the detector.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.sampling import mirrored_where_hidden


def probe_of_mean_pattern(data: LiveDiffraction) -> NDArray[np.complex128]:
    """Return the probe, complex (1, Y, X), centred at pixel (Y//2, X//2).

    Raises:
        DataError: What propagation to the detector needs is not known.
    """
    scan, shape = data.scan, data.detector_shape
    transfer_YX = scan.detector_propagation.transfer(scan.exit_wave(shape))
    if transfer_YX is None:
        focused_YX = np.fft.ifft2(np.sqrt(np.maximum(mirrored_where_hidden(data.mean_YX, scan.mask_YX), 0)))
        return np.asarray(np.fft.fftshift(focused_YX)[None])
    wave_YX = np.sqrt(np.maximum(_filled(data.mean_YX, scan.mask_YX), 0))
    return np.asarray(np.fft.ifft2(np.fft.fft2(wave_YX) * transfer_YX.numpy().conj())[None])


def _filled(mean_YX: NDArray[np.float64], mask_YX: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Return a mean pattern in which pixels that do not count are as the nearest one that does."""
    if mask_YX is None:
        return mean_YX
    row_YX, column_YX = ndimage.distance_transform_edt(
        np.fft.fftshift(~mask_YX), return_distances=False, return_indices=True
    )
    filled_YX: NDArray[np.float64] = np.fft.ifftshift(np.fft.fftshift(mean_YX)[row_YX, column_YX])
    return filled_YX
