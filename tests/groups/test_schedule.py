"""Warm-up around a schedule."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit import Memory, Monitor, RecipeError
from trainkit.groups.schedule import observe_epoch, point
from trainkit.recipe.group_epochs import warmup_problem
from trainkit_schedulers.cosine import Cosine
from trainkit_schedulers.none import NoSchedule
from trainkit_schedulers.one_cycle import OneCycle
from trainkit_schedulers.reduce_on_plateau import ReduceOnPlateau

MONITOR = Monitor()


def run(scheduler, horizon, lr=1.0, memory: Memory | None = None):
    return [point(scheduler, t, horizon, lr, memory or {}) for t in range(horizon)]


def test_without_warm_up_it_is_the_schedule_itself():
    assert run(Cosine(), 12) == [Cosine().at(t, 12, 1.0, {}) for t in range(12)]


@settings(derandomize=True)
@given(st.integers(1, 20), st.integers(1, 40))
def test_the_ramp_climbs_in_equal_steps_to_the_schedules_first_value(warmup, rest):
    points = run(Cosine(warmup=warmup), warmup + rest, 0.3)
    assert [p.lr for p in points[:warmup]] == pytest.approx([0.3 * (t + 1) / (warmup + 1) for t in range(warmup)])
    assert points[warmup].lr == 0.3


@settings(derandomize=True)
@given(st.integers(0, 20), st.integers(1, 40))
def test_after_the_ramp_the_schedule_runs_over_what_is_left(warmup, rest):
    warmed, plain = run(OneCycle(warmup=warmup), warmup + rest), run(OneCycle(), rest)
    assert warmed[warmup:] == plain


def test_the_ramp_leads_to_where_the_schedule_begins_not_to_the_groups_rate():
    scheduler = OneCycle(warmup=3)
    points = run(scheduler, 40, 0.1)
    assert points[0].lr == pytest.approx(points[3].lr / 4)
    assert {p.momentum for p in points[:4]} == {0.95}


@pytest.mark.parametrize("horizon", [1, 4, 5])
def test_a_warm_up_that_leaves_nothing_is_refused_with_both_numbers(horizon):
    scheduler = NoSchedule(warmup=5)
    problem = warmup_problem(scheduler, horizon)
    assert problem is not None
    assert "5" in problem
    assert str(horizon) in problem
    with pytest.raises(RecipeError, match="warm-up of 5"):
        point(scheduler, 0, horizon, 1.0, {})
    assert warmup_problem(scheduler, 6) is None


def test_the_schedule_sees_no_metric_before_its_warm_up_is_over():
    scheduler = ReduceOnPlateau(warmup=3, patience=0)
    memory: Memory = {}
    lowered = []
    for finished in range(1, 8):  # the first value is never beaten
        memory = observe_epoch(scheduler, finished, memory, {"val/loss": float(finished)}, MONITOR)
        lowered.append(memory.get("reductions", 0))
    assert lowered == [0, 0, 0, 0, 1, 2, 3]
    assert point(scheduler, 7, 10, 1.0, memory).lr == 0.125
