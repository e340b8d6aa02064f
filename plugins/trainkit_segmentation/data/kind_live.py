"""The opened data, which every segmentation model, loss and metric gets as ``data``.

Shapes: B = patches of a batch, C = channels of an image, K = classes of a target, X, Y, Z = voxels.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from math import ceil
from typing import TYPE_CHECKING, Any, cast

import attrs
import torch
from torch import Tensor

from trainkit import (
    Batch,
    Context,
    DataError,
    Outputs,
    State,
    Workers,
    did_you_mean,
    part_of,
    shape_in_words,
    write_json,
)
from trainkit_segmentation.data.chosen_classes import annotated_classes, contradictions
from trainkit_segmentation.data.facts import SegmentationFacts, meaning_of_masks
from trainkit_segmentation.data.ignored import doubts_about_ignored
from trainkit_segmentation.data.intensities import with_intensities
from trainkit_segmentation.data.label_maps import class_masks, compact, each_on_own_grid, most_likely
from trainkit_segmentation.data.missing_classes import (
    doubts_about_classes,
    doubts_about_sources,
    note_on_absent,
    problem_of_absent,
)
from trainkit_segmentation.patches.batches import PatchBatches
from trainkit_segmentation.preparing.cache_filling import digest_of, prepare_all
from trainkit_segmentation.preparing.cache_live import CaseStore
from trainkit_segmentation.preparing.cached_cases import OpenCase, open_case, rounded_in_words
from trainkit_segmentation.preparing.grid import Grid, left_right_axes, plane_to_own
from trainkit_segmentation.splits.shared_subjects import doubts_about_subjects

if TYPE_CHECKING:
    from trainkit_segmentation.cases.labels import Labels
    from trainkit_segmentation.data.kind import SegmentationData
    from trainkit_segmentation.files.header import Array

_log = logging.getLogger("trainkit.segmentation")

_Place = tuple[int, int, int]  # of a batch, or a part of one: the epoch, its number there, and the part


class LiveSegmentation:
    """Preprocessed cases.

    A training batch has ``index`` (B,), ``image`` (B, C, X, Y, Z) float32 of the patch size, and ``label``: where
    classes exclude each other (B, 1, X, Y, Z) int64, 0 for the background and i + 1 for ``classes[i]``; otherwise
    (B, K, X, Y, Z) float32, 0 or 1. A batch of evaluation is one whole preprocessed volume, B = 1, with the name of its
    case as ``case``. Both have ``annotated`` (B, K), bool, if some classes were annotated in some cases only, and
    ``ignored`` (B, 1, X, Y, Z), bool, if labels may say that voxels do not count. The label is background there.

    Attributes:
        num_channels: Channels of an image.
        classes: The foreground classes, in the order of the target's values or channels.
        exclusive: Whether a voxel has at most one class. A network then gives ``len(classes) + 1`` scores (softmax),
            otherwise ``len(classes)`` (sigmoid).
        patch_size: Voxels of a training patch along x, y, z of the preprocessed grid.
        batches_per_epoch: Whole batches of an epoch.
    """

    _workers: Workers[_Place] | None = None
    _ahead: tuple[_Place, Iterator[dict[str, Any]]] | None = None  # what comes next from the workers, and from where
    _may_ignore = False
    _last_prediction: tuple[weakref.ref[Tensor], Tensor] | None = None

    def __init__(self, settings: SegmentationData, context: Context) -> None:
        listing = settings.cases()
        if listing.problems:
            count = f"{len(listing.problems)} problem{'s' * (len(listing.problems) > 1)}"
            raise DataError("\n  ".join([f"{listing.source}: {count}", *listing.problems, *listing.doubts]))
        for note in listing.notes:
            _log.info("%s", note)
        for doubt in listing.doubts:
            _log.warning("%s", doubt)
        labels = listing.labels
        self.num_channels, self.classes = len(listing.channels), labels.classes
        self.exclusive, self._may_ignore = labels.exclusive, bool(labels.ignored)
        self.patch_size = settings.patch_size

        subjects = {case.name: case.subject for case in listing.cases}
        self._division = settings.split.divide_listed(subjects, listing.folds)
        self._subjects = subjects
        self._annotated = annotated_classes(listing, settings.annotated)
        self._index = {case.name: number for number, case in enumerate(listing.cases)}
        used = {name for names in self._division.values() for name in names}
        self._store = CaseStore(settings.cache)  # keeps the entries in use for as long as this lives
        cases = [case for case in listing.cases if case.name in used]
        preprocessing = with_intensities(settings, listing, cases, self._division, self._store)
        self._prepared = prepare_all(cases, labels, preprocessing, self._store, settings.workers)

        if rounded := rounded_in_words({name: self._case(name) for name in self._prepared}):
            _log.info("%s", rounded)
        present = self._classes_of_cases(labels, listing.source, settings.may_be_absent)
        if absent := note_on_absent(labels.classes, present):
            _log.info("%s", absent)
        if self._annotated is not None and (wrong := contradictions(self._annotated, present)):
            raise DataError("\n  ".join([f"{listing.source}: {len(wrong)} contradictions", *wrong]))
        self._division = settings.split.balance(self._division, subjects, present)
        of_batches = settings.doubt_about_batches(len(self._division["train"]))
        of_planes = settings.doubt_about_planes([self._case(name).grid.shape for name in self._prepared])
        for doubt in (
            *([of_batches] if of_batches else []),
            *([of_planes] if of_planes else []),
            *doubts_about_subjects(self._division, subjects),
            *doubts_about_classes(labels.classes, self._division, present),
            *doubts_about_sources(labels.classes, settings.annotated, self._annotated, present),
            *doubts_about_ignored(settings, {name: self._case(name) for name in self._prepared}),
            *self._mixed_sides(settings),
        ):
            _log.warning("%s", doubt)
        train = self._division["train"]
        meant = {value: tuple(labels.classes[k] for k in of) for value, of in sorted(labels.members.items())}
        self._facts = SegmentationFacts(
            channels=listing.channels,
            classes=labels.classes,
            exclusive=labels.exclusive,
            label_values={} if labels.masks else meant,
            patch_size=settings.patch_size,
            preprocessing=attrs.asdict(cast(Any, preprocessing)),
            num_training_cases=len(train),
            training_digest=digest_of([[name, self._prepared[name].content] for name in train]),
            image_names=listing.image_names,
            file_spacing_mm=settings.file_spacing_mm,
            ignored_values=() if labels.masks else labels.ignored,
            masks=meaning_of_masks(labels),
            missing_masks=listing.missing_masks,
            annotated=settings.annotated or {},
            mirrored_axes=settings.augmentation.mirrored_axes(),
        )
        self.batches_per_epoch = settings.steps_per_epoch or ceil(len(train) / settings.batch_size)
        self._exchange = context.exchange
        if settings.batch_size < context.exchange.num_parts:
            raise DataError(
                f"a batch of {settings.batch_size} patches cannot be divided into {context.exchange.num_parts} parts, "
                "one for each process or shard: raise data.batch_size, or use fewer of them"
            )
        entries = [(self._index[name], self._store.path(self._prepared[name].key)) for name in train]
        annotated = None
        if self._annotated is not None:
            annotated = {self._index[name]: self._row_of_annotated(name) for name in train}
        self._batches = PatchBatches(settings, context, entries, annotated, self._may_ignore)
        self._device = torch.device(context.device)
        on_gpu = self._device.type == "cuda"
        if settings.workers:
            advice = "lower data.workers or data.patch_size"
            self._workers = Workers(self._batches, settings.workers, on_gpu, advice)

    def train(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        """Yield this process's parts of the batches ``start``… of an epoch, a function of (seed, epoch, part) alone."""
        for step in range(start, self.batches_per_epoch):
            for part in self._exchange.parts:
                place, workers = (epoch, step, part), self._workers
                batch = self._batches[place] if workers is None else self._from_workers(workers, place)
                yield self._batches.finished(batch, self._device)

    def _from_workers(self, workers: Workers[_Place], place: _Place) -> dict[str, Any]:
        """Return a batch from the workers. They go on beyond the epoch's end, so that no epoch begins with waiting."""
        expected, ahead = self._ahead or (None, iter(()))
        if expected != place:
            ahead = workers(_places_from(place, self.batches_per_epoch, self._exchange.parts))
        self._ahead = None  # an error ends what they are preparing
        batch = next(ahead)
        self._ahead = (_following(place, self.batches_per_epoch, self._exchange.parts), ahead)
        return batch

    def on_run_start(self, state: State) -> None:
        """Write ``splits.json``, in the form of nnU-Net's ``splits_final.json``: a list with one division."""
        try:
            write_json(state.folder / "splits.json", [{name: list(cases) for name, cases in self._division.items()}])
        except OSError as error:
            _log.warning("splits.json cannot be written (%s); the run goes on", error)

    def on_run_end(self, state: State) -> None:
        """End the processes that prepare batches, so that they do not outlive the run."""
        self._ahead = None
        if self._workers is not None:
            self._workers.end()

    def fingerprint(self) -> dict[str, str]:
        """Return a digest of the names and the file contents of the cases of each split."""
        return {
            f"the cases of {split}": digest_of([[name, self._prepared[name].content] for name in names])
            for split, names in self._division.items()
        }

    def summary(self) -> str:
        """Return in one phrase what was opened."""
        number = len({name for names in self._division.values() for name in names})
        splits = ", ".join(f"{len(names):,} in {split}" for split, names in self._division.items())
        return f"{number:,} cases ({splits}), patches of {shape_in_words(self.patch_size)} voxels"

    def facts(self) -> dict[str, Any]:
        """Return what a model has to know of the data, as JSON values; see `SegmentationFacts`."""
        return self._facts.to_json()

    def evaluate(self, split: str) -> Iterator[dict[str, Any]]:
        """Yield each whole case of this process's share of a split, in alphabetical order."""
        if split not in self._division:
            raise DataError(f'there is no split "{split}"; {did_you_mean(split, self._division)}')
        parts = (part_of(self._division[split], part, self._exchange.num_parts) for part in self._exchange.parts)
        for name in chain.from_iterable(parts):
            case = self._case(name)
            yield {
                "index": torch.tensor([self._index[name]]),
                "image": case.tensors["image"].float()[None],
                "label": case.label(case.tensors["label_codes"])[None],
                "case": name,
                **({} if self._annotated is None else {"annotated": self._row_of_annotated(name)}),
                **({"ignored": case.ignored(case.tensors["label_codes"])[None, None]} if self._may_ignore else {}),
            }

    @property
    def division(self) -> Mapping[str, Sequence[str]]:
        """The names of the cases of each split."""
        return self._division

    def subject(self, case: str) -> str:
        """Return the name of the subject that a case is of."""
        return self._subjects[case]

    def image(self, case: str) -> Tensor:
        """Return the preprocessed image of a case (C, X, Y, Z), float32."""
        return self._case(case).tensors["image"].float()

    def grid(self, case: str) -> Grid:
        """Return the position of the preprocessed volume of a case in its own voxel grid."""
        return self._case(case).grid

    def annotated(self, case: str) -> tuple[bool, ...]:
        """Return whether each class was annotated in a case."""
        if self._annotated is None:
            return (True,) * len(self.classes)
        return tuple(name in self._annotated[case] for name in self.classes)

    def to_original(self, scores_KXYZ: Tensor, case: str) -> Tensor:
        """Resample class scores of a preprocessed volume onto the case's own voxel grid.

        Cropped voxels become background, with scores of ±10⁴.

        Args:
            scores_KXYZ: Scores on the preprocessed grid, floating point, one channel for each network output.
            case: Name of the case.

        Returns:
            (K, X, Y, Z) on the voxel grid of the case's files, same dtype and device.
        """
        return self._case(case).grid.to_own(scores_KXYZ, background=0 if self.exclusive else None)

    def plane_to_original(self, image_XYZ: Tensor, case: str, axis: int, index: int) -> Tensor:
        """Resample one plane of a preprocessed image onto the case's own voxel grid; low where voxels were cropped.

        Args:
            image_XYZ: A channel of the image.
            case: Name of the case.
            axis: The axis of the case's own grid that the plane lies across.
            index: Voxel of the case's own grid along this axis.
        """
        return plane_to_own(self._case(case).grid, image_XYZ, axis, index)

    def prediction(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return what a network found in a batch of evaluation, on the case's own voxel grid.

        Metrics and pictures of one case share the result: it is kept for as long as they ask about the same scores.

        Returns:
            Where classes exclude each other (1, X, Y, Z), integers, 0 for the background; else (K, X, Y, Z) bool.
        """
        logits: Tensor = outputs["logits"]
        if self._last_prediction is None or self._last_prediction[0]() is not logits:
            self._last_prediction = None  # makes room before the next one is computed
            scores_K1XYZ = each_on_own_grid(logits[0], partial(self.to_original, case=batch["case"]))
            self._last_prediction = weakref.ref(logits), most_likely(scores_K1XYZ, self.exclusive)
        return self._last_prediction[1]

    def on_validation_end(self, state: State) -> None:
        """Free the last prediction."""
        self._last_prediction = None

    def masks(self, labels_LXYZ: Tensor) -> Iterator[Tensor]:
        """Yield the mask of each class of labels as `truth` and `prediction` return them, or of a plane of them."""
        return class_masks(labels_LXYZ, len(self.classes), self.exclusive)

    def truth(self, case: str) -> Tensor:
        """Return the label on the case's own voxel grid, in the form of `prediction`. Ignored voxels are background."""
        tensors = self._case(case).tensors
        codes_XYZ = tensors.get("own_label_codes", tensors["label_codes"])
        return compact(codes_XYZ, tensors.get("class_table"), len(self.classes))

    def ignored(self, case: str) -> Tensor | None:
        """Return where a voxel does not count, (X, Y, Z) bool on the case's own voxel grid; None: all count."""
        if not self._may_ignore or not (opened := self._case(case)).own_ignored:
            return None
        return opened.ignored(opened.tensors.get("own_label_codes", opened.tensors["label_codes"]))

    def compared(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return `prediction` and `truth` of the case of a batch; both have background where voxels are ignored."""
        found_LXYZ = self.prediction(outputs, batch)
        true_LXYZ = self.truth(batch["case"]).to(found_LXYZ.device)
        ignored_XYZ = self.ignored(batch["case"])
        if ignored_XYZ is not None:
            found_LXYZ = found_LXYZ.masked_fill(ignored_XYZ.to(found_LXYZ.device), 0)
        return found_LXYZ, true_LXYZ

    def spacing_mm(self, case: str) -> tuple[float, float, float]:
        """Return the size of a voxel of the case's own grid along its axes."""
        return self._case(case).grid.own_spacing_mm

    def affine(self, case: str) -> Array:
        """Return the (4, 4) matrix from voxels of the case's own grid to mm (right, anterior, superior)."""
        return self._case(case).grid.affine

    def has_form(self, case: str) -> bool:
        """Return whether the image of a case says how its axes lie in space, so that `affine` is not a guess."""
        return self._case(case).has_form

    def has_spacing(self, case: str) -> bool:
        """Return whether the image of a case, or the recipe, says how large a voxel is."""
        return self._case(case).has_spacing

    def _row_of_annotated(self, case: str) -> Tensor:
        """Return whether each class was annotated in a case (1, K)."""
        return torch.tensor([self.annotated(case)])

    def _classes_of_cases(self, labels: Labels, source: str, may_be_absent: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return case -> class -> number of its voxels on the case's own grid.

        Raises:
            DataError: A class is in no case, or is lost in preprocessing.
        """
        cases = {name: self._case(name) for name in self._prepared}
        found = {name: dict(zip(labels.classes, case.own_voxels, strict=True)) for name, case in cases.items()}
        kept_K = torch.stack([case.tensors["place_counts"] for case in cases.values()]).sum(dim=0).tolist()
        if problem := problem_of_absent(labels.classes, found, may_be_absent):
            raise DataError(f"{source}: {problem}")
        for name, kept in zip(labels.classes, kept_K, strict=True):
            if not kept and any(voxels[name] for voxels in found.values()):
                raise DataError(f'{source}: class "{name}" is lost in preprocessing: lower preprocessing.spacing_mm')
        return found

    def _mixed_sides(self, settings: SegmentationData) -> Iterator[str]:
        flip, orientation = settings.augmentation.flip, settings.preprocessing.orientation
        if flip is not None:
            affines = [self._case(name).grid.affine for name in self._prepared]
            if doubt := flip.mixed_sides(self.classes, left_right_axes(affines, orientation)):
                yield doubt

    def _case(self, name: str) -> OpenCase:
        if name not in self._prepared:
            raise DataError(f'there is no case "{name}"; {did_you_mean(name, self._prepared)}')
        return open_case(self._store.path(self._prepared[name].key))


def _places_from(place: _Place, batches_per_epoch: int, parts: range) -> Iterator[_Place]:
    """Yield the places of batches from one on, without end.

    It knows nothing of the data: the data holds the workers, which hold these places, and ends them when it is freed.
    """
    while True:
        yield place
        place = _following(place, batches_per_epoch, parts)


def _following(place: _Place, batches_per_epoch: int, parts: range) -> _Place:
    """Return the place of what this process trains on after that of a place."""
    epoch, step, part = place
    if part + 1 in parts:
        return epoch, step, part + 1
    return (epoch, step + 1, parts[0]) if step + 1 < batches_per_epoch else (epoch + 1, 0, parts[0])
