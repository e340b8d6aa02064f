import torch

from trainkit_example.largest_error import LargestError


def test_the_largest_error_of_all_batches_is_found_and_then_forgotten():
    metric = LargestError().build(None)
    for error in (0.5, -3.0, 1.0):
        metric.update({"y": torch.full((4, 1), 2.0 + error)}, {"y": torch.full((4, 1), 2.0)})
    assert metric.compute() == {"largest_error": 3.0}
    metric.update({"y": torch.ones(1, 1)}, {"y": torch.zeros(1, 1)})
    assert metric.compute() == {"largest_error": 1.0}
