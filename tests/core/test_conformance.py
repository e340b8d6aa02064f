"""Every registered component, ours and a third party's, goes through the public suite; and the suite can fail."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import SkipTest

import pytest
import torch
from without_pictures import no_pictures_of_ptychography

from trainkit import (
    ComponentError,
    Data,
    DataError,
    Hook,
    Loss,
    Memory,
    Metric,
    Model,
    Monitor,
    Optimizer,
    Point,
    Scheduler,
    Wait,
    component,
    testing,
)
from trainkit.optimizers.sgd import SGD
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.files.readers.hdf5 import HDF5Reader

if TYPE_CHECKING:
    from fractions import Fraction

SAMPLES: dict[str, dict[str, Any]] = {
    "trainkit.data/diffraction_cxi": {"path": Path("scan.cxi")},
    "trainkit.data/diffraction_file": {"path": Path("scan.h5"), "reader": HDF5Reader()},
    "trainkit.data/diffraction_hdf5": {"path": Path("scan.h5"), "patterns": "patterns", "positions": "positions"},
    "trainkit.data/diffraction_numpy": {"path": Path("scan.npz")},
    "trainkit.data/diffraction_simulated": {"scan_shape": (5, 5), "detector_size": 24, "batch_size": 6},
    "trainkit.data/diffraction_simulated_near_field": {"num_points": 9, "detector_size": 24, "batch_size": 4},
    "trainkit.data/segmentation_synthetic": {"num_cases": 4, "size": (16, 16, 16), "patch_size": (8, 8, 8)},
    "trainkit.hooks/stop_group": {"group": "probe"},
    "trainkit.losses/position_anchor": {"sigma_pixels": 1.0},
    "trainkit.models/unet": {"channels": (4, 8), "strides": (2,)},
    "trainkit.models/dynunet": {"channels": (4, 8, 8)},
    "trainkit.models/plain_unet": {"channels": (4, 8, 8)},
    "trainkit.models/resenc_unet": {"channels": (4, 8, 8)},
    "trainkit.models/monai_network": {"name": "BasicUNet"},
    "trainkit.ptychography.readers/raw": {"frame_shape": (128, 128), "dtype": "uint16"},
    "trainkit.data/brats": {"path": Path("cases")},
    "trainkit.data/msd": {"path": Path("Task04_Hippocampus")},
    "trainkit.data/datalist": {"path": Path("datalist.json")},
    "trainkit.data/image_folder": {"path": Path("cases")},
    "trainkit.data/image_table": {"path": Path("cases.csv")},
    "trainkit.data/totalsegmentator": {"path": Path("subjects"), "structures": ("liver", "spleen")},
    "trainkit.segmentation.splits/file": {"path": Path("splits.json")},
    "trainkit.models/ptychography": {"probe": Aperture()},
    "trainkit.models/single_slice_ptychography": {"probe": Aperture()},
    "trainkit.ptychography.probes/from_file": {"path": Path("probe.npy")},
    "trainkit.ptychography.constraints/low_pass": {"shortest_period_angstrom": 1.0},
    "trainkit.ptychography.constraints/gaussian": {"sigma_angstrom": 0.5},
    "trainkit.ptychography.constraints/slice_coupling": {"sigma_angstrom": 3.0},
    "trainkit.ptychography.constraints/tv": {"weight_rad": 0.01},
    "trainkit.ptychography.constraints/probe_support": {"radius_angstrom": 10.0},
    "trainkit.ptychography.constraints/probe_aperture": {"semiangle_mrad": 30.0},
    "trainkit.ptychography.probes/vacuum": {"path": Path("vacuum.npy")},
    "trainkit.optimizers/torch": {"name": "RMSprop", "arguments": {"alpha": 0.9}},
    "trainkit.schedulers/torch": {"name": "StepLR", "arguments": {"step_size": 3}},
}


LONG = ("leaves the training as it is", "continues after a resume", "without waiting", "network", "is restored")
"""Checks that run something, most of which take about a second."""


def with_marks(case: testing.Case) -> Any:
    return pytest.param(case, id=str(case), marks=[pytest.mark.slow] if any(each in case.name for each in LONG) else [])


@pytest.mark.measured_every(10)
@pytest.mark.parametrize("case", [with_marks(case) for case in testing.cases(samples=SAMPLES)])
def test_conformance(case):
    with no_pictures_of_ptychography() if "training" in case.name or "resume" in case.name else nullcontext():
        case.check()


def test_the_suite_takes_the_components_of_one_package_or_of_all():
    ours, all_there_are = testing.cases("trainkit"), testing.cases()
    assert {str(case) for case in ours} <= {str(case) for case in all_there_are}
    assert any(str(case).startswith("trainkit.schedulers/cosine ") for case in ours)


def test_a_package_without_components_is_an_error_not_an_empty_suite():
    with pytest.raises(ComponentError, match='did you mean "trainkit"'):
        testing.cases("trainkits")


# ---- the suite finds what is wrong ----------------------------------------------------------------------------------


class Bare(Scheduler):
    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        return Point(lr)


@component
class Undescribed(Scheduler):
    """Says what it does, but not what its setting means."""

    strength: float = 1.0

    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        return Point(lr)


@component
class Refined(Undescribed):
    """Derives from a component.

    Attributes:
        strength: Of what it does.
    """


@component
class Unfinished(Scheduler):
    """Has no `at`."""


@component
class Unresolvable(Scheduler):
    """Its setting's type is there for type checkers alone.

    Attributes:
        ratio: A fraction.
    """

    ratio: Fraction | None = None

    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        return Point(lr)


@component
class Broken(Scheduler):
    """A schedule that is made of what it is given.

    Attributes:
        rule: What goes wrong.
    """

    rule: str = ""
    asked: ClassVar[list[int]] = []

    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        self.asked.append(t)
        match self.rule:
            case "negative":
                return Point(lr * (0.5 - t))
            case "nan":
                return Point(lr / t if t else math.nan)
            case "impure":
                return Point(lr / len(self.asked))
            case "momentum":
                return Point(lr, 1.5)
            case "forgets":
                return Point(lr * len(memory.get("seen", ())))
            case "too early":
                return Point(lr / 2 if memory.get("count", 0) > 3 else lr)
        return Point(lr)

    def waits(self, recipe: Any) -> Iterator[Wait]:
        if self.rule in ("too early", "never"):
            yield Wait("halve the rate", "rule", lambda epochs: next(islice(epochs, 2, None)))

    def observe(self, memory: Memory, metrics: Mapping[str, float], monitor: Monitor) -> Memory:
        match self.rule:
            case "mutates":
                assert isinstance(memory, dict)
                memory["count"] = memory.get("count", 0) + 1
            case "no json":
                return {"seen": {1, 2}}
            case "nan in memory":
                return {"best": math.nan}
            case "tuple":
                return {"seen": (1, 2)}
            case "too early":
                return {"count": memory.get("count", 0) + 1}
        return memory


@component
class DeafToOverrides(Optimizer):
    """Keeps a setting to itself.

    Attributes:
        momentum: Of the steps.
    """

    momentum: float = 0.5

    def build(self, groups: list[dict[str, Any]]) -> Any:
        return SGD(lr=self.lr).build([{**group, "momentum": self.momentum} for group in groups])


@component
class Nameless(Optimizer):
    """Loses the groups' names."""

    def build(self, groups: list[dict[str, Any]]) -> Any:
        return SGD().build([{k: v for k, v in group.items() if k != "name"} for group in groups])


