"""What the command line imports once is left out of later looks for garbage, and nothing else is."""

from __future__ import annotations

import gc
import subprocess
import sys

from trainkit.cli.lasting_imports import lasting_imports


def test_torch_is_imported_without_looks_for_garbage_and_left_out_of_later_ones() -> None:
    code = """
import gc
from trainkit.cli.lasting_imports import lasting_imports
looks = []
gc.callbacks.append(lambda phase, _: looks.append(phase))
with lasting_imports():
    import torch
print(len(looks), gc.get_freeze_count() > 50_000, gc.isenabled())
made = [object() for _ in range(3)] + [[]]
made.append(made)
before = gc.get_freeze_count()
with lasting_imports():
    pass
print(gc.get_freeze_count() == before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True", "True", "True"]


def test_what_exists_before_is_not_touched_where_torch_is_imported_already() -> None:
    import torch  # noqa: F401

    frozen = gc.get_freeze_count()
    with lasting_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
