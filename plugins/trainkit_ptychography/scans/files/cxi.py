"""Scans in CXI and NeXus files, which say where everything is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trainkit import Problem, component
from trainkit_ptychography.scans.files.foreign import is_hdf5
from trainkit_ptychography.scans.files.kind import FileDiffraction, LengthUnit

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.scans.scan import Recording


@component
class CXIDiffraction(FileDiffraction):
    """A scan in a CXI file, or a NeXus file after NXcxi_ptycho: only the path must be given.

    These are searched for below ``entry_1`` (or ``entry``): ``instrument_1/detector_1/data``, ``distance``,
    ``x_pixel_size``, ``y_pixel_size``, ``mask``; ``sample_1/geometry_1/translation`` (or
    ``sample_1/transformations/x`` and ``y``); ``instrument_1/beam_1/energy`` or ``incident_beam_energy``, else
    ``instrument_1/source_1/energy`` or ``wavelength``; and the places that repeat them. Settings in the
    recipe take precedence. Units are those of an attribute ``units``, else SI (energies in J).

    A CXI translation moves the specimen; x points left and y up as the beam sees it, while a detector's columns go
    right and its rows down. Both signs cancel: (row, column) of the probe is (y, x) of the translation.

    Source: Maia, Nature Methods 9 (2012) 854; CXI file format 1.6; NeXus NXcxi_ptycho.

    Attributes:
        positions_unit: Unit of a raster, or of ``positions`` where the recipe names them; these are (row, column). If
            left out, "m".
        radiation: Whether the energy is that of "photons" or of "electrons".
        linked_files: Other files that links and virtual datasets may lead to, for example the data files of a master
            file.
        use_mask: Whether the mask of the file is used, if it has one; ``prepare.mask`` names another.
    """

    requires: ClassVar[tuple[str, ...]] = ("h5py",)
    says_geometry: ClassVar[bool] = True
    unsaid_unit: ClassVar[LengthUnit] = "m"

    radiation: Literal["electrons", "photons"] = "photons"
    linked_files: tuple[Path, ...] = ()
    use_mask: bool = True

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Recognise an HDF5 file with patterns in the places of CXI or NeXus."""
        if not is_hdf5(path):
            return None
        from trainkit_ptychography.scans.files.cxi_live import has_patterns

        return {"path": path} if has_patterns(path) else None

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check what files of this kind cannot have too."""
        yield from super().problems(recipe)
        if self.more_files:
            yield Problem(
                'these files say themselves what is in them: join others with "diffraction_hdf5"', "more_files"
            )

    def read(self) -> Recording:
        """Open the file."""
        from trainkit_ptychography.scans.files.cxi_live import read_cxi

        return read_cxi(self)
