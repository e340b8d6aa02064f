"""Fits the weights of a network to other channels and classes: those of the same name are taken.

A weight "reads channels" if an axis of it has an entry for each channel, and "gives scores" if one has an entry for
each score. Which weights do is seen by making the network with one channel or class more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch

from trainkit import DataError, some_of
from trainkit_segmentation.data.facts import SegmentationFacts, json_value

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainkit_segmentation.models.kind import SegmentationModel

_BACKGROUND = "background"
_SEEN_BY_NETWORK = ("orientation", "spacing_mm", "normalization", "intensities", "window")
"""Settings of the preprocessing that decide what a network sees."""


@attrs.frozen
class _Names:
    """What the channels and scores of a network stand for.

    Attributes:
        channels: Names of the channels.
        scores: Names of the scores: the classes, after the background where classes exclude each other.
        exclusive: Whether they do.
    """

    channels: tuple[str, ...]
    scores: tuple[str, ...]
    exclusive: bool

    @classmethod
    def of(cls, channels: Iterable[str], classes: Iterable[str], exclusive: bool) -> _Names:
        return cls(tuple(channels), ((_BACKGROUND,) if exclusive else ()) + tuple(classes), exclusive)


def adapt_weights(
    settings: SegmentationModel, weights: Mapping[str, Tensor], model: nn.Module, facts: Mapping[str, Any], data: Any
) -> tuple[Mapping[str, Tensor], list[str]]:
    """Fit weights to a network of other channels and classes.

    Args:
        settings: Settings of the network.
        weights: Name -> value that was read.
        model: The network.
        facts: What the file says of the data that the weights were trained with.
        data: The opened data, or its facts.

    Returns:
        The weights to load, and a sentence for each channel and class that differs.

    Raises:
        DataError: The file's network has another number of channels or classes than it has names for.
    """
    own = data if isinstance(data, SegmentationFacts) else SegmentationFacts.from_json(data.facts())
    now = _Names.of(own.channels, own.classes, own.exclusive)
    before = _names_in(facts, now)
    prepared = list(_other_preprocessing(facts, own))
    if order := _axes_of_nnunet(facts):
        weights = {name: _turned(weight, order) for name, weight in weights.items()}
        prepared.append("the weights of convolutions were turned from nnU-Net's order of axes to x, y, z")
    channel_axes, score_axes = _axes(settings, own)
    touched = [name for name in weights if name in channel_axes or name in score_axes]
    here = model.state_dict()
    _check_numbers(_Sizes(weights, here, channel_axes), _Sizes(weights, here, score_axes), before, now)
    if not touched or before == now:
        return weights, prepared
    if before is None:
        return weights, [
            "the file does not say what its channels and classes are; they are taken to be, in this order, "
            f"{', '.join(now.channels)} and {', '.join(now.scores)} (initial_weights.facts can say otherwise)"
        ]
    channels = _sources(now.channels, before.channels)
    scores = _sources(now.scores, before.scores if before.exclusive == now.exclusive else ())
    fitted = dict(weights)
    for name in touched:
        axes = [(axis, channels, len(before.channels)) for axis in channel_axes.get(name, ())]
        axes += [(axis, scores, len(before.scores)) for axis in score_axes.get(name, ())]
        if not axes:
            del fitted[name]
        elif _fits(weights[name], here[name], axes):
            fitted[name] = here[name].to(weights[name].dtype).clone()
            _put(fitted[name], weights[name], [(axis, sources) for axis, sources, _ in axes])
    read = any(name in channel_axes for name in touched)
    scored = any(name in score_axes for name in touched)
    lines = list(_lines("channel", channels, now.channels, before.channels)) if read else []
    if scored and before.exclusive != now.exclusive:
        how = {True: "exclude each other", False: "may overlap"}
        lines.append(
            f"all classes begin anew: those of the file {how[before.exclusive]}, those of this run {how[now.exclusive]}"
        )
    elif scored:
        lines += _lines("class", scores, now.scores, before.scores)
    if gone := [name for name in touched if name not in fitted]:
        lines.append(f"not loaded, since channels and other things share an axis in them: {some_of(gone)}")
    return fitted, lines + prepared


def _axes_of_nnunet(facts: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Return which axes of nnU-Net's volumes are x, y and z, if the file is a checkpoint of nnU-Net.

    It reads volumes as z, y, x, and its plan may then move the axis of thick slices to the front.
    """
    about = facts.get("init_args")
    if not isinstance(about, Mapping) or "dataset_json" not in about:
        return None
    plans = about.get("plans")
    moved = plans.get("transpose_forward") if isinstance(plans, Mapping) else None
    if not isinstance(moved, list | tuple) or sorted(moved) != [0, 1, 2]:
        moved = (0, 1, 2)
    return (moved.index(2), moved.index(1), moved.index(0))


