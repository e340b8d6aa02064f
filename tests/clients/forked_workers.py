"""A launcher whose processes are forked, and so need not import torch, for a process of ``clients.warm``.

    warm.start("-c", CODE, "run", "recipe.toml", "--processes", "2", folder=folder)
    warm.start("-c", TORCHRUN, "--nproc-per-node", "2", "-m", "trainkit", "run", "recipe.toml", folder=folder)

The processes are forked by a child that the launcher has made while it had one thread, and handed over to the launcher:
they are its children, as those are that it starts by itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from clients.warm import end_after

CODE = "from clients.forked_workers import run; run()"
"""What a warm process runs as trainkit."""
TORCHRUN = "from clients.forked_workers import torchrun; torchrun()"
"""What a warm process runs as torchrun."""

_PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 15, 36  # of Linux


class ForkedWorker:
    """A process of a launcher: what torchrun and the launcher use of `subprocess.Popen`.

    Args:
        pid: Its number.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code; None: it has not ended."""
        return self._look(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, however long that takes, and return its exit code."""
        code = self._look(0)
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _look(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


class _Forking:
    """A child that forks the processes of this one."""

    def __init__(self) -> None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what a descendant leaves behind becomes a child of this process
        asked, self._asked = os.pipe()
        answers, answer = os.pipe()
        self._answers = os.fdopen(answers)
        launcher = os.getpid()
        if os.fork() == 0:
            os.close(self._asked)
            with os.fdopen(asked) as lines:
                for line in lines:
                    if os.fork() == 0:
                        if os.fork() == 0:
                            _work(launcher, answer, **json.loads(line))
                        os._exit(0)
                    os.wait()
            os._exit(0)
        os.close(asked)
        os.close(answer)

    def start(self, words: Sequence[str], env: Mapping[str, str], out: str, err: str) -> ForkedWorker:
        """Start a process that runs a module with its arguments, with the signals blocked that are blocked here."""
        blocked = [int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
        asked = {"words": words, "env": dict(env), "out": out, "err": err, "blocked": blocked}
        os.write(self._asked, json.dumps(asked).encode() + b"\n")
        return ForkedWorker(int(self._answers.readline()))


def _work(
    launcher: int, answer: int, words: list[str], env: dict[str, str], out: str, err: str, blocked: list[int]
) -> NoReturn:
    from trainkit.cli import main, worker

    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    os.setsid()
    while os.getppid() != launcher:  # its own parent has not ended yet
        os.sched_yield()
    for number, path in ((1, out), (2, err)):
        if path:
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(env)
    _prctl(_PR_SET_NAME, f"RANK={env['RANK']}".encode())
    os.write(answer, b"%d\n" % os.getpid())
    module, *arguments = words
    if module == "trainkit":
        sys.argv = words
        end_after(main)
    assert module == "trainkit.cli.worker"
    end_after(lambda: worker.work(arguments))


def _prctl(what: int, value: Any) -> None:
    if ctypes.CDLL(None).prctl(what, value, 0, 0, 0) != 0:
        raise OSError("prctl failed")


def run() -> None:
    """Run the command line with a launcher that forks its processes."""
    import trainkit.launching.launcher  # noqa: F401, so that its processes need not import what it imports
    from trainkit.cli import main

    _fork_workers()
    sys.argv[0] = "trainkit"
    main()


def torchrun() -> None:
    """Run torchrun, which forks its processes."""
    from torch.distributed.run import main

    _fork_workers()
    sys.argv[0] = "torchrun"
    main()


def _fork_workers() -> None:
    from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import SubprocessHandler

    forking = _Forking()

    def popen(handler: Any, arguments: tuple[str, ...], env: dict[str, str]) -> ForkedWorker:
        out, err = (each.name if each else "" for each in (handler._stdout, handler._stderr))
        assert arguments[2] == "-m"  # after -P or -u
        return forking.start(arguments[3:], env, out, err)

    SubprocessHandler._popen = popen
