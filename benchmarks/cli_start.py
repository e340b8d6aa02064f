"""Measures the start of the command line: CPU seconds in addition to the start of an empty Python.

python benchmarks/cli_start.py [--rounds 7] [RECIPE]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from pathlib import Path

AIM_SECONDS = 0.5
STAGED = Path(__file__).parents[1] / "recipes" / "ptycho_staged.toml"


def cpu_seconds(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("recipe", nargs="?", default=str(STAGED))
    given = parser.parse_args()
    variants = {
        "python -c pass": ("-c", "pass"),
        "trainkit --help": ("-m", "trainkit", "--help"),
        "trainkit check": ("-m", "trainkit", "check", given.recipe),
        "trainkit plan": ("-m", "trainkit", "plan", given.recipe),
        "import torch": ("-c", "import torch"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for arguments in variants.values():
        cpu_seconds(*arguments)
    for _ in range(given.rounds):
        for name, arguments in variants.items():
            seconds[name].append(cpu_seconds(*arguments))
    empty = statistics.median(seconds["python -c pass"])
    print(f"seconds of CPU, median of {given.rounds} rounds; aim: at most {AIM_SECONDS} over an empty Python")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:18s}{median:7.3f}   over empty {median - empty:7.3f}   {median / empty:6.1f} ×")


if __name__ == "__main__":
    main()
