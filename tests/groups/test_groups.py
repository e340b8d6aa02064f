"""Parameter groups in running trainings of two models: what is frozen, what starts when, and what is logged of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pytest
import torch
from clients.normed import Normed
from clients.toy import Line, Squares
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from without_geometry_search import no_geometry_search
from without_pictures import no_pictures_of_ptychography

from trainkit import Context, RecipeError, State, component
from trainkit.console import Console
from trainkit.engine.build import build
from trainkit.engine.live_run import LiveRun
from trainkit.engine.run_folder import created
from trainkit.engine.start import execute
from trainkit.randomness import seed_everything
from trainkit.recipe.resolve import resolve

EPOCHS, SECOND, THIRD = 22, 10, 20

COMMON = """
trainkit = 1
[run]
name = "staged"
device = "cpu"
epochs = 22
[checkpoint]
every_epochs = 100
[pictures]
every_epochs = 100
"""

PTYCHOGRAPHY = """
[data]
use = "diffraction_simulated"
scan_shape = [6, 6]
detector_size = 24
batch_size = 16
validation_fraction = 0.1
[model]
use = "single_slice_ptychography"
probe = { use = "aperture", modes = 2 }
[losses.data]
use = "amplitude"
"""

NETWORK = """
[data]
use = "clients.toy:Line"
[model]
use = "clients.normed:Normed"
[losses.data]
use = "clients.toy:Squares"
[optimizer]
use = "adamw"
weight_decay = 0.1
"""

STAGED = {
    "ptychography": (
        PTYCHOGRAPHY,
        {
            "object": "lr = 5e-3",
            "probe": f"lr = 1e-3\nstart_epoch = {SECOND}",
            "dr": f"lr = 3e-3\nstart_epoch = {THIRD}",
        },
    ),
    "network": (
        NETWORK,
        {
            "coarse": 'lr = 5e-3\nparameters = ["head.coarse.*"]',
            "encoder": f'lr = 1e-3\nparameters = ["encoder.*"]\nstart_epoch = {SECOND}',
            "fine": f'lr = 3e-3\nparameters = ["head.fine.*"]\nstart_epoch = {THIRD}',
        },
    ),
}


@pytest.fixture(autouse=True)
def _no_pictures() -> Iterator[None]:
    with no_pictures_of_ptychography(), no_geometry_search():
        yield


class Seen(NamedTuple):
    """What stood at an epoch's end."""

    rates: dict[str, float]
    tensors: dict[str, Tensor]


@attrs.define
class Watch:
    """A live part that copies what it sees, and the modes of all submodules in each epoch's last step."""

    epochs: list[Seen] = attrs.Factory(list)
    training: dict[str, bool] = attrs.Factory(dict)
    modes: list[dict[str, bool]] = attrs.Factory(list)

    def on_step_end(self, state: State) -> None:
        self.training = {name: module.training for name, module in state.model.named_modules()}

    def on_epoch_end(self, state: State) -> None:
        tensors = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
        self.epochs.append(Seen(state.learning_rates(), tensors))
        self.modes.append(self.training)


class Trained(NamedTuple):
    run: LiveRun
    before: dict[str, Tensor]
    seen: Watch

    def tensors(self, group: str) -> list[str]:
        return list(self.run.state.groups[group].parameters)

    def moved(self, name: str) -> list[bool]:
        """For each epoch: is the tensor another one than before the epoch?"""
        values = [self.before[name], *(epoch.tensors[name] for epoch in self.seen.epochs)]
        return [not torch.equal(one, other) for one, other in pairwise(values)]


def prepared(text: str, folder: Path, *sets: str) -> LiveRun:
    (folder / "recipe.toml").write_text(COMMON + text)
    resolved = resolve(folder / "recipe.toml", [f"run.dir={folder / 'runs'}", *sets])
    with created(resolved) as run_folder:
        return build(resolved, run_folder)


def train(text: str, folder: Path, *sets: str) -> Trained:
    run, watch = prepared(text, folder, *sets), Watch()
    run.add("watch", watch)
    before = {name: tensor.clone() for name, tensor in run.state.model.state_dict().items()}
    execute(run, Console(quiet=True))
    return Trained(run, before, watch)


def staged(client: str) -> str:
    text, groups = STAGED[client]
    return text + "".join(f"\n[groups.{name}]\n{table}\n" for name, table in groups.items())


