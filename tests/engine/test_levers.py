"""Settings of [run] that change how a step is computed: layout in memory, activations, compiled code."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from clients import recorder
from clients.toy_run import TOY, resume, run
from same import differences, trained

from trainkit import DeviceError, State
from trainkit.checkpoint import file as checkpoint
from trainkit.engine.batches import to_device
from trainkit.engine.devices import slow_precision
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import resolve_text

VOLUMES = """
trainkit = 1
[run]
name = "volumes"
epochs = 2
device = "cpu"
threads = 1
[checkpoint]
keep_last = 1000
[pictures]
every_epochs = 0
[data]
use = "segmentation_synthetic"
patch_size = [16, 16, 16]
steps_per_epoch = 2
num_cases = 5
size = [20, 20, 20]
[model]
use = "unet"
channels = [4, 8, 8]
dropout = 0.1
norm = "batch"
[losses.data]
use = "dice_ce"
[inference]
use = "sliding_window"
[hooks.recorder]
use = "clients.recorder:Recorder"
"""


SGD = 'optimizer={ use = "sgd", lr = 0.01, momentum = 0.9 }'


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def ended(state: State) -> dict[str, Any]:
    content = trained(checkpoint.read(state.folder / "checkpoints" / f"epoch-{state.epoch:04d}.safetensors"))
    return {key: value for key, value in content.items() if key != "fingerprint"}


def test_a_batch_in_channels_last_has_the_same_values_and_only_images_and_volumes_are_changed() -> None:
    batch = {"image": torch.randn(2, 3, 4, 5, 6), "label": torch.ones(2, 1, 4, 5, 6, dtype=torch.int64), "case": ["a"]}
    made = to_device(batch, torch.device("cpu"), channels_last=True)
    assert made["image"].is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(made["image"], batch["image"])
    assert made["label"] is batch["label"]
    assert made["case"] is batch["case"]


@pytest.mark.slow
def test_channels_last_computes_the_same_but_for_rounding_and_keeps_its_layout_on_resume() -> None:
    layouts: list[Any] = []

    def look(state: State) -> None:
        parameter = next(each for each in state.model.parameters() if each.ndim == 5 and each.shape[1] > 1)
        layouts.append((parameter.stride(), parameter.grad is not None and parameter.grad.stride()))
        state.save("every step")

    recorder.ACTIONS["step_end"] = look
    text = VOLUMES.replace("dropout = 0.1", "dropout = 0.0")  # draws follow the order in memory
    plain = run(SGD, text=text).run.state
    first = layouts[0]
    layouts.clear()
    last = run(SGD, "run.channels_last=true", text=text).run.state
    assert layouts[0] != first
    for name, value in last.model.state_dict().items():
        torch.testing.assert_close(value, plain.model.state_dict()[name], rtol=1e-3, atol=1e-5, msg=name)
    at_once = layouts.copy()
    layouts.clear()
    again = resume(next(last.folder.glob("checkpoints/step-*.safetensors"))).run.state
    assert layouts[-1] == at_once[-1]
    assert differences(ended(again), ended(last)) == []


@pytest.mark.slow
def test_activations_that_are_computed_again_change_no_bit_of_a_run_and_it_resumes_after_each_step() -> None:
    recorder.ACTIONS["step_end"] = lambda state: state.save("every step")
    kept = run(text=VOLUMES).run.state
    again = run("run.activation_checkpointing=true", text=VOLUMES).run.state
    assert differences(ended(again), ended(kept)) == []
    recorder.ACTIONS.clear()
    file = next(again.folder.glob("checkpoints/step-*.safetensors"))
    assert differences(ended(resume(file).run.state), ended(kept)) == []


@pytest.mark.slow
def test_the_cases_of_the_raw_weights_have_a_file_beside_that_of_the_average() -> None:
    state = run("ema.decay=0.5", "ema.validate_raw=true", 'metrics.dice={ use = "dice" }', text=VOLUMES).run.state
    files = [(state.folder / f"cases-{name}.csv").read_text() for name in ("val", "val_raw")]
    assert files[0] != files[1]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_that_is_killed_between_the_batches_of_a_step_ends_with_the_same_bits(precision: str) -> None:
    sets = ("run.accumulate=3", f"run.precision={precision}", "ema.decay=0.5", "run.epochs=3", "checkpoint.keep_last=9")
    whole = run(*sets).run.state
    forwards = []

    def kill(module: Any, inputs: Any) -> None:
        forwards.append(module.training)
        if sum(forwards) == 6:  # the second of three batches of the first step of epoch 1
            raise KeyboardInterrupt

    recorder.ACTIONS["run_start"] = lambda state: state.model.register_forward_pre_hook(kill) and None
    with pytest.raises(KeyboardInterrupt):
        run(*sets)
    recorder.ACTIONS.clear()
    (killed,) = set(whole.folder.parent.iterdir()) - {whole.folder}
    assert [each.name for each in (killed / "checkpoints").glob("epoch-*")] == ["epoch-0001.safetensors"]
    assert differences(ended(resume(killed).run.state), ended(whole)) == []


@pytest.mark.parametrize(
    ("precision", "has", "slow"),
    [
        ("bf16", {}, True),
        ("bf16", {"avx512_fp16": True}, True),
        ("bf16", {"avx512_bf16": True}, False),
        ("bf16", {"amx_bf16": True}, False),
        ("fp16", {"avx512_bf16": True}, True),
        ("fp32", {}, False),
    ],
)
def test_a_cpu_without_instructions_for_a_precision_is_said_with_what_to_set(
    precision: str, has: dict[str, bool], slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", **has}, raising=False)
    found = slow_precision(precision, torch.device("cpu"))
    assert (found is not None) == slow
    if slow:
        assert f'run.precision = "{precision}": this CPU has no instructions' in str(found)
    assert slow_precision(precision, torch.device("cuda")) is None
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "aarch64"}, raising=False)
    assert slow_precision(precision, torch.device("cpu")) is None  # not known


def test_a_model_that_names_no_blocks_and_settings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(InvalidRecipe, match="Perceptron does not say which of its parts can be computed again"):
        resolve_text(TOY, Path.cwd(), ["run.activation_checkpointing=true"])
    with pytest.raises(InvalidRecipe, match="torch decides itself which activations"):
        resolve_text(VOLUMES, Path.cwd(), ["run.activation_checkpointing=true", "run.compile=true"])


compiled = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
torch_s_own = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch._inductor imports torch.jit


@torch_s_own
@compiled
@pytest.mark.slow
def test_a_compiled_run_resumes_to_the_same_bits_and_its_checkpoints_are_those_of_a_plain_one() -> None:
    recorder.ACTIONS["step_end"] = lambda state: state.save("every step")
    whole = run("run.compile=true", "checkpoint.keep_last=1000").run.state
    recorder.ACTIONS.clear()
    torch.compiler.reset()  # as in a new process
    file = whole.folder / "checkpoints" / "epoch-0001.safetensors"
    assert differences(ended(resume(file).run.state), ended(whole)) == []
    plain = resume(file, "run.compile=false").run.state
    assert list(plain.model.state_dict()) == list(whole.model.state_dict())


@torch_s_own
@compiled
@pytest.mark.slow
def test_what_cannot_be_compiled_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    from trainkit.console import Console
    from trainkit.engine.start import start

    text = TOY.replace("clients.toy:Perceptron", "clients.bigger:Deciding")
    start(resolve_text(text, Path.cwd(), ["run.compile=true", "run.epochs=1"]), Console(quiet=False))
    said = [line for line in capsys.readouterr().out.splitlines() if "is not compiled, and runs as it is" in line]
    assert len(said) == 1
    assert "Tensor.item()" in said[0]


@torch_s_own
@pytest.mark.slow
def test_a_missing_compiler_is_one_message_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch._inductor import config, cpp_builder

    torch.compiler.reset()
    if hasattr(cpp_builder.get_cpp_compiler, "cache_clear"):  # some versions of torch remember the compiler
        cpp_builder.get_cpp_compiler.cache_clear()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setattr(config.cpp, "cxx", (None, "/nowhere/g++"))
    with pytest.raises(DeviceError, match=r"(?s)cannot be compiled: .*\nset run.compile = false; for the CPU"):
        run("run.compile=true")
