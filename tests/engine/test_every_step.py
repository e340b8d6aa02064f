"""A run that is stopped after any of its steps, and gone on with, ends with the same bits.

One recipe of each client is gone on with from all of its steps. Those that differ from it by little are gone on with
from every third one, each beginning with another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from clients import recorder
from same import differences, trained
from without_pictures import no_pictures_of_ptychography

from trainkit import State
from trainkit.checkpoint import file as checkpoint
from trainkit.console import Console
from trainkit.engine.resume import resume
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve_text

HEAD = """
trainkit = 1
[run]
name = "steps"
epochs = 4
device = "cpu"
threads = 1
[checkpoint]
keep_last = 1000
[pictures]
every_epochs = 0
[hooks.recorder]
use = "clients.recorder:Recorder"
"""
SCAN = """[data]
use = "diffraction_simulated"
scan_shape = [6, 6]
detector_size = 24
batch_size = 12
validation_fraction = 0.1
[model]
use = "single_slice_ptychography"
"""
CLIENTS = {
    "ptychography": HEAD
    + SCAN
    + """probe = { use = "aperture", modes = 2 }
[losses.data]
use = "amplitude"
[losses.smooth]
use = "tv"
weight = 1e-4
[groups.probe]
start_epoch = 1
stop_epoch = 3
[groups.dr]
start_epoch = 2
""",
    "hash": HEAD
    + SCAN
    + """probe = { use = "aperture" }
[model.object]
use = "hash_encoding"
levels = 6
neurons = 8
base_resolution = 4
log2_hashmap_size = 8
fine_from = { start_epoch = 1, stop_epoch = 3, coarse_levels = 2 }
[losses.data]
use = "poisson"
[groups.dr]
start_epoch = 2
""",
    "network": HEAD
    + """
[data]
use = "clients.toy:Line"
[model]
use = "clients.normed:Normed"
[losses.data]
use = "clients.toy:Squares"
[groups.head]
start_epoch = 1
[groups.encoder]
stop_epoch = 3
""",
    "segmentation": HEAD
    + """
[monitor]
metric = "val/dice"
mode = "max"
[data]
use = "segmentation_synthetic"
patch_size = [16, 16, 16]
steps_per_epoch = 2
num_cases = 5
size = [20, 20, 20]
[data.augmentation]
on = "device"
flip = {}
noise = {}
elastic = {}
[model]
use = "unet"
channels = [4, 8, 8]
dropout = 0.1
[losses.data]
use = "dice_ce"
[metrics.dice]
use = "dice"
[inference]
use = "sliding_window"
[groups.decoder]
start_epoch = 1
[groups.encoder]
stop_epoch = 3
""",
    "toy": HEAD
    + """
