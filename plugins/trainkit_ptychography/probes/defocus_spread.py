"""Partial temporal coherence: a beam of some spread of energies has a spread of defoci, whose intensities add up.

Shapes: M = modes, Q = nodes of the quadrature, B = patterns of a batch, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from math import pi

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit_ptychography.physics.propagation import fresnel_kernel
from trainkit_ptychography.probes.wave_sampling import WaveSampling

_MOST_NODES = 64
_STEPS = 200  # of the phase, at which a quadrature is compared with the integral
_WELL = 0.02  # error of a coherence, at most


class DefocusSpread(nn.Module):
    """Replaces each mode by several of other defoci, the nodes of a Gaussian quadrature, each with its weight.

    Attributes:
        spread: Standard deviation of the defocus in Å.

    Raises:
        DataError: The wavelength or the pixel size is not known.

    Source:
        Frank, Optik 38 (1973) 519 (envelope of a spread of defoci); Golub, Welsch, Math. Comp. 23 (1969) 221.
    """

    nodes_Q: Tensor
    weights_Q: Tensor

    def __init__(
        self,
        spread_angstrom: float,
        num_nodes: int,
        shape: tuple[int, int],
        sampling: WaveSampling,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        self._shape = shape
        self._size, self._wavelength = sampling.known("a spread of the defocus", "model.probe.defocus_spread_angstrom")
        self.spread = nn.Parameter(torch.tensor(spread_angstrom, dtype=dtype, device=device))
        nodes_Q, weights_Q = quadrature(num_nodes)
        for name, values_Q in (("nodes_Q", nodes_Q), ("weights_Q", weights_Q)):
            self.register_buffer(name, torch.from_numpy(values_Q).to(device, dtype), persistent=False)

    def forward(self, modes_MYX: Tensor) -> Tensor:
        """Return all modes (M·Q, Y, X), those of one mode in sequence; or (M·Q, B, Y, X) of (M, B, Y, X)."""
        kernel_QYX = fresnel_kernel(self._shape, self._size, self._wavelength, self.spread * self.nodes_Q)
        kernel_QYX = kernel_QYX * self.weights_Q.sqrt()[:, None, None]
        if modes_MYX.ndim == 4:
            kernel_QYX = kernel_QYX[:, None]
        spread_MQYX: Tensor = torch.fft.ifft2(torch.fft.fft2(modes_MYX)[:, None] * kernel_QYX)
        return spread_MQYX.flatten(0, 1)


def quadrature(num_nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return nodes and weights for the mean of a function over a normal distribution (Gauss-Hermite)."""
    nodes_Q, weights_Q = np.polynomial.hermite_e.hermegauss(num_nodes)
    return nodes_Q, weights_Q / weights_Q.sum()


def largest_phase(probe_MYX: NDArray[np.complexfloating], sampling: WaveSampling, spread_angstrom: float) -> float:
    """Return the phase in rad at the aperture's edge of a defocus of one standard deviation: π Δ α² / λ.

    The aperture's angle α is √2 times the root mean square angle of the light, as of a filled disc.
    """
    size, wavelength = sampling
    assert size is not None
    assert wavelength is not None
    light_YX = (np.abs(np.fft.fft2(probe_MYX)) ** 2).sum(axis=0)
    along_Y, along_X = (np.fft.fftfreq(num, size) for num in light_YX.shape)
    squared_YX = along_Y[:, None] ** 2 + along_X**2
    return pi * wavelength * spread_angstrom * 2 * float((light_YX * squared_YX).sum() / light_YX.sum())


def error_of_quadrature(num_nodes: int, largest: float) -> float:
    """Return by how much the coherence of two parts of the aperture is wrong at most, where 1 is full coherence.

    Args:
        num_nodes: Number of nodes.
        largest: Largest phase between the parts for a defocus of one standard deviation.
    """
    nodes_Q, weights_Q = quadrature(num_nodes)
    phases = np.linspace(0, largest, _STEPS)
    return float(np.abs(np.cos(np.outer(phases, nodes_Q)) @ weights_Q - np.exp(-0.5 * phases**2)).max())


def doubt_of_nodes(
    num_nodes: int, probe_MYX: NDArray[np.complexfloating], sampling: WaveSampling, spread_angstrom: float
) -> str | None:
    """Return it if there are too few nodes for a spread; None: there are enough, or what is needed is not known."""
    if None in sampling:
        return None
    largest = largest_phase(probe_MYX, sampling, spread_angstrom)
    error = error_of_quadrature(num_nodes, largest)
    if error <= _WELL:
        return None
    enough = next((num for num in range(num_nodes, _MOST_NODES) if error_of_quadrature(num, largest) <= _WELL), None)
    advice = "is the spread in Å?" if enough is None else f"say {enough}"
    return (
        f"{num_nodes} nodes are too few for a spread of {spread_angstrom:g} Å, by which the phase at the aperture's "
        f"edge spreads by {largest:.2g} rad (standard deviation; coherence is wrong by up to {error:.2g}): {advice}"
    )
