"""Peak memory of a prediction of a large CT with many classes, with a network of one layer.

    python benchmarks/predict_memory.py                                  512 × 512 × 400 voxels, 20 classes
    python benchmarks/predict_memory.py --shape 160 160 128 --patch 32   a smaller one, as in the tests

The scores of all classes for the whole volume, in float32, would take 8.8 GB. The network of one layer leaves the
memory to all else: reading, preprocessing, adding up windows, resampling to the image's own grid, and writing.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import torch

from trainkit import Member
from trainkit.inference.plain import Plain
from trainkit_segmentation.cases.image_names import ImageNames
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.prediction.segmentation import SegmentationPredictor


class OneLayer(torch.nn.Module):
    def __init__(self, scores: int) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, scores, 1)

    def forward(self, batch):
        return {"logits": self.layer(batch["image"])}


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 400))
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--patch", type=int, default=96)
    parser.add_argument("--spacing", type=float, default=None, help="resample from 1 mm to this")
    parser.add_argument("--probabilities", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    facts = SegmentationFacts(
        channels=("ct",),
        classes=tuple(f"class {k}" for k in range(arguments.classes)),
        exclusive=True,
        label_values={},
        patch_size=(arguments.patch,) * 3,
        preprocessing={"normalization": "window", "spacing_mm": [arguments.spacing] * 3 if arguments.spacing else None},
        num_training_cases=1,
        training_digest="",
        image_names=ImageNames(),
    )
    member = Member("made up", OneLayer(arguments.classes + 1), facts, Plain())
    settings = SegmentationPredictor(overlap=0.25, probabilities=arguments.probabilities)
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        folder = Path(name)
        shape = tuple(arguments.shape)
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), np.diag([-1.0, -1, 1, 1])), folder / "ct.nii")
        live = settings.build((member,), torch.device("cpu"), lambda progress: None)
        (item,) = live.items([folder / "ct.nii"])
        (folder / "out").mkdir()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        before, began = peak_bytes(), time.perf_counter()
        live.predict(item, folder / "out")
        seconds, peak = time.perf_counter() - began, peak_bytes()
        found = nibabel.load(folder / "out" / "ct.nii.gz").shape
    whole = 4 * (arguments.classes + 1) * math.prod(shape)
    gigabytes = {"peak": peak, "before": before, "all scores in float32": whole}
    print(
        json.dumps(
            {key: round(value / 1e9, 3) for key, value in gigabytes.items()}
            | {"seconds": round(seconds), "shape": found}
        )
    )


if __name__ == "__main__":
    main()
