"""Looks at all cases, plans a training by the rules of nnU-Net, and writes it as a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, cast

import attrs
import numpy as np

from trainkit import RecipeText, shape_in_words
from trainkit_segmentation.cases.case import CaseList
from trainkit_segmentation.data.contents_live import CaseContents
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.losses.dice_ce import DiceCE
from trainkit_segmentation.models.dynunet import DynUNet
from trainkit_segmentation.models.footprint import Footprint, footprint
from trainkit_segmentation.models.resenc_unet import ResEncUNet
from trainkit_segmentation.patches.augmentation import Flip
from trainkit_segmentation.planning.data_fingerprint import DataFingerprint, fingerprint_of, target_spacing
from trainkit_segmentation.planning.topology import Kind, Plan, Topology, plan, shrunk
from trainkit_segmentation.planning.worker_count import worker_count
from trainkit_segmentation.preparing.fingerprints import Fingerprint
from trainkit_segmentation.preparing.foreground import pooled

_FEWEST_TO_SPLIT = 5  # subjects; of fewer, none is held out
_LOW_RESOLUTION = 0.25  # share of the median case; below, nnU-Net plans a network of lower resolution too
_THIN = 3.0  # patches that are so much wider than thick are rotated and scaled in their plane alone
_MOMENTUM_STATE = 1.0  # bytes that SGD with momentum keeps for each byte of parameters
_STEPS, _EPOCHS = 250, 1000


@attrs.frozen
class _Planned:
    """All that the recipe is written from.

    Attributes:
        listing: The cases and classes.
        found: What the cases are like.
        spacing_mm: Size of a voxel after resampling.
        plan: The network, the patch and the batch.
        kind: The kind of the network's blocks.
        needs: What a training step takes.
        by_rule: The patch that nnU-Net's rule gives, if it took more than the memory.
        memory_gb: The memory that training may take.
        intensities: For CT: percentiles, mean and deviation of the foreground of each channel.
    """

    listing: CaseList
    found: DataFingerprint
    spacing_mm: tuple[float, float, float]
    plan: Plan
    kind: Kind
    needs: Footprint
    by_rule: tuple[int, int, int] | None
    memory_gb: float
    intensities: Sequence[Sequence[float]]

    @property
    def are_ct(self) -> list[bool]:
        """For each channel, whether it is a CT."""
        return [channel.strip().lower() == "ct" for channel in self.listing.channels]

    @property
    def is_thin(self) -> bool:
        return max(self.patch) / min(self.patch) > _THIN

    @property
    def patch(self) -> tuple[int, int, int]:
        return self.plan.topology.patch

    @property
    def median(self) -> list[int]:
        return [round(float(n)) for n in np.median(self.found.sizes_at(self.spacing_mm), axis=0)]


def draft(use: str, contents: CaseContents, settings: Mapping[str, Any], kind: Kind, memory_gb: float) -> Iterator[str]:
    """Yield the lines of a recipe.

    Args:
        use: Name of the component that reads the data.
        contents: What is in the data.
        settings: The settings that it was recognised with.
        kind: The kind of the network's blocks.
        memory_gb: The memory that training may take.
    """
    listing, seen = contents.listing, contents.fingerprints
    classes = listing.labels.classes
    present = [k for k in range(len(classes)) if any(each.own_voxels[k] for each in seen.values())]
    if present and len(present) < len(classes):
        chosen = {"classes": tuple(classes[k] for k in present)}
        settings = {**settings, **chosen}
        listing = attrs.evolve(cast(Any, contents.data), **chosen).cases()
        # All else that was seen stays the same without classes that have no voxels.
        seen = {
            name: each._replace(own_voxels=tuple(each.own_voxels[k] for k in present)) for name, each in seen.items()
        }
    yield from str(_recipe(use, settings, _planned(listing, seen, kind, memory_gb))).split("\n")


def _planned(listing: CaseList, seen: Mapping[str, Fingerprint], kind: Kind, memory_gb: float) -> _Planned:
    labels = listing.labels
    found = fingerprint_of(seen, labels.classes)
    spacing = target_spacing(found)
    median: list[float] = np.median(found.sizes_at(spacing), axis=0).tolist()
    num_scores = len(labels.classes) + labels.exclusive
    made = plan(spacing, median, kind, num_scores, prod(median) * len(seen), memory_gb)
    by_rule = None
    needs = _needs(listing, made, kind)
    while (least := _in_16_bits(needs)) > memory_gb * 1e9:
        if made.batch_size > 2:
            made = attrs.evolve(made, batch_size=max(2, int(made.batch_size * memory_gb * 1e9 / least)), by_share=False)
            needs = _needs(listing, made, kind)
            continue
        smaller = shrunk(made.topology, spacing, median)
        if smaller.patch == made.topology.patch:
            break
        by_rule = by_rule or made.topology.patch
        made = attrs.evolve(made, topology=smaller)
        needs = _needs(listing, made, kind)
    channels = [each.quantiles_CM for each in seen.values() if each.quantiles_CM.shape[1]]
    return _Planned(
        listing, found, spacing, made, kind, needs, by_rule, memory_gb, pooled(channels) if channels else ()
    )


def _network(kind: Kind, topology: Topology) -> DynUNet | ResEncUNet:
    arguments: dict[str, Any] = {
        "channels": topology.features,
        "strides": topology.strides,
        "kernel_sizes": topology.kernels,
        "deep_supervision": _supervised(topology),
    }
    return DynUNet(**arguments) if kind == "plain" else ResEncUNet(**arguments)


def _supervised(topology: Topology) -> int:
    """Return how many coarser levels nnU-Net supervises: all of the decoder but the coarsest, whose weight is 0."""
    return max(len(topology.features) - 3, 0)


def _needs(listing: CaseList, made: Plan, kind: Kind) -> Footprint:
    labels = listing.labels
    topology = made.topology
    facts = SegmentationFacts(listing.channels, labels.classes, labels.exclusive, {}, topology.patch, {}, 1, "")
    network = _network(kind, topology).build(facts).network
    return footprint(
        network,
        len(listing.channels),
        len(labels.classes),
        labels.exclusive,
        topology.patch,
        made.batch_size,
        {"overlap": DiceCE().build(cast(Any, facts))},
        _MOMENTUM_STATE,
    )


def _in_16_bits(needs: Footprint) -> float:
    """Return about what training takes with activations of 16 bits; parameters and gradients have 32 all the same."""
    return needs.training - (needs.step - needs.network) / 2


# ---- the recipe -----------------------------------------------------------------------------------------------------


def _recipe(use: str, settings: Mapping[str, Any], made: _Planned) -> RecipeText:
    text = RecipeText()
    found, classes = made.found, made.listing.labels.classes
    number = len(found.sizes_N3)
    frequencies = [f"{name} ({found.voxels_of_class[name]:,}, {found.cases_of_class[name]})" for name in classes]
    text.comment(
        f"{number} case{'s' * (number != 1)}, channels {', '.join(made.listing.channels)}, planned by nnU-Net's rules "
        f"for {made.memory_gb:g} GB. Classes (voxels, cases): {', '.join(frequencies)}."
    )
    for note in made.listing.notes:
        text.comment(note)
    text.value("trainkit", 1)
    _write_run(text, made)
    _write_data(text, use, settings, made)
    _write_preprocessing(text, made)
    _write_augmentation(text, made)
    _write_model(text, made)
    _write_training(text, made)
    return text


def _write_run(text: RecipeText, made: _Planned) -> None:
    needs, memory = made.needs, made.memory_gb * 1e9
    text.table("run")
    text.value(
        "epochs",
        _EPOCHS,
        f"nnU-Net's {_EPOCHS} of {_STEPS} steps; a shorter run needs only another number, the learning rate follows it",
    )
    text.value("seed", 0)
    measured = f"{needs.training / 1e9:.3g} GB with 32 bits, measured on tensors without values"
    if needs.training > memory:
        half = f"about {_in_16_bits(needs) / 1e9:.2g} GB with 16-bit activations, as nnU-Net trains"
        why = f'a step takes {measured}, {half}; "fp16" for GPUs before 2020, "fp32" on a CPU'
        text.value("precision", "bf16", why)
    else:
        text.value("precision", "fp32", f"a step takes {measured}")
    text.table("monitor")
    text.value("metric", "val/dice")
    text.value("mode", "max")
    text.table("validation")
    text.value("every_epochs", 10, "whole cases: where there are many, more work than an epoch of training")


def _write_data(text: RecipeText, use: str, settings: Mapping[str, Any], made: _Planned) -> None:
    found, patch, batch = made.found, made.patch, made.plan.batch_size
    text.table("data")
    text.value("use", use)
    reasons = {
        "classes": "those that some case has: a network cannot learn the others",
        "labels": "the values of a few labels: give them names",
    }
    for key, value in settings.items():
        text.value(key, value, reasons.get(key, ""))
    why = f"median case {shape_in_words(made.median)} at {_mm(made.spacing_mm)}"
    if made.by_rule is not None:
        why += f"; nnU-Net's rule gives {shape_in_words(made.by_rule)}, which takes more than {made.memory_gb:g} GB"
    elif made.plan.first_patch == patch:
        why += ", rounded up to what the network takes: a whole case"
    else:
        why += f", shrunk from {shape_in_words(made.plan.first_patch)} until it fits {made.memory_gb:g} GB at batch 2"
    if len(found.sizes_N3) < _FEWEST_TO_SPLIT:
        why += "; of so few cases, the median says little: plan again with all"
    text.value("patch_size", patch, why)
    if made.plan.by_share:
        share = prod(patch) * batch / (prod(made.median) * len(found.sizes_N3))
        fits = made.plan.fitting
        why = f"{share:.1%} of all voxels; {fits} fit, but nnU-Net takes 5 % at most, lest cases are learned by heart"
    else:
        why = "as many as fit" if batch > 2 else "nnU-Net's smallest"
    text.value("batch_size", batch, why)
    text.value("steps_per_epoch", _STEPS, "as in nnU-Net, whatever the number of cases")
    text.value("foreground_probability", 0.33)
    text.value("foreground_sampling", "share", "a third of each batch is centred on a class, guaranteed, as in nnU-Net")
    text.value("workers", *worker_count(_batch_bytes(made)))
    subjects = {case.subject for case in made.listing.cases}
    if len(subjects) < _FEWEST_TO_SPLIT:
        few = f"only {len(subjects)} subject{'s' * (len(subjects) != 1)}: values say nothing about new ones"
        text.value("split", {"use": "same_cases"}, few)
    else:
        text.value("split", {"use": "fraction", "validation_fraction": 0.2}, "or folds, for a cross-validation")


def _batch_bytes(made: _Planned) -> int:
    """Return the size of a batch: images as 32-bit numbers, and a byte for the label of a voxel."""
    return made.plan.batch_size * prod(made.patch) * (4 * len(made.listing.channels) + 1)


def _write_preprocessing(text: RecipeText, made: _Planned) -> None:
    found = made.found
    spacings = np.unique(found.spacings_N3.round(3), axis=0)
    text.table("data.preprocessing")
    if len(spacings) == 1:
        why = "all cases have it" if len(found.sizes_N3) > 1 else "that of the case"
    else:
        low, high = found.spacings_N3.min(axis=0), found.spacings_N3.max(axis=0)
        why = f"the median of {_mm(low)} to {_mm(high)}"
        if not np.allclose(np.median(found.spacings_N3, axis=0), made.spacing_mm, atol=1e-5):
            why += "; along the coarse axis the 10th percentile, so that few cases lose slices"
    text.value("spacing_mm", made.spacing_mm, why)
    text.value("resampling", "cubic", "images by splines, labels by votes")
    text.value("crop_to_nonzero", True, f"leaves {found.kept:.0%} of the voxels of the median case")
    if all(made.are_ct):
        numbers = "; ".join(
            f"{lower:.4g} to {upper:.4g}, mean {mean:.4g}, deviation {deviation:.4g}"
            for lower, upper, mean, deviation in made.intensities
        )
        why = f"CT: percentiles and mean of the classes; all cases have {numbers}, a run takes its training cases"
        text.value("normalization", "foreground", why)
    elif found.zeros_are_outside:
        text.value("normalization", "zscore_nonzero", "more than a quarter is cropped, so zeros are outside")
    else:
        mixed = "; nnU-Net would normalise the channel CT by its classes" if any(made.are_ct) else ""
        text.value("normalization", "zscore", f"each channel of each case: intensities have no unit{mixed}")


def _write_augmentation(text: RecipeText, made: _Planned) -> None:
    text.table("data.augmentation", "nnU-Net's probabilities and ranges")
    sided = Flip().mixed_sides(made.listing.labels.classes, (0,)) is not None
    if sided:
        text.value("flip", {"axes": (1, 2)}, "not from left to right: classes differ in their side")
    else:
        text.value("flip", {})
    affine: dict[str, Any] = {
        "probability": 0.2,
        "rotation_degrees": (30.0, 30.0, 30.0),
        "scale": (0.7, 1.4),
        "scale_probability": 0.2,
    }
    coarse: dict[str, Any] = {}
    why = ""
    if made.is_thin:
        thin = int(np.argmin(made.patch))
        plane = tuple(axis for axis in range(3) if axis != thin)
        affine["rotation_degrees"] = tuple(180.0 if axis == thin else 0.0 for axis in range(3))
        affine["scaled_axes"] = coarse["axes"] = plane
        why = "in the plane alone: the patch is more than three times as wide as thick"
    text.value("affine", affine, why)
    text.value("noise", {"probability": 0.1, "deviation": 0.1})
    text.value("blur", {"probability": 0.2, "sigma_voxels": (0.5, 1.0)})
    text.value("brightness", {"probability": 0.15, "factor": (0.75, 1.25)})
    text.value("contrast", {"probability": 0.15, "factor": (0.75, 1.25)})
    text.value("low_resolution", {"probability": 0.25, "scale": (0.5, 1.0), **coarse})
    power = {"exponent": (0.7, 1.5), "draw": "balanced", "keep_mean_and_deviation": True}
    text.value("inverted_gamma", {"probability": 0.1, **power})
    text.value("gamma", {"probability": 0.3, **power})


def _write_model(text: RecipeText, made: _Planned) -> None:
    topology = made.plan.topology
    text.table("model")
    if made.kind == "plain":
        text.value("use", "dynunet", "nnU-Net's plain network; --network resenc plans its residual encoder")
    else:
        text.value("use", "resenc_unet", "nnU-Net's residual encoder")
    levels = f"{len(topology.features)} levels: halved while an edge has at least 8 voxels"
    text.value("channels", topology.features, f"{levels}; doubled up to 320")
    if any(stride != (2, 2, 2) for stride in topology.strides):
        text.value("strides", topology.strides, "finer axes are halved first, until voxels are nearly cubes")
    if any(kernel != (3, 3, 3) for kernel in topology.kernels):
        text.value("kernel_sizes", topology.kernels, "flat while slices are twice as thick as pixels are wide")
    text.value(
        "deep_supervision",
        _supervised(topology),
        "all coarser levels of the decoder but the last, whose weight is 0 in nnU-Net",
    )


def _write_training(text: RecipeText, made: _Planned) -> None:
    share = prod(made.patch) / prod(made.median)
    small = share < _LOW_RESOLUTION
    text.table("losses.overlap")
    text.value("use", "dice_ce")
    if small:
        text.value("batch_dice", True, f"a patch covers {share:.0%} of the median case: many lack most classes")
        text.comment(
            "nnU-Net would also plan a network of lower resolution, since a patch covers less than 25 % of the median "
            "case; a coarser data.preprocessing.spacing_mm in a second recipe does that."
        )
    text.table("metrics.dice")
    text.value("use", "dice")
    text.table("inference")
    text.value("use", "sliding_window", "windows overlap by half, with Gaussian weights, as in nnU-Net")
    text.table("optimizer")
    text.comment(
        "nnU-Net's, for its 250,000 steps. In a short run (a few thousand steps) it may end with background alone: "
        'take use = "adamw", lr = 1e-3 there, and the schedule "one_cycle".'
    )
    text.value("use", "sgd")
    text.value("lr", 0.01)
    text.value("momentum", 0.99)
    text.value("nesterov", True)
    text.value("weight_decay", 3e-5)
    text.table("scheduler")
    text.value("use", "polynomial", "falls as (1 - epoch / epochs) ** 0.9")
    text.value("power", 0.9)
    text.table("hooks.clip_gradients")
    text.value("use", "clip_gradients")
    text.value("max_norm", 12.0, "as in nnU-Net")
    text.table("hooks.overlays")
    text.value("use", "segmentation_overlays")
    text.table("pictures")
    text.value("every_epochs", 10)
    text.table("checkpoint")
    text.value("every_epochs", 1)
    text.value("keep_last", 3)
    text.value("best", 1)
    text.table("loggers.tensorboard")
    text.value("use", "tensorboard")


def _mm(spacing: Any) -> str:
    values = [f"{float(mm):.4g}" for mm in spacing]
    return f"{values[0]} mm" if len(set(values)) == 1 else f"{' × '.join(values)} mm"
