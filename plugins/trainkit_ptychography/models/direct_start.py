"""What an object can be made from in one go, before anything is trained.

Shapes: M = probe modes, Y, X = rows and columns of the detector, H, W = those of the object.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit_ptychography.direct.evidence import Evidence
from trainkit_ptychography.models.propagation import Propagation
from trainkit_ptychography.probes.modes import ProbeModes
from trainkit_ptychography.scans.kind_live import LiveDiffraction


@torch.no_grad()
def seen_by(
    data: LiveDiffraction,
    probe: ProbeModes,
    propagation: Propagation | None,
    origin_2: NDArray[np.float64],
    shape_HW: tuple[int, int],
    told_defocus_angstrom: Sequence[float | None] = (None,),
) -> Sequence[Evidence]:
    """Return the patterns that are trained on, with the probe that made them, for each scan that has its own.

    Args:
        data: The opened scan.
        probe: The probe as it is told.
        propagation: How it gets through a thick specimen; None: there is one slice.
        origin_2: Position, in the data's coordinates, of the object's pixel [0, 0].
        shape_HW: Rows and columns of the object.
        told_defocus_angstrom: Underfocus of the probe of each scan; None: nothing is told.
    """
    modes_MYX = probe() if propagation is None else propagation.in_the_middle(probe())
    found = []
    for number, of_scan_MYX in enumerate(torch.chunk(modes_MYX, probe.num_scans)):
        points_N = data.train_index
        if probe.num_scans > 1:
            assert data.scan.scan_N is not None
            points_N = points_N[torch.from_numpy(data.scan.scan_N[points_N.numpy()] == number)]
        power = of_scan_MYX.abs().square().sum()
        told = told_defocus_angstrom[number]
        found.append(Evidence(data, points_N, of_scan_MYX / power.sqrt(), origin_2, shape_HW, told))
    return [each for each in found if len(each.points_N)]