[data]
use = "clients.toy:Line"
[model]
use = "clients.toy:Perceptron"
[losses.data]
use = "clients.toy:Squares"
[hooks.count]
use = "clients.toy:Count"
[groups.first]
parameters = ["0.*"]
[groups.second]
parameters = ["2.*"]
start_epoch = 2
""",
}
SCHEDULES = {
    "cosine": "scheduler.use=cosine",
    "one_cycle by step": 'scheduler={ use = "one_cycle", by = "step" }',
    "polynomial by step, warm-up": 'scheduler={ use = "polynomial", by = "step", warmup = 2 }',
    "plateau": 'scheduler={ use = "reduce_on_plateau", patience = 0 }',
    "torch": 'scheduler={ use = "torch", name = "StepLR", arguments = { step_size = 2 } }',
}
# An optimizer of the group's own, another one from epoch 2 on; the other group shares [optimizer].
PHASES = (
    'groups.first.optimizer={ use = "sgd", lr = 0.01, momentum = 0.9 }',
    'groups.first.then.finish={ start_epoch = 2, optimizer = { use = "adam", lr = 2e-3 } }',
    'groups.first.scheduler={ use = "cosine", by = "step" }',
)
# A run of three and a half epochs, evaluated and drawn inside epochs.
BY_STEPS = ("run.steps=14", "validation.every_steps=3", "pictures.every_steps=5", "validation.every_epochs=0")
FROM_EVERY_STEP = [
    ("toy", "plateau", PHASES),
    ("ptychography", "one_cycle by step", ()),
    ("hash", "one_cycle by step", ()),
    ("network", "one_cycle by step", ("ema.decay=0.8", "ema.validate_raw=true", "run.precision=fp16")),
    ("segmentation", "cosine", ("ema.decay=0.8", "run.precision=bf16")),
]
FROM_EVERY_THIRD = [
    ("toy", "one_cycle by step", BY_STEPS),
    ("toy", "cosine", (*BY_STEPS, *PHASES)),
    *(("toy", schedule, ()) for schedule in SCHEDULES),
    ("toy", "cosine", ("run.accumulate=3",)),
    ("ptychography", "plateau", ()),
    ("ptychography", "cosine", ("run.accumulate=2",)),
    *(("network", schedule, ()) for schedule in ("cosine", "plateau")),
    ("segmentation", "plateau", ()),
]
CASES = [
    *((*each, slice(None)) for each in FROM_EVERY_STEP),
    *((*each, slice(number % 3, None, 3)) for number, each in enumerate(FROM_EVERY_THIRD)),
]


@pytest.fixture(autouse=True)
def _saved_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recorder.ACTIONS["step_end"] = lambda state: state.save("every step")
    with no_pictures_of_ptychography():
        yield


def lines(folder: Path) -> list[dict[str, Any]]:
    return [{**json.loads(line), "seconds": 0} for line in (folder / "metrics.jsonl").read_text().splitlines()]


def prove(text: str, *sets: str, of_steps: slice = slice(None)) -> int:
    """Run in one go, then from its checkpoints, or from these of them; return from how many."""
    whole = start(resolve_text(text, Path.cwd(), sets), Console(quiet=True)).run.state
    last = whole.folder / "checkpoints" / f"epoch-{whole.epochs:04d}.safetensors"
    files = [file for file in (whole.folder / "checkpoints").glob("*-*.safetensors") if file != last]
    chosen = sorted(files, key=lambda file: (checkpoint.read(file)["step"], file.name))[of_steps]
    recorder.ACTIONS.clear()
    expected = trained(checkpoint.read(last))
    for file in chosen:
        torch.rand(7)  # whatever the process did in the meantime must not matter
        ending = resume(file, Console(quiet=True), allow_code=True)
        assert ending is not None
        assert ending.newest is not None
        assert differences(trained(checkpoint.read(ending.newest)), expected) == [], file.name
        assert lines(ending.run.state.folder) == lines(whole.folder), file.name
    return len(chosen)


@pytest.mark.slow
@pytest.mark.no_cover  # hundreds of runs through code that other tests cover
@pytest.mark.parametrize(
    ("client", "schedule", "sets", "of_steps"), CASES, ids=lambda value: str(value) if value else "-"
)
def test_it_ends_with_the_same_bits_from_every_step(
    client: str, schedule: str, sets: tuple[str, ...], of_steps: slice
) -> None:
    proved = prove(CLIENTS[client], SCHEDULES[schedule], *sets, of_steps=of_steps)
    assert proved >= (8 if of_steps == slice(None) else 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_loader_workers_change_nothing_of_that() -> None:
    sets = ("data.workers=2", "run.epochs=2", "groups.encoder.stop_epoch=2")
    assert prove(CLIENTS["segmentation"], SCHEDULES["cosine"], *sets) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("client", ["segmentation", "ptychography"])
def test_an_interrupted_validation_is_done_anew_and_nothing_else_is_different(client: str) -> None:
    recorder.ACTIONS.clear()
    text = CLIENTS[client]
    whole = start(resolve_text(text, Path.cwd()), Console(quiet=True)).run.state

    def interrupt(state: State) -> None:
        if state.epoch == 2:
            torch.rand(3)  # a validation that draws random numbers
            state.interrupt("the machine is needed")

    recorder.ACTIONS["validation_start"] = interrupt
    stopped = start(resolve_text(text, Path.cwd()), Console(quiet=True))
    assert stopped.newest is not None
    assert stopped.newest.name.startswith("step-")
    assert [line["finished_epochs"] for line in lines(stopped.run.state.folder)] == [1, 2]
    recorder.ACTIONS.clear()
    resumed = resume(stopped.run.state.folder, Console(quiet=True), allow_code=True)
    assert resumed is not None
    assert resumed.newest is not None
    last = whole.folder / "checkpoints" / "epoch-0004.safetensors"
    assert differences(trained(checkpoint.read(resumed.newest)), trained(checkpoint.read(last))) == []
    assert lines(resumed.run.state.folder) == lines(whole.folder)


def test_accumulated_gradients_are_those_of_one_large_batch() -> None:
    """Four batches of eight points as one of thirty-two, for a network without dropout."""
    from clients.toy import Line

    from trainkit import Context

    recorder.ACTIONS.clear()
    sets = ("run.epochs=1", "run.accumulate=4", "optimizer.use=sgd", "optimizer.lr=0.1", "groups.second.start_epoch=0")
    text = CLIENTS["toy"].replace("clients.toy:Perceptron", "clients.bigger:Wide")
    ending = start(resolve_text(text, Path.cwd(), (*sets, "model.dropout=0.0")), Console(quiet=True))
    assert ending.run.state.step == 1

    torch.manual_seed(0)
    data = Line().build(Context(0, torch.device("cpu"), Path()))
    model = ending.run.recipe.model.build(data)
    batches = list(data.train(0, 0))
    together = {key: torch.cat([batch[key] for batch in batches]) for key in ("x", "y")}
    (model(together)["y"] - together["y"]).square().mean().backward()
    for name, parameter in model.named_parameters():
        moved = ending.run.state.model.get_parameter(name)
        torch.testing.assert_close(moved, parameter - 0.1 * parameter.grad)