@pytest.fixture(scope="module", params=STAGED)
def three_stages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    tensorboard = '\n[loggers.tensorboard]\nuse = "tensorboard"\n'
    return train(staged(request.param) + tensorboard, tmp_path_factory.mktemp("staged"))


def names_in_order(trained: Trained) -> tuple[str, str, str]:
    started = [(group.start_epoch, name) for name, group in trained.run.state.groups.items()]
    first, second, third = (name for _, name in sorted(each for each in started if each[0] is not None))
    return first, second, third


def test_a_group_is_frozen_to_the_bit_until_its_start_and_moves_from_then_on(three_stages: Trained) -> None:
    for group, start in zip(names_in_order(three_stages), (0, SECOND, THIRD), strict=True):
        for name in three_stages.tensors(group):
            assert three_stages.moved(name) == [epoch >= start for epoch in range(EPOCHS)], name


def test_the_learning_rate_of_a_frozen_group_is_zero(three_stages: Trained) -> None:
    first, second, third = names_in_order(three_stages)
    for epoch, seen in enumerate(three_stages.seen.epochs):
        expected = {first: 5e-3, second: 1e-3 * (epoch >= SECOND), third: 3e-3 * (epoch >= THIRD)}
        assert {name: seen.rates[name] for name in expected} == expected
        assert all(rate == 0.0 for name, rate in seen.rates.items() if name not in expected)


def test_the_optimizer_remembers_nothing_of_a_group_from_before_its_start(three_stages: Trained) -> None:
    steps = three_stages.run.state.data.batches_per_epoch
    for group, start in zip(names_in_order(three_stages), (0, SECOND, THIRD), strict=True):
        for parameter in three_stages.run.state.groups[group].parameters.values():
            assert (
                float(three_stages.run.optimizers.members["all"].state[parameter]["step"]) == (EPOCHS - start) * steps
            )


def test_tensorboard_has_every_start_and_the_learning_rates_of_every_epoch(three_stages: Trained) -> None:
    folder = three_stages.run.state.folder / "tensorboard" / "train"
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    for group, start in zip(names_in_order(three_stages), (0, SECOND, THIRD), strict=True):
        started = [(event.step, event.value) for event in events.Scalars(f"stages/{group}_optimization_started")]
        assert started == [(start, 1.0)]
        rates = events.Scalars(f"lr/{group}")
        assert [event.step for event in rates] == list(range(1, EPOCHS + 1))  # finished epochs
        expected = [seen.rates[group] for seen in three_stages.seen.epochs]
        assert [event.value for event in rates] == pytest.approx(expected)  # TensorBoard keeps 32 bits
    known = {tag for tag in events.Tags()["scalars"] if "_optimization_" in tag}
    assert known == {f"stages/{group}_optimization_started" for group in names_in_order(three_stages)}


def test_frozen_submodules_are_in_eval_mode_and_their_statistics_stand_still(tmp_path: Path) -> None:
    trained = train(NETWORK + "\n[groups.encoder]\nstart_epoch = 2\n", tmp_path, "run.epochs=4")
    statistics = [name for name in trained.before if "running_" in name or "num_batches" in name]
    assert len(statistics) == 6
    for name in statistics:
        assert trained.moved(name) == [False, False, True, True], name
    for epoch, modes in enumerate(trained.seen.modes):
        assert {name: mode for name, mode in modes.items() if name.startswith("encoder")} == dict.fromkeys(
            (name for name in modes if name.startswith("encoder")), epoch >= 2
        )
        assert all(mode for name, mode in modes.items() if name.startswith("head"))


def test_starting_late_is_the_same_as_being_added_to_the_optimizer_late(tmp_path: Path) -> None:
    """Held against a loop in plain torch whose optimizer does not know the encoder before its start."""
    start, epochs = 2, 4
    text = NETWORK + f"\n[groups.encoder]\nstart_epoch = {start}\nlr = 2e-3\n"
    trained = train(text, tmp_path, f"run.epochs={epochs}", "run.seed=5")

    seed_everything(5)
    data = Line().build(Context(seed=5, device=torch.device("cpu"), folder=tmp_path))
    model = Normed().build(data)
    loss = Squares().build(data)
    options: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.1, "fused": True}
    optimizer = torch.optim.AdamW(model.get_submodule("head").parameters(), **options)
    encoder = model.get_submodule("encoder").requires_grad_(False)
    for epoch in range(epochs):
        if epoch == start:
            encoder.requires_grad_(True)
            optimizer.add_param_group({"params": list(encoder.parameters()), "lr": 2e-3})
        model.train()
        encoder.train(epoch >= start)
        for batch in data.train(epoch, 0):
            optimizer.zero_grad()
            loss(model(batch), batch, model).backward()
            optimizer.step()
    ours = trained.run.state.model.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(ours[name], tensor), name