class Forgetful(torch.optim.SGD):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "state": {}}


@component
class Amnesiac(Optimizer):
    """Keeps its momentum out of its state."""

    def build(self, groups: list[dict[str, Any]]) -> Any:
        return Forgetful([dict(group) for group in groups], momentum=0.5)


@component
class Listening(Hook):
    """Gives the live part that it is told to.

    Attributes:
        part: Class of the live part.
    """

    part: Any = None

    def build(self, context: Any) -> object:
        return self.part()


class Misspelt:
    def on_epoch_ends(self, state: Any) -> None: ...


class Mute: ...


class HalfSaved:
    def on_epoch_end(self, state: Any) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}


@component
class NeedsMoon(Hook):
    """Cannot be built here."""

    requires: ClassVar[tuple[str, ...]] = ("a_module_on_the_moon",)

    def build(self, context: Any) -> object:
        raise AssertionError("not to be reached")


@component
class Odd(Data):
    """Data whose training split comes second."""

    def splits(self) -> tuple[str, ...]:
        return ("val", "train")

    def build(self, context: Any) -> Any: ...


@component
class Empty(Model):
    """A model without groups."""

    def groups(self) -> dict[str, bool]:
        return {}

    def build(self, data: Any) -> Any: ...


@component
class Weightless(Loss):
    """A loss with a default that its kind refuses."""

    weight: float = math.inf

    def build(self, data: Any) -> Any: ...


