"""The object as a multiresolution hash encoding: features of each pixel -> small network -> phase and absorption.

Shapes: S = slices, B = patterns of a batch, H, W = rows and columns of the object, Y, X = those of a patch, L = levels,
F = features of a level, P = pixels that are evaluated, of all slices, K = 2 (phase, absorption) or 1 (phase).
"""

from __future__ import annotations

import logging
import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainkit import RecipeError, State
from trainkit_ptychography.objects.encoding.backend import choose_encoder, grid_shape
from trainkit_ptychography.objects.encoding.levels import Level, memory_needed, scale_that_ends_at, too_large
from trainkit_ptychography.objects.encoding.pointwise_network import pointwise_network
from trainkit_ptychography.objects.kind import ObjectGeometry
from trainkit_ptychography.objects.transmission import amplitude, transmission_of_patches

if TYPE_CHECKING:
    from trainkit_ptychography.objects.hash_encoding import HashEncoding

_LOGGER = logging.getLogger("trainkit")

_INITIAL = 1e-4
_WHOLE_ABOVE = 0.8  # picking out pixels for the network pays if it leaves out a fifth of them (measured on a CPU)


class HashObject(nn.Module):
    """A `LiveObject`: transmission = exp(i·phase − absorption), both computed by a network from encoded pixels.

    Attributes:
        geometry: What the object was made for.
        tables: For each level (entries, F).
        weights: Of each layer of the network (out, in).
        biases: Of each layer (out, 1).
        num_levels: How many levels take part now.
    """

    num_levels: Tensor

    def __init__(self, settings: HashEncoding, geometry: ObjectGeometry) -> None:
        super().__init__()
        self.geometry, self._settings = geometry, settings
        shape = grid_shape(geometry)
        per_level_scale = _scale(settings, max(shape))
        grids = settings.grids(per_level_scale, len(shape))
        _check_memory(settings, grids, geometry.device)
        self._encode = choose_encoder(settings, per_level_scale, grids, geometry)
        self._dtype = str(geometry.dtype).removeprefix("torch.")

        generator = torch.Generator().manual_seed(geometry.seed)

        def uniform(*shape: int, within: float) -> nn.Parameter:
            drawn = (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1) * within
            return nn.Parameter(drawn.to(geometry.device, geometry.dtype))

        self.tables = nn.ParameterList(uniform(g.entries, settings.features, within=_INITIAL) for g in grids)
        num_maps = 2 if settings.kind == "phase_and_amplitude" else 1
        widths = [settings.levels * settings.features, *[settings.neurons] * settings.hidden_layers, num_maps]
        pairs = list(zip(widths[1:], widths[:-1], strict=True))
        self.weights = nn.ParameterList(uniform(out, into, within=math.sqrt(6 / (into + out))) for out, into in pairs)
        self.biases = nn.ParameterList(uniform(out, 1, within=0.0) for out, _ in pairs)

        self._enabled = settings.fine_from.levels(0, settings.levels) if settings.fine_from else settings.levels
        # Saved with the model, so that a run that resumes in the middle of an epoch knows it.
        self.register_buffer("num_levels", torch.tensor(self._enabled))
        self.register_load_state_dict_post_hook(_restored)  # type: ignore[no-untyped-call]
        self._known: tuple[tuple[object, ...], Tensor] | None = None

    def forward(self, corner_B2: Tensor) -> Tensor:
        """Return the transmission of patches, complex (S, B, Y, X)."""
        return transmission_of_patches(self.slices(corner_B2), corner_B2, self.geometry.patch_shape)

    def slices(self, corner_B2: Tensor | None = None) -> Tensor:
        """Return phase in rad and absorption of all slices (K, S, H, W); of pixels in no patch they may be 0."""
        if corner_B2 is None:
            return self.maps()
        pixels_P = None
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters()):
            self._known = None  # maps that were kept before belong to another graph
            pixels_P = self._touched(corner_B2)
        return self.maps() if pixels_P is None else self._evaluate(pixels_P)

    def maps(self) -> Tensor:
        """Return phase in rad and absorption (minus the logarithm of the amplitude) of all pixels, (K, S, H, W)."""
        # Validation asks for them batch by batch, and a regulariser after the patches; nothing changes in between.
        parameters = [(parameter._version, parameter.requires_grad) for parameter in self.parameters()]
        known_by = (torch.is_grad_enabled(), self._enabled, *parameters)
        if self._known is None or self._known[0] != known_by:
            maps_KSHW = self._evaluate(None)
            if maps_KSHW.requires_grad:
                maps_KSHW.register_hook(self._forget)  # type: ignore[no-untyped-call]
            self._known = (known_by, maps_KSHW)
        return self._known[1]

    def phase(self) -> Tensor:
        """Return the phase (S, H, W) in rad, not wrapped."""
        return self.maps()[0]

    def amplitude(self) -> Tensor:
        """Return the amplitude (S, H, W), 1 for vacuum."""
        return amplitude(self.maps())

    def enable(self, num_levels: int) -> None:
        """Let the coarsest ``num_levels`` levels take part; the others give zeros."""
        self._enabled = num_levels
        self.num_levels.fill_(num_levels)

    def step_variant(self, state: State) -> int | None:
        """Return how many levels take part: steps with the same number differ in tensors alone; None: they do not."""
        return None if self._looks_at_corners() else self._enabled

    def on_epoch_start(self, state: State) -> None:
        """Let finer levels join."""
        if self._settings.fine_from is not None:
            self.enable(self._settings.fine_from.levels(state.epoch, self._settings.levels))

    def on_epoch_end(self, state: State) -> None:
        """Record how many levels took part."""
        if self._settings.fine_from is not None:
            state.metrics["object/levels"] = float(self._enabled)

    def get_extra_state(self) -> dict[str, str]:
        """Return the backend and the dtype, which are saved with the model."""
        return {"backend": self._encode.name, "dtype": self._dtype}

    def set_extra_state(self, state: Any) -> None:
        """Warn if the backend or the dtype differs from the saved one; parameters are the same for all backends."""
        for name, here in self.get_extra_state().items():
            if state[name] != here:
                _LOGGER.warning(
                    "hash encoding: %s is %s, was %s: the run will not be the same bit for bit", name, here, state[name]
                )

    def _forget(self, _: Tensor) -> None:
        """Forget the kept maps: gradients can flow back through their graph only once."""
        self._known = None

    def _looks_at_corners(self) -> bool:
        return next(self.parameters()).device.type == "cpu"  # reading them would wait for another device

    def _touched(self, corner_B2: Tensor) -> Tensor | None:
        """Return the pixels that lie in a patch; None: all, or so many that leaving the others out would not pay."""
        if not self._looks_at_corners():
            return None
        height, width = self.geometry.patch_shape
        touched_HW = torch.zeros(self.geometry.shape, dtype=torch.bool)
        for row, column in corner_B2.tolist():
            touched_HW[row : row + height, column : column + width] = True
        pixels_P = touched_HW.flatten().nonzero()[:, 0]
        if len(pixels_P) >= _WHOLE_ABOVE * touched_HW.numel():
            return None
        first_S = touched_HW.numel() * torch.arange(self.geometry.slices)
        return (first_S[:, None] + pixels_P).flatten()

    def _evaluate(self, pixels_P: Tensor | None) -> Tensor:
        """Return the maps (K, S, H, W); with pixels given, zero elsewhere."""
        with _full_precision(self.tables[0].device):
            maps_KP = self._network(self._encode(list(self.tables)[: self._enabled], pixels_P))
        if pixels_P is not None:
            num_pixels = math.prod(grid_shape(self.geometry))
            maps_KP = maps_KP.new_zeros(len(maps_KP), num_pixels).index_copy(1, pixels_P, maps_KP)
        return maps_KP.reshape(-1, self.geometry.slices, *self.geometry.shape)

    def _network(self, values_CP: Tensor) -> Tensor:
        # Levels that do not take part are zero: their columns of the first layer need not be multiplied.
        first = self.weights[0][:, : len(values_CP)]
        return pointwise_network(values_CP, [first, *list(self.weights)[1:]], list(self.biases))


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def _restored(module: HashObject, _: object) -> None:
    module.enable(int(module.num_levels))


