"""A run whose batches are divided among processes: its data, model, losses, a metric, and hooks that disturb it."""

import os
import signal
import time

import attrs
import torch
from torch import nn

from trainkit import (
    Data,
    Exchange,
    Hook,
    Live,
    Loss,
    Metric,
    Model,
    component,
    in_batches,
    part_of,
    random_seed,
    shuffled,
)


@component
class Points(Data):
    """Points in space and whether they are in a ball.

    Attributes:
        number: How many.
        batch_size: Points in a whole batch.
    """

    divides_batches = True
    number: int = 41
    batch_size: int = 12

    def splits(self):
        return "train", "val"

    def build(self, context):
        return LivePoints(self, context.seed, context.exchange)


class LivePoints:
    def __init__(self, settings: Points, seed: int, exchange: Exchange) -> None:
        self._settings, self._seed, self._exchange = settings, seed, exchange
        self._index = torch.arange(settings.number)
        self.batches_per_epoch = len(in_batches(self._index, settings.batch_size))

    def train(self, epoch, start):
        order = shuffled(self._settings.number, self._seed, epoch)
        for batch in in_batches(order, self._settings.batch_size)[start:]:
            for part in self._exchange.parts:
                yield self._points(part_of(batch, part, self._exchange.num_parts))

    def evaluate(self, split):
        for part in self._exchange.parts:
            for number in part_of(self._index + 1000, part, self._exchange.num_parts):  # one by one, as volumes are
                yield self._points(number[None])

    def _points(self, index):
        each = [torch.randn(3, generator=torch.Generator().manual_seed(random_seed(self._seed, int(i)))) for i in index]
        x_B3 = torch.stack(each)
        return {"index": index, "x": x_B3, "inside": (x_B3.square().sum(1, keepdim=True) < 2).float()}


@component
class Network(Model):
    """Two layers, in two groups.

    Attributes:
        dropout: Share of the hidden values that is dropped.
        norm: Whether hidden values are normalised over the batch.
    """

    accepts = Points
    dropout: float = 0.0
    norm: bool = False

    def groups(self):
        return {"body": True, "head": False}

    def build(self, data):
        class Live(nn.Module):
            def __init__(self, settings: Network) -> None:
                super().__init__()
                norm = nn.BatchNorm1d(8) if settings.norm else nn.Identity()
                self.body = nn.Sequential(nn.Linear(3, 8), norm, nn.Tanh(), nn.Dropout(settings.dropout))
                self.head = nn.Linear(8, 1)

            def forward(self, batch):
                return {"y": torch.sigmoid(self.head(self.body(batch["x"])))}

        return Live(self)

    def recomputed_blocks(self, model):
        return model.body, model.head

    def parameter_groups(self, model):
        return {"body": model.body.parameters(), "head": model.head.parameters()}


@component
class Squares(Loss):
    """The mean squared error."""

    accepts = Points

    def build(self, data):
        return lambda outputs, batch, model: (outputs["y"] - batch["inside"]).square().mean()


@component
class Overlap(Loss):
    """One minus the Dice coefficient over all points of a step."""

    accepts = Points

    def combine(self):
        return "sums"

    def build(self, data):
        return LiveOverlap()


class LiveOverlap:
    def sums(self, outputs, batch, model):
        y, t = outputs["y"].float(), batch["inside"]
        return torch.stack([(y * t).sum(), y.sum() + t.sum()])

    def value(self, sums):
        return 1 - 2 * sums[0] / sums[1]

    def __call__(self, outputs, batch, model):
        return self.value(self.sums(outputs, batch, model))


@component
class Small(Loss):
    """Keeps weights small."""

    accepts = Points
    on_validation = False

    def combine(self):
        return "once"

    def build(self, data):
        return lambda outputs, batch, model: sum(each.square().sum() for each in model.parameters())


@component
class Error(Metric):
    """The share of points on the wrong side, and how many there were."""

    accepts = Points

    def names(self):
        return "wrong", "points"

    def build(self, data):
        return LiveError()


class LiveError:
    def __init__(self) -> None:
        self._wrong: list[bool] = []

    def update(self, outputs, batch):
        self._wrong += ((outputs["y"] > 0.5) != (batch["inside"] > 0.5)).flatten().tolist()

    def share(self):
        return self._wrong

    def merge(self, shares):
        self._wrong = [each for share in shares for each in share]

    def compute(self):
        wrong, self._wrong = self._wrong, []
        return {"wrong": sum(wrong) / len(wrong), "points": float(len(wrong))}


@component
class LonelyError(Error):
    """The same without the methods that bring processes together."""

    def build(self, data):
        class Lonely:
            update, compute, __init__ = LiveError.update, LiveError.compute, LiveError.__init__

        return Lonely()


@component
class Trouble(Hook):
    """Does something in one process, after a step; and keeps the number of the process to itself.

    Attributes:
        what: "interrupt", "stop", "stop a group", "fail", "kill", "hang" or "diverge"; or "missing",
            which fails before any step; or "signal", which a queue sends before any step.
        rank: The process.
        step: Number of finished steps.
    """

    what: str
    rank: int = 1
    step: int = 5

    def build(self, context):
        if (self.what, self.rank) == ("missing", context.rank):
            raise FileNotFoundError("not on this machine")
        if (self.what, self.rank) == ("signal", context.rank):
            os.kill(os.getpid(), signal.SIGUSR1)
        return LiveTrouble(self)


@attrs.define
class LiveTrouble(Live):
    settings: Trouble

    def on_step_end(self, state):
        state.log("train/rank", float(state.context.rank))
        if (state.context.rank, state.step) != (self.settings.rank, self.settings.step):
            return
        match self.settings.what:
            case "interrupt":
                state.interrupt("by process 1")
            case "stop":
                state.stop("by process 1")
            case "stop a group":
                state.stop_group("body", "by process 1")
            case "fail":
                raise ValueError("of process 1")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(600)
            case "diverge":
                with torch.no_grad():
                    next(state.model.parameters()).add_(1e-3)

    def on_epoch_end(self, state):
        state.metrics["own/rank"] = float(state.context.rank)
