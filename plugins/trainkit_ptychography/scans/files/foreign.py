"""Knows files of other programs by their first bytes or their ending, and says how to bring them in.

Sources of the signatures: the formats' own specifications; Gatan's DM3/DM4 as described by G. Jefferis; Quantum
Detectors' MIB; FEI's SER as described by P. Ercius; TIFF 6.0 and BigTIFF; Matlab's MAT-file format, level 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal, NamedTuple

from trainkit import DataError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ROSETTA = (
    'the package trainkit-rosettasciio reads it, use = "diffraction_file" and reader = { use = "rosettasciio" }; or '
    "open it with RosettaSciIO (rsciio) or HyperSpy"
)
_LIBERTEM = "LiberTEM reads it"
_SAVE = "save patterns (points, rows, columns) with h5py, or with numpy.save as .npy"


class _Kind(NamedTuple):
    """A format.

    Attributes:
        name: What it is called.
        starts: What its first bytes match; None: its ending alone tells.
        endings: Endings of its names; empty: its first bytes alone tell.
        advice: How to bring it in.
    """

    name: str
    starts: bytes | None
    endings: tuple[str, ...]
    advice: str


_KINDS = (
    _Kind("a pointer of Git LFS, not the file itself", rb"version https://git-lfs", (), "fetch the file: git lfs pull"),
    _Kind(
        "a web page", rb"\s*<(!doctype html|html|\?xml)", (), "it was saved in place of the file: download that again"
    ),
    _Kind(
        "a Matlab file of before version 7.3",
        rb"MATLAB 5\.0 MAT-file",
        (),
        'say use = "diffraction_file" and reader = { use = "matlab" }; or save it anew in Matlab with save(name, '
        "'-v7.3'), which is HDF5 (axes are reversed then: pattern_axes)",
    ),
    _Kind("a Gatan DigitalMicrograph file", rb"\x00\x00\x00[\x03\x04]", (".dm3", ".dm4"), f"{_ROSETTA}; {_SAVE}"),
    _Kind("a Merlin/Medipix file (.mib)", rb"(MQ1|HDR),", (".mib",), f"{_ROSETTA}; {_SAVE}"),
    _Kind("a file of TIA (.ser)", rb"II\x97\x01", (".ser", ".emi"), f"{_ROSETTA}; {_SAVE}"),
    _Kind("a TIFF image or stack", rb"II[\x2a\x2b]\x00|MM\x00[\x2a\x2b]", (), f"tifffile reads it; {_SAVE}"),
    _Kind("a NumPy file (.npy)", rb"\x93NUMPY", (), 'say use = "diffraction_numpy"'),
    _Kind("an HDF5 file", re.escape(_HDF5), (), 'say use = "diffraction_hdf5" (or "diffraction_cxi")'),
    _Kind("a StreamPix sequence (.seq)", rb"\xed\xfe\x00\x00", (".seq",), f"{_LIBERTEM}; {_SAVE}"),
    _Kind("a NanoMegas blockfile (.blo)", rb"IMGBLO", (".blo",), f"{_ROSETTA}; {_SAVE}"),
    _Kind(
        "a netCDF 3 file",
        rb"CDF[\x01\x02\x05]",
        (),
        f"convert it to netCDF 4, which is HDF5 (nccopy -k nc4); or {_SAVE}",
    ),
    _Kind("an HDF4 file, which is not HDF5", rb"\x0e\x03\x13\x01", (), "convert it with h4toh5"),
    _Kind("a CBF image", rb"###CBF", (".cbf",), f"fabio reads it; {_SAVE}"),
    _Kind("an EDF image", rb"\{\s*\n?\s*(HeaderID|EDF_)", (".edf",), f"fabio reads it; {_SAVE}"),
    _Kind("a pickle of Python, which is never read", rb"\x80[\x02-\x05]", (), _SAVE),
    _Kind("packed with gzip", rb"\x1f\x8b", (), "unpack it: gunzip"),
    _Kind("packed with bzip2", rb"BZh", (), "unpack it: bunzip2 (only .npz.bz2 is read as it is)"),
    _Kind("packed with xz", rb"\xfd7zXZ\x00", (), "unpack it: unxz"),
    _Kind("packed with Zstandard", rb"\x28\xb5\x2f\xfd", (), "unpack it: unzstd"),
    _Kind("packed with 7-Zip", rb"7z\xbc\xaf", (), "unpack it"),
    _Kind("a PNG image", rb"\x89PNG", (), _SAVE),
    _Kind(
        "a ZIP archive, as NumPy's .npz is",
        rb"PK\x03\x04",
        (),
        'if it is an .npz file, say use = "diffraction_numpy"; otherwise unpack it',
    ),
    _Kind(
        "raw numbers without a header",
        None,
        (".raw", ".bin", ".dat", ".gtg", ".vgd", ".tpx3"),
        'say use = "diffraction_file" and reader = { use = "empad" }, or for another detector reader = { use = "raw", '
        'frame_shape = [rows, columns], dtype = "uint16" }',
    ),
    _Kind("a file of a microscope", None, (".emi", ".dm3", ".dm4", ".mrc", ".tvips"), f"{_ROSETTA}; {_SAVE}"),
)

_OWN: dict[str, Callable[[bytes], bool]] = {
    "hdf5": lambda start: start.startswith(_HDF5),
    "numpy": lambda start: start.startswith((b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06", b"BZh")),
}
_USER_BLOCKS = tuple(512 * 2**power for power in range(12))  # where the signature of HDF5 may stand too


def refuse_foreign(path: Path, wanted: Literal["hdf5", "numpy"], setting: str) -> None:
    """Refuse a folder, an empty file, and files that are known to be of another kind.

    Args:
        path: The file; what is not there is left to whoever opens it.
        wanted: The kind of file that it should be.
        setting: The setting that names it.

    Raises:
        DataError: It is of another kind; says which, and how to bring it in.
    """
    if path.is_dir():
        raise DataError(_of_folder(path, setting))
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(512)
        if _OWN[wanted](start) or (wanted == "hdf5" and _has_user_block(file)):
            return
    name = {"hdf5": "an HDF5 file", "numpy": "a NumPy file"}[wanted]
    if not start:
        raise DataError(f"{path} ({setting}) is empty: it was never written, or not copied")
    for kind in _KINDS:
        fits = re.match(kind.starts, start, re.IGNORECASE) if kind.starts is not None else True
        if fits and (not kind.endings or path.suffix.lower() in kind.endings):
            raise DataError(f"{path} ({setting}) is no {name.split(maxsplit=1)[1]}; it is {kind.name}: {kind.advice}")
    by_ending = next((kind for kind in _KINDS if path.suffix.lower() in kind.endings), None)
    if by_ending is not None:
        raise DataError(
            f"{path} ({setting}) is no {name.split(maxsplit=1)[1]}; by its name it is {by_ending.name}: "
            f"{by_ending.advice}"
        )


def _has_user_block(file: IO[bytes]) -> bool:
    for place in _USER_BLOCKS:
        file.seek(place)
        if file.read(len(_HDF5)) == _HDF5:
            return True
    return False


def holds_hdf5(path: Path) -> bool:
    """Return whether a file is an HDF5 file, also one with another program's block before it, as MATLAB 7.3 writes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_HDF5)) == _HDF5 or _has_user_block(file)


def _of_folder(path: Path, setting: str) -> str:
    if any((path / name).exists() for name in (".zarray", ".zgroup", ".zattrs", "zarr.json")) or path.suffix == ".zarr":
        return f"{path} ({setting}) is a zarr store, a folder, and no file: read it with zarr.open(path), and {_SAVE}"
    return f"{path} ({setting}) is a folder, not a file: name the file in it"


def is_hdf5(path: Path) -> bool:
    """Return whether a file begins as an HDF5 file does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_HDF5)) == _HDF5
