"""Compares the tensors of two checkpoints, bit for bit and by name, without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

from trainkit.checkpoint.file import StoredTensor, read_verified_header, stored_tensors
from trainkit.words import some_of

_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_ORDER = ("/model/", "/average/", "/optimizers/", "/optimizer/")  # in which differences are named


@attrs.frozen
class TensorDifferences:
    """In which tensors two checkpoints differ.

    Attributes:
        names: The tensors with other bits, in which the model's come first.
        num_common: Number of tensors that both have, in the same shape and type.
        others: Tensors that one of the two lacks, or that have another shape or type.
        largest: The largest difference between numbers of the first of ``names``; None: it is unknown.
    """

    names: Sequence[str]
    num_common: int
    others: Sequence[str]
    largest: float | None = None

    def __bool__(self) -> bool:
        """Return whether there is any difference."""
        return bool(self.names or self.others)

    def __str__(self) -> str:
        """Return it as a sentence."""
        parts = []
        if self.names:
            by = "" if self.largest is None else f" by up to {self.largest:.3g}"
            more = f", {some_of([each.strip('/') for each in self.names[1:]], most=3)}" if len(self.names) > 1 else ""
            first = self.names[0].strip("/")
            parts.append(f"{len(self.names)} of {self.num_common} tensors differ: {first}{by}{more}")
        if self.others:
            names = some_of([each.strip("/") for each in self.others], most=3)
            parts.append(f"only one has, or in another shape or type: {names}")
        return "; ".join(parts) or "all tensors are equal"


def tensor_differences(one: Path, other: Path) -> TensorDifferences:
    """Compare the tensors of two checkpoints, whose digests are verified.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    for path in (one, other):
        read_verified_header(path)
    first, second = stored_tensors(one), stored_tensors(other)
    common = [name for name in first if name in second and first[name].form == second[name].form]
    others = sorted((first.keys() | second.keys()) - set(common))
    files = [np.memmap(path, mode="r", dtype=np.uint8) for path in (one, other)]
    names = [
        name for name in common if not np.array_equal(_bytes(files[0], first[name]), _bytes(files[1], second[name]))
    ]
    names.sort(key=lambda name: next((i for i, each in enumerate(_ORDER) if name.startswith(each)), len(_ORDER)))
    largest = None
    if names and (dtype := _NUMPY.get(first[names[0]].dtype)):
        values = [
            _bytes(file, tensors[names[0]]).view(dtype).astype(np.float64)
            for file, tensors in zip(files, (first, second), strict=True)
        ]
        with np.errstate(invalid="ignore"):
            largest = float(np.max(np.abs(values[0] - values[1]), initial=0.0))
        largest = largest if math.isfinite(largest) else None
    return TensorDifferences(names, len(common), others, largest)


def _bytes(file: np.ndarray, tensor: StoredTensor) -> np.ndarray:
    found: np.ndarray = np.asarray(file[tensor.begin : tensor.begin + tensor.num_bytes])
    return found
