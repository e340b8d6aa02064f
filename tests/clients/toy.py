"""A third party's plugin: a line through points, in one file. The tests install it as a distribution of its own."""

from dataclasses import dataclass

from trainkit import Data, Hook, Loss, Model, Point, Scheduler, component, random_seed


@component
class Line(Data):
    """Points about a line, new ones in each step."""

    def build(self, context):
        return LiveLine(context.seed)

    def splits(self):
        return "train", "val"


@dataclass
class LiveLine:
    seed: int
    batches_per_epoch: int = 4

    def train(self, epoch, start):
        return (self.batch(epoch, step) for step in range(start, self.batches_per_epoch))

    def evaluate(self, split):
        yield self.batch(-1, 0)

    def batch(self, *place):
        import torch

        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(random_seed(self.seed, *place)))
        return {"index": torch.arange(8), "x": x, "y": x.sum(1, keepdim=True) + 1}


@component
class Perceptron(Model):
    """Two layers with dropout between them."""

    def build(self, data):
        from torch import nn

        class Network(nn.Sequential):
            def forward(self, batch):
                return {"y": super().forward(batch["x"])}

        return Network(nn.Linear(3, 8), nn.Dropout(0.1), nn.Linear(8, 1))


@component
class Squares(Loss):
    def build(self, data):
        return lambda outputs, batch, model: (outputs["y"] - batch["y"]).square().mean()


@component
class Halving(Scheduler):
    def at(self, t, horizon, lr, memory):
        return Point(lr * 0.5**t)


@component
class Count(Hook):
    def build(self, context):
        return LiveCount()


class LiveCount:  # logs how many steps it has seen: a state of its own
    seen = 0

    def on_step_end(self, state):
        self.seen += 1
        state.log("train/seen", self.seen)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, saved):
        self.seen = saved["seen"]
