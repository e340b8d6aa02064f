"""Each schedule against torch's own, over whole runs."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from trainkit import Memory, Monitor, Point, RecipeError, Scheduler
from trainkit_schedulers.cosine import Cosine
from trainkit_schedulers.none import NoSchedule
from trainkit_schedulers.one_cycle import OneCycle
from trainkit_schedulers.polynomial import Polynomial
from trainkit_schedulers.reduce_on_plateau import ReduceOnPlateau
from trainkit_schedulers.torch import TorchSchedule
from trainkit_schedulers.torch_source import signatures

TOLERANCE = 1e-12
MONITOR = Monitor()
RECIPE: Any = SimpleNamespace(monitor=MONITOR)

many = settings(derandomize=True, max_examples=150)
horizons = st.integers(1, 200)
rates = st.floats(1e-8, 10.0)


def our_run(scheduler: Scheduler, horizon: int, lr: float) -> list[Point]:
    return [scheduler.at(t, horizon, lr, {}) for t in range(horizon)]


def torch_run(name: str, horizon: int, lr: float, optimizer: str = "SGD", **arguments: Any) -> list[Point]:
    """Step torch's own scheduler with a real optimizer; momentum is beta1 for Adam."""
    made = getattr(torch.optim, optimizer)([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = getattr(lr_scheduler, name)(made, **arguments)
    points = []
    for _ in range(horizon):
        group = made.param_groups[0]
        points.append(Point(group["lr"], group["betas"][0] if "betas" in group else group["momentum"]))
        made.step()
        schedule.step()
    return points


def assert_same_rates(ours: list[Point], theirs: list[Point]) -> None:
    for t, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.lr == pytest.approx(b.lr, rel=TOLERANCE, abs=0), f"tick {t} of {len(ours)}"


def assert_same_momenta(ours: list[Point], theirs: list[Point]) -> None:
    for t, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.momentum == pytest.approx(b.momentum, rel=TOLERANCE, abs=0), f"tick {t} of {len(ours)}"


# ---- closed forms ---------------------------------------------------------------------------------------------------


def test_none_leaves_the_rate_as_it_is():
    assert our_run(NoSchedule(), 5, 0.3) == [Point(0.3)] * 5


@many
@given(horizons, rates, st.floats(0.0, 1.0))
def test_cosine_is_torchs(horizon, lr, final_factor):
    theirs = torch_run("CosineAnnealingLR", horizon, lr, T_max=horizon, eta_min=lr * final_factor)
    assert_same_rates(our_run(Cosine(final_factor=final_factor), horizon, lr), theirs)


@many
@given(horizons, rates, st.floats(0.0, 5.0))
def test_polynomial_is_torchs(horizon, lr, power):
    theirs = torch_run("PolynomialLR", horizon, lr, total_iters=horizon, power=power)
    assert_same_rates(our_run(Polynomial(power=power), horizon, lr), theirs)


@many
@given(
    horizon=horizons,
    lr=rates,
    peak_factor=st.floats(0.5, 100.0),
    pct_start=st.floats(0.01, 0.99),
    anneal_strategy=st.sampled_from(["cos", "linear"]),
    div_factor=st.floats(1.0, 100.0),
    final_div_factor=st.floats(1.0, 1e5),
    base_momentum=st.floats(0.5, 0.9),
    max_momentum=st.floats(0.9, 0.99),
    optimizer=st.sampled_from(["SGD", "Adam"]),
)
def test_one_cycle_is_torchs_with_its_momentum(horizon, lr, peak_factor, optimizer, **given_settings):
    ours = our_run(OneCycle(peak_factor=peak_factor, **given_settings), horizon, lr)
    try:
        arguments = {"max_lr": lr * peak_factor, "total_steps": horizon, **given_settings}
        theirs = torch_run("OneCycleLR", horizon, lr, optimizer, **arguments)
    except ZeroDivisionError:  # torch's way up has no length: ours is at the peak from the first tick
        assert ours[0] == Point(pytest.approx(lr * peak_factor), pytest.approx(given_settings["base_momentum"]))
        return
    assert_same_rates(ours, theirs)
    assert_same_momenta(ours, theirs)


@pytest.mark.parametrize("horizon", range(1, 201))
def test_the_defaults_agree_with_torch_over_every_horizon(horizon):
    lr = 3e-3
    assert_same_rates(
        our_run(Cosine(), horizon, lr),
        torch_run("CosineAnnealingLR", horizon, lr, T_max=horizon, eta_min=0.01 * lr),
    )
    assert_same_rates(
        our_run(Polynomial(), horizon, lr), torch_run("PolynomialLR", horizon, lr, total_iters=horizon, power=0.9)
    )
    ours, theirs = (
        our_run(OneCycle(), horizon, lr),
        torch_run("OneCycleLR", horizon, lr, max_lr=10 * lr, total_steps=horizon),
    )
    assert_same_rates(ours, theirs)
    assert_same_momenta(ours, theirs)


def test_one_cycle_whose_way_up_has_no_length_starts_at_its_peak():
    with pytest.raises(ZeroDivisionError):
        torch_run("OneCycleLR", 4, 0.1, max_lr=1.0, total_steps=4, pct_start=0.25)
    points = our_run(OneCycle(pct_start=0.25), 4, 0.1)
    assert points[0] == Point(1.0, 0.85)
    assert all(earlier.lr > later.lr for earlier, later in pairwise(points))


def test_one_cycle_leaves_the_momentum_alone_if_told_to():
    assert {point.momentum for point in our_run(OneCycle(cycle_momentum=False), 20, 0.1)} == {None}


# ---- reduce on plateau ----------------------------------------------------------------------------------------------

plateau_settings = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.floats(0.05, 0.95),
        "patience": st.integers(0, 5),
        "threshold": st.one_of(st.just(0.0), st.floats(1e-6, 0.5)),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 4),
        "min_lr": st.one_of(st.just(0.0), st.floats(1e-9, 1e-2)),
        "eps": st.one_of(st.just(0.0), st.floats(1e-10, 1e-3)),
    }
)
metric_values = st.one_of(st.floats(-2.0, 2.0), st.just(math.nan), st.sampled_from([0.5, 1.0]))


