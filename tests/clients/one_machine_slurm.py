"""A real Slurm of one machine in a folder: it runs as whoever starts it, and is gone with the block."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")

# cred_expire, at least 5 s, is also how long a requeued job waits; intervals: how often Slurm looks for jobs to start;
# config_overrides: it may offer more CPUs than the machine has; MinJobAge: how long it knows jobs that have ended.
_CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
MinJobAge=86400
MpiDefault=none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
KillWait=10
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverTimeLimit=0
"""


def missing() -> list[str]:
    """Return the programs of Slurm that this machine lacks."""
    return [each for each in PROGRAMS if shutil.which(each, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]


@contextlib.contextmanager
def slurm(folder: Path, cpus: int) -> Iterator[dict[str, str]]:
    """Start a Slurm, and yield the environment in which its commands find it.

    Args:
        folder: An empty folder in one that may be opened to everybody, with a short path, since it holds a socket. When
            the block ends, whatever works in that one is killed: jobs that still run.
        cpus: CPUs that it offers; they may be more than the machine has.
    """
    environment = os.environ | {
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "SLURM_CONF": str(folder / "slurm.conf"),
    }
    for each in ("spool", "state"):
        (folder / each).mkdir()
    for each in (folder, folder.parent):  # munged wants everybody to reach its socket
        each.chmod(0o755)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    user, host = _output(["id", "-un"]), _output(["hostname", "-s"])
    text = _CONFIGURATION.format(folder=folder, user=user, host=host, cpus=cpus, ports=_free_ports())
    (folder / "slurm.conf").write_text(text)
    munge = {"socket": "munge.socket", "key-file": "munge.key", "log-file": "munge.log", "pid-file": "munge.pid"}
    options = [f"--{name}={folder / file}" for name, file in (munge | {"seed-file": "munge.seed"}).items()]
    try:
        for daemon in (["munged", *options], ["slurmctld"], ["slurmd"]):
            subprocess.run(daemon, env=environment, check=True, capture_output=True, text=True)
        _wait_until_it_answers(environment, folder)
        yield environment
    finally:
        for name in ("slurmd", "slurmctld", "munge"):
            _end(folder / f"{name}.pid")
        _kill_all_in(folder.parent)  # jobs, which outlive the daemons


def _wait_until_it_answers(environment: dict[str, str], folder: Path) -> None:
    until = time.monotonic() + 30
    while _output(["sinfo", "--noheader", "--format=%t"], environment) != "idle":
        if time.monotonic() > until:
            raise RuntimeError(f"Slurm does not come up:\n{(folder / 'slurmctld.log').read_text()[-2000:]}")
        time.sleep(0.5)


def _end(pid_file: Path) -> None:
    """End a process by the file that holds its number, if it lives."""
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        return


def _kill_all_in(folder: Path) -> None:
    """Kill the processes whose working directory is in a folder, until there are none."""
    until = time.monotonic() + 30
    while left := _processes_in(folder):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > until:
            raise RuntimeError(f"processes {left} of Slurm do not end")
        time.sleep(0.1)


def _processes_in(folder: Path) -> list[int]:
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
            if int(each.name) != os.getpid() and (each / "cwd").readlink().is_relative_to(folder):
                found.append(int(each.name))
    return found


def _output(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.strip()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("", 0))
        other.bind(("", 0))
        return one.getsockname()[1], other.getsockname()[1]
