"""Reads and writes checkpoints. A checkpoint is one safetensors file: written completely or not at all, and verified.

    8 bytes              length of the header, little-endian
    header (JSON)        {"__metadata__": {"digest": …, "trainkit": "1", "content": …, "complex": …, "tied": …},
                          "/model/weight": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}, …}
    the tensors' bytes

A checkpoint's content is a nested mapping. ``content`` in the header is this mapping as JSON, with null in place of
each tensor. The name of a tensor is its JSON pointer (RFC 6901). A complex tensor is stored as pairs of real numbers,
with its dtype in ``complex``. A tensor that is the same as another (tied weights) is not stored again: ``tied`` maps
its name to the other's. ``digest`` is the xxh3-128 of the whole file with the 32 digits of the digest set to zero, so
it covers every bit of the file.

The package ``safetensors`` can read these files. It does not write them, because it does not call fsync, does not keep
the usual file mode, leaves temporary files behind when it is killed, and cannot put a digest of the file into the file.
It does not read them here, because the bytes that are verified must be the bytes that are used.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import xxhash

from trainkit.errors import CheckpointError
from trainkit.files.writing import written_whole

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

    import torch
    from torch import Tensor

FORMAT = 1
"""Version of this file format."""

_PREFIX = b'{"__metadata__":{"digest":"'
_NO_DIGEST = b"0" * 32
_LARGEST_HEADER = 20_000_000  # read as JSON, it takes up to twenty times as much memory
_PIECE = 2**20  # bytes that are read or written at a time: they are still in the processor's cache for the digest
_DEEPEST = 100  # mappings and lists within each other
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}
_COMPLEX = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}


class _Entry(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _Header(NamedTuple):
    raw: bytes
    digest: str
    content: dict[str, Any]
    complex: dict[str, str]
    tied: dict[str, str]
    entries: list[_Entry]


class StoredTensor(NamedTuple):
    """A tensor as it lies in a checkpoint's file.

    Attributes:
        dtype: Its type, as the safetensors format names it; of a complex tensor that of its real pairs.
        shape: Its shape, with two values in the last axis for a complex one.
        begin: Where its bytes begin in the file.
        num_bytes: Number of its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    num_bytes: int

    @property
    def form(self) -> tuple[str, tuple[int, ...]]:
        """Type and shape."""
        return self.dtype, self.shape


