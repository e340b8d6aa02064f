"""Measures the start of the command line: CPU seconds in addition to the start of an empty Python.

The aims are those of a machine on which the import of torch takes 1.2 seconds. On one that is slower, or busy with
other things, they grow with it.

    python benchmarks/cli_start.py [--rounds 7] [RECIPE]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from pathlib import Path

AIMS = {"trainkit --help": 0.1, "trainkit check": 0.25, "trainkit plan": 0.25}  # seconds over an empty Python
IMPORT_OF_TORCH = 1.2  # seconds, where the aims hold as they are
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
    # The least of all rounds: what else the machine does makes a start dearer, and never cheaper.
    least = {name: min(values) for name, values in seconds.items()}
    empty = least["python -c pass"]
    slower = max(1.0, (least["import torch"] - empty) / IMPORT_OF_TORCH)
    print(f"seconds of CPU, least and median of {given.rounds} rounds")
    missed = []
    for name, values in seconds.items():
        over, aim = least[name] - empty, slower * AIMS[name] if name in AIMS else None
        words = "" if aim is None else f"   aim: at most {aim:.3f}"
        print(f"{name:18s}{least[name]:7.3f}{statistics.median(values):7.3f}   least over empty {over:7.3f}{words}")
        missed += [name] * (aim is not None and over > aim)
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
