"""A run that is killed and resumed in a new process ends as if nothing had happened, to the bit.

Three clients, each with three parameter groups that start before the kill (epochs 0 and 2) and after it (epoch 4); each
group with each of three schedules in turn; killed at the beginning of an epoch, within it, and after it was written
down but before it was saved; and once within an epoch in which a group started and a step was saved. The process that
resumes has another order of sets than the one that was killed.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from clients.killer import ARMED
from clients.warm import Imported, Warm
from same import differences, trained
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainkit.checkpoint import file as checkpoint
from trainkit.checkpoint.folder import CheckpointFolder

EPOCHS = 6
STARTS = (0, 2, 4)
SCHEDULES = (
    '{ use = "cosine" }',
    '{ use = "one_cycle", by = "step" }',
    '{ use = "reduce_on_plateau", patience = 0, threshold = 0.9 }',  # hardly anything is better enough
)
KILLS = {"epoch_start": 3, "step_end": 3, "checkpoint": 3, "saved_step": 4}
"""When it is killed -> in which epoch; so many epochs are finished in the newest checkpoint."""

COMMON = f"""
trainkit = 1

[run]
name = "killed"
epochs = {EPOCHS}
seed = 3
device = "cpu"
threads = 1

[checkpoint]
every_epochs = 1

[loggers.tensorboard]
use = "tensorboard"
every_steps = 1
"""


class Client(NamedTuple):
    recipe: str
    groups: tuple[str, str, str]
    """Tables of groups, in the order in which they start."""


CLIENTS = {
    "ptychography": Client(
        """
[data]
use = "diffraction_simulated"
scan_shape = [8, 8]
detector_size = 24
batch_size = 16
validation_fraction = 0.1

[model]
use = "single_slice_ptychography"
object = { use = "pixels" }
probe = { use = "aperture" }

[losses.data]
use = "amplitude"
""",
        ("[groups.object]\nlr = 5e-3", "[groups.probe]\nlr = 1e-3", "[groups.dr]\nlr = 3e-3"),
    ),
    "segmentation": Client(
        """
[data]
use = "segmentation_synthetic"
num_cases = 4
size = [16, 16, 16]
patch_size = [8, 8, 8]
steps_per_epoch = 3
workers = 2

[model]
use = "unet"
channels = [4, 8, 8]
norm = "batch"
dropout = 0.2

[inference]
use = "sliding_window"

[losses.heads]
use = "dice_ce"

[metrics.overlap]
use = "dice"

[monitor]
metric = "val/dice"
mode = "max"

[optimizer]
use = "sgd"
momentum = 0.9
lr = 0.1
""",
        ("[groups.decoder]", "[groups.encoder]\nweight_decay = 1e-3", "[groups.head]"),
    ),
    "third party": Client(
        """
[data]
use = "line"

[model]
use = "perceptron"

[losses.data]
use = "squares"

[hooks.count]
use = "count"

[optimizer]
use = "adamw"
lr = 1e-2
""",
        (
            '[groups.inner]\nparameters = ["0.*"]',
            '[groups.outer]\nparameters = ["2.weight"]',
            '[groups.bias]\nparameters = ["2.bias"]',
        ),
    ),
}


def recipe(client: Client, turn: int, when: str) -> str:
    """The client's groups, each started at its epoch; with each turn every group has another schedule."""
    kill = f'[hooks.kill]\nuse = "clients.killer:KillItself"\nepoch = {KILLS[when]}\nwhen = "{when}"\n'
    groups = "\n\n".join(
        f"{table}\nstart_epoch = {start}\nscheduler = {SCHEDULES[(place + turn) % 3]}"
        for place, (table, start) in enumerate(zip(client.groups, STARTS, strict=True))
    )
    return f"{COMMON}{client.recipe}\n{kill}\n{groups}\n"


class Pair(NamedTuple):
    """Run folders of one recipe."""

    whole: Path
    killed: Path


