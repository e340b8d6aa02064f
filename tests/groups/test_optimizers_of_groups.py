"""A group with an optimizer of its own, and one that changes it at an epoch; held against plain torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from clients import recorder
from torch.optim.optimizer import register_optimizer_step_post_hook

from trainkit import Context, RecipeError
from trainkit.checkpoint import file as checkpoint
from trainkit.console import Console
from trainkit.engine.resume import resume
from trainkit.engine.start import start
from trainkit.groups.optimizers import Optimizers
from trainkit.groups.plan import plan_groups
from trainkit.optimizers.scaled_steps_live import ScaledStepsOptimizer
from trainkit.recipe.resolve import resolve_text

HEAD = """
trainkit = 1
[run]
name = "own"
epochs = 5
device = "cpu"
[data]
use = "clients.toy:Line"
[model]
use = "clients.bigger:Wide"
dropout = 0.0
[losses.squares]
use = "clients.toy:Squares"
[optimizer]
use = "adam"
lr = 1e-3
[hooks.recorder]
use = "clients.recorder:Recorder"
[groups.second]
parameters = ["2.*"]
[groups.first]
parameters = ["0.*"]
lr = 0.02
"""
OWN = 'optimizer = { use = "sgd", momentum = 0.9 }\n'
THEN = """
[groups.first.then.finish]
start_epoch = 2
optimizer = { use = "adamw", lr = 3e-3, weight_decay = 0.1 }
"""
TEXT = HEAD + OWN + THEN


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def by_hand(epochs: int = 5, change: int = 2) -> dict[str, torch.Tensor]:
    """The same training in plain torch: SGD for the first layer, later AdamW; Adam for the second."""
    torch.manual_seed(0)
    recipe = resolve_text(TEXT, Path.cwd()).recipe
    data = recipe.data.build(Context(0, torch.device("cpu"), Path()))
    model = recipe.model.build(data)
    first, second = ([p for n, p in model.named_parameters() if n.startswith(each)] for each in ("0.", "2."))
    theirs: torch.optim.Optimizer = torch.optim.SGD(first, lr=0.02, momentum=0.9, fused=True)
    other = torch.optim.Adam(second, lr=1e-3, fused=True)
    for epoch in range(epochs):
        if epoch == change:
            theirs = torch.optim.AdamW(first, lr=3e-3, weight_decay=0.1, fused=True)
        for batch in data.train(epoch, 0):
            model.zero_grad()
            (model(batch)["y"] - batch["y"]).square().mean().backward()  # type: ignore[no-untyped-call]
            theirs.step()
            other.step()
    return dict(model.state_dict())


def test_it_ends_with_the_same_bits_as_plain_torch() -> None:
    state = start(resolve_text(TEXT, Path.cwd()), Console(quiet=True)).run.state
    expected = by_hand()
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_its_state_is_saved_by_name_and_resumed_from_every_epoch() -> None:
    whole = start(resolve_text(TEXT, Path.cwd(), ("checkpoint.keep_last=9",)), Console(quiet=True)).run.state
    saved = checkpoint.read(whole.folder / "checkpoints" / "epoch-0005.safetensors")
    assert {name: state["optimizer"].rpartition(".")[2] for name, state in saved["optimizers"].items()} == {
        "first": "SGD",
        "first.finish": "AdamW",
        "all": "Adam",
    }
    assert saved["groups"]["first"]["phase"] == "finish"
    for epoch in range(1, 5):
        ending = resume(whole.folder, Console(quiet=True), epoch=epoch, allow_code=True)
        assert ending is not None
        for name, tensor in whole.model.state_dict().items():
            assert torch.equal(ending.run.state.model.state_dict()[name], tensor), (epoch, name)


def test_a_group_moved_to_an_optimizer_of_its_own_keeps_what_the_shared_one_remembers() -> None:
    """Adam shared for three epochs, then Adam alone: the moments go on, so nothing changes."""
    whole = start(resolve_text(HEAD, Path.cwd()), Console(quiet=True)).run.state
    recorder.ACTIONS["epoch_end"] = lambda state: state.stop("half") if state.epoch == 2 else None
    folder = start(resolve_text(HEAD, Path.cwd()), Console(quiet=True)).run.state.folder
    recorder.ACTIONS.clear()
    own = ('groups.first.optimizer={ use = "adam" }',)
    ending = resume(folder, Console(quiet=True), sets=own, allow_code=True)
    assert ending is not None
    assert set(ending.run.optimizers.members) == {"first", "all"}
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(ending.run.state.model.state_dict()[name], tensor), name


def test_the_plan_knows_every_phase() -> None:
    recipe = resolve_text(TEXT, Path.cwd()).recipe
    plan = plan_groups(recipe, {"first": True, "second": True})["first"]
    found = [(phase.name, *phase.epochs, phase.lr, phase.optimizer_name) for phase in plan.phases]
    assert found == [("", 0, 2, 0.02, "first"), ("finish", 2, 5, 3e-3, "first.finish")]
    assert [plan.phase_at(epoch).name for epoch in range(5)] == ["", "", "finish", "finish", "finish"]


def test_a_phase_without_an_optimizer_changes_the_rate_alone() -> None:
    rates: list[float] = []
    recorder.ACTIONS["epoch_end"] = lambda state: rates.append(state.groups["first"].lr)
    text = HEAD + OWN + "[groups.first.then.slow]\nstart_epoch = 4\nlr = 0.25\n"
    ending = start(resolve_text(text, Path.cwd()), Console(quiet=True))
    assert rates == [0.02] * 4 + [0.25]
    assert set(ending.run.optimizers.members) == {"first", "all"}


def test_a_rate_as_a_factor_follows_the_optimizers() -> None:
    text = TEXT.replace("lr = 0.02", "lr_factor = 0.5").replace("momentum = 0.9", "momentum = 0.9, lr = 0.1")
    plan = plan_groups(resolve_text(text, Path.cwd()).recipe, {"first": True, "second": True})["first"]
    assert [phase.lr for phase in plan.phases] == [0.05, 3e-3]


def test_a_model_may_scale_its_gradients_so_that_a_rate_has_no_unit() -> None:
    """Gradients divided by their norm at `backward_end`: every SGD step then is exactly ``lr`` long."""
    lengths: list[float] = []
    before: dict[str, torch.Tensor] = {}

    def scale(state: Any) -> None:
        gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        for gradient in gradients:
            gradient.div_(norm)
        before.update({n: p.detach().clone() for n, p in state.model.named_parameters()})

    def measure(state: Any) -> None:
        moved = torch.stack([(p.detach() - before[n]).square().sum() for n, p in state.model.named_parameters()])
        lengths.append(float(moved.sum().sqrt()))

    recorder.ACTIONS |= {"backward_end": scale, "step_end": measure}
    text = HEAD.replace('use = "adam"\nlr = 1e-3', 'use = "sgd"\nlr = 0.01').replace("lr = 0.02", "")
    start(resolve_text(text, Path.cwd(), ("run.epochs=1",)), Console(quiet=True))
    assert lengths == pytest.approx([0.01] * 4, rel=1e-5)


def test_an_optimizer_that_cannot_be_built_names_its_group() -> None:
    text = HEAD + OWN.replace("momentum = 0.9", "nesterov = true")
    with pytest.raises(RecipeError, match="Nesterov momentum needs momentum above 0"):
        resolve_text(text, Path.cwd())


STEP = """
import sys, torch
from trainkit.checkpoint.optimizer_state import load_optimizer_state, optimizer_state
from trainkit.groups.optimizers import Optimizers
from trainkit.optimizers.adam import Adam
from trainkit.optimizers.adamw import AdamW
from trainkit.optimizers.sgd import SGD
from trainkit.optimizers.torch import TorchOptimizer
from trainkit.without_compiler import no_compiler_imported