def test_without_a_start_only_the_object_is_reconstructed(tmp_path: Path) -> None:
    trained = train(PTYCHOGRAPHY + "\n[groups.probe]\nlr = 1e-3\n", tmp_path, "run.epochs=2")
    for group in ("object", "probe", "dr"):
        for name in trained.tensors(group):
            assert trained.moved(name) == [group == "object"] * 2, name
    assert trained.run.state.groups["probe"].start_epoch is None


def test_zero_is_a_start_epoch(tmp_path: Path) -> None:
    trained = train(PTYCHOGRAPHY + "\n[groups.probe]\nstart_epoch = 0\n", tmp_path, "run.epochs=2")
    for name in trained.tensors("probe"):
        assert trained.moved(name) == [True, True], name


def test_a_group_that_stops_stands_still_from_then_on(tmp_path: Path) -> None:
    text = NETWORK + '\n[groups.head]\nstop_epoch = 2\n[loggers.tensorboard]\nuse = "tensorboard"\n'
    trained = train(text, tmp_path, "run.epochs=4")
    for name in trained.tensors("head"):
        assert trained.moved(name) == [True, True, False, False], name
    assert [seen.rates["head"] > 0 for seen in trained.seen.epochs] == [True, True, False, False]
    assert [modes["head"] for modes in trained.seen.modes] == [True, True, False, False]
    events = EventAccumulator(str(trained.run.state.folder / "tensorboard" / "train")).Reload()
    stopped = [(event.step, event.value) for event in events.Scalars("stages/head_optimization_stopped")]
    assert stopped == [(2, 1.0)]


def test_a_group_whose_stop_epoch_is_zero_never_trains(tmp_path: Path) -> None:
    trained = train(NETWORK + "\n[groups.encoder]\nstop_epoch = 0\n", tmp_path, "run.epochs=2")
    for name, tensor in trained.run.state.model.state_dict().items():
        assert torch.equal(tensor, trained.before[name]) == name.startswith("encoder."), name
    assert [seen.rates["encoder"] for seen in trained.seen.epochs] == [0.0, 0.0]
    assert not any(mode for modes in trained.seen.modes for name, mode in modes.items() if name.startswith("encoder"))


IDLE = "\n[groups.encoder]\nstart_epoch = 3\n[groups.head]\nstop_epoch = 2\n"


def test_an_epoch_in_which_nothing_trains_is_an_error_of_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no parameter group trains from 2 to 3 finished epochs"):
        prepared(NETWORK + IDLE, tmp_path)


@component
class Unannounced(Normed):
    """A model that says only once it is built which groups it has."""

    def groups(self) -> Mapping[str, bool] | None:  # type: ignore[override]
        return None


UNANNOUNCED = NETWORK.replace("clients.normed:Normed", f"{__name__}:Unannounced")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (IDLE, "no parameter group trains from 2 to 3 finished epochs"),
        ("\n[groups.tail]\nlr = 1e-3\n", "groups.tail: .*no parameter group of this name"),
    ],
)
def test_groups_that_show_only_after_building_are_checked_before_the_first_step(
    groups: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        prepared(UNANNOUNCED + groups, tmp_path)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"encoder": ["encoder.*"]}, r"in no group: head\."),
        ({"encoder": ["encoder.*"], "rest": ["e*"]}, r'"encoder\.\S+" is in two groups'),
        ({"encoder": ["encoder.*"], "rest": ["head.*", "tail.*"]}, r'"tail\.\*" matches no parameter'),
    ],
)
def test_every_parameter_is_in_exactly_one_group(groups: dict[str, list[str]], message: str, tmp_path: Path) -> None:
    tables: list[Any] = [f"\n[groups.{name}]\nparameters = {patterns}\n" for name, patterns in groups.items()]
    with pytest.raises(RecipeError, match=message):
        prepared(NETWORK + "".join(tables), tmp_path)
