"""Measures which tests are not fast, and keeps their names in tests/not_fast.txt: `pytest -m fast` leaves these out.

    python tests/durations.py tests/core/test_memory.py     # the tests of some files or folders
    python tests/durations.py                               # all that are not marked slow, in some five minutes

What is measured is the CPU time of a test with its fixtures, in its process and in those that it has waited for; of a
test with parameters their mean. Above a twentieth of a second it is not fast. One that is in the list stays there above
two thirds of that, so that it does not come and go.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("not_fast.txt")
MOST_SECONDS = 0.05


def function_of(nodeid: str) -> str:
    """Return the name of a test without its parameters, as it stands in the list."""
    return nodeid.partition("[")[0]


def not_fast() -> frozenset[str]:
    """Return the names of the tests in the list."""
    return frozenset(LIST.read_text(encoding="utf-8").split())


def gone(names: Iterable[str]) -> list[str]:
    """Return which names are those of no test."""
    return [each for each in names if not _is_there(each)]


def _is_there(name: str) -> bool:
    module, function = ROOT / name.partition("::")[0], name.rpartition("::")[2]
    return module.is_file() and f"def {function}(" in module.read_text(encoding="utf-8")


def renewed(listed: Iterable[str], seconds: Mapping[str, float]) -> list[str]:
    """Return the names that belong in the list.

    Args:
        listed: Those that are in it.
        seconds: What was measured: name -> CPU seconds.
    """
    before = set(listed)
    slower = {name for name, each in seconds.items() if each > MOST_SECONDS * (2 / 3 if name in before else 1)}
    return sorted((before - seconds.keys()) | slower)


class Stopwatch:
    """Measures tests as they run."""

    def __init__(self) -> None:
        self._seconds = defaultdict[str, list[float]](list)

    def seconds(self) -> dict[str, float]:
        """Return what each test took: name -> CPU seconds."""
        return {name: mean(each) for name, each in self._seconds.items()}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        before = sum(os.times()[:4])
        try:
            return (yield)
        finally:
            self._seconds[function_of(item.nodeid)].append(sum(os.times()[:4]) - before)


def main() -> None:
    os.chdir(ROOT)
    stopwatch = Stopwatch()
    options = ["-q", "-m", "not slow", "-p", "no:cacheprovider", "-n", "0"]
    code = pytest.main([*options, *(sys.argv[1:] or ["tests"])], plugins=[stopwatch])
    if code != pytest.ExitCode.OK:
        sys.exit(int(code))
    before = not_fast()
    names = renewed(before - set(gone(before)), stopwatch.seconds())
    LIST.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    print(f"{LIST.name}: {len(names)} tests, {len(set(names) - before)} new, {len(before - set(names))} taken away")


if __name__ == "__main__":
    main()
