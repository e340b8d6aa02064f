"""The probe as a recipe tells it, to see before a run what a constraint would take from it.

Shapes: M = modes, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from trainkit import Context
from trainkit_ptychography.probes.kind import Probe
from trainkit_ptychography.probes.modes import ProbeModes
from trainkit_ptychography.probes.wave_sampling import WaveSampling
from trainkit_ptychography.scans.kind import DiffractionData
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Recording, checked

if TYPE_CHECKING:
    from trainkit import Recipe

_PATTERNS = 32


def told_probe(recipe: Recipe) -> ProbeModes | None:
    """Return the probe with which a run would begin; None: the recipe has none.

    Raises:
        DataError: The scan or the probe cannot be read.
    """
    probe = getattr(recipe.model, "probe", None)
    if not isinstance(probe, Probe) or not isinstance(recipe.data, DiffractionData):
        return None
    return probe_at_start(recipe.data, probe, recipe.run.seed)


def probe_at_start(data: DiffractionData, probe: Probe, seed: int) -> ProbeModes:
    """Return the modes that a probe's settings make for a scan, of which only some patterns are read.

    Raises:
        DataError: The scan or the probe cannot be read.
    """
    patterns, scan = data.read()
    some = np.unique(np.linspace(0, len(patterns) - 1, _PATTERNS * scan.num_scans).round().astype(int))
    context = Context(seed, torch.device("cpu"), Path())
    live = LiveDiffraction(checked(Recording(patterns[some], scan.some(some))), context, len(some), 0.0)
    return ProbeModes(probe.build(live), live.dtype, live.device, WaveSampling.of(live.scan))
