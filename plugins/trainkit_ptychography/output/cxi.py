"""A reconstruction as a CXI file, for programs that read those.

Shapes: N = scan points, M = probe modes, H, W = rows and columns of the object, Y, X = those of the detector.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainkit import written_whole

if TYPE_CHECKING:
    from trainkit_ptychography.output.result import Result

_VERSION = 160


def write_cxi(path: Path, result: Result, origin: Mapping[str, str]) -> None:
    """Write object (``image_1``), probe (``image_2``) and scan points: whole, or not at all.

    Lengths are in m, as CXI has them; without a pixel size, those fields are left out. A translation moves the
    specimen and its x points left and y up, so both signs cancel: (x, y, 0) is the probe's (column, row) in the
    coordinates of the data.

    Args:
        path: The file.
        result: The reconstruction.
        origin: What `provenance` returned.

    Source:
        CXI file format 1.6 (Maia, Nature Methods 9 (2012) 854).
    """
    import h5py

    size = None if result.pixel_size_angstrom is None else result.pixel_size_angstrom * 1e-10
    with written_whole(path) as new, h5py.File(new, "w") as file:
        file["cxi_version"], file["number_of_entries"] = _VERSION, 1
        entry = file.create_group("entry_1")
        process = entry.create_group("process_1")
        process["program"], process["note"] = "trainkit", result.source
        for name, text in origin.items():
            process[name] = text
        for number, (name, array, corner_2) in enumerate(_images(result), 1):
            image = entry.create_group(f"image_{number}")
            image["title"], image["data"] = name, array
            image["data_space"], image["data_type"], image["is_fft_shifted"] = "real", "unitless", 0
            image["dimensionality"] = array.ndim
            image["process_1"] = h5py.SoftLink("/entry_1/process_1")
            if size is not None:
                shape_2 = np.array(array.shape[-2:])
                image["image_size"] = np.append(shape_2[::-1] * size, 0.0)  # x, y, z
                image["image_center"] = np.append((corner_2 + shape_2 / 2)[::-1] * size, 0.0)
        if size is not None:
            translation = entry.create_group("sample_1/geometry_1").create_dataset(
                "translation", data=_translation(result) * size
            )
            translation.attrs["units"] = "m"
        if result.wavelength_angstrom is not None:
            source = entry.create_group("instrument_1/source_1")
            source["wavelength"] = result.wavelength_angstrom * 1e-10
            source["wavelength"].attrs["units"] = "m"


def _images(result: Result) -> list[tuple[str, NDArray[Any], NDArray[np.float64]]]:
    """Return names, arrays, and where pixel [0, 0] is: of the object in the data, of the probe about its own middle."""
    middle_2 = -(np.array(result.probe_MYX.shape[-2:]) // 2).astype(np.float64)
    return [("object", result.object_HW, result.origin_2), ("probe", result.probe_MYX, middle_2)]


def _translation(result: Result) -> NDArray[np.float64]:
    """Return (x, y, z) of each scan point (N, 3), in pixels."""
    in_data_N2 = result.positions_N2 + result.origin_2
    return np.column_stack([in_data_N2[:, ::-1], np.zeros(len(in_data_N2))])
