"""What a network has to know of its training data: a small JSON value that every checkpoint contains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

import attrs

from trainkit import DataError
from trainkit_segmentation.cases.image_names import ImageNames
from trainkit_segmentation.cases.missing_masks import MissingMasks
from trainkit_segmentation.sizes import Size
from trainkit_segmentation.spelling import IGNORE

if TYPE_CHECKING:
    from trainkit_segmentation.cases.labels import Labels

_KIND = "segmentation"


@attrs.frozen
class SegmentationFacts:
    """Facts of a data set, which stand in for the opened data when a network or an inference is built.

    Attributes:
        channels: Names of the channels of an image.
        classes: The foreground classes, in the order of the target's values or channels.
        exclusive: Whether a voxel has at most one class.
        label_values: Value of a label file -> the classes that a voxel of this value belongs to. Empty where each class
            has a mask file of its own.
        patch_size: Voxels of a training patch along x, y, z of the preprocessed grid.
        preprocessing: Settings of the preprocessing, as JSON values.
        num_training_cases: How many cases the network is trained on.
        training_digest: Digest of the names and the file contents of these cases.
        image_names: How the files of an image are named; None: an older version did not save it.
        file_spacing_mm: Size of a voxel in files that do not say it.
        ignored_values: Values of a label file that say that a voxel does not count.
        masks: Name of a mask -> the classes that voxels in it belong to, or "ignore", in the order of the masks. Empty:
            there are none, or each class has one of its name, in the order of the classes.
        missing_masks: What it means if a case has no file for a mask.
        annotated: Pattern of case names -> the classes that were annotated in these cases; empty: all in all.
        mirrored_axes: The axes along which training patches are mirrored; None: an older version did not save it.
    """

    channels: tuple[str, ...]
    classes: tuple[str, ...]
    exclusive: bool
    label_values: Mapping[int, tuple[str, ...]]
    patch_size: Size
    preprocessing: Mapping[str, Any]
    num_training_cases: int
    training_digest: str
    image_names: ImageNames | None = None
    file_spacing_mm: tuple[float, float, float] | None = None
    ignored_values: tuple[int, ...] = ()
    mirrored_axes: tuple[int, ...] | None = None
    masks: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    missing_masks: MissingMasks = "error"
    annotated: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)

    @property
    def num_channels(self) -> int:
        """Channels of an image."""
        return len(self.channels)

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return {
            "kind": _KIND,
            "channels": list(self.channels),
            "classes": list(self.classes),
            "exclusive": self.exclusive,
            "label_values": {str(value): list(classes) for value, classes in self.label_values.items()},
            **({"ignored_values": list(self.ignored_values)} if self.ignored_values else {}),
            **({"masks": [[name, list(of)] for name, of in self.masks.items()]} if self.masks else {}),
            **({"missing_masks": self.missing_masks} if self.missing_masks != "error" else {}),
            **({"annotated": json_value(self.annotated)} if self.annotated else {}),
            "patch_size": list(self.patch_size),
            "preprocessing": json_value(self.preprocessing),
            # Labels were once resampled otherwise: a run of that time is told that its labels have changed.
            **({"label_resampling": "local_votes"} if self.preprocessing.get("spacing_mm") else {}),
            "training": {"num_cases": self.num_training_cases, "digest": self.training_digest},
            **self._inputs(),
        }

    def _inputs(self) -> dict[str, Any]:
        if self.image_names is None:
            return {}
        spacing = {} if self.file_spacing_mm is None else {"file_spacing_mm": list(self.file_spacing_mm)}
        mirrored = {} if self.mirrored_axes is None else {"mirrored_axes": list(self.mirrored_axes)}
        return {"inputs": self.image_names.to_json() | spacing | mirrored}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SegmentationFacts:
        """Read what `to_json` returned.

        Raises:
            DataError: The facts are of other data, or incomplete.
        """
        if content.get("kind") != _KIND:
            raise DataError(f'these are no facts of segmentation data: kind is {content.get("kind")!r}, not "{_KIND}"')
        try:
            x, y, z = map(_positive, content["patch_size"])
            facts = cls(
                channels=_names(content["channels"]),
                classes=_names(content["classes"]),
                exclusive=_of_type(bool, content["exclusive"]),
                label_values={int(value): _names(each) for value, each in content["label_values"].items()},
                patch_size=(x, y, z),
                preprocessing=_of_type(dict, content["preprocessing"]),
                num_training_cases=_positive(content["training"]["num_cases"]),
                training_digest=_of_type(str, content["training"]["digest"]),
                image_names=ImageNames.from_json(content["inputs"]) if "inputs" in content else None,
                file_spacing_mm=_spacing(content.get("inputs", {}).get("file_spacing_mm")),
                ignored_values=tuple(_of_type(int, value) for value in content.get("ignored_values", [])),
                mirrored_axes=_axes(content.get("inputs", {}).get("mirrored_axes")),
                masks={_of_type(str, name): _names(of) for name, of in content.get("masks", [])},
                missing_masks=_missing_masks(content.get("missing_masks", "error")),
                annotated={_of_type(str, name): _names(of) for name, of in content.get("annotated", {}).items()},
            )
            if not facts.channels or not facts.classes:
                raise ValueError("there must be at least one channel and one class")
        except KeyError as error:
            raise DataError(f"the facts of the segmentation data lack {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"the facts of the segmentation data cannot be read: {error}") from error
        return facts


def meaning_of_masks(labels: Labels) -> dict[str, tuple[str, ...]]:
    """Return `SegmentationFacts.masks` of the labels of a data set."""
    if not labels.masks or list(labels.masks.values()) == list(labels.classes) == _own_names(labels):
        return {}
    return {
        name: (IGNORE,) if value in labels.ignored else tuple(labels.classes[k] for k in labels.members[value])
        for value, name in labels.masks.items()
    }


def _own_names(labels: Labels) -> list[str]:
    """Return the name of the class of each mask, where it has just one."""
    return [labels.classes[of[0]] for value, of in sorted(labels.members.items()) if len(of) == 1]


def _missing_masks(value: Any) -> MissingMasks:
    if value not in get_args(MissingMasks):
        raise ValueError(f"missing_masks is {value!r}")
    found: MissingMasks = value
    return found


def _of_type(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {value!r}")
    return value


def _positive(value: Any) -> int:
    number: int = _of_type(int, value)
    if number < 1:
        raise ValueError(f"expected a positive number, got {number}")
    return number


def _spacing(values: Any) -> tuple[float, float, float] | None:
    if values is None:
        return None
    x, y, z = (_of_type(float, value) for value in values)
    return x, y, z


def _axes(values: Any) -> tuple[int, ...] | None:
    return None if values is None else tuple(_of_type(int, value) for value in _of_type(list, values))


def _names(values: Any) -> tuple[str, ...]:
    return tuple(_of_type(str, value) for value in _of_type(list, values))


def json_value(value: Any) -> Any:
    """Return a value with tuples as lists, which is what JSON makes of them."""
    if isinstance(value, Mapping):
        return {key: json_value(each) for key, each in value.items()}
    return [json_value(each) for each in value] if isinstance(value, list | tuple) else value
