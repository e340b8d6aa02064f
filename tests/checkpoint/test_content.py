"""Checkpoints with a right digest and a content that no run has written."""

import json
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from clients import toy_run

from checkpoint.mutated_headers import mutated, split, tried, unfinished
from trainkit import CheckpointError
from trainkit.checkpoint import file as checkpoint
from trainkit.checkpoint.content import Content, SavedGroupContent, check, read_run
from trainkit.checkpoint.file import read_header
from trainkit.errors import RecipeError
from trainkit.randomness import generator_states, restore_generators


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint inside an epoch, so that it holds unfinished means."""
    return unfinished(tmp_path_factory.mktemp("run"))


def resumed(content: dict[str, Any], path: Path) -> str:
    """What is said when it is resumed, which must be one sentence and change nothing."""
    checkpoint.write(path, content)
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(CheckpointError) as caught:
        toy_run.resume(path)
    assert sorted(path.parent.rglob("*")) == before
    return str(caught.value)


def test_every_key_that_a_run_saves_is_declared(written: Path) -> None:
    content = read_run(written)
    assert content["running"]
    assert set(content) <= {field.alias for field in attrs.fields(Content)}
    for group in content["groups"].values():
        assert set(group) == {field.alias for field in attrs.fields(SavedGroupContent)}
    check(read_header(written), written)


def test_no_tensor_is_printed_to_be_checked(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "__repr__", lambda _: pytest.fail("it takes torch up to ten milliseconds"))
    read_run(written)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    '"recipe" is missing': lambda c: c.pop("recipe"),
    "recipe: must be a string, got 5": lambda c: c.update(recipe=5),
    'epoch: must be a whole number, got "3"': lambda c: c.update(epoch="3"),
    "epoch: must be at least 0 and below 2^53, got -3": lambda c: c.update(epoch=-3),
    "step: must be at least 0 and below 2^53, got 10000": lambda c: c.update(step=10**4000),
    "steps of an epoch of": lambda c: c.update(step=10**9),
    "evaluated_step: lies after step": lambda c: c.update(evaluated_step=10**9),
    '"groups" is missing': lambda c: c.pop("groups"),
    '"optimizers" is missing': lambda c: c.pop("optimizers"),
    '"generators" is missing': lambda c: c.pop("generators"),
    "clock: must be the epoch": lambda c: [g.update(clock=[0, float("nan"), 3]) for g in c["groups"].values()],
    "lr: must be a finite number": lambda c: [g.update(lr=float("nan")) for g in c["groups"].values()],
    'in phase "x", which its recipe': lambda c: [g.update(phase="x", clock=[0, 0, 1]) for g in c["groups"].values()],
    "of numpy": lambda c: c["generators"]["numpy"].__setitem__(2, 2**31 - 1),
    "of python": lambda c: c["generators"]["python"][1].__setitem__(624, -1),
    "of torch": lambda c: c["generators"].update(torch=torch.zeros(7, dtype=torch.uint8)),
    "a tensor is missing": lambda c: c["generators"].update(torch=None),
    'metrics."val/loss": must be a number': lambda c: c.update(metrics={"val/loss": "x"}),
    'not_acted_on[0].metrics."val/loss": must be a number': lambda c: c.update(
        not_acted_on=[{"epoch": 0, "updates": 4, "metrics": {"val/loss": "x"}}]
    ),
    "not_acted_on[0].epoch: must be at least 0": lambda c: c.update(
        not_acted_on=[{"epoch": -1, "updates": 4, "metrics": {}}]
    ),
    "must be a list of scalar tensors": lambda c: [m.update(values=[torch.zeros(2)]) for m in c["running"].values()],
    "does not fit this recipe's model": lambda c: c["model"].update(dict.fromkeys(c["model"], 5)),
    "is no tensor of the shape": lambda c: [
        entry["state"].update({key: torch.zeros(1, 1, 1) for key in entry["state"]})
        for optimizer in c["optimizers"].values()
        for entry in optimizer["parameters"].values()
    ],
}


@pytest.mark.parametrize("message", CHANGES)
def test_what_no_run_has_written_is_one_sentence(
    message: str, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = read_run(written)
    CHANGES[message](content)
    assert message in resumed(content, tmp_path / "x.safetensors")


def test_the_recipe_of_a_checkpoint_opens_no_file(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("password: open sesame\n")
    content = read_run(written)
    content["recipe"] = f'extends = ["{tmp_path}/secret.txt"]\n{content["recipe"]}'
    checkpoint.write(tmp_path / "x.safetensors", content)
    with pytest.raises(Exception, match="extends: unknown key") as caught:
        toy_run.resume(tmp_path / "x.safetensors")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("x = " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        (f"x = {'9' * 5000}\n", "a word of 5000 characters"),
        ("x = [", "this is not TOML"),
        ("x = 1\n" * 200_000, "characters, and a recipe may have"),
    ],
)
def test_the_recipe_of_a_checkpoint_has_the_limits_of_a_recipe(
    recipe: str, message: str, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint.write(tmp_path / "x.safetensors", read_run(written) | {"recipe": recipe})
    with pytest.raises(RecipeError, match=message):
        toy_run.resume(tmp_path / "x.safetensors")


def test_an_impossible_position_of_numpys_generator_does_not_end_the_interpreter() -> None:
    states = generator_states()
    states["numpy"][2] = 2**31 - 1
    with pytest.raises(CheckpointError, match="of numpy: is no state"):
        restore_generators(states)
    assert np.random.random(3).shape == (3,)


@pytest.mark.parametrize("kind", ["depth", "large", "shape", "negative index", "number"])
def test_headers_that_would_take_for_ever_are_refused_at_once(kind: str, written: Path, tmp_path: Path) -> None:
    header, _ = split(written.read_bytes())
    metadata = header.pop("__metadata__")
    content, entries = json.dumps(metadata["content"]), ""
    if kind == "depth":
        content = "[" * 100_000 + "]" * 100_000
    elif kind == "large":
        content = "[" + "[]," * 8_000_000 + "0]"
    elif kind == "shape":
        entries = f', "/a": {{"dtype": "F32", "shape": [{2**61}, {2**61}, 0], "data_offsets": [0, 0]}}'
    elif kind == "negative index":
        content, entries = '{"a": [null]}', ', "/a/-1": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}'
    else:
        content = "9" * 5000
    text = '{"__metadata__":{"digest":"' + "0" * 32 + '","trainkit":"1","content":' + json.dumps(content)
    text += ',"complex":"{}","tied":"{}"}' + entries + "}"
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode())
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match=r"x.safetensors is damaged"):
        read_run(path)
    assert time.perf_counter() - began < 5  # a second on an idle machine


@pytest.mark.no_cover  # others reach these lines sooner
def test_no_changed_header_leads_to_another_error(written: Path, tmp_path: Path) -> None:
    whole = written.read_bytes()
    for seed in range(200):
        assert tried(mutated(whole, random.Random(seed)), tmp_path / "x.safetensors") is None, f"seed {seed}"
