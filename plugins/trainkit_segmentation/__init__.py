"""3D segmentation of medical images: from a folder of cases to patches and whole volumes.

Where things are, from the ground up; what one component of a room shares with the others is its ``kind``, and what the
settings in ``x`` put to work is ``x_live``:

    sizes       what every room may use
    files/      single files: NIfTI, and the values in a label file
    splits/     which cases are trained on, and which are held out: a kind that other packages can extend
    cases/      one case and its files, what the values of a label mean, and made-up cases
    preparing/  from a case to the grid that the network works on and back, and the cache that keeps prepared cases
    patches/    from prepared cases to the batches that a step sees
    data/       the data of a run: their kind, and the layouts of folders, one a file
    models/     networks for volumes, one a file, and what they begin with
    losses/     losses of one head, and what applies them to all heads that a network has
    inference/  from patches to whole volumes, and back onto a case's own voxel grid
    metrics/    figures of merit of whole volumes
    hooks/      pictures of what a network finds, for a person to look at

Conventions, everywhere: arrays are (x, y, z) as nibabel reads them, with channels or classes first; spacings are in mm
in that order; the background is value 0 of a label map, and class ``classes[i]`` is value i + 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit import lazy_names

if TYPE_CHECKING:
    from trainkit_segmentation.cases.case import Case, CaseList, Examination, FileCase, Labels, Volume
    from trainkit_segmentation.data.kind import SegmentationData
    from trainkit_segmentation.data.kind_live import LiveSegmentation
    from trainkit_segmentation.inference.prediction import prediction
    from trainkit_segmentation.losses.kind import SegmentationLoss
    from trainkit_segmentation.metrics.case_scores import CaseScores
    from trainkit_segmentation.metrics.kind import SegmentationMetric
    from trainkit_segmentation.models.kind import SegmentationModel
    from trainkit_segmentation.models.kind_live import SegmentationNetwork
    from trainkit_segmentation.sizes import Size
    from trainkit_segmentation.splits.kind import Split, shuffled_subjects
else:  # hidden from type checkers, which would take every name of a module that has __getattr__
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            ".cases.case": ("Case", "CaseList", "Examination", "FileCase", "Labels", "Volume"),
            ".data.kind": ("SegmentationData",),
            ".data.kind_live": ("LiveSegmentation",),
            ".inference.prediction": ("prediction",),
            ".losses.kind": ("SegmentationLoss",),
            ".metrics.case_scores": ("CaseScores",),
            ".metrics.kind": ("SegmentationMetric",),
            ".models.kind": ("SegmentationModel",),
            ".models.kind_live": ("SegmentationNetwork",),
            ".sizes": ("Size",),
            ".splits.kind": ("Split", "shuffled_subjects"),
        },
    )

__all__ = [
    "Case",
    "CaseList",
    "CaseScores",
    "Examination",
    "FileCase",
    "Labels",
    "LiveSegmentation",
    "SegmentationData",
    "SegmentationLoss",
    "SegmentationMetric",
    "SegmentationModel",
    "SegmentationNetwork",
    "Size",
    "Split",
    "Volume",
    "prediction",
    "shuffled_subjects",
]
