"""Tiny packages for the recipe's tests, installed as any third party's: a module and its dist-info on the path."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trainkit import registry

MODULE = '''
"""Components of a third party."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from trainkit import (
    INPUT_PATH, Component, Data, DataError, Hook, Inference, Logger, Loss, Metric, MetricName, Model, Optimizer, Point,
    Problem, Scheduler, component,
)


@component
class Points(Data):
    """Points on a line.

    They are made up.

    Attributes:
        path: Where they are.
        batch_size: So many
            at once.
        noise: Standard deviation, in metres.
        validated: Whether some are held out.
    """

    divides_batches: ClassVar[bool] = True

    path: Path | None = attrs.field(default=None, metadata=INPUT_PATH)
    batch_size: int = attrs.field(default=4, validator=attrs.validators.ge(1))
    noise: float = 0.5
    validated: bool = True
    extra: Mapping[str, Any] = attrs.Factory(dict)

    def splits(self):
        return ("train", "val") if self.validated else ("train",)

    def inspect(self, recipe, depth):
        if self.path is not None:
            raise DataError(f"{self.path.name} is damaged")
        yield f"4 points, noise {self.noise} m"
        if self.noise > 9 and depth == "all":
            yield Problem("more noise than signal; set noise = 0.5", "noise", "warning")
        if self.noise > 99:
            yield Problem("nothing but noise", "noise")
        if depth == "headers":
            yield "the points themselves were not read"

    def build(self, context):
        raise NotImplementedError


@component
class Pictures(Data):
    """Other data."""

    def build(self, context):
        raise NotImplementedError


@component
class Shape(Component):
    """A kind that this package opens."""

    entry_points: ClassVar[str] = "trainkit.toy.shapes"

    @abstractmethod
    def build(self): ...


@component
class Round(Shape):
    """Round."""

    radius_metres: float = 1.0
    centre: tuple[float, float] = (0.0, 0.0)

    def build(self):
        raise NotImplementedError


@component
class Pair(Shape):
    """Two shapes."""

    first: Shape
    second: Shape | None = None

    def build(self):
        raise NotImplementedError


@component
class Line(Model):
    """A line through the points."""

    accepts: ClassVar[type[Data]] = Points

    shape: Shape = attrs.Factory(Round)
    named: Mapping[str, Shape] = attrs.Factory(dict)
    layers: tuple[int, ...] = (8, 8)
    activation: Literal["relu", "tanh"] = "relu"
    hidden: int | None = None
    known: bool = True

    def groups(self):
        return {"body": True, "head": False} if self.known else None

    def problems(self, recipe):
        if self.hidden is not None and self.hidden > recipe.data.batch_size:
            yield Problem("more than there are points in a batch", "hidden")
        if self.activation == "tanh":
            yield Problem("is slow", "activation", "warning")
        if self.hidden == 0:
            yield "a line without points"

    def build(self, data):
        raise NotImplementedError


@component
class Square(Loss):
    """Squared distance."""

    power: float = attrs.field(default=2.0)

    @power.validator
    def _check(self, attribute, value):
        if value < self.weight:
            raise ValueError(f"power must not be below weight {self.weight}, got {value}")

    def build(self, data):
        raise NotImplementedError


@component
class Penalty(Loss):
    """A regulariser."""

    on_validation: ClassVar[bool] = False

    def build(self, data):
        raise NotImplementedError


@component
class Hits(Metric):
    """How many."""

    def names(self):
        return ("hits",)

    def build(self, data):
        raise NotImplementedError


@component
class Secret(Metric):
    """Nobody knows its names."""

    def build(self, data):
        raise NotImplementedError


@component
class Direct(Inference):
    """The model alone."""

    def build(self, data):
        raise NotImplementedError


@component
class Steep(Optimizer):
    """Downhill."""

    weight_decay: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    betas: tuple[float, float] = (0.9, 0.999)

    def build(self, groups):
        raise NotImplementedError


@component
class Hasty(Optimizer):
    """Downhill, faster."""

    haste: int = attrs.field(default=1, validator=attrs.validators.ge(0))

    def build(self, groups):
        raise NotImplementedError


