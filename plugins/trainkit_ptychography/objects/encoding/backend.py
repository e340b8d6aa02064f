"""What evaluates the encoding at an object's pixels: torch or tinycudann, and which of them a run gets.

Shapes: P = pixels of all slices, D = 2 dimensions, or 3 of several slices, L = levels, E = entries of a level, F =
features of an entry, C = L·F.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from trainkit import RecipeError
from trainkit_ptychography.objects.encoding.hash_grid import Interpolation, encode, encode_grid, plan_grid
from trainkit_ptychography.objects.encoding.levels import Level
from trainkit_ptychography.objects.encoding.tinycudann import TinyCudaEncoding, try_out, why_not
from trainkit_ptychography.objects.encoding.tinycudann_installed import version
from trainkit_ptychography.objects.kind import ObjectGeometry

if TYPE_CHECKING:
    from trainkit_ptychography.objects.hash_encoding import HashEncoding

_LOGGER = logging.getLogger("trainkit")

# Measured on one thread of a CPU: all pixels at once cost about a sixth of what they cost one by one.
_DIRECT_BELOW = 1 / 6


class Encoder(Protocol):
    """Evaluates an encoding whose tables are given to it.

    Attributes:
        name: Backend name, plus its version if the run does not record it elsewhere.
    """

    name: str

    def __call__(self, tables: Sequence[Tensor], pixels_P: Tensor | None) -> Tensor:
        """Return the features (C, P), all of the coarsest level first; differentiable in the tables.

        Args:
            tables: One table (E, F) for each level that takes part, from the coarsest.
            pixels_P: Which pixels, counted slice by slice and row by row; None: all.
        """
        ...


class TorchEncoder:
    """Evaluates with torch: all pixels at once as a grid, or a few of them one by one.

    Args:
        levels: All levels.
        how: Interpolation from vertices to pixels.
        geometry: The object whose pixels are encoded.
    """

    name = "torch"

    def __init__(self, levels: Sequence[Level], how: Interpolation, geometry: ObjectGeometry) -> None:
        self._levels, self._how = levels, how
        axes = _axes(geometry)
        self._positions_PD = _positions(axes)
        self._plans = [plan_grid(axes, level, how, geometry.dtype, geometry.device) for level in levels]

    def __call__(self, tables: Sequence[Tensor], pixels_P: Tensor | None) -> Tensor:
        """Return the features (C, P)."""
        num = len(tables)
        if pixels_P is not None and len(pixels_P) < _DIRECT_BELOW * len(self._positions_PD):
            return encode(self._positions_PD[pixels_P], tables, self._levels[:num], self._how).T
        features_CP = encode_grid(tables, self._plans[:num]).flatten(1)
        return features_CP if pixels_P is None else features_CP.index_select(1, pixels_P)


class TinyCudaEncoder:
    """Evaluates with tinycudann.

    Args:
        encoding: The encoding.
        geometry: The object whose pixels are encoded.
    """

    def __init__(self, encoding: TinyCudaEncoding, geometry: ObjectGeometry) -> None:
        self.name = f"tinycudann {version()}"
        self._encoding = encoding
        self._positions_PD = _positions(_axes(geometry)).to(geometry.device)

    def __call__(self, tables: Sequence[Tensor], pixels_P: Tensor | None) -> Tensor:
        """Return the features (C, P)."""
        return self._encoding(self._positions_PD if pixels_P is None else self._positions_PD[pixels_P], tables).T


def choose_encoder(
    settings: HashEncoding, per_level_scale: float, levels: Sequence[Level], geometry: ObjectGeometry
) -> Encoder:
    """Return the encoder that the settings' ``backend`` asks for, and log which one it is, and why.

    Args:
        settings: The settings.
        per_level_scale: How much finer each level is than the one before.
        levels: All levels, which follow from both.
        geometry: The object that is to be encoded.

    Raises:
        RecipeError: The settings ask for tinycudann, and it cannot be used.
    """
    encoder: Encoder
    found = None if settings.backend == "torch" else _tried(settings, per_level_scale, levels, geometry)
    if isinstance(found, TinyCudaEncoding):
        encoder = TinyCudaEncoder(found, geometry)
        shown = encoder.name
    elif settings.backend == "tinycudann":
        raise RecipeError(f'model.object.backend = "tinycudann" cannot be used ("auto" takes torch instead): {found}')
    else:
        encoder = TorchEncoder(levels, settings.interpolation, geometry)
        shown = f"torch {torch.__version__}" + (f" (not tinycudann: {found})" if found else "")
    _LOGGER.info(
        "hash encoding: backend %s, %s, %d levels of %d to %d vertices for %d pixels",
        shown,
        str(geometry.dtype).removeprefix("torch."),
        len(levels),
        levels[0].resolution,
        levels[-1].resolution,
        max(grid_shape(geometry)),
    )
    if isinstance(found, TinyCudaEncoding):
        _LOGGER.warning(
            "hash encoding: tinycudann adds up gradients in no fixed order: a run that is repeated or resumed will not "
            'be the same bit for bit; model.object.backend = "torch" keeps an order'
        )
    return encoder


def _tried(
    settings: HashEncoding, per_level_scale: float, levels: Sequence[Level], geometry: ObjectGeometry
) -> TinyCudaEncoding | str:
    """Return an encoding by tinycudann that was tried out, or why there is none."""
    if reason := why_not(geometry.device, geometry.dtype):
        return reason
    encoding = TinyCudaEncoding(settings, per_level_scale, len(grid_shape(geometry)))
    return try_out(encoding, levels, settings.features, settings.interpolation, geometry.device) or encoding


def grid_shape(geometry: ObjectGeometry) -> tuple[int, ...]:
    """Return the object's slices, if there are several, rows and columns: the axes of its encoding."""
    return geometry.shape if geometry.slices == 1 else (geometry.slices, *geometry.shape)


def _axes(geometry: ObjectGeometry) -> list[Tensor]:
    """Return where the centres of slices, rows and columns are in the unit square or cube that covers the longest side.

    A slice is as far from the next one as a pixel is. So a vertex of a coarse grid stands for many pixels across and as
    many slices along the beam, which is the long and thin shape of what patterns resolve.

    They are rounded to the run's dtype, which tinycudann takes, so that both backends interpolate at the same points.
    """
    shape = grid_shape(geometry)
    return [((torch.arange(n) + 0.5).double() / max(shape)).to(geometry.dtype) for n in shape]


def _positions(axes: Sequence[Tensor]) -> Tensor:
    """Return the positions (P, D) of all pixels, slice by slice and row by row; columns are the first coordinate."""
    spread = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([along.flatten() for along in reversed(spread)], dim=1)
