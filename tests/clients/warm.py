"""trainkit's command line in new processes that need not import torch: they are forked from one that has done so.

That process imports when it is first asked for something, and does nothing else; all workers of pytest-xdist share it.
What a run makes or draws, no other run sees; and processes that are forked from two of them can differ in the order of
sets (``PYTHONHASHSEED``), as two calls of the command do. A start takes a tenth of a second, and not three. What takes
longer than all else in a small run is left out: fsync, charts, and the pictures and the search for other geometries of
ptychography. A process ends without taking its objects apart, which would copy the memory that it shares with that one:
0.4 s of CPU. Tests of the start itself (what is imported, how pipes end) and of torchrun start the real command.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.metadata
import importlib.util
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import pytest
from PIL import Image
from seldom_garbage import look_seldom_for_garbage
from without_busy_cpus import leave_out_busy_cpus
from without_fsync import leave_out_fsync
from without_geometry_search import leave_out_geometry_search
from without_pictures import leave_out_charts, leave_out_pictures_of_ptychography

IMPORTS = (
    "torch.utils.tensorboard",
    "torch._dynamo",  # which torch imports at the first batch norm without values: more than a second
    "monai.networks.nets",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "trainkit.cli.run",
    "trainkit.cli.resume",
    "trainkit.engine.queue",
    "trainkit.engine.verify",
    "trainkit.launching.launcher",
)


_ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]),
    "OMP_NUM_THREADS": "1",
}


class WarmProcess:
    """A call of trainkit in a process of its own.

    Args:
        pid: Number of the process.
        files: What its files begin with: what it printed to stderr, if that is kept apart, and its exit code.
        out: The file that holds what it printed.
    """

    def __init__(self, pid: int, files: str, out: Path) -> None:
        self.pid = pid
        self._out, self._err, self._code = out, Path(files + ".err"), Path(files + ".code")

    def poll(self) -> int | None:
        """Return the exit code; None: it has not ended."""
        return int(self._code.read_text()) if self._code.is_file() else None

    def wait(self, timeout: float = 120.0) -> int:
        """Wait until it has ended, and return its exit code.

        Raises:
            TimeoutExpired: It has not ended after so many seconds; it is killed.
        """
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                self.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired("trainkit", timeout, output=self.stdout + self.stderr)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended just now, and its exit code is not noted yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._out.read_text() if self._out.is_file() else ""

    @property
    def stderr(self) -> str:
        """What it has printed to stderr so far, if that is kept apart."""
        return self._err.read_text() if self._err.is_file() else ""


class Imported:
    """A process that has imported everything, for those who connect to its address.

    Args:
        hash_seed: What the order of its sets depends on; None: on chance.
    """

    def __init__(self, hash_seed: int | None = None) -> None:
        self._files = tempfile.TemporaryDirectory()
        self.address = f"{self._files.name}/address"
        environment = _ENVIRONMENT | {
            "PYTHONHASHSEED": "random" if hash_seed is None else str(hash_seed),
            "XDG_CACHE_HOME": self._files.name,
        }
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self.address)
            listening.listen()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "clients.warm", str(listening.fileno())],
                env=os.environ | environment,
                stdin=subprocess.PIPE,  # it ends when this is closed, also if this process is killed
                pass_fds=[listening.fileno()],
            )

    def close(self) -> None:
        """End the process. A loader's worker that a test has forked may hold its pipe open, so it is not waited for."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._files.cleanup()