# ---- writing --------------------------------------------------------------------------------------------------------


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint. When this returns, it is on the disk; until then, ``path`` stays as it was.

    Tensors are written one after the other from where they are, without a copy of all.

    Args:
        path: The file to write, in an existing folder.
        content: Nested mappings with string keys; the leaves are JSON values (NaN and infinities too; tuples become
            lists) or dense tensors on any device. Lists may contain tensors.

    Raises:
        CheckpointError: A leaf is something else (the message names it), or the file cannot be written.
    """
    prepare(path, content).write()


class Prepared(NamedTuple):
    """A checkpoint that can be written. What is not a tensor does not change any more when the training goes on.

    Attributes:
        path: The file to write.
        header: What stands before the tensors, with zeros for the digest.
        tensors: The tensors as they are stored, in their order in the file.
    """

    path: Path
    header: bytes
    tensors: list[Tensor]

    @property
    def num_bytes(self) -> int:
        """Number of bytes of the tensors."""
        return sum(each.numel() * each.element_size() for each in self.tensors)

    def copied(self, kept: Sequence[Tensor] = ()) -> Prepared:
        """Return the same with copies of the tensors in the memory of the host.

        Args:
            kept: The tensors of an earlier copy, which nobody needs any more: their memory is used again where dtype
                and shape are the same. New memory takes several times as long to fill.
        """
        import torch

        copies = []
        for number, tensor in enumerate(self.tensors):
            copy = kept[number] if number < len(kept) else None
            if copy is None or (copy.dtype, copy.shape) != (tensor.dtype, tensor.shape):
                copy = torch.empty(tensor.shape, dtype=tensor.dtype)
            copies.append(copy.copy_(tensor))
        return self._replace(tensors=copies)

    def write(self) -> None:
        """Write the file. When this returns, it is on the disk; until then, ``path`` stays as it was.

        Raises:
            CheckpointError: The file cannot be written.
        """
        try:
            with written_whole(self.path) as new, open(new, "r+b") as file:
                digest = xxhash.xxh3_128(self.header)
                file.write(self.header)
                for tensor in self.tensors:
                    for piece in _pieces(_bytes_of(tensor.cpu().contiguous())):
                        digest.update(piece)
                        file.write(piece)
                file.seek(8 + len(_PREFIX))
                file.write(digest.hexdigest().encode())
        except OSError as error:
            reason = error.strerror or error
            raise CheckpointError(
                f"{self.path} cannot be written ({reason}); free space or choose another folder"
            ) from error


def prepare(path: Path, content: Mapping[str, Any]) -> Prepared:
    """Return a checkpoint that can be written; its tensors are those of ``content``, and not copied.

    Args:
        path: The file to write, in an existing folder.
        content: As for `write`.

    Raises:
        CheckpointError: A leaf is neither a JSON value nor a tensor; the message names it.
    """
    tensors: dict[str, Tensor] = {}
    tree = _split(content, "", tensors)
    tied, tensors = _untie(tensors)
    paired = {name: _dtype_name(tensor) for name, tensor in tensors.items() if tensor.is_complex()}
    stored = {name: _as_stored(tensor) for name, tensor in tensors.items()}
    # With larger elements first, each tensor is aligned for readers that map the file into memory.
    names = sorted(stored, key=lambda name: -stored[name].element_size())
    header = _header_bytes(tree, paired, tied, {name: stored[name] for name in names}, path)
    return Prepared(path, header, [stored[name] for name in names])


def _split(node: Any, pointer: str, tensors: dict[str, Tensor]) -> Any:
    """Return the node as JSON with None in place of each tensor, and put the tensors into ``tensors`` by pointer."""
    if node is None or isinstance(node, (bool, int, float, str)):
        return node
    if pointer.count("/") > _DEEPEST:
        raise CheckpointError(
            f'cannot save "{pointer[:80]}…": there are more than {_DEEPEST} levels, or it holds itself'
        )
    if isinstance(node, (list, tuple)):
        # A generator's state is a list of a thousand integers.
        return [
            value if type(value) is int else _split(value, f"{pointer}/{i}", tensors) for i, value in enumerate(node)
        ]
    if isinstance(node, Mapping):
        for key in node:
            if not isinstance(key, str):
                raise CheckpointError(f'cannot save "{pointer}": its key {key!r} is not a string but {_kind(key)}')
        return {key: _split(value, f"{pointer}/{_escape(key)}", tensors) for key, value in node.items()}
    import torch

    if isinstance(node, torch.Tensor):
        _refuse_unless_dense(node, pointer)
        tensors[pointer] = node.detach()
        return None
    raise CheckpointError(
        f'cannot save "{pointer}": {_kind(node)} is neither a JSON value nor a tensor; '
        "state_dict() must return only numbers, strings, lists, mappings and tensors"
    )


def _refuse_unless_dense(tensor: Tensor, pointer: str) -> None:
    import torch

    known = _dtype_name(tensor) in {*_DTYPES.values(), *_COMPLEX}
    if tensor.layout is not torch.strided or tensor.is_meta or not known:
        what = f"a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}"
        raise CheckpointError(f'cannot save "{pointer}": {what}; only dense tensors of plain numbers can be saved')


def _untie(tensors: dict[str, Tensor]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return each further name of a tensor -> the tensor's first name, and the tensors by their first names."""
    first: dict[object, str] = {}
    tied: dict[str, str] = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr() if tensor.numel() else name
        lies = (tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg())
        same = first.setdefault((tensor.device, memory, tensor.dtype, *lies), name)
        if same != name:
            tied[name] = same
    return tied, {name: tensor for name, tensor in tensors.items() if name not in tied}


