"""3D segmentation of medical images: from a folder of cases to patches and whole volumes.

The rooms, from the ground up. The abstract kind of a room is in its ``kind``; settings are in ``x``, and what they
build is in ``x_live``:

    sizes       numbers of voxels along the axes
    files/      single files of every format, and the values in a label file; readers/ is a kind that others can extend
    splits/     division of the cases into training and held-out cases: a kind that other packages can extend
    cases/      a case and its files, the meaning of label values, and made-up cases
    preparing/  from a case to the grid that the network works on and back, and the cache of preprocessed cases
    patches/    from preprocessed cases to the batches of a training step
    data/       the data of a run: the kind, one reader in each file, and the facts that a network has to know
    models/     networks for volumes, one in each file
    losses/     losses of one head, and their mean over all heads that a network has
    inference/  from patches to whole volumes
    prediction/ masks for new images: from files to files, a few planes at a time
    metrics/    metrics of whole volumes
    evaluation/ comparison of predicted masks with the truth
    planning/   from a folder of cases to a recipe, by nnU-Net's rules (``trainkit init``)
    hooks/      pictures of predictions, for a person to look at

Conventions, everywhere: arrays are (x, y, z) as nibabel reads them, with channels or classes first; spacings are in mm
in that order; the background is value 0 of a label map, and class ``classes[i]`` is value i + 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit import lazy_names

if TYPE_CHECKING:
    from trainkit_segmentation.cases.case import Case, CaseList, CaseReport, FileCase, Volume
    from trainkit_segmentation.cases.labels import Labels
    from trainkit_segmentation.data.facts import SegmentationFacts
    from trainkit_segmentation.data.kind import SegmentationData
    from trainkit_segmentation.data.kind_live import LiveSegmentation
    from trainkit_segmentation.files.header import Header
    from trainkit_segmentation.files.readers.kind import Reader
    from trainkit_segmentation.files.stored import StoredImage
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
            ".cases.case": ("Case", "CaseList", "CaseReport", "FileCase", "Volume"),
            ".cases.labels": ("Labels",),
            ".data.facts": ("SegmentationFacts",),
            ".data.kind": ("SegmentationData",),
            ".data.kind_live": ("LiveSegmentation",),
            ".files.header": ("Header",),
            ".files.readers.kind": ("Reader",),
            ".files.stored": ("StoredImage",),
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
    "CaseReport",
    "CaseScores",
    "FileCase",
    "Header",
    "Labels",
    "LiveSegmentation",
    "Reader",
    "SegmentationData",
    "SegmentationFacts",
    "SegmentationLoss",
    "SegmentationMetric",
    "SegmentationModel",
    "SegmentationNetwork",
    "Size",
    "Split",
    "StoredImage",
    "Volume",
    "shuffled_subjects",
]
