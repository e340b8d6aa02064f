"""``python -m trainkit.cli.worker WORDS``: runs the command line as one of several processes, for the launcher.

torchrun takes every exit code but 0 for a failure. So the process writes down how the command ended, and ends with 0
itself unless it is killed. The launcher decides what follows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trainkit.cli import main
from trainkit.engine.launched import LAUNCH, ONLY_NOTED, noted_folders
from trainkit.errors import LostProcessError
from trainkit.launching.endings import LAUNCHER, Ending, is_restarted, write_ending
from trainkit.launching.orphans import end_with
from trainkit.processes.meeting import meeting


def work(words: Sequence[str]) -> None:
    """Run a command line, and write down how it ended."""
    end_with(int(os.environ[LAUNCHER]), meeting())
    sys.argv = ["trainkit", *after_restart(words)]
    rank = int(os.environ["RANK"])
    try:
        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
        ending = Ending(code, is_lost=isinstance(error.__context__, LostProcessError))
        write_ending(Path(os.environ[LAUNCH]), rank, ending)


def after_restart(words: Sequence[str]) -> list[str]:
    """Return the command line that goes on with what earlier starts of this launch began.

    Args:
        words: The command line without the program, with its options before its arguments.
    """
    if not is_restarted():
        return list(words)
    number = next(number for number, word in enumerate(words) if not word.startswith("-"))
    if words[number] == "run":
        if "--continue" in words:
            return list(words)
        os.environ[ONLY_NOTED] = "1"
        return [*words[: number + 1], "--continue", *words[number + 1 :]]
    made = noted_folders()
    if not made:  # it goes on in the folder that it was given
        return list(words)
    kept = [each for each in words[: words.index("--")] if each in ("--traceback", "resume", "--quiet", "--allow-code")]
    return [*kept, "--", str(made[-1])]


if __name__ == "__main__":
    work(sys.argv[1:])