def _check_memory(settings: HashEncoding, grids: tuple[Level, ...], device: torch.device) -> None:
    if device.type == "cuda":
        needed, free = memory_needed(grids, settings.features), torch.cuda.mem_get_info(device)[0]
        if needed > free:
            raise RecipeError(too_large(needed, free, f"on {device}"))


def _scale(settings: HashEncoding, side: int) -> float:
    """Return how much finer each level is than the one before, for an object with this many pixels along its side."""
    if settings.per_level_scale is None:
        finest = round(settings.vertices_per_pixel * side)
        if finest <= settings.base_resolution:
            raise RecipeError(
                f"the finest level of the hash encoding would have {finest} vertices for the {side} pixels along the "
                f"object's longer side, and the coarsest is to have {settings.base_resolution} already; "
                "lower model.object.base_resolution"
            )
        return scale_that_ends_at(finest, settings.levels, settings.base_resolution)
    finest = settings.grids(settings.per_level_scale)[-1].resolution
    if finest > side + 2:
        _LOGGER.warning(
            "hash encoding: the finest of %d levels has %d vertices for %d pixels, more than can be told apart; "
            "per_level_scale = %.3f ends at the pixels, or lower levels",
            settings.levels,
            finest,
            side,
            scale_that_ends_at(side, settings.levels, settings.base_resolution),
        )
    return settings.per_level_scale
