"""Starts the processes of a run by torchrun's agent, and makes of them what one process is to its user.

torchrun starts the processes, lets them find each other, and starts all of them again if one dies. What it lacks is
added here. The exit code is that of the run. Signals reach the processes, and leave them the time that they need. The
output is that of the first process; what the others print is kept, and shown if one of them fails.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import LogsDest, LogsSpecs
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous import registry as rendezvous
from torch.distributed.elastic.rendezvous.api import RendezvousClosedError, RendezvousError

from trainkit.cpus import usable_cpus
from trainkit.engine.launched import LAUNCH, STARTS_ANEW, forget_last_result, note_result, noted_results
from trainkit.engine.signals import StoppedEarly, blocked, handled
from trainkit.engine.start import ExitCode
from trainkit.errors import TrainkitError
from trainkit.launching.endings import LAUNCHER, START, Ending, clear_endings, read_ending

STOPPED_AT_ONCE = 130
"""Exit code after a second signal."""

_GOOD = (ExitCode.FINISHED, ExitCode.DOUBTFUL, ExitCode.STOPPED)
_OF_TORCHRUN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # its handlers kill after 30 s

_LOOK_EVERY_SECONDS = 0.1
_PATIENCE_SECONDS = 60.0
"""How long the other processes may take to end after one of them has failed or was killed."""
_PATIENCE_TO_STOP = 5.0
"""How long the others may take to end after the first one has, if a signal stops all of them."""

_SHOWN_LINES = 30


@attrs.frozen
class Launch:
    """What is to be started.

    Attributes:
        words: The command line without the program, with its options before its arguments.
        processes: Number of processes on this machine.
        restarts: How often all are started again if one dies.
        nodes: Number of machines, on each of which the same is launched.
        meeting: Where the launchers of several machines meet, HOST:PORT; "": there is one machine.
        logs: Folder for the output of all processes but the first; None: it is kept until the launch ends.
    """

    words: Sequence[str]
    processes: int
    restarts: int = 0
    nodes: int = 1
    meeting: str = ""
    logs: Path | None = None

    @property
    def how_to_continue(self) -> str:
        """What to do after a process died."""
        option = "with --continue, " if "run" in self.words and "--continue" not in self.words else ""
        return f"{option}the same command goes on from the last checkpoint"


def launch(asked: Launch, say: Callable[[str], None]) -> int:
    """Start the processes of a command, wait for their end, and return the exit code of the command.

    Args:
        asked: What is to be started.
        say: Prints a message of the launcher.

    Raises:
        TrainkitError: The launchers of several machines do not find each other.
    """
    _silence_torchrun()
    with tempfile.TemporaryDirectory(prefix="trainkit-launch-") as folder, _environment(Path(folder), asked):
        logs = asked.logs or Path(folder)
        logs.mkdir(parents=True, exist_ok=True)
        local: dict[str, Any] = {} if asked.meeting else {"local_addr": "127.0.0.1"}
        parameters = RendezvousParameters(
            backend="c10d",
            endpoint=asked.meeting or "localhost:0",
            run_id=os.environ.get("SLURM_JOB_ID", "trainkit") if asked.meeting else secrets.token_hex(8),
            min_nodes=asked.nodes,
            max_nodes=asked.nodes,
            **local,
        )
        spec = WorkerSpec(
            role="trainkit",
            local_world_size=asked.processes,
            entrypoint=sys.executable,
            args=("-P", "-m", "trainkit.cli.worker", *asked.words),
            rdzv_handler=rendezvous.get_rendezvous_handler(parameters),
            max_restarts=asked.restarts,
            monitor_interval=_LOOK_EVERY_SECONDS,
            **local,
        )
        agent = _Agent(spec, _Output(logs), Path(folder), say, asked.how_to_continue)
        try:
            with handled(agent.on_signal):
                agent.run()
        except StoppedEarly as error:
            say(f"{error}: stopped; nothing was being trained, so nothing is lost")
            return ExitCode.STOPPED
        except RendezvousClosedError:
            say("another machine has given up")
            return ExitCode.FAILED
        except RendezvousError as error:
            raise TrainkitError(
                f"the launchers of {asked.nodes} machines do not find each other at {asked.meeting} ({error}): the "
                "first machine must be reachable under this name and port from all others"
            ) from error
        finally:
            with contextlib.suppress(Exception):
                spec.rdzv_handler.shutdown()
        return agent.exit_code()


class _Agent(LocalElasticAgent):
    """torchrun's agent of a machine. It starts processes again only if one died, and lets them end in their own time.

    Args:
        spec: What to start.
        output: Where the output of the processes goes.
        folder: The launcher's folder, in which processes write down how they ended.
        say: Prints a message.
        how_to_continue: What to do after a process died.
    """

    def __init__(
        self, spec: WorkerSpec, output: _Output, folder: Path, say: Callable[[str], None], how_to_continue: str
    ) -> None:
        super().__init__(spec, output, exit_barrier_timeout=_PATIENCE_SECONDS)
        self._output, self._folder, self._say = output, folder, say
        self._how_to_continue = how_to_continue
        self._signals: list[str] = []
        self._is_starting = False
        self._num_starts = 0
        self._died: dict[int, int] = {}  # rank -> what the system says of a process that died, but not by us
        self._killed = False
        self._num_failed = 0  # runs of a queue whose failure ended the processes, after which they were started anew
        self._troubled_since: float | None = None
        self._first_ended: float | None = None

    # ---- signals ----------------------------------------------------------------------------------------------------

    def on_signal(self, name: str) -> None:
        """Pass a first signal on to the processes, and kill them at a second one.

        Raises:
            StoppedEarly: There are no processes.
        """
        self._signals.append(name)
        if not self._is_starting:
            self._act_on_signals()

    def _act_on_signals(self) -> None:
        running = self._running()
        if not running:
            raise StoppedEarly(self._signals[0])
        if len(self._signals) > 1:
            self._kill()
        else:
            for process in running:
                process.send_signal(getattr(signal, self._signals[0]))

    # ---- what torchrun asks its agent -------------------------------------------------------------------------------

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        clear_endings(self._folder)
        os.environ[START] = str(self._num_starts)
        self._num_starts += 1
        self._died, self._killed, self._troubled_since, self._first_ended = {}, False, None, None
        before = {number: signal.getsignal(number) for number in _OF_TORCHRUN}
        self._is_starting = True
        with blocked():  # in each process until it can act on them
            ids: dict[int, Any] = super()._start_workers(worker_group)
            for number, handler in before.items():
                signal.signal(number, handler)
        self._is_starting = False
        if self._signals:  # they came meanwhile
            self._act_on_signals()
        return ids

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        endings = self._endings()
        self._note_deaths(endings)
        self._kill_who_waits_for_first(endings)
        if not self._is_troubled(endings):
            result: RunResult = super()._monitor_workers(worker_group)
            return result
        now = time.monotonic()
        self._troubled_since = self._troubled_since or now
        can_restart = self._remaining_restarts > 0 and not self._signals
        others_may_end = self._running() and now < self._troubled_since + _PATIENCE_SECONDS and not self._killed
        if others_may_end and not (self._died and can_restart):
            return RunResult(state=worker_group.state)
        goes_on = can_restart and (
            bool(self._died) or all(each.is_lost for each in endings.values() if each.code not in _GOOD)
        )
        if goes_on:
            self._say_that_all_start_again(worker_group.spec.max_restarts)
        self._kill()
        if goes_on:
            if self._has_failed_one_more():  # the first process may have noted so before it was killed
                forget_last_result(self._folder)
        elif STARTS_ANEW in os.environ and self._has_failed_one_more() and not self._signals:
            self._go_on_with_next_run(endings)
        else:
            self._remaining_restarts = 0
        return RunResult(state=WorkerState.FAILED)  # torchrun starts all again if there are restarts left

    # ---- how it ends ------------------------------------------------------------------------------------------------

    def exit_code(self) -> int:
        """Return the exit code of the command, and say what no process could say."""
        if len(self._signals) > 1:
            self._say("stopped at once; the last checkpoint is complete")
            return STOPPED_AT_ONCE
        endings = self._endings()
        by_signals = {-getattr(signal, name) for name in self._signals}
        others = {rank: code for rank, code in self._died.items() if code not in by_signals}
        for rank, code in others.items():
            self._say(
                f"error: {_in_words(rank, code)}; with --continue, the same command goes on from the last checkpoint"
            )
            self._show_output(rank)
        first = self._ranks()[0]
        if first in endings and endings[first].code not in (0, *others):
            return endings[first].code
        failed = {rank: each for rank, each in endings.items() if each.code not in _GOOD}
        for rank, each in failed.items():
            if rank != first and not each.is_lost:
                self._say(f"error: process {rank} failed")
                self._show_output(rank)
        if others or failed:
            return ExitCode.FAILED
        if first not in endings:  # a signal came before it could handle it, or it was stuck after one
            return ExitCode.STOPPED if self._signals else ExitCode.FAILED
        return endings[first].code

    # ---- the processes ----------------------------------------------------------------------------------------------

    def _processes(self) -> dict[int, Any]:
        """Return the processes by their rank."""
        context: Any = self._pcontext
        handlers = context.subprocess_handlers if context else {}
        return {
            worker.global_rank: handlers[worker.local_rank].proc for worker in self._worker_group.workers if handlers
        }

    def _ranks(self) -> list[int]:
        return sorted(self._processes())

    def _running(self) -> list[Any]:
        return [process for process in self._processes().values() if process.poll() is None]

    def _endings(self) -> dict[int, Ending]:
        found = {
            rank: read_ending(self._folder, rank) for rank, each in self._processes().items() if each.poll() is not None
        }
        return {rank: ending for rank, ending in found.items() if ending is not None}

    def _note_deaths(self, endings: dict[int, Ending]) -> None:
        if self._killed:
            return
        for rank, process in self._processes().items():
            if rank in endings or (code := process.poll()) is None:
                continue
            if read_ending(self._folder, rank) is None:  # else it has ended since the endings were read
                self._died[rank] = code

    def _is_troubled(self, endings: dict[int, Ending]) -> bool:
        """Return whether the other processes cannot train any more."""
        if self._died or any(each.code not in _GOOD for each in endings.values()):
            return True
        # One that was stopped while it waited for the first one: the first one may then wait for it.
        return bool(self._signals) and any(each.code == ExitCode.STOPPED for rank, each in endings.items() if rank)

    def _kill_who_waits_for_first(self, endings: dict[int, Ending]) -> None:
        """Kill the other processes if they do not see that the first one, which calls them, has ended."""
        if 0 in endings and self._running():
            self._first_ended = self._first_ended or time.monotonic()
            if time.monotonic() > self._first_ended + (_PATIENCE_TO_STOP if self._signals else _PATIENCE_SECONDS):
                self._remaining_restarts = 0
                self._kill()

    def _has_failed_one_more(self) -> bool:
        """Return whether the processes have ended with one more run of a queue."""
        return sum(each.ends_processes for each in noted_results(self._folder).values()) > self._num_failed

    def _go_on_with_next_run(self, endings: dict[int, Ending]) -> None:
        """Let torchrun start the processes anew, after noting why the run failed, if its processes could not."""
        died = [_in_words(rank, code) for rank, code in self._died.items()]
        last = list(noted_results(self._folder).values())[-1]
        first = self._ranks()[0]
        if died or first not in endings:  # the first process knows less, or was killed because it did not end
            why = died or [f"process {rank} failed" for rank, each in endings.items() if each.code not in _GOOD]
            noted = attrs.evolve(last, what=f"failed: {'; '.join(why)}", seconds=time.time() - last.began)
            note_result(noted, self._folder)
        self._num_failed += 1
        self._remaining_restarts += 1  # torchrun counts this start, and it is none of those that were asked for
        self._say("; ".join([*died, "the processes start anew, for what is left of the queue"]))

    def _kill(self) -> None:
        self._killed = True
        for process in self._running():
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # its loader workers too
        for process in self._processes().values():
            process.wait()

    def _say_that_all_start_again(self, most: int) -> None:
        number = most - self._remaining_restarts + 1
        why = (
            "; ".join(_in_words(rank, code) for rank, code in self._died.items()) or "a process of another machine died"
        )
        self._say(f"{why}: all processes start again from the last checkpoint ({number} of {most})")

    def _show_output(self, rank: int) -> None:
        for line in self._output.last_lines(rank):
            self._say(f"  process {rank}: {line}")


class _Output(LogsSpecs):
    """Lets the first process print on the terminal, and keeps what the others print in files.

    Args:
        folder: The folder of these files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._folder = folder

    @property
    def root_log_dir(self) -> str:
        """The folder of the files."""
        return str(self._folder)

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """Return the files of each process of this machine; the first process has none."""
        ranks = {local_rank: int(each["RANK"]) for local_rank, each in envs.items()}
        files = {local_rank: self._file(rank) if rank else None for local_rank, rank in ranks.items()}
        out = {local_rank: f"{file}.out" if file else "" for local_rank, file in files.items()}
        err = {local_rank: f"{file}.err" if file else "" for local_rank, file in files.items()}
        unused = {local_rank: str(self._folder / f"error-{rank}.json") for local_rank, rank in ranks.items()}
        return LogsDest(stdouts=out, stderrs=err, error_files=unused)

    def last_lines(self, rank: int) -> list[str]:
        """Return the last lines that a process printed on standard error, or, if there are none, on standard output."""
        for suffix in ("err", "out"):
            with contextlib.suppress(OSError):
                text = Path(f"{self._file(rank)}.{suffix}").read_text(encoding="utf-8", errors="replace")
                if lines := text.splitlines()[-_SHOWN_LINES:]:
                    return lines
        return []

    def _file(self, rank: int) -> Path:
        start = int(os.environ[START])
        return self._folder / (f"process-{rank}" + (f"-start-{start}" if start else ""))


