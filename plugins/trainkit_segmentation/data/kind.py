"""The kind of data that a segmentation network accepts. A reader of folders is a subclass with one method, ``find``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from trainkit import (
    HARMLESS,
    KEEPS_VALUES,
    Context,
    Data,
    DataError,
    EpochSize,
    component,
    some_of,
    structure_settings,
    usable_cpus,
)
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.data.named import each_once
from trainkit_segmentation.patches.augmentation import Augmentation
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.sizes import Size
from trainkit_segmentation.splits.fraction import Fraction
from trainkit_segmentation.splits.kind import Split

if TYPE_CHECKING:
    from trainkit import Depth, Problem, Progress, Recipe
    from trainkit_segmentation.cases.case import CaseList
    from trainkit_segmentation.data.kind_live import LiveSegmentation


def _each_names_some(
    instance: object, attribute: attrs.Attribute[Any], value: Mapping[str, tuple[str, ...]] | None
) -> None:
    for pattern, classes in (value or {}).items():
        if not classes or len(set(classes)) != len(classes):
            raise ValueError(f'"{pattern}" must name at least one class, each once, got {list(classes)}')


def _each_has_values(
    instance: object, attribute: attrs.Attribute[Any], value: Mapping[str, tuple[int | str, ...]] | None
) -> None:
    if value is not None and (not value or not all(value.values())):
        raise ValueError(f"{attribute.name} must name at least one class, and each must have a label value")


def _are_positive(instance: object, attribute: attrs.Attribute[Any], value: tuple[float, ...] | None) -> None:
    if value is not None and not all(0 < each < float("inf") for each in value):
        raise ValueError(f"{attribute.name} must be positive, got {list(value)}")


@component
class SegmentationData(Data):
    """Images with a label for each voxel.

    Attributes:
        batch_size: Patches in a batch.
        steps_per_epoch: Batches in an epoch. Not given: as many as it takes to draw one patch of each case.
        patch_size: Voxels of a training patch along x, y, z. A smaller volume is padded with zeros (background) on both
            sides.
        foreground_probability: Probability that a patch is centred on a voxel of a class; all classes that the case has
            are equally probable. The patch is shifted to stay inside the volume. Other patches are placed uniformly at
            random.
        foreground_sampling: What ``foreground_probability`` is. "probability": each patch is drawn for itself. "share":
            it is a share of each batch, so that every batch has such patches; their number is rounded as in nnU-Net.
        workers: Processes that prepare batches; their number does not change the batches. 0: the training process
            prepares them.
        regions: Classes that combine several label values, for example ``{ tumour = [2, 3], liver = [1, 2, 3] }``; they
            may overlap. In place of values, classes can be named. Masks of single classes are numbered from 1 on, in
            the order in which they are named, or by the values that the data set gives them. Not given: the classes
            that the data has.
        classes: The classes to train, some of those that the data has; voxels of others count as background. Not given:
            all.
        may_be_absent: Classes that no case must have, such as the enhancing tumour in cases without one: so that the
            network keeps an output for them, for fine-tuning or for use beside other networks. Without such cases it
            learns not to find them; where nobody looked for them, ``annotated`` leaves them out. No mean of scores
            counts a class that no case has.
        annotated: Where some classes were annotated in some cases only: pattern of case names (with ``*``, ``?`` and
            ``[0-9]``) -> the classes that were annotated in these cases. The others count there neither in losses nor
            in metrics. In cases that no pattern fits, all were annotated.
        ignored_values: Label values whose voxels count neither in losses nor in metrics, for example of slices that
            nobody annotated; or numbers of masks, see ``regions``. A class that is named is ignored in place of being
            trained. The value or mask that a data set, or ``labels``, calls "ignore" is ignored anyway.
        labels_on_image_grid: Whether labels are taken to be on the voxels of their images, whatever their headers say:
            for labels that a tool wrote without geometry. The number of voxels must be the same along each axis.
        file_spacing_mm: Size of a voxel along x, y, z in files that do not say it, such as PNG. Not given: 1 mm each.
        split: Which cases are trained on, and which are validated.
        preprocessing: Changes of each case that are made once and cached.
        augmentation: Random changes of each patch.
        cache: The folder of preprocessed cases.
    """

    requires: ClassVar[tuple[str, ...]] = ("nibabel", "safetensors", "scipy")
    predictor: ClassVar[str | None] = "segmentation"
    evaluator: ClassVar[str | None] = "segmentation"
    calibrator: ClassVar[str | None] = "segmentation"
    divides_batches: ClassVar[bool] = True

    batch_size: int = attrs.field(default=2, validator=attrs.validators.ge(1), metadata=KEEPS_VALUES)
    steps_per_epoch: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.ge(1)), metadata=KEEPS_VALUES
    )
    patch_size: tuple[int, int, int] = attrs.field(
        default=(96, 96, 96), validator=attrs.validators.deep_iterable(attrs.validators.ge(1))
    )
    foreground_probability: float = attrs.field(
        default=0.33, validator=[attrs.validators.ge(0.0), attrs.validators.le(1.0)], metadata=KEEPS_VALUES
    )
    foreground_sampling: Literal["probability", "share"] = attrs.field(default="probability", metadata=KEEPS_VALUES)
    workers: int = attrs.field(default=0, validator=attrs.validators.ge(0), metadata=HARMLESS)
    regions: Mapping[str, tuple[int | str, ...]] | None = attrs.field(default=None, validator=_each_has_values)
    classes: tuple[str, ...] | None = attrs.field(default=None, validator=each_once)
    may_be_absent: tuple[str, ...] = ()
    annotated: Mapping[str, tuple[str, ...]] | None = attrs.field(default=None, validator=_each_names_some)
    ignored_values: tuple[int | str, ...] = ()
    labels_on_image_grid: bool = False
    file_spacing_mm: tuple[float, float, float] | None = attrs.field(default=None, validator=_are_positive)
    split: Split = Fraction()
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation = attrs.field(default=Augmentation(), metadata=KEEPS_VALUES)
    cache: Cache = attrs.field(default=Cache(), metadata=HARMLESS)

    @classmethod
    def contents(cls, settings: Mapping[str, Any]) -> Iterator[Any]:
        """Look at all cases, and yield progress, then `CaseContents`.

        Raises:
            DataError: Some cases cannot be read; the message names all of them.
        """
        from trainkit_segmentation.data.contents_live import contents_of

        yield from contents_of(structure_settings(cls, settings, "data"))

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, "train" first."""
        return self.split.splits()

    def settings_of_fold(self, fold: int, number: int) -> Mapping[str, Any]:
        """Return the settings of the split that holds out one fold of a cross-validation."""
        return {"split": self.split.settings_of_fold(fold, number, lambda: self.cases().folds)}

    def epoch_size(self) -> EpochSize:
        """Return how long an epoch is, by the list of cases.

        Raises:
            DataError: The cases cannot be listed or divided.
        """
        listing = self.cases()
        subjects = {case.name: case.subject for case in listing.cases}
        number = len(self.split.divide_listed(subjects, listing.folds)["train"])
        return EpochSize(self.steps_per_epoch or ceil(number / self.batch_size), number, "cases")

    @abstractmethod
    def find(self) -> CaseList:
        """Find the cases and the meaning of their labels. Problems of single cases are listed, not raised.

        Raises:
            DataError: No case can be listed.
        """

    def cases(self) -> CaseList:
        """Return the cases that ``find`` lists, with the classes that are trained.

        Raises:
            DataError: No case can be listed, two have one name, or there is no such class.
        """
        from trainkit_segmentation.cases.case import read_as
        from trainkit_segmentation.data.chosen_classes import check_known, only_classes, with_regions
        from trainkit_segmentation.data.ignored import ignored_named, with_ignored_values
        from trainkit_segmentation.data.listed_folds import with_listed_folds_named
        from trainkit_segmentation.data.masks_in_use import with_masks_in_use
        from trainkit_segmentation.data.one_hot import with_masks_in_channels
        from trainkit_segmentation.data.shared_files import with_shared_files_doubted

        listing = with_listed_folds_named(with_masks_in_channels(self.find()), self.split)
        names = [case.name for case in listing.cases]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{listing.source}: several cases have one name: {some_of(twice)}")
        if self.labels_on_image_grid:
            listing = read_as(listing, label_on_image_grid=True)
        if self.file_spacing_mm is not None:
            listing = read_as(listing, spacing_mm=self.file_spacing_mm)
        ignored = ignored_named(listing, self.ignored_values)
        classes = self.classes
        if classes is None and self.regions is None and set(self.ignored_values) & set(listing.labels.classes):
            classes = tuple(name for name in listing.labels.classes if name not in self.ignored_values)
        listing = only_classes(with_regions(listing, self.regions), classes)
        check_known(listing, self.may_be_absent, "data.may_be_absent")
        listing = with_masks_in_use(with_ignored_values(listing, ignored, self.regions or ()), self.annotated)
        if not listing.labels.classes:
            raise DataError(f"{listing.source}: all classes are ignored, and none is left to train")
        return with_shared_files_doubted(listing)

    def doubt_about_batches(self, num_train: int) -> str | None:
        """Return a doubt if the only batch of an epoch holds some cases several times; None: no doubt.

        Args:
            num_train: Number of training cases.
        """
        if self.steps_per_epoch is not None or self.batch_size <= num_train:
            return None
        return (
            f"data.batch_size = {self.batch_size} is more than the {num_train} training cases, so an epoch is one "
            "step, with several patches of some cases: set data.steps_per_epoch"
        )

    def doubt_about_planes(self, shapes: Collection[Size]) -> str | None:
        """Return a doubt if all cases are planes, but a patch is not; None: no doubt.

        Args:
            shapes: Voxels of each case, preprocessed.
        """
        flat = [bool(shapes) and all(shape[axis] == 1 for shape in shapes) for axis in range(3)]
        fitting = [1 if is_flat else edge for edge, is_flat in zip(self.patch_size, flat, strict=True)]
        if tuple(fitting) == self.patch_size:
            return None
        return (
            f"all cases are one voxel thick, but a patch is not, so nearly all of it is padding: set data.patch_size = "
            f"{fitting}; the network is then one of planes"
        )

    def against_waiting(self, context: Context) -> str | None:
        """Advise more processes as long as there are CPUs for them, and then to change patches on the GPU, if any."""
        cpus = usable_cpus() // context.world
        if self.workers + 1 < cpus:
            return f"raise data.workers, which is {self.workers}, to up to {cpus - 1}: this process may use {cpus} CPUs"
        busy = f"data.workers = {self.workers} keeps all {cpus} CPUs busy"
        if str(context.device) != "cpu" and self.augmentation.on == "workers":
            return f'{busy}: data.augmentation.on = "device" leaves only the cutting of patches to them'
        return f"{busy}: leave out changes of data.augmentation"

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[str | Problem | Progress]:
        """Read all cases that a run would use into the cache, or only their headers, and summarise them."""
        from trainkit_segmentation.data.inspection import inspect

        return inspect(self, depth)

    def build(self, context: Context) -> LiveSegmentation:
        """Preprocess the cases that are not in the cache yet, and open all."""
        from trainkit_segmentation.data.kind_live import LiveSegmentation

        return LiveSegmentation(self, context)

    def recall(self, facts: Mapping[str, Any]) -> SegmentationFacts:
        """Return a stand-in for the opened data, from which a network can be built.

        Raises:
            DataError: The facts are of other data, or incomplete.
        """
        return SegmentationFacts.from_json(facts)
