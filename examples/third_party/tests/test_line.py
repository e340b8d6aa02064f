import torch
from trainkit import Context

from trainkit_example.line import Line


def test_the_points_lie_on_the_line_but_for_the_noise(tmp_path):
    context = Context(seed=1, device=torch.device("cpu"), folder=tmp_path)
    batch = next(Line().build(context).train(0, 0))
    assert torch.allclose(batch["y"][:, 0], batch["x"].sum(1) + 1)
    noisy = next(Line(batch_size=10_000, noise=0.5).build(context).train(0, 0))
    errors = noisy["y"][:, 0] - noisy["x"].sum(1) - 1
    assert abs(errors.std().item() - 0.5) < 0.02
