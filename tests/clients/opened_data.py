"""Data for segmentation as a run opens them, for tests that need no run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainkit import Context
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.data.kind_live import LiveSegmentation
from trainkit_segmentation.preparing.preprocessing import Preprocessing

AS_IN_FILES = Preprocessing(orientation=None, normalization="none")


def opened(data: SegmentationData, seed: int = 3) -> LiveSegmentation:
    """Open data on the CPU, for a run that is one process."""
    live: LiveSegmentation = data.build(Context(seed, torch.device("cpu"), Path()))
    return live


def volumes(data: SegmentationData, split: str = "val") -> dict[str, dict[str, Any]]:
    """Return the whole volumes of a split, by their case."""
    return {batch["case"]: batch for batch in opened(data).evaluate(split)}