CASES = [(name, turn, list(KILLS)[turn]) for turn in range(3) for name in CLIENTS] + [("third party", 1, "saved_step")]


@pytest.fixture(scope="module")
def resuming() -> Iterator[Warm]:
    """Where runs are resumed: a process with another order of sets than the one in which they are started."""
    with closing(Imported(hash_seed=2)) as imported, closing(Warm(imported.address)) as process:
        yield process


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}, turn {case[1]}, at {case[2]}")
def pair(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    warm: Warm,
    resuming: Warm,
    toy_site: Path,
) -> Pair:
    """A run that was never killed, and one that was killed and resumed."""
    name, turn, when = request.param
    third_party = {"PYTHONPATH": str(toy_site)}
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for end in ("whole", "killed"):
        place = folder / end
        place.mkdir()
        (place / "recipe.toml").write_text(recipe(CLIENTS[name], turn, when))
        environment = third_party | {"XDG_CACHE_HOME": str(place / "cache")} | ({ARMED: "1"} if end == "killed" else {})
        code, said = warm.trainkit("run", "recipe.toml", folder=place, environment=environment)
        assert code == (-signal.SIGKILL if end == "killed" else 0), said
        (run,) = (place / "runs" / "killed").iterdir()
        found.append(run)
    pair = Pair(*found)
    assert CheckpointFolder(pair.killed / "checkpoints").newest_good(pytest.fail)[1]["epoch"] == KILLS[when]
    environment = third_party | {"XDG_CACHE_HOME": str(place / "cache")}
    code, said = resuming.trainkit("resume", str(pair.killed), "--allow-code", folder=place, environment=environment)
    assert code == 0, said
    return pair


@pytest.mark.slow
def test_every_tensor_and_every_memory_of_the_last_checkpoint_is_the_same(pair: Pair) -> None:
    name = f"checkpoints/epoch-{EPOCHS:04d}.safetensors"
    whole, killed = checkpoint.read(pair.whole / name), checkpoint.read(pair.killed / name)
    assert whole["epoch"] == EPOCHS
    assert differences(trained(whole), trained(killed)) == []


@pytest.mark.slow
def test_every_logged_value_is_the_same(pair: Pair) -> None:
    whole, killed = ([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in pair)
    assert [line["finished_epochs"] for line in whole] == list(range(1, EPOCHS + 1))
    for one, other in zip(whole, killed, strict=True):
        assert one.pop("seconds") >= 0
        assert other.pop("seconds") >= 0
        assert one == other


@pytest.mark.slow
def test_every_schedule_moved_its_learning_rate(pair: Pair) -> None:
    """What these tests show rests on it."""
    lines = [json.loads(line) for line in (pair.whole / "metrics.jsonl").read_text().splitlines()]
    for name in (name for name in lines[0] if name.startswith("lr/")):
        rates = [line[name] for line in lines if line[name] > 0]
        assert len(rates) < 3 or len(set(rates)) > 1, name


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: writer/tag -> (step, value), after its own purging; no times."""
    found = {}
    for writer in sorted((run / "tensorboard").iterdir()):
        events = EventAccumulator(str(writer), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            is_time = tag.startswith("time/")
            found[f"{writer.name}/{tag}"] = [(e.step, 0.0 if is_time else e.value) for e in events.Scalars(tag)]
    return found


@pytest.mark.slow
def test_tensorboard_shows_every_point_once(pair: Pair) -> None:
    whole, killed = scalars(pair.whole), scalars(pair.killed)
    assert killed == whole
    assert all(len({step for step, _ in points}) == len(points) for points in whole.values())
    assert [step for step, _ in whole["train/loss/total"]] == list(range(1, EPOCHS + 1))
    starts = {tag: points for tag, points in whole.items() if tag.endswith("_optimization_started")}
    assert sorted(points for points in starts.values()) == [[(start, 1.0)] for start in STARTS]