@many
@given(plateau_settings, rates, st.lists(metric_values, max_size=80))
@example({"mode": "min", "patience": 0, "factor": 0.5, "eps": 0.25}, 0.5, [1.0, 1.0, 1.0])  # a reduction by just eps
@example(  # better by less than the last place of the difference
    {"mode": "min", "patience": 0, "threshold": 0.5, "threshold_mode": "abs"}, 1.0, [0.5, -2.7591178777593903e-65]
)
def test_reduce_on_plateau_is_torchs_bit_for_bit(chosen, lr, values):
    ours = ReduceOnPlateau(**chosen)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, **chosen)
    memory: Memory = {}
    for t, value in enumerate(values):
        assert ours.at(t, len(values), lr, memory).lr == optimizer.param_groups[0]["lr"]
        memory = json.loads(json.dumps(ours.observe(memory, {"val/loss": value}, MONITOR), allow_nan=False))
        theirs.step(value)
    assert ours.at(len(values), len(values), lr, memory).lr == optimizer.param_groups[0]["lr"]


def reductions(scheduler: ReduceOnPlateau, epochs: list[dict[str, float]], monitor: Monitor = MONITOR) -> int:
    memory: Memory = {}
    for metrics in epochs:
        memory = scheduler.observe(memory, metrics, monitor)
    return int(memory.get("reductions", 0))


def test_plateau_does_not_count_epochs_without_the_metric():
    flat = [{"val/loss": 1.0}] * 3
    gaps = [{"train/loss": 0.5}] * 20
    assert reductions(ReduceOnPlateau(patience=2), [*flat, *gaps]) == 0
    assert reductions(ReduceOnPlateau(patience=2), [*flat, *gaps, *flat]) == 1


