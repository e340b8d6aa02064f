"""Whether several scans of one specimen show it at the same place, as their positions tell.

Shapes: N = scan points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np

from trainkit import Problem
from trainkit_ptychography.physics.displacement import Displacement, displacement
from trainkit_ptychography.preflight.geometry import Geometry
from trainkit_ptychography.preflight.look import FEWEST
from trainkit_ptychography.preflight.sample import parts_of_scans

if TYPE_CHECKING:
    from trainkit_ptychography.probes.kind import Probe
    from trainkit_ptychography.scans.kind import DiffractionData
    from trainkit_ptychography.scans.scan import Recording

_PATTERNS = 1024  # of a scan; the more of it is seen, the larger a displacement can be
_PIXELS = 2**21  # of all patterns of a scan together
_SURE = 4.5  # times the spread of the correlation over all displacements
_SURE_AS_TOLD = (
    2.5  # the same, where the specimen shows as told: small scans scatter much elsewhere, where little overlaps
)
_LEAST = 0.4  # correlation at which two reconstructions are taken to show the same place
_ALIKE = 0.85  # of the largest correlation: then another place is as good, as in a crystal
_TOLD = 1.5  # pixels of a trial within which a displacement may be one of noise


def inspect_offsets(
    recording: Recording,
    data: DiffractionData,
    probe: Probe,
    seed: int,
    depth_angstrom: float,
    tilts_mrad: Sequence[tuple[float, float]] = (),
) -> Iterator[str | Problem]:
    """Yield how each scan lies against the first, and a doubt if the specimen shows elsewhere.

    Each is reconstructed roughly, by itself and with its own probe, and the phases are correlated.

    Args:
        recording: Several scans.
        data: Their settings.
        probe: The probe's settings.
        seed: The run's seed.
        depth_angstrom: How deep in the specimen its middle is.
        tilts_mrad: Of the beam through the specimen in each scan: in its middle, a scan shows what lies there.
    """
    size, num = recording.scan.pixel_size_angstrom, recording.scan.num_scans
    told = getattr(data, "scan_shifts_angstrom", ()) or ((0.0, 0.0),) * num
    parts = parts_of_scans(recording, probe, seed, depth_angstrom, _PATTERNS, _PIXELS)
    if parts is None or min(len(each.points_N) for each in parts) < FEWEST:
        yield "scans        not compared with each other: too few patterns"
        return
    shown = [each for part in parts if (each := part.try_out(Geometry()).found) is not None]
    scale_2 = parts[0].scale()
    unit, pixel_2 = ("pixels", 1 / scale_2) if size is None else ("Å", size / scale_2)
    if tilts_mrad and size is not None:
        moves_R2 = depth_angstrom * np.tan(1e-3 * np.array(tilts_mrad)) / pixel_2
        shown = [
            attrs.evolve(each, origin_2=each.origin_2 + move_2) for each, move_2 in zip(shown, moves_R2, strict=True)
        ]
    shifts, contradicted = [told[0]], []
    for number in range(1, num):
        found = displacement(shown[0], shown[number])
        name = f"scan {number} of {num} (from 0)"
        shift = told[number]
        is_as_told = found is not None and (
            max(map(abs, found.displacement_2)) <= _TOLD or found.as_told > _ALIKE * found.correlation
        )
        # What is told needs less evidence than what contradicts it.
        wanted = _SURE_AS_TOLD if is_as_told else _SURE
        if found is None or found.correlation < max(_LEAST, wanted * found.spread):
            yield f"scans        {name}: whether it shows the same place as scan 0 cannot be told{_figures(found)}"
        elif is_as_told:
            yield f"scans        {name} shows the same place as scan 0 (correlation of phases {found.correlation:.2f})"
        elif found.elsewhere > _ALIKE * found.correlation:
            yield (
                f"scans        {name} does not show the same place as scan 0, and several displacements fit alike, as "
                f"in a crystal{_figures(found)}: which one cannot be told"
            )
        else:
            off_2 = np.array(found.displacement_2) * pixel_2
            shift = (float(told[number][0] - off_2[0]), float(told[number][1] - off_2[1]))
            contradicted.append(
                f"{name} shows the specimen {off_2[0]:.1f}, {off_2[1]:.1f} {unit} (rows, columns) off where scan 0 "
                f"shows it{_figures(found)}"
            )
        shifts.append(shift)
    if contradicted:
        paste = "give positions in one frame"
        if size is not None and hasattr(data, "scan_shifts_angstrom"):
            values = ", ".join(f"[{rows:.1f}, {columns:.1f}]" for rows, columns in shifts)
            paste = f"paste [data] scan_shifts_angstrom = [{values}], and let group scan_shifts train what is left "
            paste += "(model.scan_shifts = true)"
        yield Problem(f"{'; '.join(contradicted)}: {paste}", severity="warning")


def _figures(found: Displacement | None) -> str:
    if found is None:
        return ""
    as_told = "" if np.isnan(found.as_told) else f", {found.as_told:.2f} as told"
    return f" (correlation of phases {found.correlation:.2f} there{as_told}, {found.elsewhere:.2f} elsewhere)"
