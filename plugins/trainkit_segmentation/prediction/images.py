"""Brings an image onto the grid of networks, normalised for each as in its training.

Networks of several folds may have normalised the same image by other numbers, those of their own training cases. The
channels of an image are then there once for each set of numbers, one set after the other.

Shapes: C = channels, X, Y, Z = voxels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from trainkit import CheckpointError, DataError, Member
from trainkit_segmentation.cases.case import FileCase
from trainkit_segmentation.files.header import Array, Header
from trainkit_segmentation.preparing.grid import Grid
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.preparing.preprocessing_live import prepare_image

_OF_THE_GRID = ("orientation", "spacing_mm", "crop_to_nonzero")
_LOGGER = logging.getLogger("trainkit.segmentation")


@attrs.frozen
class PreparedImage:
    """An image on the grid of networks.

    Attributes:
        image_CXYZ: The channels, for each way of normalising one after the other.
        grid: Position of the grid in the image's own.
        header: Header of the image.
    """

    image_CXYZ: Array
    grid: Grid
    header: Header


class ImagePreparation:
    """Prepares images for networks that predict together.

    Args:
        members: The networks.
        nan_as_zero: Whether voxels that are NaN are taken as 0; None: as in training.

    Attributes:
        channels: For each network, which channels of a prepared image are its own.

    Raises:
        CheckpointError: Networks work on other grids, or were trained with a version that did something else.
    """

    def __init__(self, members: Sequence[Member], nan_as_zero: bool | None) -> None:
        ways = [preprocessing_of(member.data.preprocessing) for member in members]
        for member, way in zip(members, ways, strict=True):
            for name in _OF_THE_GRID:
                one, two = getattr(ways[0], name), getattr(way, name)
                if one != two:
                    raise CheckpointError(
                        f"{members[0].name} and {member.name} cannot predict together: their data differ in "
                        f"preprocessing.{name}: {one} and {two}"
                    )
        self._nan_as_zero = ways[0].nan_as_zero if nan_as_zero is None else nan_as_zero
        self._ways = list(dict.fromkeys(ways))
        self._num_channels = members[0].data.num_channels
        numbers = [self._ways.index(way) for way in ways]
        self.channels = [slice(n * self._num_channels, (n + 1) * self._num_channels) for n in numbers]

    def prepare(self, case: FileCase) -> PreparedImage:
        """Read and prepare an image.

        Raises:
            DataError: It cannot be read, its files do not fit each other, or nothing is left of it.
        """
        try:
            own_CXYZ, header = case.read_image(nan_as_zero=self._nan_as_zero)
        except DataError as error:  # its advice is for a recipe
            raise DataError(str(error).replace("data.preprocessing.nan_as_zero", "predict.nan_as_zero")) from error
        for doubt in (*header.corrections, *([header.open_question] if header.open_question else [])):
            _LOGGER.warning("%s: %s", case.name, doubt)
        if header.has_no_spacing and self._ways[0].spacing_mm is not None:
            _LOGGER.warning(
                "%s: the file does not say how large a voxel is. 1 mm is taken, and the image is resampled to %s mm",
                case.name,
                " × ".join(f"{mm:g}" for mm in self._ways[0].spacing_mm),
            )
        if header.conversion:
            _LOGGER.info("%s: %s", case.name, header.conversion)
        *others, last = self._ways
        # Preparing may change an image in place, so all but the last way get a copy.
        prepared = [prepare_image(own_CXYZ.copy(), header.affine, way) for way in others]
        prepared.append(prepare_image(own_CXYZ, header.affine, last))
        images = [image_CXYZ for image_CXYZ, _ in prepared]
        return PreparedImage(images[0] if len(images) == 1 else np.concatenate(images), prepared[0][1], header)


def preprocessing_of(content: Mapping[str, Any]) -> Preprocessing:
    """Return the settings of the preprocessing that a checkpoint's facts hold.

    Raises:
        CheckpointError: They are those of another version.
    """
    settings_class: Any = Preprocessing
    known = {field.name for field in attrs.fields(settings_class)}
    if unknown := sorted(content.keys() - known):
        raise CheckpointError(
            f"the images of the training were preprocessed with {', '.join(unknown)}, which this version does not "
            "know: predict with the version that trained, or a newer one"
        )
    try:
        found: Preprocessing = settings_class(**{name: _hashable(value) for name, value in content.items()})
        return found
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the facts of the training data hold no preprocessing: {error}") from error


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value
