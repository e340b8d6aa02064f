import numpy as np
import torch

from trainkit_example.squares import Squares


def test_the_loss_is_the_mean_of_the_squares():
    found, true = np.random.default_rng(0).normal(size=(2, 9, 1))
    loss = Squares().build(None)
    value = loss({"y": torch.from_numpy(found)}, {"y": torch.from_numpy(true)}, torch.nn.Identity())
    assert np.isclose(value.item(), np.mean((found - true) ** 2))