def _in_words(rank: int, code: int) -> str:
    if code >= 0:
        return f"process {rank} ended with exit code {code} before it could say why"
    hint = ", as the system does when memory is full" if code == -signal.SIGKILL else ""
    return f"process {rank} was killed by {signal.Signals(-code).name}{hint}"


@contextlib.contextmanager
def _environment(folder: Path, asked: Launch) -> Iterator[None]:
    """Set what the processes of a launch find in their environment."""
    threads = str(threads_of_each(asked.processes))
    mine = {LAUNCH: str(folder), LAUNCHER: str(os.getpid()), START: "0"} | {"OMP_NUM_THREADS": threads}
    mine["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"  # torch handles no others while it starts processes
    if asked.nodes == 1:  # the launchers of other machines would not know of it
        mine[STARTS_ANEW] = "1"
    before = dict(os.environ)
    os.environ.update(mine | {name: before[name] for name in ("OMP_NUM_THREADS",) if name in before})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def threads_of_each(processes: int) -> int:
    """Return the number of CPU threads of each process, so that together they use the CPUs that this one may use.

    torchrun gives each one thread, unless OMP_NUM_THREADS is set.
    """
    if "OMP_NUM_THREADS" in os.environ:
        with contextlib.suppress(ValueError):
            return int(os.environ["OMP_NUM_THREADS"])
    return max(usable_cpus() // processes, 1)


def _silence_torchrun() -> None:
    """Let torchrun say nothing of processes that end, unless somebody asks for it by LOGLEVEL."""
    if "LOGLEVEL" not in os.environ:
        for name in list(logging.root.manager.loggerDict):
            if name.startswith("torch.distributed.elastic"):
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