@component
class Flat(Scheduler):
    """None."""

    def at(self, t, horizon, lr, memory):
        return Point(lr)


@component
class Falling(Scheduler):
    """Falls."""

    factor: float = 0.5
    metric: MetricName | None = None

    def at(self, t, horizon, lr, memory):
        return Point(lr)


@component
class Watch(Hook):
    """Looks at a value."""

    metric: MetricName = MetricName("train/loss")

    def names(self):
        return ("train/watched",)

    def build(self, context):
        raise NotImplementedError


@component
class Diary(Logger):
    """Writes."""

    def build(self, context):
        raise NotImplementedError


@component
class Frame(Component):
    """A kind that is about pictures."""

    accepts: ClassVar[type[Data]] = Pictures
    entry_points: ClassVar[str] = "trainkit.toy.frames"


@component
class Wooden(Frame):
    """Of wood."""


@component
class FramedPoints(Points):
    """Points with something that is about pictures."""

    frame: Frame


@component
class Hanging(Watch):
    """A hook with something that is about pictures."""

    accepts: ClassVar[type[Data]] = Pictures
    frame: Frame


@component
class Edges(Penalty):
    accepts: ClassVar[type[Data]] = Pictures


@component
class Sharpness(Secret):
    accepts: ClassVar[type[Data]] = Pictures


@component
class Tiles(Direct):
    accepts: ClassVar[type[Data]] = Pictures


@component
class Retouch(Steep):
    accepts: ClassVar[type[Data]] = Pictures


@component
class Album(Diary):
    accepts: ClassVar[type[Data]] = Pictures


@component
class Needy(Loss):
    """Needs what is not there."""

    requires: ClassVar[tuple[str, ...]] = ("surely_not_installed",)

    def build(self, data):
        raise NotImplementedError


@component
class Unfinished(Loss):
    """Has no build."""


class Plain:
    """No component."""
'''

ENTRY_POINTS = """
[trainkit.data]
points = toy:Points
toy_pictures = toy:Pictures
framed_points = toy:FramedPoints
[trainkit.toy.shapes]
round = toy:Round
pair = toy:Pair
[trainkit.toy.frames]
frame = toy:Wooden
[trainkit.models]
line = toy:Line
[trainkit.losses]
square = toy:Square
penalty = toy:Penalty
edges = toy:Edges
needy = toy:Needy
unfinished = toy:Unfinished
mere = toy:Plain
misplaced = toy:Round
broken = toy_broken:Loss
absent = toy:Absent
[trainkit.metrics]
hits = toy:Hits
secret = toy:Secret
sharpness = toy:Sharpness
[trainkit.inference]
direct = toy:Direct
tiles = toy:Tiles
[trainkit.optimizers]
steep = toy:Steep
hasty = toy:Hasty
retouch = toy:Retouch
[trainkit.schedulers]
flat = toy:Flat
falling = toy:Falling
[trainkit.hooks]
watch = toy:Watch
hanging = toy:Hanging
[trainkit.loggers]
diary = toy:Diary
album = toy:Album
"""

METADATA = """Metadata-Version: 2.1
Name: {name}
Version: {version}
Requires-Dist: surely-not-installed>=2; extra == "needs"
"""

GOOD = """trainkit = 1
[run]
epochs = 10
[data]
use = "points"
[model]
use = "line"
[losses.data]
use = "square"
[inference]
use = "direct"
[optimizer]
use = "steep"
[scheduler]
use = "flat"
"""
"""A recipe without mistakes."""


def distribution(folder: Path, name: str, version: str, entry_points: str) -> None:
    """Write what an installed distribution leaves on the path."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(name=name, version=version))
    (info / "entry_points.txt").write_text(entry_points)


@contextmanager
def toys(folder: Path) -> Iterator[Path]:
    """Install the toy package for a while."""
    (folder / "toy.py").write_text(MODULE)
    (folder / "toy_broken.py").write_text('raise RuntimeError("no licence")\n')
    distribution(folder, "toy", "1.0", ENTRY_POINTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        registry.forget()
        yield folder
    registry.forget()