def test_plateau_watches_the_monitor_unless_it_has_a_metric_of_its_own():
    rising_dice = [{"val/dice": e / 10, "val/loss": 1.0} for e in range(10)]
    monitor = Monitor(metric="val/dice", mode="max")
    assert reductions(ReduceOnPlateau(patience=2), rising_dice, monitor) == 0
    assert reductions(ReduceOnPlateau(patience=2, mode="min"), rising_dice, monitor) == 3
    assert reductions(ReduceOnPlateau(patience=2, metric="val/loss", mode="min"), rising_dice, monitor) == 3


def test_plateau_says_when_its_threshold_or_its_mode_makes_no_sense():
    assert list(ReduceOnPlateau().problems(RECIPE)) == []
    assert [p.key for p in ReduceOnPlateau(threshold=1.5).problems(RECIPE)] == ["threshold"]
    assert list(ReduceOnPlateau(threshold=1.5, threshold_mode="abs").problems(RECIPE)) == []
    (warning,) = ReduceOnPlateau(metric="val/dice").problems(RECIPE)
    assert (warning.key, warning.severity) == ("metric", "warning")
    assert list(ReduceOnPlateau(metric="val/dice", mode="max").problems(RECIPE)) == []


# ---- any class of torch ---------------------------------------------------------------------------------------------

TORCH_CLASSES: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 7, "gamma": 0.3},
    "MultiStepLR": {"milestones": [3, 8, 20]},
    "ConstantLR": {"factor": 0.25, "total_iters": 4},
    "LinearLR": {"start_factor": 0.1, "total_iters": 12},
    "ExponentialLR": {"gamma": 0.93},
    "PolynomialLR": {"total_iters": 15, "power": 2.0},
    "CosineAnnealingLR": {"T_max": 9},
    "CosineAnnealingWarmRestarts": {"T_0": 5, "T_mult": 2},
    "CyclicLR": {"base_lr": 1e-4, "max_lr": 1e-2, "step_size_up": 6},
    "OneCycleLR": {"max_lr": 0.5, "total_steps": 64},
}
REFUSED = {
    "ReduceLROnPlateau": "reduce_on_plateau",
    "LambdaLR": "function",
    "MultiplicativeLR": "function",
    "SequentialLR": "warmup",
    "ChainedScheduler": "warmup",
}


@pytest.mark.parametrize("name", TORCH_CLASSES)
@pytest.mark.parametrize("horizon", [1, 2, 37, 64])
def test_any_class_of_torch_can_be_taken_by_name(name, horizon):
    arguments = TORCH_CLASSES[name]
    scheduler = TorchSchedule(name=name, arguments=arguments)
    assert [p for p in scheduler.problems(RECIPE) if p.severity != "note"] == []
    ours, theirs = our_run(scheduler, horizon, 2e-3), torch_run(name, horizon, 2e-3, **arguments)
    assert [point.lr for point in ours] == [point.lr for point in theirs]
    if name in ("OneCycleLR", "CyclicLR"):
        assert [point.momentum for point in ours] == [point.momentum for point in theirs]
    else:
        assert {point.momentum for point in ours} == {None}


def test_every_scheduler_of_the_installed_torch_is_taken_or_refused():
    public = {name for name in lr_scheduler.__all__ if name != "LRScheduler"}
    assert set(signatures()) == public
    assert public == set(TORCH_CLASSES) | set(REFUSED)


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_classes_that_are_no_function_of_the_clock_are_refused_with_a_way_out(name, reason):
    (problem,) = TorchSchedule(name=name).problems(RECIPE)
    assert problem.key == "name"
    assert problem.severity == "error"
    assert reason in problem.message
    with pytest.raises(RecipeError, match=reason):
        TorchSchedule(name=name).at(0, 10, 1e-3, {})


@pytest.mark.parametrize(("name", "argument"), [("CosineAnnealingLR", "T_max"), ("OneCycleLR", "total_steps")])
def test_the_horizon_is_filled_in_where_it_is_left_out(name, argument):
    rest = {"max_lr": 0.5} if name == "OneCycleLR" else {}
    left_out = TorchSchedule(name=name, arguments=rest)
    assert [p for p in left_out.problems(RECIPE) if p.severity == "error"] == []
    assert our_run(left_out, 23, 1e-3) == our_run(TorchSchedule(name=name, arguments={argument: 23, **rest}), 23, 1e-3)


