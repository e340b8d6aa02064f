"""Patches of an array, one for each pattern that shows it: cut out, or added to.

On a CPU, the array is seen as all windows of a patch's shape that it has, one behind the other, of which some are
selected; their rows are copied. That takes a tenth of the time of finding each pixel by its place in the flattened
array, as is done elsewhere: there, whether a patch leaves the array is not known without waiting for the device.

Shapes: B = patches, Y, X = their rows and columns, H, W = those of the array; further axes may stand before B, or H.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainkit_ptychography.physics.grids import places_in_patch

_OF_ONE_THREAD = 32768  # elements up to which torch adds two arrays in one thread


class Patches(Protocol):
    """Patches of an array, which may change meanwhile.

    Attributes:
        array_HW: The array.
    """

    array_HW: Tensor

    def cut(self) -> Tensor:
        """Return copies of the patches (…, B, Y, X)."""
        ...

    def add(self, values_BYX: Tensor) -> None:
        """Add values (…, B, Y, X) to the array, in place; where patches overlap, they add up."""
        ...

    def put(self, values_BYX: Tensor) -> None:
        """Write values (…, B, Y, X) into the array; where patches overlap, they are the same."""
        ...


class PatchesOf(ABC):
    """Finds the patches of arrays of some number of columns, and knows which arrays have nothing else in them."""

    def __init__(self) -> None:
        self._filled: list[tuple[Tensor, int]] = []  # with the number of times that they had been written to

    @abstractmethod
    def __call__(self, array_HW: Tensor) -> Patches:
        """Return the patches of an array (…, H, W)."""

    def note_filled(self, array_HW: Tensor) -> None:
        """Take note that an array (…, H, W) is 0 outside of the patches."""
        self._filled.append((array_HW.detach(), array_HW._version))

    def is_filled(self, array_HW: Tensor) -> bool:
        """Return whether an array, or another view of it, was noted and nothing was written to it since."""
        return any(
            array_HW.data_ptr() == noted_HW.data_ptr()
            and array_HW.numel() == noted_HW.numel()
            and array_HW.shape[-2:] == noted_HW.shape[-2:]
            and array_HW.stride()[-2:] == noted_HW.stride()[-2:]
            and array_HW._version == version
            for noted_HW, version in self._filled
        )


def patches_at(corner_B2: Tensor, shape: tuple[int, int], width: int, are_inside: bool = False) -> PatchesOf:
    """Return what finds the patches of arrays, outside of autograd.

    Args:
        corner_B2: First row and column of each patch, integers; each patch lies within the arrays.
        shape: Rows and columns of a patch.
        width: Columns of the arrays.
        are_inside: Whether it is known that they do. Else a CPU looks, and raises IndexError.
    """
    if corner_B2.device.type != "cpu":
        return patches_by_place(corner_B2, shape, width)
    return _Windows(corner_B2, shape, are_inside)


def patches_by_place(corner_B2: Tensor, shape: tuple[int, int], width: int) -> PatchesOf:
    """Return what `patches_at` does for devices other than a CPU; it works on any."""
    return _Places(places(corner_B2, shape, width))


class _Places(PatchesOf):
    """Finds the patches of arrays on any device; see `patches_at`."""

    def __init__(self, places_BYX: Tensor) -> None:
        super().__init__()
        self._places_BYX = places_BYX

    def __call__(self, array_HW: Tensor) -> Patches:
        return PatchesByPlace(array_HW, self._places_BYX)


class _Windows(PatchesOf):
    """Finds the patches of arrays on a CPU; see `patches_at`."""

    def __init__(self, corner_B2: Tensor, shape: tuple[int, int], are_inside: bool) -> None:
        super().__init__()
        self._corner_B2, self._shape = corner_B2, shape
        self._starts: dict[tuple[int, int], Tensor] = {}  # by the strides of an array
        self._first = self._last = [0, 0]
        if not are_inside and len(corner_B2):
            corners = corner_B2.numpy()  # torch takes thrice as long
            self._first, self._last = corners.min(0).tolist(), corners.max(0).tolist()

    def __call__(self, array_HW: Tensor) -> Patches:
        first, last, shape = self._first, self._last, self._shape
        height, width = array_HW.shape[-2:]
        if min(first) < 0 or last[0] + shape[0] > height or last[1] + shape[1] > width:
            raise IndexError(f"patches of {shape} at {first} to {last} leave an array of {(height, width)}")
        *_, along_H, along_W = array_HW.stride()
        start_B = self._starts.get((along_H, along_W))
        if start_B is None:
            row_B, column_B = self._corner_B2.unbind(1)
            start_B = torch.add(column_B if along_W == 1 else column_B * along_W, row_B, alpha=along_H)
            self._starts[along_H, along_W] = start_B
        return PatchesByWindow(array_HW, start_B, shape)


def are_added_singly(shape: Sequence[int]) -> bool:
    """Return whether patches of a shape are added one by one on a CPU, each in all threads: their places are read."""
    return shape[0] * shape[1] >= _OF_ONE_THREAD and torch.get_num_threads() > 1


class PatchesByWindow:
    """`Patches` as some of an array's windows.

    Args:
        array_HW: The array.
        start_B: How far from its first pixel each patch starts, in elements of its memory.
        shape: Rows and columns of a patch.
    """

    def __init__(self, array_HW: Tensor, start_B: Tensor, shape: tuple[int, int]) -> None:
        self.array_HW, self._start_B, self._shape = array_HW, start_B, shape
        *others, along_H, along_W = array_HW.stride()
        free = [whole - patch for whole, patch in zip(array_HW.shape[-2:], shape, strict=True)]
        num = free[0] * along_H + free[1] * along_W + 1
        # Windows first: along another axis, torch copies all of them before it selects.
        self._windows_TYX = array_HW.as_strided((num, *array_HW.shape[:-2], *shape), (1, *others, along_H, along_W))

    def cut(self) -> Tensor:
        """Return copies of the patches."""
        cut = self._windows_TYX.index_select(0, self._start_B)
        return cut if cut.ndim == 3 else cut.movedim(0, -3).contiguous()

    def add(self, values_BYX: Tensor) -> None:
        """Add values to the array, one patch after the other."""
        # In several threads, torch adds float32 in no fixed order, and other dtypes in one thread; a large patch by
        # itself is added in all of them.
        is_unordered = values_BYX.dtype == torch.float32 and torch.get_num_threads() > 1
        is_plain = self.array_HW.stride()[-2:] == (self.array_HW.shape[-1], 1)
        if are_added_singly(values_BYX.shape[-2:]) or (is_unordered and not is_plain):
            for start, values_YX in zip(self._start_B.tolist(), values_BYX.unbind(-3), strict=True):
                self._windows_TYX[start].add_(values_YX)
        elif is_unordered:
            whole_HW = self.array_HW.to(torch.complex64, memory_format=torch.contiguous_format)
            PatchesByWindow(whole_HW, self._start_B, self._shape).add(values_BYX.to(torch.complex64))
            self.array_HW.copy_(whole_HW.real)
        else:
            self._windows_TYX.index_put_((self._start_B,), values_BYX.movedim(-3, 0), accumulate=True)

    def put(self, values_BYX: Tensor) -> None:
        """Write values into the array."""
        self._windows_TYX.index_put_((self._start_B,), values_BYX.movedim(-3, 0))


class PatchesByPlace:
    """`Patches` by the places of their pixels in the flattened array."""

    def __init__(self, array_HW: Tensor, places_BYX: Tensor) -> None:
        self.array_HW, self._places_BYX = array_HW, places_BYX

    def cut(self) -> Tensor:
        """Return copies of the patches."""
        cut: Tensor = self.array_HW.flatten(-2).index_select(-1, self._places_BYX.flatten())
        return cut.view(*cut.shape[:-1], *self._places_BYX.shape)

    def add(self, values_BYX: Tensor) -> None:
        """Add values to the array, which is contiguous."""
        self._flat().index_add_(-1, self._places_BYX.flatten(), values_BYX.flatten(-3))

    def put(self, values_BYX: Tensor) -> None:
        """Write values into the array, which is contiguous."""
        self._flat().index_copy_(-1, self._places_BYX.flatten(), values_BYX.flatten(-3))

    def _flat(self) -> Tensor:
        return self.array_HW.view(*self.array_HW.shape[:-2], -1)


def places(corner_B2: Tensor, shape: tuple[int, int], width: int) -> Tensor:
    """Return where the pixels of patches are in a flattened array.

    Args:
        corner_B2: First row and column of each patch, integers.
        shape: Rows and columns of a patch.
        width: Columns of the array.

    Returns:
        Integers (B, Y, X).
    """
    first_B: Tensor = corner_B2[:, 0] * width + corner_B2[:, 1]
    return first_B[:, None, None] + places_in_patch(shape, width, corner_B2.device)


def crop(array_HW: Tensor, corner_B2: Tensor, shape: tuple[int, int]) -> Tensor:
    """Cut patches out of an array, differentiable in it.

    Args:
        array_HW: Any dtype; further axes may stand before H.
        corner_B2: First row and column of each patch, integers; each patch lies within the array.
        shape: Rows and columns of a patch.

    Returns:
        (…, B, Y, X).
    """
    patches: Tensor = _Crop.apply(array_HW, corner_B2, shape)  # type: ignore[no-untyped-call]
    return patches


class _Crop(torch.autograd.Function):
    """`crop` with its adjoint: autograd would fill an array of zeros for each view."""

    @staticmethod
    def forward(ctx: Any, array_HW: Tensor, corner_B2: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.patches_of, ctx.shape = patches_at(corner_B2, shape, array_HW.shape[-1]), array_HW.shape
        cut: Tensor = ctx.patches_of(array_HW).cut()
        return cut

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BYX: Tensor) -> tuple[Tensor, None, None]:
        gradient_HW = gradient_BYX.new_zeros(ctx.shape)
        ctx.patches_of(gradient_HW).add(gradient_BYX)
        return gradient_HW, None, None
