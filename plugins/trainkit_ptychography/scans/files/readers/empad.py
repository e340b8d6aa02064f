"""Reads what the EMPAD detector writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit import component
from trainkit_ptychography.scans.files.readers.kind import Reader

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction
    from trainkit_ptychography.scans.scan import Recording


@component
class EMPADReader(Reader):
    """The EMPAD detector's ``.raw`` files: frames of 128 × 128 float32, each with two rows that hold no counts.

    The path is that of the ``.raw`` file, or of the ``.xml`` file beside it. Those two rows are left away. The shape of
    the scan is that of ``raster``; if this gives none, that of the ``.xml`` file or of a name like "scan_x64_y32.raw".
    The energy is that of the ``.xml`` file if the recipe gives none. Its step is not used, since its scale differs from
    microscope to microscope; if it differs from the recipe's, that is a doubt.

    Source: M. W. Tate et al., Microsc. Microanal. 22 (2016) 237; the fields of the ``.xml`` file as RosettaSciIO and
    cdtools describe them.
    """

    names_arrays: ClassVar[bool] = False

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Recognise a ``.raw`` file of whole frames of this detector, or the ``.xml`` file beside it."""
        from trainkit_ptychography.scans.files.empad_live import recognised

        return recognised(path)

    def read(self, settings: FileDiffraction) -> Recording:
        """Open the file, and the ``.xml`` file beside it."""
        from trainkit_ptychography.scans.files.empad_live import read_empad

        return read_empad(settings)
