"""Makes further modes of a probe from one guess.

A source of some size, and vibrations, illuminate the specimen with copies of one probe, shifted a little. The principal
components of such copies are the probe and its derivatives: in Fourier space, the probe times polynomials of the
frequency (of Hermite's kind, for a Gaussian source). So they keep within the aperture, as the true modes do.

Shapes: M = modes, Y, X = rows and columns of the detector.

Source: Odstrčil et al., Optics Express 24 (2016) 8360 (orthogonal modes of a probe); Mandel, Wolf, "Optical Coherence
and Quantum Optics" (1995), section 4.7 (coherent modes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError
from trainkit_ptychography.probes.made_power import POWER_OF_A_MADE_MODE

_NO_POWER = 1e-9  # of the strongest mode: a mode without power never gets any, because its gradient is 0
_NOTHING_NEW = 1e-6  # of a polynomial's power, beyond the modes that there are
_HIGHEST_DEGREE = 12


def with_modes(
    guess_MYX: NDArray[np.complexfloating], num: int | None, powers: Sequence[float] | None
) -> NDArray[np.complexfloating]:
    """Return a guess with as many modes as asked for, and with their powers; what is not asked for stays as it is.

    Args:
        guess_MYX: The modes that are known.
        num: Number of modes; None: as many as known.
        powers: Share of the total power of each mode after the first; None: see `Probe`.

    Raises:
        DataError: A mode has no power, or no further modes can be made from the first one.
    """
    powers_M = (np.abs(guess_MYX) ** 2).sum(axis=(1, 2), dtype=np.float64)
    without = np.flatnonzero(powers_M <= _NO_POWER * powers_M.max()).tolist()
    if without and num is None:
        raise DataError(
            f"modes {', '.join(map(str, without))} of {len(powers_M)} of the probe (counted from 0) have no power, so "
            f"they would never change; say model.probe.modes = {len(powers_M)}, and they are made from the first one"
        )
    if 0 in without:
        raise DataError("the first mode of the probe has no power next to the others: put the strongest first")
    known_MYX = np.delete(guess_MYX, without, axis=0)[:num]
    num = len(known_MYX) if num is None else num
    missing = num - len(known_MYX)
    if not missing and powers is None:
        return known_MYX
    known_powers = (np.abs(known_MYX) ** 2).sum(axis=(1, 2), dtype=np.float64)
    made_MYX = _further(known_MYX.astype(np.complex128), missing)
    modes_MYX = np.concatenate([known_MYX / np.sqrt(known_powers)[:, None, None], made_MYX])
    if powers is None:
        left = 1 - missing * POWER_OF_A_MADE_MODE
        shares_M = np.append(left * known_powers / known_powers.sum(), np.full(missing, POWER_OF_A_MADE_MODE))
    else:
        shares_M = np.array([1 - sum(powers), *powers])
    scaled_MYX: NDArray[np.complexfloating] = np.sqrt(shares_M)[:, None, None] * modes_MYX
    return scaled_MYX


def _further(known_MYX: NDArray[np.complex128], num: int) -> NDArray[np.complex128]:
    """Return further modes of power 1, orthogonal to the known ones and to each other."""
    spectrum_YX = np.fft.fft2(known_MYX[0])
    basis = [each.ravel() for each in np.linalg.qr(known_MYX.reshape(len(known_MYX), -1).T)[0].T]
    made: list[NDArray[np.complex128]] = []
    for factor_YX in _polynomials(np.abs(spectrum_YX) ** 2) if num else ():
        mode = np.fft.ifft2(spectrum_YX * factor_YX).ravel()
        mode = mode / max(float(np.linalg.norm(mode)), 1e-300)
        for _ in range(2):  # twice, because once leaves what rounding puts back
            for other in basis:
                mode = mode - np.vdot(other, mode) * other
        size = np.linalg.norm(mode)
        if size**2 > _NOTHING_NEW:
            made.append(mode / size)
            basis.append(made[-1])
        if len(made) == num:
            return np.stack(made).reshape(num, *known_MYX.shape[1:])
    if num:
        raise DataError(
            f"{len(known_MYX) + num} modes cannot be made from this probe, whose spectrum is too small for more than "
            f"{len(known_MYX) + len(made)}: lower model.probe.modes"
        )
    return np.empty((0, *known_MYX.shape[1:]), complex)


def _polynomials(power_YX: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Yield products of powers of both frequencies, of rising degree, in units of the spectrum's own width."""
    weight_YX = power_YX / power_YX.sum()
    axes = []
    for which, size in enumerate(power_YX.shape):
        frequency = np.fft.fftfreq(size).reshape((-1, 1) if which == 0 else (1, -1))
        middle = (weight_YX * frequency).sum()
        width = np.sqrt((weight_YX * (frequency - middle) ** 2).sum())
        axes.append((frequency - middle) / max(float(width), 1 / size))
    for degree in range(1, _HIGHEST_DEGREE + 1):
        for down in range(degree, -1, -1):
            yield axes[0] ** down * axes[1] ** (degree - down)
