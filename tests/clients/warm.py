"""trainkit's command line in new processes that need not import torch: they are forked from one that has done so.

That process only imports. What a run makes or draws, no other run sees; and two of these processes can differ in the
order of sets (``PYTHONHASHSEED``), as two calls of the command do.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

IMPORTS = (
    "torch._dynamo",
    "torch.utils.tensorboard",
    "monai.networks.nets",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "trainkit.cli.run",
    "trainkit.cli.resume",
)


class Warm:
    """A process that has imported everything.

    Args:
        path: Folders from which it imports, besides what is installed.
        hash_seed: What the order of its sets depends on.
    """

    def __init__(self, path: list[Path], hash_seed: int) -> None:
        paths = [Path(__file__).parents[1], *path, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONHASHSEED": str(hash_seed),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "clients.warm"]
        self._process = subprocess.Popen(
            command, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def trainkit(self, *arguments: str, folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
        """Call trainkit in ``folder``; return its exit code and what it has printed."""
        said = folder / "said.txt"
        asked = {"arguments": arguments, "folder": str(folder), "environment": dict(environment), "said": str(said)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline()), said.read_text()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _serve() -> None:
    for name in IMPORTS:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else each child's collector writes to, and so copies, all that was imported
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _call(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _call(arguments: list[str], folder: str, environment: dict[str, str], said: str) -> Any:
    from trainkit.cli import main

    os.chdir(folder)
    os.environ.update(environment)
    to = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(to, 1)
    os.dup2(to, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["trainkit", *arguments]
    sys.exit(main())


if __name__ == "__main__":
    _serve()
