"""Ptychography: diffraction data, the forward model, and what it reconstructs.

Where things are, from the ground up; what one component of a room shares with the others is its ``kind``, and what the
settings in ``x`` put to work is ``x_live``:

    physics/           optics, the forward model, geometry and quality: pure functions of arrays
    scans/             diffraction data: their kind, what a reader hands over, its checks, and the batches of a run
    scans/files/       scans in files of any layout, none of which is trusted
    objects/           how the specimen's transmission is parametrised: a kind that other packages can extend
    objects/encoding/  what a hash encoding is made of: levels, grids, a small network, and the backends for them
    probes/            what illuminates the specimen: a kind that other packages can extend, and the trained modes
    losses/            losses of diffraction patterns, and regularisers of object and positions
    output/            what a run leaves behind: pictures, TIFF files and the result
    models/            the models: what is trained, and what is kept in order meanwhile
    hooks/             the comparison with the truth, where a simulation knows it

Conventions, everywhere (docs/ptychography_conventions.md has them all): arrays are (rows, columns), positions are (row,
column) in pixels of the object; patterns have their zero frequency at [0, 0]; a probe sits at pixel (Y//2, X//2) of its
array; a positive defocus is underfocus (C10 = −defocus); the object transmits ``exp(i·phase − absorption)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit import lazy_names

if TYPE_CHECKING:
    from trainkit_ptychography.objects.kind import Canvas, LiveObject, Object
    from trainkit_ptychography.probes.kind import Probe
    from trainkit_ptychography.scans.files.assembly import ArrayFile, Known, read_scan
    from trainkit_ptychography.scans.files.kind import FileDiffraction
    from trainkit_ptychography.scans.kind import DiffractionData
    from trainkit_ptychography.scans.kind_live import LiveDiffraction
    from trainkit_ptychography.scans.patterns import Frames, Patterns, Stored
    from trainkit_ptychography.scans.scan import Recording, Scan, Truth
else:  # hidden from type checkers, which would take every name of a module that has __getattr__
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            ".objects.kind": ("Canvas", "LiveObject", "Object"),
            ".probes.kind": ("Probe",),
            ".scans.files.assembly": ("ArrayFile", "Known", "read_scan"),
            ".scans.files.kind": ("FileDiffraction",),
            ".scans.kind": ("DiffractionData",),
            ".scans.kind_live": ("LiveDiffraction",),
            ".scans.patterns": ("Frames", "Patterns", "Stored"),
            ".scans.scan": ("Recording", "Scan", "Truth"),
        },
    )

__all__ = [
    "ArrayFile",
    "Canvas",
    "DiffractionData",
    "FileDiffraction",
    "Frames",
    "Known",
    "LiveDiffraction",
    "LiveObject",
    "Object",
    "Patterns",
    "Probe",
    "Recording",
    "Scan",
    "Stored",
    "Truth",
    "read_scan",
]
