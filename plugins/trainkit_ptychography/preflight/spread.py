"""The look at the spread of the defocus that ``check --data`` takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainkit import Problem
from trainkit_ptychography.constraints.told_probe import probe_at_start
from trainkit_ptychography.probes.defocus_spread import doubt_of_nodes, largest_phase

if TYPE_CHECKING:
    from trainkit_ptychography.probes.kind import Probe
    from trainkit_ptychography.scans.kind import DiffractionData


def inspect_spread(data: DiffractionData, probe: Probe, seed: int) -> Iterator[str | Problem]:
    """Yield what the spread does at the edge of the aperture, and a doubt if its nodes are too few."""
    told = probe_at_start(data, probe, seed)
    modes_MYX, spread, nodes = told().detach().numpy(), probe.defocus_spread_angstrom, probe.defocus_spread_nodes
    if None in told.sampling:
        return  # refused elsewhere
    largest = largest_phase(modes_MYX, told.sampling, spread)
    yield f"coherence    a spread of the defocus of {spread:g} Å turns the aperture's edge by {largest:.2g} rad"
    if doubt := doubt_of_nodes(nodes, modes_MYX, told.sampling, spread):
        yield Problem(doubt, "probe.defocus_spread_nodes", "warning")