def _as_stored(tensor: Tensor) -> Tensor:
    import torch

    tensor = tensor.resolve_conj().resolve_neg()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _header_bytes(
    tree: Any, paired: dict[str, str], tied: dict[str, str], stored: dict[str, Tensor], path: Path
) -> bytes:
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    try:
        metadata = {"digest": _NO_DIGEST.decode(), "trainkit": str(FORMAT), "content": json.dumps(tree)}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be written: its content is not JSON ({error})") from error
    metadata |= {"complex": json.dumps(paired), "tied": json.dumps(tied)}
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, tensor in stored.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        code = codes[_dtype_name(tensor)]
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LARGEST_HEADER:
        raise CheckpointError(
            f"{path} cannot be written: {len(text) / 1e6:.0f} MB of its content are not tensors, and at most "
            f"{_LARGEST_HEADER / 1e6:.0f} MB are allowed; store large lists of numbers as tensors"
        )
    return struct.pack("<Q", len(text)) + text


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous CPU tensor, without a copy: writing to it changes the tensor."""
    import torch

    # With at most one element, any stride is contiguous, but a view as bytes requires stride 1.
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().data


def _pieces(data: memoryview) -> Iterator[memoryview]:
    for begin in range(0, len(data), _PIECE):
        yield data[begin : begin + _PIECE]


# ---- reading --------------------------------------------------------------------------------------------------------


def read(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content, with its tensors on the CPU; tied tensors are one object again.

    No code in the file is run, and no more memory is allocated than the size of the file.

    Raises:
        CheckpointError: The file is missing, damaged in any bit, or of another format.
    """
    with _opened(path) as file:
        header = _read_header(file, path)
        digest = xxhash.xxh3_128(header.raw)
        tensors: dict[str, Tensor] = {}
        for entry in header.entries:
            tensor = _empty(entry, path)
            for piece in _pieces(_bytes_of(tensor)):
                if file.readinto(piece) != len(piece):
                    raise _damaged(path, "it ends too early")
                digest.update(piece)
            tensors[entry.name] = tensor
        if digest.hexdigest() != header.digest:
            raise _damaged(path, "its digest differs from its content's")
    return _joined(header, tensors, path)


