"""Submits jobs to a real Slurm, which is set up on this machine for it, and ends with it.

    python tests/slurm_on_one_machine.py [--portions N]

Jobs that `trainkit slurm --submit` wrote hit their time limit: each time they are signalled, save, are requeued and
continue. At its end, a job has to have the same bits as a run without a stop; so has a job of two processes, beside one
process with as many shards; and so has each fold of a cross-validation, which is an array of jobs. A job that is
cancelled must save, and not come back. Debian's packages slurmctld, slurmd, slurm-client and munge are needed; where
they are not installed, this says so, and its exit code is 0.

A training waits for its limit in a step of its own, so how often a job starts does not depend on how fast the machine
is; on a busy one, the limit may come before that step, and the job starts more often. All jobs wait at the same time.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from clients.one_machine_slurm import missing, slurm
from same import differences, trained

from trainkit.checkpoint.folder import CheckpointFolder

RECIPE = "a $HOME recipe's copy.toml"
ENDS = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY"}
STEPS = 12 * 4  # of a run
SIGNAL_BEFORE = 90  # of four minutes: Slurm looks twice a minute, so it signals 120 to 150 s after the start
PATIENCE = 1800.0  # seconds until all jobs must have ended
_SHORT = (
    "run.epochs=12",
    "data.patch_size=[16, 16, 16]",
    "data.steps_per_epoch=4",
    "model.channels=[4, 8]",
    "validation.every_epochs=6",
    "pictures.every_epochs=0",
    "run.threads=1",
    'run.device="cpu"',
    'hooks.waits.use="clients.until_interrupted:UntilInterrupted"',
)


def trainkit(environment: Mapping[str, str], *words: str) -> str:
    """Run a command line, and return what it printed on standard output."""
    command = [sys.executable, "-P", "-m", "trainkit", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout.strip()


def sets(*values: str) -> list[str]:
    """Return options that change settings."""
    return [word for value in (*_SHORT, *values) for word in ("--set", value)]


def straight(environment: Mapping[str, str], *values: str, options: Sequence[str] = ()) -> None:
    """Run the recipe by one process that nothing stops."""
    trainkit(environment, "run", RECIPE, *sets(*values, 'run.dir="straight"'), *options)


class Job:
    """A job for the recipe, or an array of jobs, which has been submitted.

    Args:
        environment: Where Slurm is found.
        name: Name of the run.
        waits: Steps in which it waits for its time limit.
        values: Settings that differ.
        options: Further options of ``trainkit slurm``.
        members: How many jobs an array has; 0: it is no array.

    Attributes:
        name: As given.
        number: Its number.
        waits: As given.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        name: str,
        waits: Sequence[int],
        *values: str,
        options: Sequence[str] = (),
        members: int = 0,
    ) -> None:
        self.name, self.waits = name, waits
        self._environment, self._members = environment, members
        waiting = f"hooks.waits.steps={list(waits)}"
        log = "%x-%A_%a.log" if members else "%x-%j.log"
        limit = ["--time", "4", "--signal-before", str(SIGNAL_BEFORE), "--gpus-per-node", "0", "--log", log]
        given = sets(*values, waiting, 'run.dir="requeued"', f'run.name="{name}"')
        self.number = trainkit(environment, "slurm", RECIPE, *given, *limit, "--submit", *options)

    def states(self) -> list[str]:
        """Return the state of the job, or of each job of the array."""
        command = ["scontrol", "--oneliner", "show", "job", self.number]
        words = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True).stdout
        return [word.partition("=")[2] for word in words.split() if word.startswith("JobState=")]

    def has_ended(self) -> bool:
        """Return whether it has ended, all jobs of an array."""
        return set(self.states()) <= ENDS

    def logs(self) -> list[str]:
        """Return the log, or that of each job of the array."""
        whose = [f"{self.number}_{each}" for each in range(self._members)] or [self.number]
        files = [Path(f"{self.name}-{each}.log") for each in whose]
        return [file.read_text(encoding="utf-8") if file.exists() else "" for file in files]

    def told(self) -> str:
        """Return its states and the ends of its logs."""
        logs = "\n".join(f"{log[-4000:]}\n" for log in self.logs())
        return f"job {self.number} ({self.name}) is {' and '.join(self.states())}:\n{logs}"

    def faults(self) -> list[str]:
        """Return what is wrong with how it ended, and print how that was."""
        ended = " and ".join(sorted(set(self.states())))
        starts = [log.count(", start ") for log in self.logs()]
        times = " and ".join(map(str, starts))
        print(f"job {self.number} ({self.name}): {ended.lower()} after {times} starts", flush=True)
        least = len(self.waits) + 1
        is_right = ended == "COMPLETED" and min(starts) >= least
        return [] if is_right else [f"it has to be completed after {least} starts or more; {self.told()}"]