@pytest.mark.parametrize(
    ("name", "arguments", "key", "said"),
    [
        ("StepLr", {}, "name", 'did you mean "StepLR"'),
        ("LRScheduler", {}, "name", "no scheduler"),
        ("StepLR", {"step_sise": 3, "step_size": 3}, "arguments.step_sise", 'did you mean "step_size"'),
        ("StepLR", {}, "arguments", '"step_size"'),
        ("StepLR", {"step_size": 2.5}, "arguments.step_size", "whole number"),
        ("StepLR", {"step_size": True}, "arguments.step_size", "whole number"),
        ("StepLR", {"step_size": 3, "last_epoch": 4}, "arguments.last_epoch", "leave it out"),
        ("MultiStepLR", {"milestones": ["a"]}, "arguments.milestones", "list"),
        ("OneCycleLR", {"max_lr": 1.0, "anneal_strategy": "lin"}, "arguments.anneal_strategy", '"cos" or "linear"'),
        ("OneCycleLR", {"max_lr": 1.0, "cycle_momentum": 1}, "arguments.cycle_momentum", "true or false"),
        ("CyclicLR", {"base_lr": 1.0, "max_lr": 2.0, "scale_fn": "abs"}, "arguments.scale_fn", "functions"),
    ],
)
def test_a_wrong_name_or_argument_is_said_before_anything_runs(name, arguments, key, said):
    (problem,) = (p for p in TorchSchedule(name=name, arguments=arguments).problems(RECIPE) if p.severity == "error")
    assert problem.key == key
    assert said in problem.message


def test_several_wrong_arguments_are_all_said():
    wrong = TorchSchedule(name="OneCycleLR", arguments={"pct_start": "x", "three_phase": 2, "nothing": 0})
    keys = {problem.key for problem in wrong.problems(RECIPE)}
    assert keys == {"arguments.pct_start", "arguments.three_phase", "arguments.nothing", "arguments"}


def test_an_absolute_rate_is_noted_as_taking_the_groups_place():
    notes = list(TorchSchedule(name="OneCycleLR", arguments={"max_lr": 0.1}).problems(RECIPE))
    assert [(note.key, note.severity) for note in notes] == [("arguments.max_lr", "note")]


def test_a_torch_schedule_that_ends_too_early_says_so_before_the_first_step():
    with pytest.raises(RecipeError, match=r"OneCycleLR fails at tick \d+ of 20"):
        TorchSchedule(name="OneCycleLR", arguments={"max_lr": 0.1, "total_steps": 8}).at(0, 20, 1e-3, {})


def test_a_torch_schedule_that_runs_below_zero_says_so():
    with pytest.raises(RecipeError, match="learning rate -"):
        TorchSchedule(name="CosineAnnealingLR", arguments={"eta_min": -1.0}).at(0, 10, 1e-3, {})


def test_schedules_leave_torchs_random_numbers_alone():
    before = torch.get_rng_state()
    our_run(TorchSchedule(name="ExponentialLR", arguments={"gamma": 0.9}), 11, 1e-3)
    assert torch.equal(before, torch.get_rng_state())


def test_a_torch_schedule_is_checked_without_importing_torch():
    code = (
        "import sys; from trainkit_schedulers.torch import TorchSchedule;"
        "problems = list(TorchSchedule(name='StepLr').problems(None));"
        "assert 'StepLR' in problems[0].message; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("made", "wrong"),
    [
        (Cosine, {"final_factor": -0.1}),
        (Cosine, {"final_factor": math.nan}),
        (Polynomial, {"power": math.inf}),
        (OneCycle, {"pct_start": 1.1}),
        (OneCycle, {"div_factor": 0.0}),
        (OneCycle, {"max_momentum": 1.0}),
        (ReduceOnPlateau, {"factor": 1.0}),
        (ReduceOnPlateau, {"patience": -1}),
        (ReduceOnPlateau, {"mode": "least"}),
        (NoSchedule, {"warmup": -1}),
    ],
)
def test_settings_outside_their_range_are_refused_by_name(made, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        made(**wrong)
