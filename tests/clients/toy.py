"""The smallest parts that make a run, for tests: a perceptron learns a line through points."""

from dataclasses import dataclass

from trainkit import Data, Hook, Loss, Model, Point, Scheduler, component, random_seed


@component
class Line(Data):
    """Points about a line, new ones in each step.

    Attributes:
        batch_size: Points per batch.
    """

    batch_size: int = 8

    def build(self, context):
        return LiveLine(context.seed, self.batch_size)

    def splits(self):
        return "train", "val"


@dataclass
class LiveLine:
    seed: int
    batch_size: int
    batches_per_epoch: int = 4

    def train(self, epoch, start):
        return (self.batch(epoch, step) for step in range(start, self.batches_per_epoch))

    def evaluate(self, split):
        yield self.batch(-1, 0)

    def batch(self, *place):  # randomness by seed and place alone: so a resumed run sees the same points
        import torch

        generator = torch.Generator().manual_seed(random_seed(self.seed, *place))
        x = torch.randn(self.batch_size, 3, generator=generator)
        return {"index": torch.arange(self.batch_size), "x": x, "y": x.sum(1, keepdim=True) + 1}


@component
class Perceptron(Model):
    """Two layers with dropout between them."""

    accepts = Line

    def build(self, data):
        from torch import nn

        class Network(nn.Sequential):
            def forward(self, batch):
                return {"y": super().forward(batch["x"])}

        return Network(nn.Linear(3, 8), nn.Dropout(0.1), nn.Linear(8, 1))


@component
class Squares(Loss):
    """The mean squared error."""

    accepts = Line

    def build(self, data):
        return lambda outputs, batch, model: (outputs["y"] - batch["y"]).square().mean()


@component
class Halving(Scheduler):
    """Halves the learning rate at regular intervals.

    Attributes:
        every: Ticks (epochs, or steps with `by = "step"`) between two halvings.
    """

    every: int = 10

    def at(self, t, horizon, lr, memory):
        return Point(lr * 0.5 ** (t // self.every))


@component
class Count(Hook):
    """Logs how many steps the run has made."""

    def build(self, context):
        return LiveCount()


class LiveCount:
    steps = 0

    def on_step_end(self, state):
        self.steps += 1
        state.log("train/seen", self.steps)

    def state_dict(self):  # saved in each checkpoint, so a resumed run goes on counting
        return {"steps": self.steps}

    def load_state_dict(self, saved):
        self.steps = saved["steps"]
