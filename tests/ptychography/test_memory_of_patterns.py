"""What memory the patterns of a scan take until a run has made some steps: once what they are, or next to none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.geometry_search]

_SIZE = 64
_RUN = """
import os
import sys
from pathlib import Path
from trainkit.engine.build import build
from trainkit.engine.loop import train
from trainkit.engine.run_folder import created
from trainkit.recipe.resolve import resolve_text

class Watch:
    def on_step_end(self, state):
        if state.steps_in_epoch == 3:
            lines = Path("/proc/self/status").read_text().splitlines()
            print(next(line.split()[1] for line in lines if line.startswith("VmHWM")), flush=True)  # the most, in kB
            os._exit(0)

def measure(folder, where):
    resolved = resolve_text((folder / f"{where}.toml").read_text(), folder)
    with created(resolved) as into:
        run = build(resolved, into)
    run.add("watch", Watch())
    train(run)

for where in ("device", "disk"):
    for folder in sys.argv[1:]:
        if os.fork() == 0:  # each in a process of its own, which begins with the same memory
            measure(Path(folder), where)
            os._exit(1)
        if os.wait()[1] != 0:
            sys.exit(f"{where} {folder} failed")
"""
_RECIPE = """
trainkit = 1
run = {{ name = "memory", epochs = 1, device = "cpu", threads = 1, dir = "runs" }}
model = {{ use = "ptychography", probe = {{ use = "aperture" }} }}
losses.data = {{ use = "poisson" }}
groups.dr = {{ start_epoch = 0 }}
pictures = {{ every_epochs = 0 }}
[data]
use = "diffraction_hdf5"
path = "scan.h5"
patterns = "intensity"
positions = "positions"
positions_unit = "angstrom"
zero_frequency = "corner"
energy_kev = 80.0
pixel_size_angstrom = 0.2
semiangle_mrad = 25.0
defocus_angstrom = 60.0
batch_size = 64
patterns_on = "{where}"
"""


def _write(folder: Path, num: int) -> None:
    """Write a raster of so many patterns, and the recipes that read it."""
    folder.mkdir()
    rng, width = np.random.default_rng(0), int(num**0.5)
    light_YX = np.fft.ifftshift(np.exp(-(np.hypot(*np.mgrid[-32:32, -32:32]) ** 2) / 200))
    row_XYX = rng.poisson(rng.uniform(50, 150, (width, 1, 1)) * light_YX)
    with h5py.File(folder / "scan.h5", "w") as file:
        frames = file.create_dataset("intensity", (num, _SIZE, _SIZE), np.uint16)
        for row in range(0, num, width):
            frames[row : row + width] = rng.permutation(row_XYX)
        file["positions"] = 0.5 * np.argwhere(np.ones((width, width)))
    for where in ("device", "disk"):
        (folder / f"{where}.toml").write_text(_RECIPE.format(where=where))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell a process's peak memory")
def test_patterns_take_memory_once_if_they_are_kept_and_next_to_none_if_they_are_streamed(tmp_path: Path) -> None:
    few, many = 32**2, 96**2
    folders = {num: tmp_path / str(num) for num in (many, few)}
    for num, folder in folders.items():
        _write(folder, num)
    command = [sys.executable, "-c", _RUN, *map(str, folders.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kept_many, kept_few, streamed_many, streamed_few = (1024 * int(line) for line in done.stdout.splitlines())
    of_patterns = (many - few) * _SIZE**2 * 4
    assert 0.9 < (kept_many - kept_few) / of_patterns <= 1.3
    assert (streamed_many - streamed_few) / of_patterns <= 0.3  # a look at its start takes a sixth