def read_header(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content with None in place of each tensor.

    This is fast: torch is not imported and the digest is not verified.

    Raises:
        CheckpointError: The file is missing, its header is damaged, or it has another format.
    """
    with _opened(path) as file:
        return _read_header(file, path).content


def read_verified_header(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content with None in place of each tensor, after the digest of the file was verified.

    torch is not imported.

    Raises:
        CheckpointError: The file is missing, damaged in any bit, or of another format.
    """
    with _opened(path) as file:
        header = _read_header(file, path)
        digest = xxhash.xxh3_128(header.raw)
        while piece := file.read(_PIECE):
            digest.update(piece)
        if digest.hexdigest() != header.digest:
            raise _damaged(path, "its digest differs from its content's")
        return header.content


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a checkpoint by name, and where they lie in the file; tied ones have one place.

    The digest is not verified. torch is not imported.

    Raises:
        CheckpointError: The file is missing, its header is damaged, or it has another format.
    """
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    with _opened(path) as file:
        header = _read_header(file, path)
    data = len(header.raw)
    found = {
        each.name: StoredTensor(codes[each.dtype], each.shape, data + each.begin, each.end - each.begin)
        for each in header.entries
    }
    if any(other not in found for other in header.tied.values()):
        raise _damaged(path, "its tensors do not fit its content")
    return found | {name: found[other] for name, other in header.tied.items()}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def _read_header(file: BufferedReader, path: Path) -> _Header:
    size = os.fstat(file.fileno()).st_size
    where = len(_PREFIX)
    start = file.read(8 + where)
    if start[8:] != _PREFIX:
        raise CheckpointError(f"{path} is not a checkpoint of trainkit, or its first bytes are damaged")
    (length,) = struct.unpack("<Q", start[:8])
    if not where < length <= min(size - 8, _LARGEST_HEADER):
        raise _damaged(path, f"its header should have {length} bytes, the file has {size}")
    text = start[8:] + file.read(length - where)
    digest, zeroed = text[where : where + 32], text[:where] + _NO_DIGEST + text[where + 32 :]
    try:
        parsed = json.loads(zeroed)
        metadata = parsed.pop("__metadata__")
        if metadata["trainkit"] != str(FORMAT):
            raise CheckpointError(
                f"{path} has format {metadata['trainkit']!r} and this trainkit reads {FORMAT}; "
                "resume with the trainkit that wrote it, or a newer one"
            )
        content, paired, tied = (json.loads(metadata[key]) for key in ("content", "complex", "tied"))
        _refuse_depth(content)
        entries = sorted((_entry(name, given) for name, given in parsed.items()), key=lambda entry: entry[-2:])
        if not all(isinstance(table, dict) for table in (content, paired, tied)):
            raise ValueError("a table is missing")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, "its header is invalid") from error
    end = 0
    for entry in entries:
        if entry.begin != end:
            raise _damaged(path, f'"{entry.name}" does not begin where the tensor before it ends')
        end = entry.end
    if size != 8 + length + end:
        raise _damaged(path, f"it has {size} bytes, but its header describes {8 + length + end}")
    return _Header(start[:8] + zeroed, digest.decode("ascii", "replace"), content, paired, tied, entries)


def _itemsize(code: str) -> int:
    return 1 if code == "BOOL" or code.startswith("F8") else int(code.lstrip("BUIF")) // 8


def _refuse_depth(content: Any) -> None:
    level, depth = [content], 0
    while level:
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        below = (node.values() if isinstance(node, dict) else node for node in level)
        level = [each for nodes in below for each in nodes if isinstance(each, dict | list)]
        depth += 1


def _entry(name: str, given: dict[str, Any]) -> _Entry:
    shape, (begin, end) = tuple(given["shape"]), given["data_offsets"]
    if not all(type(number) is int and 0 <= number < 2**62 for number in (*shape, begin, end)) or len(shape) > 64:
        raise ValueError("sizes are not natural numbers")
    if prod(max(number, 1) for number in shape) >= 2**62 or prod(shape) * _itemsize(given["dtype"]) != end - begin:
        raise ValueError("a shape is impossible")
    return _Entry(name, _DTYPES[given["dtype"]], shape, begin, end)


def _empty(entry: _Entry, path: Path) -> Tensor:
    """Return memory for a tensor, after checking that the file has as many bytes for it."""
    import torch

    dtype: torch.dtype = getattr(torch, entry.dtype)
    if prod(entry.shape) * dtype.itemsize != entry.end - entry.begin:
        raise _damaged(path, f'"{entry.name}" has {entry.end - entry.begin} bytes, which does not match its shape')
    return torch.empty(entry.shape, dtype=dtype)


def _joined(header: _Header, tensors: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """Return the content with each tensor in its place."""
    import torch

    try:
        for name, dtype in header.complex.items():
            if _dtype_name(tensors[name]) != _COMPLEX[dtype]:
                raise ValueError(f"{name} is not stored as pairs for {dtype}")
            tensors[name] = torch.view_as_complex(tensors[name])
        for name, other in header.tied.items():
            tensors[name] = tensors[other]
        for name, tensor in tensors.items():
            _put(header.content, name, tensor)
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        raise _damaged(path, "its tensors do not fit its content") from error
    return header.content


def _put(content: dict[str, Any], pointer: str, tensor: Tensor) -> None:
    node: Any = content
    if not pointer.startswith("/"):
        raise ValueError(f"{pointer} is no pointer")
    *parts, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
    for part in parts:
        node = node[_index(part) if isinstance(node, list) else part]
    key = _index(last) if isinstance(node, list) else last
    if node[key] is not None:
        raise ValueError(f"{pointer} has a value already")
    node[key] = tensor


def _index(part: str) -> int:
    if not (part.isascii() and part.isdecimal() and len(part) < 20):
        raise ValueError(f"{part} is no index")
    return int(part)


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged: {why}. Resume from another checkpoint, or give the run folder to use the newest good one"
    )


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
