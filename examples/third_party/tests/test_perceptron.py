import torch

from trainkit_example.perceptron import Perceptron


def test_the_network_returns_a_number_for_each_point():
    network = Perceptron(width=5).build(None)
    assert network({"x": torch.zeros(7, 3)})["y"].shape == (7, 1)
