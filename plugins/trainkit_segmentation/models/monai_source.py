"""What the networks of ``monai.networks.nets`` take, read from MONAI's source, since importing it takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from trainkit import Argument, did_you_mean, read_arguments, read_classes


@cache
def networks() -> Mapping[str, Mapping[str, Argument]]:
    """Return class -> its arguments, for every network that MONAI hands out.

    MONAI's annotations are narrower than what it takes, so they are left out.

    Raises:
        RecipeError: MONAI is not installed.
    """
    classes = read_classes("monai.networks.nets")
    found = {name: read_arguments(name, classes) for name in classes}
    return {
        name: {key: argument._replace(annotation=None) for key, argument in arguments.items()}
        for name, arguments in found.items()
        if arguments
    }


def refusal(name: str) -> str | None:
    """Return why a name is no network that gives a score for each voxel and class; None: it may be one."""
    known = {each for each, arguments in networks().items() if _segments(arguments)}
    if name in known:
        return None
    if name in networks():
        return f"{name} is told no number of channels or of classes: it is no network for segmentation"
    return f'monai.networks.nets has no network "{name}"; {did_you_mean(name, known)}'


def _segments(arguments: Mapping[str, Argument]) -> bool:
    return "in_channels" in arguments and bool({"out_channels", "num_classes"} & arguments.keys())
