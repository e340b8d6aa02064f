"""Submits jobs to a real Slurm, which is set up on this machine for it, and ends with it.

    python tests/slurm_on_one_machine.py [--portions N]

A job that `trainkit slurm --submit` wrote hits its time limit several times: each time it is signalled, saves, is
requeued and continues. At its end it has to have the same bits as a run without a stop. So has a job of two processes,
beside one process with as many shards; and so has each fold of a cross-validation, which is an array of jobs. A job
that is cancelled must save, and not come back. Debian's packages slurmctld, slurmd, slurm-client and munge are needed;
where they are not installed, this says so, and its exit code is 0.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from clients.one_machine_slurm import missing, slurm
from same import differences, trained

from trainkit.checkpoint.folder import CheckpointFolder

RECIPE = "a $HOME recipe's copy.toml"
LOG = "%x-%j.log"
ENDS = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED")
SIGNAL_BEFORE = 15  # more than a step and a checkpoint take on a busy machine
PORTION_SECONDS = 30  # of a minute: Slurm looks at time limits twice a minute, and signals 15 to 45 s after the start
_SHORT = (
    "run.epochs=12",
    "data.patch_size=[16, 16, 16]",
    "data.steps_per_epoch=4",
    "model.channels=[4, 8]",
    "run.threads=1",
    'run.device="cpu"',
    'hooks.slow.use="clients.slow:Slow"',
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


def submit(environment: Mapping[str, str], *values: str, options: Sequence[str] = (), log: str = LOG) -> str:
    """Submit a job for the recipe, and return its number."""
    job = ["--time", "1", "--signal-before", str(SIGNAL_BEFORE), "--log", log, "--gpus-per-node", "0", "--submit"]
    return trainkit(environment, "slurm", RECIPE, *sets(*values), *job, *options)


def states(environment: Mapping[str, str], job: str) -> list[str]:
    """Return the states that Slurm says a job is in, or the jobs of an array."""
    command = ["scontrol", "--oneliner", "show", "job", job]
    words = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    return [word.partition("=")[2] for word in words if word.startswith("JobState=")]


def wait_for(environment: Mapping[str, str], job: str, wanted: Sequence[str], seconds: float) -> str:
    """Wait until a job, or each job of an array, is in one of several states, and return them."""
    until = time.monotonic() + seconds
    while not set(now := states(environment, job)) <= set(wanted):
        if time.monotonic() > until:
            raise RuntimeError(f"job {job} is still {' and '.join(now)} after {seconds:.0f} s")
        time.sleep(0.5)
    return " and ".join(sorted(set(now)))


def newest(runs: str) -> dict[str, object]:
    """Return what the newest checkpoint of the run in a folder holds, without what tells runs apart."""
    (folder,) = Path(runs).glob("*/checkpoints")
    return trained(CheckpointFolder(folder).newest_good(lambda _: None)[1])


def requeued_job_ends_with_the_same_bits(environment: Mapping[str, str], portions: int) -> list[str]:
    """Return what is wrong with a job that needs several portions of time."""
    trainkit(environment, "run", RECIPE, *sets("hooks.slow.seconds=0", 'run.dir="straight"', 'run.name="one"'))
    pause = portions * PORTION_SECONDS / (12 * 4)
    job = submit(environment, f"hooks.slow.seconds={pause}", 'run.dir="requeued"', 'run.name="it\'s $one"')
    ended = wait_for(environment, job, ENDS, 300 + portions * 300)
    log = Path(f"it's $one-{job}.log").read_text()
    starts = log.count(f"job {job}, start ")
    print(f"job {job}: {ended.lower()} after {starts} starts", flush=True)
    found = [] if ended == "COMPLETED" else [f"the job is {ended}:\n{log}"]
    found += [] if starts > 1 and starts >= portions - 1 else [f"the job started only {starts} times:\n{log}"]
    if not found:
        here, there = newest("straight/one"), newest("requeued/it's $one")
        found += [f"{each} differs from the straight run's" for each in differences(here, there)]
    return found


def requeued_job_of_two_processes_ends_with_the_bits_of_one(environment: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a job of two processes that needs two portions of time."""
    same = ("run.shards=2", 'run.name="two"')
    trainkit(environment, "run", RECIPE, *sets(*same, "hooks.slow.seconds=0", 'run.dir="straight"'))
    pause = f"hooks.slow.seconds={2 * PORTION_SECONDS / (12 * 4)}"
    job = submit(environment, *same, pause, 'run.dir="requeued"', options=["--processes-per-node", "2"])
    ended = wait_for(environment, job, ENDS, 900)
    log = Path(f"two-{job}.log").read_text()
    starts = log.count(f"job {job}, start ")
    print(f"job {job} of two processes: {ended.lower()} after {starts} starts", flush=True)
    if ended != "COMPLETED" or starts < 2 or "2 processes, each with 1 CPU thread" not in log:
        return [f"the job of two processes is {ended} after {starts} starts:\n{log}"]
    here, there = newest("straight/two"), newest("requeued/two")
    return [f"{each} differs between one process and two" for each in differences(here, there)]


