"""Ridge regression, whose best weight is known: parts for trainkit, and the solution by numpy."""

from typing import ClassVar

import numpy as np

from trainkit import Data, Loss, Model, component

NUM_TRAIN, NUM_HELD_OUT, NUM_FEATURES, STEPS = 24, 40, 10, 40


def points(seed):
    """Return features and values, the training points first."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(NUM_TRAIN + NUM_HELD_OUT, NUM_FEATURES))
    y = x @ random.normal(size=NUM_FEATURES) * 0.5 + random.normal(size=len(x)) * 1.5
    return x, y


def held_out_loss(seed, weight):
    """Return the mean squared error of held-out points at the solution of (XᵀX / n + w) β = Xᵀy / n."""
    x, y = points(seed)
    a, b = x[:NUM_TRAIN], y[:NUM_TRAIN]
    beta = np.linalg.solve(a.T @ a / len(a) + weight * np.eye(NUM_FEATURES), a.T @ b / len(a))
    return float(np.mean((x[NUM_TRAIN:] @ beta - y[NUM_TRAIN:]) ** 2))


@component
class Points(Data):
    """Points on a noisy plane.

    Attributes:
        held_out: Whether some are held out.
        steps: Steps of an epoch.
    """

    held_out: bool = True
    steps: int = STEPS

    def splits(self):
        return ("train", "val") if self.held_out else ("train",)

    def build(self, context):
        return LivePoints(context.seed, self.steps)


class LivePoints:
    def __init__(self, seed, steps):
        import torch

        self.batches_per_epoch = steps
        x, y = points(seed)
        self.x, self.y = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)

    def train(self, epoch, start):
        return (self.batch(0, NUM_TRAIN) for _ in range(start, self.batches_per_epoch))

    def evaluate(self, split):
        yield self.batch(NUM_TRAIN, NUM_TRAIN + 16)
        yield self.batch(NUM_TRAIN + 16, NUM_TRAIN + NUM_HELD_OUT)

    def batch(self, begin, end):
        import torch

        return {"index": torch.arange(begin, end), "x": self.x[begin:end], "y": self.y[begin:end]}


@component
class Plane(Model):
    """A plane through the origin."""

    accepts = Points

    def build(self, data):
        from torch import nn

        class Network(nn.Linear):
            def forward(self, batch):
                return {"y": super().forward(batch["x"]).squeeze(1)}

        return Network(NUM_FEATURES, 1, bias=False)


@component
class Squares(Loss):
    """The mean squared error."""

    accepts = Points

    def build(self, data):
        return lambda outputs, batch, model: (outputs["y"] - batch["y"]).square().mean()


@component
class Ridge(Loss):
    """The sum of the squared coefficients."""

    accepts = Points
    on_validation: ClassVar[bool] = False

    def combine(self):
        return "once"

    def usual_weights(self, recipe):
        return 0.1, 10.0

    def build(self, data):
        return lambda outputs, batch, model: model.weight.square().sum()


RECIPE = """
trainkit = 1
[run]
name = "ridge"
epochs = 4
device = "cpu"
[data]
use = "clients.ridge:Points"
[model]
use = "clients.ridge:Plane"
[losses.squares]
use = "clients.ridge:Squares"
[losses.ridge]
use = "clients.ridge:Ridge"
weight = "auto"
[weight_search]
branches = 7
[optimizer]
use = "sgd"
lr = 0.1
momentum = 0.8
[hooks.recorder]
use = "clients.recorder:Recorder"
"""