for settings in (Adam(), AdamW(), SGD(momentum=0.9), TorchOptimizer(name="RMSprop")):
    parameter = torch.nn.Parameter(torch.ones(3))
    with no_compiler_imported():
        one, other = (settings.build([{"params": [parameter], "lr": 0.1}]) for _ in range(2))
    parameter.grad = torch.ones(3)
    Optimizers({"all": one}).step()
    assert (parameter != 1).all()
    load_optimizer_state(other, {"x": parameter}, optimizer_state(one, {"x": parameter}))
    assert other.state_dict.__wrapped__ and other.state[parameter].keys() == one.state[parameter].keys() != set()
    print(type(settings).__name__, "torch._dynamo" in sys.modules)
"""


@pytest.mark.slow
def test_optimizers_are_made_stepped_and_loaded_without_the_import_of_the_compiler_of_torch() -> None:
    said = subprocess.check_output([sys.executable, "-c", STEP], text=True)
    assert said.splitlines() == ["Adam False", "AdamW False", "SGD False", "TorchOptimizer False"]


def trained_parameter() -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, -2.0])
    return parameter


def test_hooks_of_torch_are_called_around_a_step_as_torch_calls_them() -> None:
    called: list[tuple[str, list[float], bool]] = []

    def note(when: str) -> Any:
        return lambda optimizer, *_: called.append((when, parameter.tolist(), torch.is_grad_enabled()))

    expected: list[list[float]] = []
    for make in (lambda optimizer: optimizer.step, lambda optimizer: Optimizers({"all": optimizer}).step):
        parameter = trained_parameter()
        optimizer = torch.optim.Adam([parameter], lr=0.1)
        optimizer.register_step_pre_hook(note("before"))
        optimizer.register_step_post_hook(note("after"))
        make(optimizer)()
        expected.append(parameter.tolist())
    assert expected[0] == expected[1] != [1.0, 1.0]
    assert called[:2] == called[2:] == [("before", [1.0, 1.0], True), ("after", expected[0], True)]


def test_a_step_that_somebody_has_put_in_its_place_is_made() -> None:
    optimizer = torch.optim.SGD([trained_parameter()], lr=0.1)
    made: list[str] = []
    optimizer.step = lambda: made.append("own")  # type: ignore[method-assign,assignment]
    Optimizers({"all": optimizer}).step()
    assert made == ["own"]


def test_gradients_are_computed_in_the_step_of_an_optimizer_that_asks_for_them() -> None:
    class Asks(torch.optim.Optimizer):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            enabled.append(torch.is_grad_enabled())

    enabled: list[bool] = []
    Optimizers({"all": Asks([trained_parameter()], {"lr": 0.1})}).step()
    assert enabled == [True]


def test_a_hook_of_all_optimizers_is_called() -> None:
    called: list[object] = []
    optimizer = torch.optim.Adam([trained_parameter()], lr=0.1)
    handle = register_optimizer_step_post_hook(lambda *_: called.append(None))
    try:
        Optimizers({"all": optimizer}).step()
    finally:
        handle.remove()
    Optimizers({"all": optimizer}).step()
    assert called == [None]


@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.Adam([trained_parameter()], lr=0.1), ScaledStepsOptimizer([{"params": []}], 0.1, 0.1, 0.0)],
    ids=lambda each: type(each).__name__,
)
def test_torchs_profiler_sees_the_steps_of_optimizers(optimizer: torch.optim.Optimizer) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        Optimizers({"all": optimizer}).step()
    assert any(each.key == f"Optimizer.step#{type(optimizer).__name__}.step" for each in seen.key_averages())


def test_a_step_that_somebody_has_put_into_the_class_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = torch.optim.Adam([trained_parameter()], lr=0.1)
    Optimizers({"all": optimizer}).step()
    made: list[str] = []
    monkeypatch.setattr(torch.optim.Adam, "step", lambda _: made.append("own"))
    Optimizers({"all": optimizer}).step()
    assert made == ["own"]
