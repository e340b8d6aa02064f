"""Ptychography: diffraction data, the forward model, and what it reconstructs.

The rooms, from the ground up. In each of them, ``kind`` holds what its components have in common, ``x`` holds settings,
and ``x_live`` what they build:

    physics/           optics, the forward model, geometry and quality: pure functions of arrays
    scans/             diffraction data: their kind, what a reader returns, its checks, and the batches of a run
    scans/files/       scans in files of any layout, none of which is trusted; readers: a kind that others can extend
    direct/            an object from the patterns in one go: a kind that other packages can extend
    objects/           how the specimen's transmission is parametrised: a kind that other packages can extend
    objects/encoding/  what a hash encoding is made of: levels, grids, a small network, and the backends for them
    probes/            what illuminates the specimen: a kind that other packages can extend, and the trained modes
    detector_propagations/
                       how the exit wave reaches the detector: a kind that other packages can extend
    propagators/       how a wave gets from slice to slice: a kind that other packages can extend
    constraints/       what is imposed on object and probe between steps: a kind that other packages can extend
    losses/            losses of diffraction patterns, and regularisers of object and positions
    output/            what a run leaves behind: pictures, TIFF files and the result
    models/            the models: object, probe, motion of positions, and what they show and leave behind
    planning/          from a scan to a first recipe (``trainkit init``)
    hooks/             the comparison with the truth, if a simulation knows it

Conventions, everywhere (docs/ptychography_conventions.md has them all): arrays are (rows, columns), positions are (row,
column) in pixels of the object; patterns have their zero frequency at [0, 0]; a probe sits at pixel (Y//2, X//2) of its
array; a positive defocus is underfocus (C10 = −defocus); the object transmits ``exp(i·phase − absorption)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit import lazy_names

if TYPE_CHECKING:
    from trainkit_ptychography.constraints.kind import Constraint
    from trainkit_ptychography.detector_propagations.kind import DetectorPropagation, ExitWave
    from trainkit_ptychography.direct.evidence import Evidence
    from trainkit_ptychography.direct.kind import Blurred, DirectMethod, LiveDirectMethod
    from trainkit_ptychography.models.output import Reconstruction, Reconstructs
    from trainkit_ptychography.objects.kind import LiveObject, Object, ObjectGeometry, PixelwiseObject
    from trainkit_ptychography.probes.kind import Probe
    from trainkit_ptychography.probes.modes import ProbeModes
    from trainkit_ptychography.propagators.kind import LivePropagator, Propagator, WaveGeometry
    from trainkit_ptychography.scans.files.array_file import ArrayFile, ReaderHints
    from trainkit_ptychography.scans.files.assembly import read_scan
    from trainkit_ptychography.scans.files.kind import FileDiffraction, Raster
    from trainkit_ptychography.scans.files.numpy_live import array_beside
    from trainkit_ptychography.scans.files.readers.kind import Reader
    from trainkit_ptychography.scans.files.trial_process import survives
    from trainkit_ptychography.scans.kind import DiffractionData
    from trainkit_ptychography.scans.kind_live import LiveDiffraction
    from trainkit_ptychography.scans.patterns import Frames, Patterns, Stored
    from trainkit_ptychography.scans.scan import Recording, Scan, Truth
else:  # hidden from type checkers, which would take every name of a module that has __getattr__
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            ".constraints.kind": ("Constraint",),
            ".detector_propagations.kind": ("DetectorPropagation", "ExitWave"),
            ".direct.evidence": ("Evidence",),
            ".direct.kind": ("Blurred", "DirectMethod", "LiveDirectMethod"),
            ".models.output": ("Reconstruction", "Reconstructs"),
            ".objects.kind": ("LiveObject", "Object", "ObjectGeometry", "PixelwiseObject"),
            ".probes.kind": ("Probe",),
            ".probes.modes": ("ProbeModes",),
            ".propagators.kind": ("LivePropagator", "Propagator", "WaveGeometry"),
            ".scans.files.array_file": ("ArrayFile", "ReaderHints"),
            ".scans.files.assembly": ("read_scan",),
            ".scans.files.kind": ("FileDiffraction", "Raster"),
            ".scans.files.numpy_live": ("array_beside",),
            ".scans.files.readers.kind": ("Reader",),
            ".scans.files.trial_process": ("survives",),
            ".scans.kind": ("DiffractionData",),
            ".scans.kind_live": ("LiveDiffraction",),
            ".scans.patterns": ("Frames", "Patterns", "Stored"),
            ".scans.scan": ("Recording", "Scan", "Truth"),
        },
    )

__all__ = [
    "ArrayFile",
    "Blurred",
    "Constraint",
    "DetectorPropagation",
    "DiffractionData",
    "DirectMethod",
    "Evidence",
    "ExitWave",
    "FileDiffraction",
    "Frames",
    "LiveDiffraction",
    "LiveDirectMethod",
    "LiveObject",
    "LivePropagator",
    "Object",
    "ObjectGeometry",
    "Patterns",
    "PixelwiseObject",
    "Probe",
    "ProbeModes",
    "Propagator",
    "Raster",
    "Reader",
    "ReaderHints",
    "Reconstruction",
    "Reconstructs",
    "Recording",
    "Scan",
    "Stored",
    "Truth",
    "WaveGeometry",
    "array_beside",
    "read_scan",
    "survives",
]
