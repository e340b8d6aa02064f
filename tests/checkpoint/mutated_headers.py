"""Damaged and hostile headers of a checkpoint: each is read, or refused by a CheckpointError, in a second of CPU time.

As a script: ``python tests/checkpoint/mutated_headers.py 10000 [FILE]``, FILE being a checkpoint of a run; without it,
a small run is made.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from trainkit.checkpoint.content import read_run
from trainkit.errors import CheckpointError

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**31 - 1, 2**63, 10**400, 0.5, float("nan"), float("inf"), 1e308, "", "x", "\x1b[2J\x9b\u202e",
    "../../x", "a" * 10_000, [], [[]], [None] * 5, {}, {"": {}}, {"/": 1, "~": 2}, [0, 2**62], [2**61, 2**61, 0],
)  # fmt: skip


def split(whole: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the tensors' bytes of a checkpoint."""
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    header["__metadata__"]["content"] = json.loads(header["__metadata__"]["content"])
    return header, whole[8 + length :]


def joined(header: dict[str, Any], data: bytes) -> bytes:
    """Return a checkpoint with a right digest."""
    metadata = dict(header["__metadata__"]) if isinstance(header.get("__metadata__"), dict) else {}
    metadata = {"digest": "0" * 32} | {key: value for key, value in metadata.items() if key != "digest"}
    if not isinstance(metadata.get("content"), str):
        metadata["content"] = json.dumps(metadata.get("content"))
    rest = {key: value for key, value in header.items() if key != "__metadata__"}
    text = json.dumps({"__metadata__": metadata} | rest, separators=(",", ":")).encode()
    zeroed = struct.pack("<Q", len(text)) + text + data
    digest = xxhash.xxh3_128(zeroed).hexdigest().encode()
    return zeroed.replace(b'"digest":"' + b"0" * 32, b'"digest":"' + digest, 1)


def places(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every place in a tree of mappings and lists; of long lists, only the first ones."""
    items = node.items() if isinstance(node, dict) else enumerate(node[:5]) if isinstance(node, list) else ()
    for key, each in items:
        yield (*above, key)
        yield from places(each, (*above, key))


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """Return a checkpoint with one to three random changes."""
    if rng.random() < 0.3:  # in the bytes, so that the digest is wrong
        changed = bytearray(whole)
        (length,) = struct.unpack("<Q", whole[:8])
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(min(8 + length, len(changed)))] = rng.randrange(256)
        return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.2 else changed)
    header, data = split(whole)
    for _ in range(rng.randint(1, 3)):
        *outer, last = rng.choice(list(places(header)))
        node: Any = header
        for key in outer:
            node = node[key]
        way = rng.random()
        if way < 0.6:
            node[last] = copy.deepcopy(rng.choice(ODD))
        elif way < 0.8:
            del node[last]
        elif isinstance(node, dict):
            node[rng.choice(("x", "/x", "/model/x", "\x1b]8;;x\x07"))] = node.pop(last)
    return joined(header, data)


def tried(whole: bytes, path: Path) -> str | None:
    """Read a checkpoint; return what was wrong with how that went, or None."""
    path.write_bytes(whole)
    began = time.process_time()
    try:
        read_run(path)
    except CheckpointError:
        pass
    except Exception as error:  # what is looked for
        return f"{type(error).__name__}: {error}"
    seconds = time.process_time() - began
    return f"took {seconds:.1f} s" if seconds > 1 else None


def unfinished(folder: Path) -> Path:
    """Run a toy in a folder; return its checkpoint inside an epoch, which holds unfinished means."""
    from clients.toy_run import run

    with contextlib.chdir(folder):
        state = run("run.epochs=1", "checkpoint.every_steps=2", "checkpoint.keep_last=9").run.state
        return min((state.folder / "checkpoints").absolute().glob("step-*"))


def main(number: str, file: str = "") -> None:
    """Try so many changed checkpoints, and print what went wrong."""
    wrong, slowest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(file or unfinished(Path(folder))).read_bytes()
        for seed in range(int(number)):
            began = time.process_time()
            if why := tried(mutated(whole, random.Random(seed)), Path(folder, "x.safetensors")):
                wrong += 1
                sys.stdout.write(f"seed {seed}: {why}\n")
            slowest = max(slowest, time.process_time() - began)
    sys.stdout.write(f"{number} checkpoints, {wrong} wrong, the slowest took {slowest:.2f} s\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main(*sys.argv[1:])
