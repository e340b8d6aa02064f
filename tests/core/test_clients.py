from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from clients import segmenter, segmenter_parts

from trainkit import Batch, Context

ROOT = Path(__file__).parents[2]
CONTEXT = Context(seed=7, device=torch.device("cpu"), rank=0, world=1, folder=Path())


def batches(epoch: int, start: int = 0, num_workers: int = 0, context: Context = CONTEXT) -> list[Batch]:
    return list(segmenter.Volumes(num_workers=num_workers).build(context).train(epoch, start))


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in ("index", "image", "label")
    )


def test_an_epoch_entered_in_its_middle_goes_on_with_the_same_patches() -> None:
    whole = batches(epoch=1)
    assert len(whole) == segmenter.Volumes().steps
    for start in range(len(whole) + 1):
        assert equal(batches(epoch=1, start=start), whole[start:])
    assert not equal(batches(epoch=2), whole)


# A fork of a process with threads is deprecated from Python 3.12 on; the loader's default is the system's business.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_change_no_patch_and_no_global_generator() -> None:
    alone = batches(epoch=0)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert equal(batches(epoch=0, num_workers=2), alone)
    assert torch.equal(torch.get_rng_state(), before)


def test_ranks_share_an_epoch_out_among_them() -> None:
    ranks = [batches(0, context=CONTEXT._replace(rank=rank, world=2)) for rank in range(2)]
    indices = torch.cat([batch["index"] for rank in ranks for batch in rank])
    assert sorted(indices.tolist()) == list(range(2 * 2 * segmenter.Volumes().steps))


def test_a_sliding_window_of_the_whole_volume_is_the_network_itself() -> None:
    torch.manual_seed(0)
    model = segmenter.TwoHeads().build(segmenter.Volumes().build(CONTEXT)).eval()
    batch = {"image": torch.randn(2, 1, 8, 8, 8)}
    windowed = segmenter.SlidingWindow(patch=8).build(None)(model, batch)
    torch.testing.assert_close(windowed["logits"], model(batch)["logits"])


def test_a_sliding_window_counts_every_voxel_once() -> None:
    def constant(batch: Batch) -> dict[str, torch.Tensor]:
        return {"logits": torch.ones(1, 2, 8, 8, 8)}

    found = segmenter_parts.sliding_window(patch=8, stride=3)(constant, {"image": torch.zeros(1, 1, 13, 12, 8)})  # type: ignore[arg-type]
    assert torch.equal(found["logits"], torch.ones(1, 2, 13, 12, 8))


@pytest.mark.parametrize("kind", ["cross_entropy", "dice"])
def test_the_segmenter_learns_the_spheres(kind: str) -> None:
    """Without the engine: what its parts can do."""
    torch.manual_seed(0)
    data = segmenter.Volumes(num_workers=0, steps=40).build(CONTEXT)
    model = segmenter.TwoHeads(dropout=0.0).build(data)
    loss = segmenter.DeepSupervision(kind=kind).build(data)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)

    def steps() -> Iterator[Batch]:
        for epoch in range(2):
            yield from data.train(epoch, 0)

    for batch in islice(steps(), 80):
        optimizer.zero_grad()
        loss(model(batch), batch, model).backward()
        optimizer.step()
    model.eval()
    infer, dice = segmenter.SlidingWindow().build(None), segmenter.Dice().build(data)
    with torch.no_grad():
        for batch in data.evaluate("val"):
            dice.update(infer(model, batch), batch)
    assert dice.compute()["dice"] > 0.8
    assert dice.compute()["dice"] == 0.0  # it started anew


FIND = """
import sys
from trainkit import registry
for group, name in [each.split("=") for each in sys.argv[1:]]:
    found = registry.locate(group, name)
    print(group, found.package, found.version, found.load().__name__)
print("torch" in sys.modules)
"""


def test_an_installed_third_party_is_found_through_its_entry_points(toy_site: Path) -> None:
    wanted = {"data": "line", "models": "perceptron", "losses": "squares", "schedulers": "halving", "hooks": "count"}
    command = [sys.executable, "-c", FIND, *[f"trainkit.{kind}={name}" for kind, name in wanted.items()]]
    environment = os.environ | {"PYTHONPATH": str(toy_site)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *found, torch_was_imported = done.stdout.splitlines()
    assert [line.split()[1:] for line in found] == [
        ["trainkit-example", "0.1", name] for name in ("Line", "Perceptron", "Squares", "Halving", "Count")
    ]
    assert torch_was_imported == "False"


@pytest.mark.slow
def test_the_third_partys_own_tests_pass_where_it_is_installed(toy_site: Path) -> None:
    tests = ROOT / "examples" / "third_party" / "tests"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tests)]
    environment = os.environ | {"PYTHONPATH": str(toy_site)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_third_partys_recipe_learns_what_it_is_to_learn(toy_site: Path, tmp_path: Path) -> None:
    recipe = ROOT / "examples" / "third_party" / "recipe.toml"
    environment = os.environ | {"PYTHONPATH": str(toy_site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trainkit", "run", str(recipe), "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (written,) = tmp_path.glob("runs/line/*/metrics.jsonl")
    first, *_, last = (json.loads(line) for line in written.read_text().splitlines())
    assert last["val/loss"] < first["val/loss"] / 5


def test_the_third_party_is_one_file_of_some_hundred_lines() -> None:
    example = ROOT / "examples" / "third_party" / "trainkit_example.py"
    assert len(example.read_text().splitlines()) <= 110
