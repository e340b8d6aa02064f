"""A recipe that uses a package whose import hangs: commands say what they wait for, and Ctrl-C ends them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import resolve_text
from trainkit.slow_imports import Watcher, watched_by

RECIPE = """trainkit = 1
[run]
epochs = 1
[data]
use = "diffraction_simulated"
[model]
use = "single_slice_ptychography"
probe = {{ use = "aperture" }}
[losses.data]
use = "{use}"
"""
QUICK = (
    "from trainkit import slow_imports, cli; slow_imports.SPEAKS_AFTER = .2; slow_imports._UNWINDS_WITHIN = .3; "
    "cli.main()"
)
HANGS = {
    "can be interrupted": "import time\ntime.sleep(1000)",
    "tries again whatever happens": "import time\nwhile True:\n    try: time.sleep(1)\n    except BaseException: pass",
    "computes for ever": "while True: pass",
    "waits in C": "import ctypes\nwhile True: ctypes.CDLL(None).usleep(900000), ctypes.CDLL(None).usleep(900000)",
}


@pytest.fixture(autouse=True)
def _ctrl_c_is_not_ignored() -> Iterator[None]:
    """Let Ctrl-C arrive: a shell that runs the tests in the background has it ignored by all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "hang"), [*(("check", each) for each in HANGS), ("run", "can be interrupted")])
def test_an_import_that_hangs_is_named_and_ended_by_ctrl_c(tmp_path: Path, command: str, hang: str) -> None:
    (tmp_path / "hanging_part.py").write_text(HANGS[hang])
    (tmp_path / "r.toml").write_text(RECIPE.format(use="hanging_part:L"))
    call = [sys.executable, "-c", QUICK, command, "r.toml", "--json"]
    with subprocess.Popen(call, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            what = 'importing hanging_part ("hanging_part:L", used in [losses.data])'
            assert process.stderr.readline() == f"still {what}; Ctrl-C ends it\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, err) == (130, f"stopped while {what}\n")
    (said,) = map(json.loads, out.splitlines())
    assert said == {"type": "error", "message": f"stopped while {what}", "exit_code": 130}
    assert {each.name for each in tmp_path.iterdir()} <= {"__pycache__", "hanging_part.py", "r.toml"}


def test_an_import_that_raises_what_ctrl_c_raises_is_a_mistake_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "interrupting_part.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(str(tmp_path))
    said: list[str] = []
    with (
        watched_by(Watcher(said.append, lambda *_: said.append("ended"))),
        pytest.raises(InvalidRecipe, match="it raises KeyboardInterrupt, though nobody pressed Ctrl-C"),
    ):
        resolve_text(RECIPE.format(use="interrupting_part:L"), tmp_path)
    assert said == []


def test_an_import_outside_of_the_command_line_is_left_to_who_called_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "interrupted_part.py").write_text("raise KeyboardInterrupt('mine')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyboardInterrupt, match=r"^mine$"):
        resolve_text(RECIPE.format(use="interrupted_part:L"), tmp_path)


def test_what_an_import_imports_is_part_of_it_and_the_handler_of_wakeups_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = "from trainkit.registry import import_class; import_class('inner_part:C', 'the inner one')"
    (tmp_path / "outer_part.py").write_text(f"{inner}\nclass L: pass")
    (tmp_path / "inner_part.py").write_text("import signal; signal.raise_signal(signal.SIGINT)\nclass C: pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = signal.set_wakeup_fd(-1)
    assert before == -1
    with (
        watched_by(Watcher(lambda _: None, lambda *_: None)),
        pytest.raises(KeyboardInterrupt, match=r'while importing outer_part \("outer_part:L", used in \[losses.data\]'),
    ):
        resolve_text(RECIPE.format(use="outer_part:L"), tmp_path)
    assert signal.set_wakeup_fd(-1) == -1
