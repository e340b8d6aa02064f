"""A probe for each of several scans of one specimen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import attrs

from trainkit import DataError, Problem, RecipeError, component
from trainkit_ptychography.probes.kind import Probe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainkit import Recipe
    from trainkit_ptychography.scans.kind_live import LiveDiffraction


@component
class ProbePerScan(Probe):
    """Several scans of one specimen, for example with two defoci, in one run: one object, and a probe for each scan.

    The scans are the arrays or files that the data joins (``patterns = ["a/dp", "b/dp"]``); their positions must be in
    one frame. Each probe keeps the mean power of its own scan. All must have as many modes. With ``opr_modes`` beside
    ``scans``, the probe of each scan changes by modes of its own. The specimen may have several slices, and a tilt for
    each scan (``model.scan_tilts_mrad``). Optimizers that ask for the curvature, such as "scaled_steps", cannot be used
    yet.

    Attributes:
        scans: The probes, by any names, in the order of the scans: ``[model.probe.scans.NAME]``.
    """

    scans: Mapping[str, Probe] = attrs.Factory(dict)

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that there are several probes of as many modes."""
        yield from super().problems(recipe)
        if len(self.scans) < 2:
            yield Problem("must hold two probes or more, one for each scan", "scans")
        for key in ("modes", "powers"):
            if getattr(self, key) is not None:
                yield Problem("belongs to the single probes: scans.NAME", key)
        for name, probe in self.scans.items():
            if isinstance(probe, ProbePerScan):
                yield Problem("cannot have scans of its own", f"scans.{name}")
            for key in ("trained_aberrations", "defocus_spread_angstrom", "opr_modes"):
                if getattr(probe, key):
                    yield Problem(f"is for all scans: say {key} beside scans", f"scans.{name}.{key}")

    def num_scans(self) -> int:
        """Return the number of probes."""
        return len(self.scans)

    def of_scan(self, number: int) -> Probe:
        """Return the probe of one of the scans.

        Raises:
            RecipeError: There are more scans than probes.
        """
        probes = list(self.scans.values())
        if number >= len(probes):
            raise RecipeError(
                f"model.probe has {len(probes)} probes, and the data joins more scans than that: each array or file of "
                "patterns is a scan"
            )
        return probes[number]

    def guess(self, data: LiveDiffraction) -> NDArray[np.complexfloating]:
        """Return the modes of the first scan, then those of the second, and so on.

        Raises:
            DataError: There are not as many scans as probes, or their modes differ in number.
        """
        import numpy as np

        if data.scan.num_scans != len(self.scans):
            raise DataError(
                f"{data.scan.source} is made of {data.scan.num_scans} scans, and model.probe has {len(self.scans)} "
                'probes: join as many scans, patterns = ["…", "…"], as there are probes'
            )
        made = []
        for probe, power in zip(self.scans.values(), data.scan_powers, strict=True):
            modes_MYX = probe.build(data)
            made.append(modes_MYX * np.sqrt(power / (np.abs(modes_MYX) ** 2).sum()))
        if len({len(each) for each in made}) > 1:
            numbers = ", ".join(f"{name} {len(each)}" for name, each in zip(self.scans, made, strict=True))
            raise DataError(f"the probes of all scans must have as many modes; they have: {numbers}")
        return np.concatenate(made)
