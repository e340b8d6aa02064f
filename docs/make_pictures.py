"""Makes the pictures of the first pages, in docs/pictures/: from two runs of recipes that simulate their data.

Usage: python docs/make_pictures.py [FOLDER]

Without FOLDER, the runs are made in a temporary folder, which takes minutes; with it, those in FOLDER/runs are taken.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).with_name("pictures")
RECIPES = ("ptycho_staged", "segmentation_synthetic")
WIDTH, COLOURS = 900, 64
FROM = {
    "start_object.png": "ptycho_staged/*/figures/object_phase-0040.png",
    "start_probe.png": "ptycho_staged/*/figures/probe-0040.png",
    "start_positions.png": "ptycho_staged/*/figures/positions-0040.png",
    "segmentation_overlay.png": "segmentation_synthetic/*/figures/overlay-0012.png",
}


def main(folder: Path) -> None:
    """Write the pictures."""
    for name in RECIPES:
        if not list(folder.glob(f"runs/{name}/*")):
            subprocess.run([sys.executable, "-m", "trainkit", "run", name], cwd=folder, check=True)
    PICTURES.mkdir(exist_ok=True)
    for name, pattern in FROM.items():
        (path,) = folder.glob(f"runs/{pattern}")
        picture = Image.open(path).convert("RGB")
        if name == "segmentation_overlay.png":  # its first row
            picture = picture.crop((0, 0, picture.width, picture.height // 3))
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
        picture.quantize(COLOURS).save(PICTURES / name, optimize=True)
    plan = [sys.executable, "-m", "trainkit", "plan", "ptycho_staged", "--png", str(PICTURES / "start_plan.png")]
    subprocess.run(plan, cwd=folder, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