def _turned(weight: Tensor, order: tuple[int, int, int]) -> Tensor:
    """Return the weight of a convolution of volumes with its axes along x, y, z; another weight as it is."""
    return weight.permute(0, 1, *(2 + axis for axis in order)).contiguous() if weight.ndim == 5 else weight


def _other_preprocessing(facts: Mapping[str, Any], own: SegmentationFacts) -> Iterable[str]:
    """Yield a sentence for each setting of the preprocessing that the images of the file's network had otherwise."""
    there = facts.get("preprocessing")
    if facts.get("kind") != own.to_json()["kind"] or not isinstance(there, Mapping):
        return
    for key, here in json_value(own.preprocessing).items():
        if key in there and there[key] != here and key in _SEEN_BY_NETWORK:
            yield (
                f"the weights were trained with data.preprocessing.{key} = {json.dumps(there[key])}, "
                f"and here it is {json.dumps(here)}"
            )


@attrs.frozen
class _Sizes:
    """How large the axes of some weights are that count channels, or scores.

    Attributes:
        there: The weights of the file.
        here: Those of the network.
        axes: Name of a weight -> these axes.
    """

    there: Mapping[str, Tensor]
    here: Mapping[str, Tensor]
    axes: Mapping[str, tuple[int, ...]]

    def number(self) -> int | None:
        """Return the size of these axes in the file, if it is one, and the weights are otherwise of equal sizes."""
        found = set()
        for name, axes in self.axes.items():
            if name in self.there and axes:
                there, here = list(self.there[name].shape), list(self.here[name].shape)
                if len(there) != len(here):
                    return None
                found |= {there[axis] for axis in axes}
        return found.pop() if len(found) == 1 else None

    def names(self) -> list[str]:
        """Return the names of the weights of the file that have such axes."""
        return [name for name in self.axes if name in self.there]


def _check_numbers(channels: _Sizes, scores: _Sizes, before: _Names | None, now: _Names) -> None:
    """Raise an error if the file's network has another number of channels or scores than there are names for."""
    named = before or now
    background = int(named.exclusive)
    for key, sizes, names, extra in (
        ("channels", channels, named.channels, 0),
        ("classes", scores, named.scores[background:], background),
    ):
        number = sizes.number()
        if number is None or number - extra == len(names):
            continue
        does = {"channels": "reads", "classes": "tells apart"}[key]
        skip = ", ".join(f'"{name}"' for name in sizes.names())
        raise DataError(
            f"the network in the file {does} {number - extra} {key}, and "
            f"{'its names are' if before else 'this one'} {some_of(names)}: name those of the file, in its order, with "
            f'initial_weights.facts = {{ {key} = ["…", …] }}, or leave out what depends on them with '
            f"initial_weights.skip = [{skip}]"
        )


def _fits(there: Tensor, here: Tensor, axes: Sequence[tuple[int, Sequence[int | None], int]]) -> bool:
    """Return whether a weight of the file has the sizes of this one, apart from numbers of channels and scores."""
    wanted = list(here.shape)
    for axis, _, size in axes:
        wanted[axis] = size
    return list(there.shape) == wanted


def _put(here: Tensor, there: Tensor, axes: Sequence[tuple[int, Sequence[int | None]]]) -> None:
    """Copy a weight, with the entries along axes in another order; entries without a source stay as they are.

    Args:
        here: Where to.
        there: Where from.
        axes: Each axis, and for each of its entries here the one there.
    """
    if not axes:
        here.copy_(there)
        return
    (axis, sources), *others = axes
    inside = [(other - (other > axis), each) for other, each in others]
    for place, source in enumerate(sources):
        if source is not None:
            _put(here.select(axis, place), there.select(axis, source), inside)


