"""Further files of a reconstruction: the live part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from trainkit import Live, RecipeError, State, written_whole
from trainkit_ptychography.models.output import Reconstruction, Reconstructs, result
from trainkit_ptychography.output.cxi import write_cxi
from trainkit_ptychography.output.imagej_tiff import write_imagej_tiff
from trainkit_ptychography.output.provenance import provenance
from trainkit_ptychography.output.result import Result, arrays
from trainkit_ptychography.scans.kind_live import LiveDiffraction


class ReconstructionWriter(Live):
    """Writes files at the end of a run."""

    def __init__(self, forms: Sequence[str]) -> None:
        self._forms = forms

    def on_run_start(self, state: State) -> None:
        """Check that there is something to write.

        Raises:
            RecipeError: The model gives no reconstruction.
        """
        if not isinstance(state.model, Reconstructs):
            raise RecipeError(
                f"reconstruction_files writes what models with reconstruction() give; {type(state.model).__name__} has "
                "none: take the hook out of the recipe"
            )

    def on_run_end(self, state: State) -> None:
        """Write them, unless the run failed or is a trial."""
        if state.context.rank != 0 or state.failed or state.is_trial:
            return
        data, found = cast(LiveDiffraction, state.data), cast(Reconstructs, state.model).reconstruction()
        whole = result(found, data)
        if "cxi" in self._forms:
            write_cxi(state.folder / "result.cxi", whole, provenance(state.folder))
        if "numpy" in self._forms:
            _write_numpy(state, whole)
        if "tiff" in self._forms:
            _write_stacks(state, found, data)


def _write_numpy(state: State, whole: Result) -> None:
    held: dict[str, Any] = {each.name: each.values for each in arrays(whole)}
    with written_whole(state.folder / "result.npz") as new, new.open("wb") as file:
        np.savez(file, **held)


def _write_stacks(state: State, found: Reconstruction, data: LiveDiffraction) -> None:
    size, spacing = data.scan.pixel_size_angstrom, found.slice_spacing_angstrom
    scanned_N2 = data.scan.positions_N2 - found.origin_2
    for name, stack_SHW, apart, points_N2 in (
        ("object_phase_slices", found.phase_SHW, spacing, scanned_N2),
        ("object_amplitude_slices", found.amplitude_SHW, spacing, scanned_N2),
        ("probe_amplitude_modes", np.abs(found.probe_MYX), None, None),
    ):
        write_imagej_tiff(state.folder / f"{name}.tif", stack_SHW, size, apart, points_N2)
