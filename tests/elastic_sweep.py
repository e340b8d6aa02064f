"""Kills random processes of a run at random moments, lets torchrun start all again, and goes on with other numbers.

    python tests/elastic_sweep.py [--kills 50] [--seed 0]

A run of two or four processes is started by ``torchrun --max-restarts``. One process of it is killed, torchrun starts
all of them again, another one is killed, until torchrun gives up. Then the same command goes on with another number of
processes. When the run is finished, the next one begins. Whatever a run leaves behind is compared with a run of one
process that was never killed: the newest checkpoint to the bit, metrics line by line, one run folder, no process that
is left over, no traceback of ours. The suite kills two processes, which torchrun forks (tests/engine/test_elastic.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import attrs

from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.engine.verify import differences
from trainkit.recipe.resolve import resolve

RECIPE = """
trainkit = 1
[run]
name = "elastic"
epochs = {epochs}
device = "cpu"
threads = 1
shards = 4
patience = "1m"
[data]
use = "clients.divided:Points"
[model]
use = "clients.divided:Network"
dropout = 0.3
[losses.squares]
use = "clients.divided:Squares"
[metrics.error]
use = "clients.divided:Error"
[optimizer]
use = "sgd"
momentum = 0.9
lr = 0.01
[groups.body]
stop_epoch = 5
[groups.head]
start_epoch = 1
[monitor]
metric = "val/loss"
[ema]
decay = 0.9
[pictures]
every_epochs = 0
"""
TESTS = Path(__file__).parent
MOST_SECONDS = 300.0
"""A start that takes longer hangs."""


class Agent(Protocol):
    """What starts the processes of a run: torchrun, or the only process itself."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float) -> int: ...
    def kill(self) -> None: ...


@attrs.frozen
class Launch:
    """How a run is started.

    Attributes:
        agent: Starts python with these arguments in a folder; what is printed is appended to ``said.txt`` there.
        seconds_of_start: How long after their start processes may be killed, at most, to be killed while they start.
        seconds_of_training: How long after they began to train, to be killed while they train.
    """

    agent: Callable[[list[str], Path], Agent]
    seconds_of_start: float
    seconds_of_training: float


def _python(arguments: list[str], here: Path) -> Agent:
    path = {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    with (here / "said.txt").open("a") as said:
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=here, env=os.environ | path, stdout=said, stderr=subprocess.STDOUT
        )


AS_USERS_DO = Launch(_python, seconds_of_start=8, seconds_of_training=1.5)


def arguments(world: int, restarts: int) -> list[str]:
    """Return the arguments of python for a run in several processes; one process is started without torchrun."""
    by = []
    if world > 1:
        by = [*("-m", "torch.distributed.run", "--standalone", "--monitor-interval", "0.1")]
        by += [*("--max-restarts", str(restarts), "--nproc-per-node", str(world))]
    return [*by, "-m", "trainkit", "run", "elastic.toml", "--continue"]


