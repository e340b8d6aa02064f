"""Reads the modulation transfer function (MTF) of a detector from a file.

Shapes: F = frequencies of a table, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError
from trainkit_ptychography.scans.files.single_array import read_array
from trainkit_ptychography.scans.files.suffixes import ARRAY_SUFFIXES

if TYPE_CHECKING:
    from torch import Tensor, device, dtype

MTFUnit = Literal["cycles_per_pixel", "nyquist"]

_SETTING = "model.detector_mtf"
_NAME = "mtf"
_MOST_BYTES = 10 * 2**20
_FARTHEST = 2.0  # cycles per pixel
_CORNER = 0.75  # cycles per pixel, a little beyond the highest frequency of a detector (in its corner, √½)
_ABOVE_ONE = 1.05
_LOW = 0.1  # an MTF from here on can be continued to 0


class MeasuredMTF(NamedTuple):
    """A measured MTF: a table by the distance from frequency 0, or an array of all frequencies.

    Attributes:
        frequency_F: Cycles per pixel, rising.
        value_F: The MTF at each, 1 at frequency 0.
        whole_YX: The array instead, zero frequency at [0, 0]; None: it is a table.
        where: Where it was found.
    """

    frequency_F: NDArray[np.float64]
    value_F: NDArray[np.float64]
    whole_YX: NDArray[np.float64] | None
    where: str

    def transfer(self, shape: tuple[int, int], dtype: dtype, device: device) -> Tensor:
        """Return it for patterns of a shape (Y, X//2 + 1), real.

        Raises:
            DataError: An array has another shape.
        """
        import torch

        from trainkit_ptychography.physics.detector import radial_transfer

        if self.whole_YX is None:
            return radial_transfer(shape, self.frequency_F, self.value_F, dtype, device)
        if self.whole_YX.shape != shape:
            rows, columns = self.whole_YX.shape
            raise DataError(
                f"{self.where} has {rows} × {columns} values, but the patterns have {shape[0]} × {shape[1]} pixels: "
                "give the MTF of the patterns as they are used (cropped, binned), or a table of two columns"
            )
        return torch.from_numpy(self.whole_YX[:, : shape[1] // 2 + 1].copy()).to(device, dtype)

    def at_nyquist(self) -> float:
        """Return the MTF at half a cycle per pixel along an axis."""
        if self.whole_YX is None:
            return float(np.interp(0.5, self.frequency_F, self.value_F))
        return float(self.whole_YX[0, self.whole_YX.shape[1] // 2])

    def doubts(self, unit: MTFUnit) -> Iterator[str]:
        """Yield what looks wrong."""
        values = self.value_F if self.whole_YX is None else self.whole_YX
        if float(values.max()) > _ABOVE_ONE:
            times = f"{float(values.max()):.3g} times"
            yield f"{self.where} rises to {times} its value at frequency 0, which no detector does"
        if self.whole_YX is not None:
            return
        last = float(self.frequency_F[-1])
        if unit == "cycles_per_pixel" and last > _CORNER:
            yield (
                f"{self.where} has frequencies up to {last:.3g}, and a detector none above {_CORNER:g} cycles per "
                'pixel: if 1 is the Nyquist frequency, say detector_mtf_unit = "nyquist"'
            )
        elif last < 0.5 and self.value_F[-1] > _LOW:
            yield (
                f"{self.where} ends at {last:.3g} cycles per pixel, with {self.value_F[-1]:.2g}, which is taken for "
                "all higher frequencies; measure it to 0.5, the Nyquist frequency"
            )


def read_mtf(path: Path, unit: MTFUnit) -> MeasuredMTF:
    """Read an MTF, and divide it by its value at frequency 0.

    Args:
        path: A text file of two columns, frequency and value; or an array, (F, 2), or (Y, X) of all frequencies with
            frequency 0 at [0, 0] or in the middle (``.npy``, or called "mtf" in ``.npz`` and HDF5).
        unit: Of the frequencies.

    Raises:
        DataError: The file cannot be read, or is no MTF.
    """
    if path.suffix in ARRAY_SUFFIXES:
        array, where = read_array(path, _NAME, _SETTING)
    else:
        array, where = _table(path), str(path)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or min(array.shape) < 2:
        raise DataError(
            f"{where} ({_SETTING}) is {' × '.join(map(str, array.shape))} of {array.dtype}: an MTF is a table of two "
            "columns, frequency and value, or an array of all frequencies"
        )
    values = np.asarray(array, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{where} ({_SETTING}) holds values that are not finite")
    if values.shape[1] != 2:
        return _whole(values, where)
    frequency_F, value_F = values.T * np.array([[1.0 if unit == "cycles_per_pixel" else 0.5], [1.0]])
    order = np.argsort(frequency_F, kind="stable")
    frequency_F, value_F = frequency_F[order], value_F[order]
    if frequency_F[0] < 0 or not (np.diff(frequency_F) > 0).all():
        raise DataError(f"{where} ({_SETTING}): each frequency must be there once, and none below 0")
    if frequency_F[-1] > _FARTHEST:
        raise DataError(
            f"{where} ({_SETTING}) has frequencies up to {frequency_F[-1]:.4g} cycles per pixel, and a detector none "
            "above 0.71: give them in cycles per pixel (the first column)"
        )
    if frequency_F[0] > 0:  # what it is at frequency 0 is not measured, and is 1 by definition
        frequency_F, value_F = np.append(0.0, frequency_F), np.append(1.0, value_F)
    return MeasuredMTF(frequency_F, _normal(value_F, float(value_F[0]), where), None, where)


def _whole(values_YX: NDArray[np.float64], where: str) -> MeasuredMTF:
    height, width = values_YX.shape
    top = divmod(int(values_YX.argmax()), width)
    if top == (height // 2, width // 2):
        values_YX = np.fft.ifftshift(values_YX)
    elif top != (0, 0):
        raise DataError(
            f"{where} ({_SETTING}) is largest at [{top[0]}, {top[1]}]; an MTF is largest at frequency 0, which must be "
            f"at [0, 0] or in the middle, [{height // 2}, {width // 2}]"
        )
    whole_YX = _normal(values_YX, float(values_YX[0, 0]), where)
    return MeasuredMTF(np.empty(0), np.empty(0), whole_YX, where)


def _normal(values: NDArray[np.float64], at_0: float, where: str) -> NDArray[np.float64]:
    if not at_0 > 0 or float(values.min()) < 0:
        raise DataError(f"{where} ({_SETTING}): an MTF is above 0 at frequency 0, and nowhere below 0")
    normal: NDArray[np.float64] = values / at_0
    return normal


def _table(path: Path) -> NDArray[np.float64]:
    """Return the numbers of a text file of two columns, which a comma, a semicolon or blanks part."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(
                f"{path} ({_SETTING}) has more than {_MOST_BYTES >> 20} MiB, and a table of an MTF is small"
            )
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} ({_SETTING}) cannot be read as text: {error}") from None
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(lines, 1):
        words = re.split(r"[,;\s]+", line.split("#")[0].strip(" \t,;"))
        if words == [""]:
            continue
        try:
            first, second = (float(word) for word in words)
        except ValueError:
            if not rows:
                continue  # headings
            raise DataError(f"{path}:{number} ({_SETTING}) does not hold two numbers, frequency and value") from None
        rows.append((first, second))
    if len(rows) < 2:
        raise DataError(f"{path} ({_SETTING}) holds no table of two columns, frequency and value")
    return np.array(rows)