@component
class Averaged(Loss):
    """A loss that combines in a way that there is not."""

    def combine(self) -> Any:
        return "average"

    def build(self, data: Any) -> Any: ...


@component
class Prefixed(Metric):
    """A metric that puts the split before its names."""

    def names(self) -> tuple[str, ...]:
        return ("val/dice",)

    def build(self, data: Any) -> Any: ...


@component
class Late(Loss):
    """A loss whose timeline names an epoch after the run's end."""

    def timeline(self, epochs: int) -> list[tuple[int, str]]:
        return [(epochs + 1, "the end of all things")]

    def build(self, data: Any) -> Any: ...


GROUP = "trainkit.schedulers"


@pytest.mark.parametrize(
    ("check", "cls", "said"),
    [
        (testing.is_a_component_of_its_kind, Bare, "lacks the decorator"),
        (testing.is_a_component_of_its_kind, SGD, "its kind belongs to trainkit.optimizers"),
        (testing.is_a_component_of_its_kind, dict, "not a trainkit.Component"),
        (testing.is_abstract_or_final, Unfinished, "leaves at abstract"),
        (testing.is_abstract_or_final, Refined, "Undescribed"),
        (testing.is_documented, Bare, "no docstring"),
        (testing.is_documented, Undescribed, "strength"),
        (testing.has_types_that_can_be_read, Unresolvable, "Fraction"),
    ],
)
def test_the_suite_finds_a_class_that_is_no_proper_component(check, cls, said):
    with pytest.raises(AssertionError, match=said):
        check(cls, GROUP)


@pytest.mark.parametrize(
    ("check", "settings", "said"),
    [
        (testing.is_a_sound_schedule, Broken(rule="negative"), "it gave -"),
        (testing.is_a_sound_schedule, Broken(rule="nan"), "it gave nan"),
        (testing.is_a_sound_schedule, Broken(rule="impure"), "returns other values"),
        (testing.is_a_sound_schedule, Broken(rule="momentum"), "and 1.5"),
        (testing.has_a_sound_memory, Broken(rule="mutates"), "observe changes the memory"),
        (testing.has_a_sound_memory, Broken(rule="no json"), "not JSON"),
        (testing.has_a_sound_memory, Broken(rule="nan in memory"), "not JSON"),
        (testing.has_a_sound_memory, Broken(rule="tuple"), "is read back from JSON as"),
        (
            testing.acts_when_it_says,
            Broken(rule="too early"),
            "epoch 2, but the rate reacts after epoch 3",
        ),
        (testing.acts_when_it_says, Broken(rule="never"), "waits states epoch 2, but the rate does not react"),
        (testing.builds_an_optimizer, DeafToOverrides(), "loses a group's momentum = 0.25"),
        (testing.builds_an_optimizer, Nameless(), "loses the groups' names"),
        (testing.builds_an_optimizer, Amnesiac(), "saved state of this one makes another step"),
        (testing.builds_a_listener, Listening(part=Misspelt), 'did you mean "epoch_end"'),
        (testing.builds_a_listener, Listening(part=Mute), "no on_<event> method"),
        (testing.builds_a_listener, Listening(part=HalfSaved), "only one of state_dict"),
        (testing.states_its_splits, Odd(), '"train" must come first'),
        (testing.states_its_groups, Empty(), "at least one"),
        (testing.states_modules_and_timeline, Late(), "contains epoch 11"),
        (testing.has_a_sound_weight, Weightless(), "weight is inf"),
        (testing.has_a_sound_weight, Averaged(), "average"),
        (testing.states_its_names, Prefixed(), "val/dice"),
    ],
)
def test_the_suite_finds_settings_that_break_their_contract(check, settings, said):
    with pytest.raises(AssertionError, match=said):
        check(settings)