def wait_until(what: Callable[[], bool], seconds: float, told: Callable[[], str]) -> None:
    """Wait until something is true.

    Raises:
        RuntimeError: It takes too long; the message is what is told then.
    """
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            raise RuntimeError(f"after {seconds:.0f} s, {told()}")
        time.sleep(0.5)


def newest(runs: str) -> dict[str, object]:
    """Return what the newest checkpoint of the run in a folder holds, without what tells runs apart."""
    (folder,) = Path(runs).glob("*/checkpoints")
    return trained(CheckpointFolder(folder).newest_good(lambda _: None)[1])


def unlike(name: str) -> list[str]:
    """Return in what a run that was requeued differs from the straight one."""
    found = differences(newest(f"straight/{name}"), newest(f"requeued/{name}"))
    return [f"{each} of {name} differs from the straight run's" for each in found]


def has_cancelled(job: Job, environment: Mapping[str, str]) -> None:
    """Cancel a job when it trains, and wait for its end."""
    signs = f"{job.name}/*/waits"
    wait_until(lambda: bool(list(Path("requeued").glob(signs))) or job.has_ended(), PATIENCE, job.told)
    subprocess.run(["scancel", job.number], env=environment, check=True)
    wait_until(job.has_ended, 120, job.told)


def faults_of_cancelled(job: Job) -> list[str]:
    """Return what is wrong with a job that was cancelled some time ago."""
    print(f"job {job.number} ({job.name}): {job.states()[0].lower()} by scancel", flush=True)
    (log,) = job.logs()
    is_right = job.states() == ["CANCELLED"] and "continues when it is its turn again" not in log
    is_right &= "finishing this step, then saving" in log
    return [] if is_right else [f"a cancelled job has to save and stay away; {job.told()}"]


def faults_of_jobs(environment: Mapping[str, str], portions: int) -> list[str]:
    """Submit the jobs, and return what is wrong with them."""
    several = [round(STEPS * part / portions) for part in range(1, portions)]
    one = Job(environment, "it's $one", several)
    two = Job(environment, "two", [20], "run.shards=2", options=["--processes-per-node", "2"])
    folds = Job(environment, "folds", [20], options=["--folds", "2"], members=2)
    cancelled = Job(environment, "gone", [2])
    has_cancelled(cancelled, environment)
    straight(environment, 'run.name="it\'s $one"')
    straight(environment, 'run.name="two"', "run.shards=2")
    straight(environment, 'run.name="folds"', options=["--folds", "2"])
    jobs = (one, two, folds)
    began = time.monotonic()
    for job in jobs:
        wait_until(job.has_ended, max(PATIENCE - (time.monotonic() - began), 1.0), job.told)
    found = [fault for job in jobs for fault in job.faults()]
    found += faults_of_cancelled(cancelled)
    found += [] if "2 processes, each with 1 CPU thread" in two.logs()[0] else [f"no two processes; {two.told()}"]
    if not found:
        found = [*unlike("it's $one"), *unlike("two")]
        found += [each for fold in (0, 1) for each in unlike(f"folds_2folds/fold_{fold}")]
        tables = [Path(runs, "folds_2folds", "folds.csv") for runs in ("straight", "requeued")]
        if not tables[1].exists() or tables[0].read_text() != tables[1].read_text():
            found.append(f"the folds have no ensemble, or another one; {folds.told()}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portions", type=int, default=3, help="how often a job has to start, at least 2 (default 3)")
    given = parser.parse_args()
    if given.portions < 2:
        parser.error("--portions must be at least 2, or no job would hit its limit")
    if lacking := missing():
        print(f"skipped: this machine has no Slurm ({', '.join(lacking)} not found)")
        return
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), lambda *_: sys.exit(1))  # then Slurm is ended too
    recipe = Path(__file__).parents[1] / "recipes" / "segmentation_synthetic.toml"
    with tempfile.TemporaryDirectory(prefix="slurm-") as place, contextlib.chdir(place):
        (Path(place) / "daemons").mkdir()
        with slurm(Path(place) / "daemons", cpus=6) as environment:  # as all jobs together have processes
            environment |= {"PYTHONPATH": str(Path(__file__).parent), "XDG_CACHE_HOME": f"{place}/cache"}
            work = Path(place, "work folder")
            work.mkdir()
            with contextlib.chdir(work):
                Path(RECIPE).write_text(recipe.read_text(encoding="utf-8"), encoding="utf-8")
                found = faults_of_jobs(environment, given.portions)
    for each in found:
        print(each)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
