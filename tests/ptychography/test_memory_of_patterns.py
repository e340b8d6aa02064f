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
            print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))  # the most so far, kB
            state.stop("measured")

folder = Path(sys.argv[1])
resolved = resolve_text((folder / "recipe.toml").read_text(), folder)
with created(resolved) as into:
    run = build(resolved, into)
run.add("watch", Watch())
train(run)
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


def _peak_bytes(folder: Path, num: int, where: str) -> int:
    """Return the largest memory of a process that trains with a raster of so many patterns."""
    folder.mkdir(exist_ok=True)
    rng, width = np.random.default_rng(0), int(num**0.5)
    light_YX = np.fft.ifftshift(np.exp(-(np.hypot(*np.mgrid[-32:32, -32:32]) ** 2) / 200))
    with h5py.File(folder / "scan.h5", "w") as file:
        frames = file.create_dataset("intensity", (num, _SIZE, _SIZE), np.uint16)
        for row in range(0, num, width):
            brighter_X11 = rng.uniform(50, 150, (width, 1, 1))
            frames[row : row + width] = rng.poisson(brighter_X11 * light_YX)
        file["positions"] = 0.5 * np.argwhere(np.ones((width, width)))
    (folder / "recipe.toml").write_text(_RECIPE.format(where=where))
    command = [sys.executable, "-c", _RUN, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return 1024 * int(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell a process's peak memory")
@pytest.mark.parametrize(("where", "most"), [("device", 1.3), ("disk", 0.3)])  # a look at its start takes a sixth
def test_patterns_take_memory_once_if_they_are_kept_and_next_to_none_if_they_are_streamed(
    where: str, most: float, tmp_path: Path
) -> None:
    few, many = 32**2, 96**2
    more = _peak_bytes(tmp_path / "many", many, where) - _peak_bytes(tmp_path / "few", few, where)
    share = more / ((many - few) * _SIZE**2 * 4)
    assert share <= most
    if where == "device":
        assert share > 0.9  # or it was not measured