def test_a_component_whose_modules_are_not_installed_is_skipped_with_their_names():
    with pytest.raises(SkipTest, match="a_module_on_the_moon"):
        testing.builds_a_listener(NeedsMoon())


@pytest.mark.slow
def test_the_suite_finds_a_settings_module_that_imports_torch(tmp_path, monkeypatch):
    (tmp_path / "heavy_settings.py").write_text("import torch\n")
    (tmp_path / "broken_settings.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AssertionError, match=r"importing heavy_settings also imports torch"):
        testing.imports_lightly("heavy_settings:Any")
    with pytest.raises(AssertionError, match="RuntimeError: no licence"):
        testing.imports_lightly("broken_settings:Any")
    (tmp_path / "ending_settings.py").write_text("import os; os._exit(0)\n")
    with pytest.raises(AssertionError, match="importing ending_settings ends the process"):
        testing.imports_lightly("ending_settings:Any")
    (tmp_path / "seeding_settings.py").write_text("import random; random.seed(1)\n")
    with pytest.raises(AssertionError, match="seeding_settings changes the state of Python's random numbers"):
        testing.changes_nothing_for_all("seeding_settings:Any")
    testing.changes_nothing_for_all("trainkit_schedulers.cosine:Cosine")


def test_required_settings_without_a_sample_are_asked_for():
    without = {str(case): case for case in testing.cases("trainkit")}
    with pytest.raises(AssertionError, match=r'no default for name: give samples=\{"trainkit.schedulers/torch"'):
        without["trainkit.schedulers/torch states modules and timeline"].check()


# ---- data that are opened -------------------------------------------------------------------------------------------


class LiveNumbers:
    """Batches of numbers, with one fault."""

    def __init__(self, fault: str, seed: int) -> None:
        self.fault, self.seed = fault, seed
        self.batches_per_epoch = 5 if fault == "count" else 4

    def train(self, epoch, start):
        for number in range(start, 4):
            generator = None if self.fault == "global" else torch.Generator().manual_seed(100 * epoch + number)
            if self.fault == "opened":
                generator = torch.Generator().manual_seed(id(self) % 2**31)
            if self.fault == "start" and start:
                generator = torch.Generator().manual_seed(7)
            batch = {"index": torch.arange(3) + 3 * number, "x": torch.rand(3, generator=generator)}
            yield {"x": batch["x"]} if self.fault == "no index" else batch

    def evaluate(self, split):
        last = 0 if self.fault == "twice" else 3
        if self.fault != "empty":
            yield {"index": torch.arange(3), "x": torch.ones(3)}
            yield {"index": torch.arange(3) + last, "x": torch.ones(3)}


@component
class Numbers(Data):
    """Numbers.

    Attributes:
        fault: What is wrong with them.
    """

    fault: str = ""

    def splits(self):
        return "train", "val"

    def build(self, context):
        if self.fault == "missing":
            raise DataError("there is no file")
        return LiveNumbers(self.fault, context.seed)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("count", "announces 5 batches an epoch, and train yields 4"),
        ("global", "LiveNumbers.train draws from, or seeds, the global random numbers of torch"),
        ("opened", '"x" of batch 0 differs'),
        ("start", r"train\(0, 2\) is not the end"),
        ("no index", 'must have "index"'),
        ("twice", "one of them twice"),
    ],
)
def test_data_whose_batches_are_no_function_of_seed_epoch_and_number_are_found(fault: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        testing.yields_batches_by_seed_epoch_and_number(Numbers(fault=fault))


def test_sound_data_pass_and_data_that_are_not_here_are_left_out() -> None:
    testing.states_its_splits(Numbers())
    testing.yields_batches_by_seed_epoch_and_number(Numbers())
    testing.states_its_splits(Numbers(fault="missing"))
    with pytest.raises(SkipTest, match="cannot be opened here"):
        testing.yields_batches_by_seed_epoch_and_number(Numbers(fault="missing"))
    with pytest.raises(AssertionError, match="yields nothing"):
        testing.states_its_splits(Numbers(fault="empty"))