class Sweep:
    """Runs that are killed.

    Args:
        folder: An empty folder to work in.
        epochs: Length of each run.
        seed: Seed of what is killed, and when.
        say: Called with what happens.
        launch: How runs are started.
    """

    def __init__(
        self, folder: Path, epochs: int, seed: int, say: Callable[[str], None], launch: Launch = AS_USERS_DO
    ) -> None:
        self._folder, self._say, self._launch = folder, say, launch
        self._recipe = RECIPE.format(epochs=epochs)
        self._random = random.Random(seed)
        self._expected: dict[str, Any] = {}
        self.killed, self.runs, self.bad = 0, 0, 0
        self.moments: dict[str, int] = {}

    def straight(self) -> None:
        """Run the recipe in one process, without a kill."""
        here = self._place("straight")
        with contextlib.chdir(here):
            start(resolve(Path("elastic.toml")), Console(quiet=True))
        self._expected = outcome(here)

    def one_run(self, kills: int, worlds: list[int], restarts: int) -> None:
        """Start a run, kill processes of it, go on with other numbers, and compare what it leaves behind.

        Args:
            kills: Number of kills at most.
            worlds: The numbers of processes, one for each start of torchrun; the last one is not killed.
            restarts: How often torchrun starts all processes again.
        """
        self.runs += 1
        here = self._place(f"run{self.runs}")
        found: list[str] = []
        left = kills
        for number, world in enumerate(worlds):
            most = min(left, restarts + 1) if world > 1 and number + 1 < len(worlds) else 0
            code, killed = self._start(here, world, restarts, most, found)
            left -= killed
            if code == 0:
                break
            if killed <= restarts and world > 1 and code is not None:
                found.append(f"the start in {world} processes failed after {killed} kills of {restarts + 1}")
        if code != 0:
            found.append("it never finished")
        else:
            found += differences(self._expected, outcome(here))
        text = (here / "said.txt").read_text(errors="replace")
        found += [
            f"traceback in {file}"
            for file in set(re.findall(r'File "((?!\S*/(?:site-packages|tests)/)\S*/trainkit/\S+)"', text))
        ]
        if found:
            self.bad += 1
            self._say(f"run {self.runs}: {'; '.join(found[:6])} ({here})")
        else:
            shutil.rmtree(here)

    def _place(self, name: str) -> Path:
        here = self._folder / name
        here.mkdir(parents=True)
        (here / "elastic.toml").write_text(self._recipe)
        return here

    def _start(self, here: Path, world: int, restarts: int, kills: int, found: list[str]) -> tuple[int | None, int]:
        """Start the command, kill up to ``kills`` processes; return its exit code (None: it hung) and the kills."""
        with (here / "said.txt").open("a") as said:
            said.write(f"--- {world} processes\n")
        agent = self._launch.agent(arguments(world, restarts), here)
        until, killed, before = time.monotonic() + MOST_SECONDS, 0, set[int]()
        code = None
        try:
            while killed < kills and agent.poll() is None and time.monotonic() < until:
                if self._kill_one(agent, here, world, before):
                    killed += 1
                    until = time.monotonic() + MOST_SECONDS
            code = agent.wait(max(until - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            found.append(f"hangs in {world} processes after {killed} kills")
        finally:
            _end_all(agent, here, found)
        return (code if code in (0, 1) else None), killed

    def _kill_one(self, agent: Agent, here: Path, world: int, before: set[int]) -> bool:
        """Wait for new processes, then for a random moment, and kill one of them; return whether that happened."""
        while len(now := _workers(agent) - before) < world:
            if agent.poll() is not None:
                return False
            time.sleep(0.02)
        if self._random.random() < 0.4:  # while they start, import, meet and resume
            moment, wait = "as they start", self._random.uniform(0, self._launch.seconds_of_start)
        else:  # while they train
            moment, wait = "in training", self._random.uniform(0, self._launch.seconds_of_training)
            seen = _progress(here)
            while _progress(here) == seen and agent.poll() is None and now <= _workers(agent):
                time.sleep(0.01)
        time.sleep(wait)
        victim = self._random.choice(sorted(now))
        if victim not in _workers(agent):
            before |= now if not now <= _workers(agent) else set()
            return False
        os.kill(victim, signal.SIGKILL)
        before |= now
        self.killed += 1
        self.moments[moment] = self.moments.get(moment, 0) + 1
        return True


def _workers(agent: Agent) -> set[int]:
    """Return the processes that torchrun started, or forked: these say in their name what others have as a variable."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text()
        children = [int(each) for each in text.split()]
        return {each for each in children if b"RANK=" in _of_process(each, "environ") + _of_process(each, "comm")}
    return set()


def _end_all(agent: Agent, here: Path, found: list[str]) -> None:
    """Make sure that nothing of a start is left: no process that works in its folder."""
    if agent.poll() is None:
        agent.kill()
        agent.wait(15)
    until = time.monotonic() + 15
    while (left := list(_working_in(here))) and time.monotonic() < until:
        time.sleep(0.05)
    for process in left:
        found.append(f"process {process} outlived torchrun")
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)


def _working_in(here: Path) -> Iterator[int]:
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if each.name.isdecimal() and (each / "cwd").samefile(here):
                yield int(each.name)


def _of_process(number: int, what: str) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/{what}").read_bytes()
    return b""


def _progress(here: Path) -> int:
    return sum(path.stat().st_size for path in here.glob("runs/elastic/*/metrics.jsonl"))


def outcome(here: Path) -> dict[str, Any]:
    """Return what a run has left behind, as far as it must not depend on how often it was killed."""
    above = here / "runs" / "elastic"
    folders = sorted(path.name for path in above.iterdir())
    folder = above / folders[-1]
    newest, content = CheckpointFolder(folder / "checkpoints").newest_good(print)
    for key in ("run", "recipe", "conditions"):  # the recipe names the folder above
        content.pop(key)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    starts = json.loads((folder / "environment.json").read_text())["starts"]
    return {
        "number of run folders": len(folders),
        "newest": newest.name,
        "checkpoint": content,
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
        "metrics": [{**line, "seconds": 0} for line in lines],
        "finished": starts[-1]["finished"],
        "files": sorted(path.name for path in folder.iterdir()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="number of processes to kill in all")
    parser.add_argument("--epochs", type=int, default=60, help="length of each run")
    parser.add_argument("--restarts", type=int, default=3, help="--max-restarts of torchrun")
    parser.add_argument("--worlds", default="", help="numbers of processes of the starts of each run; default: random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="keep what was different in this folder")
    given = parser.parse_args()
    began = time.perf_counter()
    folder = given.folder or Path(tempfile.mkdtemp())
    sweep = Sweep(folder, given.epochs, given.seed, lambda text: print(text, flush=True))
    sweep.straight()
    by = random.Random(given.seed)
    while sweep.killed < given.kills and sweep.bad < 5:
        worlds = [int(each) for each in given.worlds.split(",") if each]
        if not worlds:
            worlds = [2, by.choice([2, 4]), by.choice([1, 2, 4])]
        before = sweep.killed
        sweep.one_run(given.kills - sweep.killed, worlds, given.restarts)
        print(f"run {sweep.runs} in {worlds} processes: {sweep.killed - before} kills", flush=True)
    moments = ", ".join(f"{number} {moment}" for moment, number in sweep.moments.items())
    print(
        f"{sweep.killed} kills ({moments}) in {sweep.runs} runs, {sweep.bad} different, "
        f"{time.perf_counter() - began:.0f} s"
    )
    sys.exit(1 if sweep.bad else 0)


if __name__ == "__main__":
    main()