def _sources(now: Sequence[str], before: Sequence[str]) -> list[int | None]:
    """Return for each name its place among other names; None: it is not there.

    A name that is there exactly is that one; otherwise, one that differs in upper and lower case alone.
    """
    exact = {name: place for place, name in enumerate(before)}
    alike = {name.casefold(): place for name, place in exact.items() if name not in now}
    return [exact.get(name, alike.get(name.casefold())) for name in now]


def _lines(what: str, sources: Sequence[int | None], now: Sequence[str], before: Sequence[str]) -> Iterable[str]:
    """Yield a sentence for each name, if any differs."""
    if tuple(now) == tuple(before):
        return
    for name, source in zip(now, sources, strict=True):
        yield f'{what} "{name}": {"begins anew" if source is None else f"from number {source} of the file"}'
    used = {source for source in sources if source is not None}
    if unused := [name for place, name in enumerate(before) if place not in used]:
        yield f"not used from the file: {what} {some_of(unused)}"


def _axes(
    settings: SegmentationModel, facts: SegmentationFacts
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return the weights that read channels, and those that give scores, each with the axes that count them.

    A weight that depends on their number in another way has no axes.
    """
    channels, scores = len(facts.channels), len(facts.classes) + facts.exclusive
    usual = _shapes(settings, channels, scores, facts)
    assert usual is not None  # the network was made
    found = []
    for size, others in (
        (channels, [(more, scores, more) for more in (channels + 1, 2 * channels)]),
        (scores, [(channels, scores + 1, scores + 1)]),
    ):
        axes: dict[str, tuple[int, ...]] = {}
        for in_channels, out_channels, other in others:
            shapes = _shapes(settings, in_channels, out_channels, facts)
            if shapes is None:
                continue  # some networks take certain numbers only
            for name, shape in usual.items():
                differing = tuple(axis for axis in range(len(shape)) if shape[axis] != shapes[name][axis])
                counted = all(shape[axis] == size and shapes[name][axis] == other for axis in differing)
                if differing:
                    axes[name] = differing if counted else ()
            break
        found.append(axes)
    return found[0], found[1]


def _shapes(
    settings: SegmentationModel, in_channels: int, out_channels: int, facts: SegmentationFacts
) -> dict[str, torch.Size] | None:
    """Return the shape of each weight of a network; None: it cannot be made."""
    for where in ("meta", "cpu"):  # without values, if it can be made without
        with torch.random.fork_rng(devices=[]), torch.device(where):
            try:
                network = settings.network(in_channels, out_channels, facts.patch_size)
            except Exception:  # whatever MONAI raises
                continue
            return {f"network.{name}": tensor.shape for name, tensor in network.state_dict().items()}
    return None


def _names_in(facts: Mapping[str, Any], now: _Names) -> _Names | None:
    """Return the names of the channels and scores of a file; None: it does not tell them.

    They are those in trainkit's facts, or in what nnU-Net writes into its checkpoints, or else those of ``now``; and
    before all, those that `initial_weights.facts` gives.
    """
    told = _told_names(facts)
    given = {key: facts[key] for key in ("channels", "classes", "exclusive") if _is_fact(facts.get(key))}
    if told is None and not given:
        return None
    names = told or now
    classes = given.get("classes", names.scores[int(names.exclusive) :])
    return _Names.of(given.get("channels", names.channels), classes, given.get("exclusive", names.exclusive))


def _is_fact(value: Any) -> bool:
    """Return whether a value of a file is the fact that its name says, and not something of another program."""
    return isinstance(value, bool) or (isinstance(value, list | tuple) and all(isinstance(each, str) for each in value))


def _told_names(facts: Mapping[str, Any]) -> _Names | None:
    if "kind" in facts:
        try:
            found = SegmentationFacts.from_json(facts)
        except DataError:
            return None
        return _Names.of(found.channels, found.classes, found.exclusive)
    try:
        about = facts["init_args"]["dataset_json"]
        named = about.get("channel_names", about.get("modality"))
        channels = [str(named[key]) for key in sorted(named, key=int)]
        labels = {str(name): value for name, value in about["labels"].items() if name not in (_BACKGROUND, "ignore")}
        if any(isinstance(value, list | tuple) for value in labels.values()):
            return _Names.of(channels, labels, exclusive=False)
        return _Names.of(channels, sorted(labels, key=lambda name: int(labels[name])), exclusive=True)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