class Warm:
    """Starts processes that are forked from one that has imported everything.

    Args:
        address: Where that one is asked (`Imported`).
    """

    def __init__(self, address: str) -> None:
        self._files = tempfile.TemporaryDirectory()
        self._number = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address)
        self._lines = self._socket.makefile("rw")

    def start(
        self,
        *arguments: str,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        apart: bool = False,
        out: Path | None = None,
    ) -> WarmProcess:
        """Call trainkit in a folder, and do not wait for its end.

        Args:
            arguments: The words after ``trainkit``; or after ``python``, if the first one is ``-c``.
            folder: Its working directory.
            environment: Variables, besides those of this process.
            apart: Whether stderr is kept apart from stdout.
            out: A file to which it appends what it prints; None: one of its own.
        """
        self._number += 1
        files = f"{self._files.name}/{self._number}"
        variables = {**os.environ, **_ENVIRONMENT, **(environment or {})}
        out = out or Path(f"{files}.out")
        asked = {"arguments": arguments, "folder": str(folder), "environment": variables, "files": files}
        print(json.dumps(asked | {"apart": apart, "printed": str(out)}), file=self._lines, flush=True)
        return WarmProcess(int(self._lines.readline()), files, out)

    def trainkit(self, *arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Call trainkit in ``folder``; return its exit code and what it has printed."""
        called = self.start(*arguments, folder=folder, environment=environment)
        return called.wait(600), called.stdout

    def run(self, command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        """Run ``[python, "-P", "-c", code, …]`` as `subprocess.run` does, and keep what it prints."""
        called = self.start(*command[2:], folder=Path.cwd(), apart=True)
        return subprocess.CompletedProcess(command, called.wait(), called.stdout, called.stderr)

    def Popen(self, command: Sequence[str], *, env: Mapping[str, str], **_: Any) -> WarmProcess:  # noqa: N802
        """Start ``[python, "-P", "-c", code, …]`` as `subprocess.Popen` does."""
        return self.start(*command[2:], folder=Path.cwd(), environment=env)

    def close(self) -> None:
        """Ask for nothing more."""
        self._lines.close()
        self._socket.close()
        self._files.cleanup()


def _serve(listening: socket.socket) -> None:
    files: dict[int, str] = {}

    def note_ends(*_: object) -> None:
        while files:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # this call has come into another one, which is about to note the last end
                return
            if not pid:
                return
            code = Path(files.pop(pid) + ".code")
            code.with_suffix(".new").write_text(str(os.waitstatus_to_exitcode(status)))
            code.with_suffix(".new").rename(code)

    signal.signal(signal.SIGCHLD, note_ends)
    for number, (asked, answers) in enumerate(_requests(listening)):
        if number == 0:
            _import()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # its end is not noted before its files are known
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            _call(**asked)
        files[child] = asked["files"]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        print(child, file=answers, flush=True)


def _requests(listening: socket.socket) -> Iterator[tuple[dict[str, Any], TextIO]]:
    """Yield what is asked for, each with where the answer goes, until the standard input is closed."""
    with selectors.DefaultSelector() as sources:
        for source in (sys.stdin, listening):
            sources.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in sources.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is listening:
                    asking = listening.accept()[0]
                    sources.register(asking, selectors.EVENT_READ, asking.makefile("rw"))
                elif line := key.data.readline():
                    yield json.loads(line), key.data
                else:
                    sources.unregister(key.fileobj)


def _import() -> None:
    for name in (*IMPORTS, *_components()):
        importlib.import_module(name)
    Image.init()  # imports what reads and writes each format
    leave_out_charts(patch := pytest.MonkeyPatch())
    leave_out_pictures_of_ptychography(patch)
    leave_out_geometry_search(patch)
    leave_out_fsync(patch)
    leave_out_busy_cpus(patch)
    gc.collect()
    look_seldom_for_garbage()  # each look of a child among what was imported would write to all that, and so copy it


def _components() -> list[str]:
    """Return the modules of our plugins' components, and of what these build."""
    entries = importlib.metadata.distribution("trainkit").entry_points
    settings = [each.module for each in entries if each.module.startswith("trainkit_")]
    return settings + [f"{each}_live" for each in settings if importlib.util.find_spec(f"{each}_live")]


def end_after(do: Callable[[], object]) -> NoReturn:
    """Call a function and end this process with its exit code, as Python does but for what ends with the process."""
    code: Any = 0
    try:
        do()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as multiprocessing's own children do
    atexit._run_exitfuncs()
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _call(
    arguments: list[str], folder: str, environment: dict[str, str], files: str, apart: bool, printed: str
) -> NoReturn:
    from trainkit.cli import main

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = [each for each in environment["PYTHONPATH"].split(os.pathsep) if each not in sys.path]
    out = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(os.open(f"{files}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND) if apart else out, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        end_after(lambda: exec(arguments[1], {"__name__": "__main__"}))
    sys.argv = ["trainkit", *arguments]
    end_after(main)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