def requeued_folds_end_with_the_same_bits_and_an_ensemble(environment: Mapping[str, str]) -> list[str]:
    """Return what is wrong with an array of two folds that need two portions of time."""
    folds = ["--folds", "2"]
    straight = sets("hooks.slow.seconds=0", 'run.dir="straight"', 'run.name="folds"')
    trainkit(environment, "run", RECIPE, *straight, *folds)
    pause = f"hooks.slow.seconds={2 * PORTION_SECONDS / (12 * 4)}"
    log = "%x-%A_%a.log"
    job = submit(environment, pause, 'run.dir="requeued"', 'run.name="folds"', options=folds, log=log)
    ended = wait_for(environment, job, ENDS, 900)
    logs = [Path(f"folds-{job}_{fold}.log").read_text() for fold in (0, 1)]
    starts = [log.count(f"job {job}_{fold}, start ") for fold, log in enumerate(logs)]
    print(f"array {job}: {ended.lower()} after {starts[0]} and {starts[1]} starts", flush=True)
    if ended != "COMPLETED" or min(starts) < 2:
        return [f"the array is {ended} after {starts} starts:\n" + "\n".join(logs)]
    found = [
        f"{each} of fold {fold} differs from the straight run's"
        for fold in (0, 1)
        for each in differences(
            newest(f"straight/folds_2folds/fold_{fold}"), newest(f"requeued/folds_2folds/fold_{fold}")
        )
    ]
    tables = [Path(runs, "folds_2folds", "folds.csv") for runs in ("straight", "requeued")]
    if not tables[1].exists() or tables[0].read_text() != tables[1].read_text():
        found.append("the folds have no ensemble, or another one:\n" + "\n".join(logs))
    return found


def cancelled_job_saves_and_does_not_come_back(environment: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a job that is cancelled while it trains."""
    Path("began").unlink(missing_ok=True)
    job = submit(environment, "hooks.slow.seconds=0.3", 'run.dir="cancelled"', 'run.name="gone"')
    until = time.monotonic() + 60
    while not Path("began").exists() and time.monotonic() < until:
        time.sleep(0.2)
    subprocess.run(["scancel", job], env=environment, check=True)
    ended = wait_for(environment, job, ("CANCELLED", "PENDING", "FAILED", "COMPLETED"), 60)
    time.sleep(8)  # time in which it would come back
    ended = " and ".join(states(environment, job))
    print(f"job {job}: {ended.lower()} by scancel", flush=True)
    found = [] if ended == "CANCELLED" else [f"a cancelled job is {ended}:\n{Path(f'gone-{job}.log').read_text()}"]
    if "finishing this step, then saving" not in Path(f"gone-{job}.log").read_text():
        found.append(f"a cancelled job does not save:\n{Path(f'gone-{job}.log').read_text()}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portions", type=int, default=3, help="that the job has to need")
    given = parser.parse_args()
    if lacking := missing():
        print(f"skipped: this machine has no Slurm ({', '.join(lacking)} not found)")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # then Slurm is ended too
    recipe = Path(__file__).parents[1] / "recipes" / "segmentation_synthetic.toml"
    with tempfile.TemporaryDirectory(prefix="slurm-") as place, contextlib.chdir(place):
        (Path(place) / "daemons").mkdir()
        with slurm(Path(place) / "daemons", cpus=max(len(os.sched_getaffinity(0)), 2)) as environment:
            environment |= {"PYTHONPATH": str(Path(__file__).parent), "XDG_CACHE_HOME": f"{place}/cache"}
            work = Path(place, "work folder")
            work.mkdir()
            with contextlib.chdir(work):
                Path(RECIPE).write_text(recipe.read_text(encoding="utf-8"), encoding="utf-8")
                found = cancelled_job_saves_and_does_not_come_back(environment)
                found += requeued_job_ends_with_the_same_bits(environment, given.portions)
                found += requeued_job_of_two_processes_ends_with_the_bits_of_one(environment)
                found += requeued_folds_end_with_the_same_bits_and_an_ensemble(environment)
    for each in found:
        print(each)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
