from __future__ import annotations

import subprocess
import sys

import trainkit


def test_all_that_the_package_hands_out_is_public_sorted_and_there() -> None:
    assert trainkit.__all__ == sorted(trainkit.__all__)
    handed_out = {
        name for name, value in vars(trainkit).items() if getattr(value, "__module__", "").startswith("trainkit.")
    }
    handed_out |= {"Batch", "Memory", "MetricName", "Outputs"}
    assert {name for name in handed_out if not name.startswith("_")} == set(trainkit.__all__)


def test_importing_it_imports_no_heavy_module() -> None:
    heavy = ("torch", "numpy", "h5py", "monai", "matplotlib", "rich", "tensorboard")
    code = f"import sys, trainkit; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
